"""What is installed, and every penalty on each of it beside stored values, for the command line.

The values are in _reference.json, which tests/reference.py writes from the definitions. A framework that is broken is a
finding like any other.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import import_module
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

from .._arrays.gradients import value_and_grad
from .._core.registry import REGISTRY
from ..backends import NoAutodiffError, backend_of, lender_of, namespace

__all__ = ["FRAMEWORKS", "Check", "Framework", "Installed", "check", "look"]

_TOLERANCES = {"float16": 1e-3, "bfloat16": 1e-2, "float32": 1e-4, "float64": 1e-9}
_OWN = {"numpy": "autograd", "torch": "torch.autograd, torch.func", "jax": "jax.vjp"}
_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "x sin x": lambda x: x * namespace(x).sin(x),
    "sum of x sin x": lambda x: namespace(x).sum(x * namespace(x).sin(x), axis=1),
}


@dataclass
class Installed:
    """What was found out about a framework."""

    dtypes: list[str]  # of floats; the last is checked with
    devices: list[str] = field(default_factory=lambda: ["cpu"])
    accelerator: str | None = None  # where to check beside the default device, in float32: not all have float64
    note: str = ""
    staged: Callable[[Any], Any] = lambda fn: fn  # makes one program of a function, where it would be many small ones
    name: str = ""
    version: str = ""
    autodiff: str = ""  # empty where there is none, and `note` says what to do
    error: str = ""  # why it does not work

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        given = {name: getattr(self, name) for name in ("name", "version", "devices", "autodiff", "dtypes")}
        return given | {"note": self.note, "error": self.error}


@dataclass(frozen=True)
class Framework:
    """A framework that may be installed."""

    name: str
    namespace: str  # the module of its array API
    look: Callable[[], Installed]
    needs: tuple[str, ...] = ("numpy",)

    def is_installed(self) -> bool:
        specs = [find_spec(name) for name in (self.name, *self.needs)]
        return all(spec is not None and spec.origin is not None for spec in specs)  # a folder of that name has none


@dataclass
class Check:
    """A value, or the gradient by an array, at the element that is the furthest off."""

    backend: str
    device: str
    dtype: str
    penalty: str
    case: str
    of: str
    expected: float | None = None
    got: float | None = None
    difference: float = math.inf  # relative to what is expected, absolute where that is below 1
    error: str = ""

    @property
    def passed(self) -> bool:
        return self.difference <= _TOLERANCES[self.dtype]

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it, which has no NaN and no infinities: these are strings."""
        given = {**asdict(self), "passed": self.passed}
        return {key: str(x) if isinstance(x, float) and not math.isfinite(x) else x for key, x in given.items()}

    def __str__(self) -> str:
        what = f"{self.penalty} ({self.case})" if self.case else self.penalty
        said = f"not raise, got {self.error}" if self.error else f"be {self.expected:.9g}, got {self.got:.9g}"
        return f"{self.backend}, {self.device}, {self.dtype}: {what}: {self.of} must {said}"


def look(framework: Framework) -> Installed:
    """What there is to say of a framework that is installed."""
    try:
        found = framework.look()
        found.version = import_module(framework.name).__version__
        if found.devices:
            found.autodiff, lacks = _autodiff(import_module(framework.namespace))
            found.note = found.note or lacks
    except Exception as error:  # noqa: BLE001 - whatever a broken installation raises
        found = Installed([], [], error=_said(error))
    found.name = framework.name
    return found


