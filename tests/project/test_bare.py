"""With the runtime dependency alone: the import, and what is said without any framework."""

from __future__ import annotations

import inspect
import math
import pydoc
import subprocess
import sys

import pytest

import xpenalties as xp
from xpenalties import Penalty, Pipeline

pytestmark = pytest.mark.bare


@pytest.mark.smoke
def test_public_names() -> None:
    assert xp.__version__
    found = {name: getattr(xp, name) for name in xp.__all__}
    assert [name for name, value in found.items() if not (callable(value) or inspect.ismodule(value))] == []
    assert len(set(xp.__all__)) == len(xp.__all__)


def test_nothing_else_is_in_the_namespace() -> None:
    listed = {name for name in dir(xp) if not name.startswith("__")}
    assert listed == {*xp.__all__, "backends", "integrations", "telemetry"}
    assert listed == {name for name in (*vars(xp), "integrations") if not name.startswith("_")}
    assert {"__version__", "__doc__", "__all__"} <= set(dir(xp))
    assert inspect.ismodule(xp.integrations) and xp.integrations.__name__ == "xpenalties.integrations"
    with pytest.raises(AttributeError, match=r"^module 'xpenalties' has no attribute 'l3'"):
        xp.l3  # type: ignore[attr-defined]  # noqa: B018


def test_help_shows_methods_for_users_only() -> None:
    for cls in (Pipeline, xp.RegularizedLoss, xp.Report, xp.PenaltyReport, xp.Compiled):
        assert "tree_" not in pydoc.render_doc(cls, renderer=pydoc.plaintext)


def test_the_import_leaves_out_what_few_programs_need() -> None:
    modules = ["asyncio", "difflib", "email", "html", "importlib.metadata", "json", "logging", "secrets", "ssl"]
    program = f"""
import sys
before = set(sys.modules)
import xpenalties
print(sorted(set({modules}) & set(sys.modules) - before))"""
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_no_framework_is_imported() -> None:
    if "numpy" in sys.modules:
        pytest.skip("NumPy is installed here, test_registry.py asks this of a process of its own")
    assert not {"torch", "jax", "cupy", "autograd"} & set(sys.modules)


def test_lists_are_refused() -> None:
    with pytest.raises(
        TypeError, match=r"^l1: `x` must be an array, got builtins.list. Pass a NumPy, CuPy, PyTorch or JAX array"
    ):
        xp.l1([1.0, 2.0])  # type: ignore[type-var]
    with pytest.raises(
        TypeError, match=r"^kl_divergence: takes 2 arrays \(log_p, log_q\), got 1 by position. Pass arrays by position"
    ):
        xp.kl_divergence([1.0])  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"must hold a floating-point array, got float. Pass"):
        xp.grad(xp.l1)(1.0)


def test_pipelines_are_checked() -> None:
    assert [p.name for p in Pipeline({"l1": 1.0, "huber": 0.5})] == ["l1", "huber"]
    with pytest.raises(ValueError, match=r"huber: `delta` must be in \(0, inf\), got 0.0"):
        Penalty("huber", options={"delta": 0})


def test_an_array_of_a_foreign_class_works_through_the_standard() -> None:
    """A namespace of a few lines, for nothing else is installed."""

    class Numbers:
        def __init__(self, values: list[float]) -> None:
            self.values, self.shape, self.ndim, self.dtype = values, (len(values),), 1, "float64"

        def __mul__(self, other: Numbers) -> Numbers:
            return Numbers([a * b for a, b in zip(self.values, other.values, strict=True)])

        def __array_namespace__(self, api_version: str | None = None) -> type:
            return Namespace

    class Namespace:
        @staticmethod
        def isdtype(dtype: object, kind: str) -> bool:
            return kind == "real floating"

        class finfo:  # noqa: N801
            def __init__(self, dtype: object) -> None:
                self.bits, self.smallest_normal, self.eps = 64, 2.0**-1022, 2.0**-52

        @staticmethod
        def sign(x: Numbers) -> Numbers:
            return Numbers([math.copysign(1.0, value) for value in x.values])

        @staticmethod
        def sum(x: Numbers) -> float:
            return sum(x.values)

    assert xp.l1(Numbers([1.0, -2.0])) == 3.0  # type: ignore[type-var]
