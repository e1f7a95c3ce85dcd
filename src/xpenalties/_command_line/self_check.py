"""Check the installed frameworks: compare every penalty on each of them with stored values.

The values are in reference_values.json, which tests/command_line/reference.py computes from the definitions. A broken
framework does not raise here. It is reported.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import import_module
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

from .._arrays.gradients import value_and_grad
from .._core.registry import PENALTIES
from ..backends import NoAutodiffError, autodiff_backend_of, backend_of, namespace

__all__ = ["FRAMEWORKS", "Check", "Framework", "Installed", "check", "look"]

_TOLERANCES = {"float16": 1e-3, "bfloat16": 1e-2, "float32": 1e-4, "float64": 1e-9}
_AUTODIFF = {"numpy": "autograd", "torch": "torch.autograd, torch.func", "jax": "jax.vjp"}
_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "x sin x": lambda x: x * namespace(x).sin(x),
    "sum of x sin x": lambda x: namespace(x).sum(x * namespace(x).sin(x), axis=1),
}


@dataclass
class Installed:
    """A framework that is installed, and what it can do."""

    dtypes: list[str]  # floating-point; the last one is used for all penalties
    devices: list[str] = field(default_factory=lambda: ["cpu"])
    accelerator: str | None = None  # a second device to check on, in float32: not all have float64
    note: str = ""
    staged: Callable[[Any], Any] = lambda fn: fn  # compiles a function, if its operations would compile one by one
    workers: int = 1  # threads to check on; above 1 if most of the time goes into compiling, outside Python's lock
    name: str = ""
    version: str = ""
    autodiff: str = ""  # empty if there is none; `note` then says what to do
    error: str = ""  # why it does not work

    def as_dict(self) -> dict[str, Any]:
        """Return the fields to show, for JSON."""
        names = ("name", "version", "devices", "autodiff", "dtypes", "note", "error")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Framework:
    """A framework that may be installed."""

    name: str
    namespace: str  # the module of its array API
    look: Callable[[], Installed]
    needs: tuple[str, ...] = ("numpy",)

    def is_installed(self) -> bool:
        specs = [find_spec(name) for name in (self.name, *self.needs)]
        return all(spec is not None and spec.origin is not None for spec in specs)  # it is None for a mere folder


@dataclass
class Check:
    """The check of a value, or of a gradient with respect to one array. It shows the element with the largest error."""

    backend: str
    device: str
    dtype: str
    penalty: str
    case: str
    of: str
    expected: float | None = None
    got: float | None = None
    difference: float = math.inf  # relative to `expected`, absolute if that is below 1
    error: str = ""

    @property
    def passed(self) -> bool:
        return self.difference <= _TOLERANCES[self.dtype]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON. NaN and infinities become strings."""
        values = {**asdict(self), "passed": self.passed}
        return {key: str(x) if isinstance(x, float) and not math.isfinite(x) else x for key, x in values.items()}

    def __str__(self) -> str:
        what = f"{self.penalty} ({self.case})" if self.case else self.penalty
        rule = f"not raise, got {self.error}" if self.error else f"be {self.expected:.9g}, got {self.got:.9g}"
        return f"{self.backend}, {self.device}, {self.dtype}: {what}: {self.of} must {rule}"


def look(framework: Framework) -> Installed:
    """Find out what an installed framework can do."""
    try:
        installed = framework.look()
        installed.version = import_module(framework.name).__version__
        if installed.devices:
            installed.autodiff, remedy = _autodiff(import_module(framework.namespace))
            installed.note = installed.note or remedy
    except Exception as error:  # noqa: BLE001 - a broken installation may raise anything
        installed = Installed([], [], error=_one_line(error))
    installed.name = framework.name
    return installed


def check(
    framework: Framework, installed: Installed, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Check]:
    """Check all rows on the default device and on an accelerator. Check the first row in every dtype.

    `progress` is called with the number of rows that are done, and the number of all rows.
    """
    if not installed.devices:
        return []
    xp = import_module(framework.namespace)
    rows, device = _reference(), installed.devices[0].partition(" ")[0]
    runs: list[tuple[dict[str, Any], str, str | None, str]]
    runs = [(row, device, None, installed.dtypes[-1]) for row in rows]
    runs += [(rows[0], device, None, dtype) for dtype in installed.dtypes[:-1]]
    if installed.accelerator:
        runs += [(row, installed.accelerator, installed.accelerator, "float32") for row in rows]
    checks: list[Check] = []
    with _mapped(installed.workers, lambda run: list(_checks(xp, installed, *run)), runs) as results:
        for done, result in enumerate(results, start=1):
            checks += result
            progress(done, len(runs))
    return checks


@contextmanager
def _mapped(workers: int, function: Callable[[Any], Any], values: list[Any]) -> Iterator[Iterator[Any]]:
    """Yield the results of a function in order, computed on threads if there are several workers."""
    if workers == 1:
        yield map(function, values)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield pool.map(function, values)


@cache
def _reference() -> list[dict[str, Any]]:
    text = files("xpenalties._command_line").joinpath("reference_values.json").read_text("utf-8")
    rows: list[dict[str, Any]] = json.loads(text)
    return rows