def check(framework: Framework, found: Installed) -> list[Check]:
    """The stored rows on a framework's default device and on an accelerator; the first one in every dtype."""
    if not found.devices:
        return []
    xp = import_module(framework.namespace)
    rows, device = _reference(), found.devices[0].partition(" ")[0]
    jobs: list[tuple[dict[str, Any], str, str | None, str]]
    jobs = [(row, device, None, found.dtypes[-1]) for row in rows]
    jobs += [(rows[0], device, None, dtype) for dtype in found.dtypes[:-1]]
    if found.accelerator:
        jobs += [(row, found.accelerator, found.accelerator, "float32") for row in rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # dask's, of a -inf - -inf that is masked, as NumPy computes it
        return [each for job in jobs for each in _checks(xp, found, *job)]


@cache
def _reference() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(files("xpenalties").joinpath("_reference.json").read_text("utf-8"))
    return rows


def _checks(
    xp: Any, found: Installed, row: dict[str, Any], device: str, place: str | None, dtype: str
) -> Iterator[Check]:
    """A row's value and its gradients, where there is automatic differentiation."""
    if row["function"] and not found.autodiff:
        return

    def array(values: Any) -> Any:
        kind = "bool" if isinstance(_flat(values)[0], bool) else dtype
        return xp.asarray(values, dtype=getattr(xp, kind, kind), **({"device": place} if place else {}))

    def call(arrays: list[Any], named: dict[str, Any]) -> Any:
        function = [_FUNCTIONS[row["function"]]] if row["function"] else []
        return REGISTRY[row["penalty"]](*function, *arrays, **named, **row["options"])

    def values(arrays: list[Any], named: dict[str, Any]) -> list[Any]:
        return [call(arrays, named), *(value_and_grad(call)(arrays, named)[1] if found.autodiff else [])]

    where = found.name, device, dtype, row["penalty"], row["case"]
    try:
        arrays = [array(x) for x in row["arrays"].values()]
        named = {name: array(x) for name, x in row["named"].items()}
        if row["random"] and "jax" in found.autodiff:  # the others have a generator that need not be asked for
            named["rng"] = import_module("jax").random.key(0)
        expected = {"value": row["value"]} | {f"gradient by {name}": x for name, x in row["gradient"].items()}
        for (of, wanted), got in zip(expected.items(), found.staged(values)(arrays, named), strict=False):
            pairs = zip(_flat(wanted), _floats(got), strict=True)
            difference, one, other = max((_difference(*pair), *pair) for pair in pairs)
            yield Check(*where, of, one, other, difference)
    except Exception as error:  # noqa: BLE001 - any is a check that failed
        yield Check(*where, "the call", error=_said(error))


def _flat(values: Any) -> list[Any]:
    return [each for value in values for each in _flat(value)] if isinstance(values, list) else [values]


def _floats(x: Any) -> list[float]:
    backend = backend_of(x)
    assert backend is not None
    flat = backend.xp.reshape(x, (-1,))
    return backend.to_floats([flat[i] for i in range(flat.shape[0])])


def _difference(expected: float, got: float) -> float:
    difference = abs(got - expected) / max(1.0, abs(expected))
    return math.inf if math.isnan(difference) else difference


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _autodiff(xp: Any) -> tuple[str, str]:
    """What differentiates arrays of a namespace, or what there is to do where nothing does."""
    backend = backend_of(xp.asarray([0.0]))
    assert backend is not None
    try:
        lender = lender_of(backend)
    except NoAutodiffError as error:
        return "", str(error)
    return _OWN[backend.name] if lender is backend else f"borrowed from {lender.name}", ""


def _torch() -> Installed:
    import torch

    found = Installed(["float16", "bfloat16", "float32", "float64"])
    if torch.accelerator.is_available():
        found.accelerator = torch.accelerator.current_accelerator().type
        name = getattr(torch.get_device_module(), "get_device_name", lambda place: "accelerator")
        places = [f"{found.accelerator}:{i}" for i in range(torch.accelerator.device_count())]
        found.devices += [f"{place} ({name(place)})" for place in places]
    return found


def _jax() -> Installed:
    import jax

    places = [(f"{device.platform}:{device.id}", device.device_kind) for device in jax.devices()]
    devices = [place if kind == "cpu" else f"{place} ({kind})" for place, kind in places]
    dtypes, off = ["float16", "bfloat16", "float32"], "float64 needs jax_enable_x64, which is off."
    if jax.config.jax_enable_x64:
        dtypes, off = [*dtypes, "float64"], ""

    def staged(fn: Any) -> Any:  # on a GPU, JAX's products have fewer digits than float32 unless they are asked for
        return jax.default_matmul_precision("highest")(jax.jit(fn))

    return Installed(dtypes, devices, note=off, staged=staged)


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