def _checks(
    xp: Any, installed: Installed, row: dict[str, Any], device: str, place: str | None, dtype: str
) -> Iterator[Check]:
    """Check a row's value and, if there is automatic differentiation, its gradients.

    `device` is the name to show. `place` is the device of the arrays; None is the default device.
    """
    backend = backend_of(xp.asarray([0.0]))
    assert backend is not None
    if (row["function"] and not installed.autodiff) or (backend.lazy and not row["lazy"]):
        return

    def array(values: Any) -> Any:
        kind = "bool" if isinstance(_flat(values)[0], bool) else dtype
        return xp.asarray(values, dtype=getattr(xp, kind, kind), **({"device": place} if place else {}))

    def call(arrays: list[Any], named: dict[str, Any]) -> Any:
        function = [_FUNCTIONS[row["function"]]] if row["function"] else []
        return PENALTIES[row["penalty"]](*function, *arrays, **named, **row["options"])

    def values(arrays: list[Any], named: dict[str, Any]) -> list[Any]:
        return [call(arrays, named), *(value_and_grad(call)(arrays, named)[1] if installed.autodiff else [])]

    where = installed.name, device, dtype, row["penalty"], row["case"]
    try:
        arrays = [array(x) for x in row["arrays"].values()]
        named = {name: array(x) for name, x in row["named"].items()}
        if row["random"] and "jax" in installed.autodiff:  # the others have a global generator
            named["rng"] = import_module("jax").random.key(0)
        gradients = {f"gradient with respect to {name}": x for name, x in row["gradient"].items()}
        expected = {"value": row["value"]} | gradients
        for (of, reference), got in zip(expected.items(), installed.staged(values)(arrays, named), strict=False):
            pairs = zip(_flat(reference), _floats(got), strict=True)
            difference, expected_value, value = max((_difference(*pair), *pair) for pair in pairs)
            yield Check(*where, of, expected_value, value, difference)
    except Exception as error:  # noqa: BLE001 - any error is a failed check
        yield Check(*where, "the call", error=_one_line(error))


def _flat(values: Any) -> list[Any]:
    return [leaf for value in values for leaf in _flat(value)] if isinstance(values, list) else [values]


def _floats(x: Any) -> list[float]:
    backend = backend_of(x)
    assert backend is not None
    flat = backend.xp.reshape(x, (-1,))
    return backend.to_floats([flat[i] for i in range(flat.shape[0])])


def _difference(expected: float, got: float) -> float:
    difference = abs(got - expected) / max(1.0, abs(expected))
    return math.inf if math.isnan(difference) else difference


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _autodiff(xp: Any) -> tuple[str, str]:
    """Return the name of what differentiates a namespace's arrays, or "" and a remedy."""
    backend = backend_of(xp.asarray([0.0]))
    assert backend is not None
    try:
        autodiff_backend = autodiff_backend_of(backend)
    except NoAutodiffError as error:
        return "", str(error)
    if autodiff_backend is backend:
        return _AUTODIFF[backend.name], ""
    return f"borrowed from {autodiff_backend.name}", ""


def _torch() -> Installed:
    import torch

    installed = Installed(["float16", "bfloat16", "float32", "float64"])
    if torch.accelerator.is_available():
        installed.accelerator = torch.accelerator.current_accelerator().type
        model_of = getattr(torch.get_device_module(), "get_device_name", lambda place: "accelerator")
        places = [f"{installed.accelerator}:{i}" for i in range(torch.accelerator.device_count())]
        installed.devices += [f"{place} ({model_of(place)})" for place in places]
    return installed


def _jax() -> Installed:
    import jax

    places = [(f"{device.platform}:{device.id}", device.device_kind) for device in jax.devices()]
    devices = [place if kind == "cpu" else f"{place} ({kind})" for place, kind in places]
    dtypes, note = ["float16", "bfloat16", "float32"], "float64 needs jax_enable_x64, which is off."
    if jax.config.jax_enable_x64:
        dtypes, note = [*dtypes, "float64"], ""

    def staged(fn: Any) -> Any:  # by default, matrix products on a GPU are less precise than float32
        return jax.default_matmul_precision("highest")(jax.jit(fn))

    return Installed(dtypes, devices, note=note, staged=staged, workers=os.cpu_count() or 1)


def _cupy() -> Installed:
    runtime = import_module("cupy").cuda.runtime
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError:
        count = 0
    names = [runtime.getDeviceProperties(i)["name"].decode() for i in range(count)]
    return Installed(["float16", "float32", "float64"], [f"cuda:{i} ({name})" for i, name in enumerate(names)])


FRAMEWORKS = (
    Framework("numpy", "array_api_compat.numpy", lambda: Installed(["float16", "float32", "float64"])),
    Framework("torch", "array_api_compat.torch", _torch, needs=()),
    Framework("jax", "jax.numpy", _jax),
    Framework("cupy", "array_api_compat.cupy", _cupy),
    Framework("array_api_strict", "array_api_strict", lambda: Installed(["float32", "float64"])),
    Framework("dask", "array_api_compat.dask.array", lambda: Installed(["float16", "float32", "float64"])),
)
