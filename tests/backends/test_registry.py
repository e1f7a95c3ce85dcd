"""Whose arrays are these: types, mixtures, threads, laziness, and what is refused."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

import xpenalties as xp
from tests.conftest import selected
from tests.helpers.harness import Framework
from xpenalties import backends


def test_namespace_of_an_array(fw: Framework) -> None:
    x = fw.array(np.asarray([3.0, 4.0]))
    assert float(xp.namespace(x).sum(xp.namespace(x, x).sqrt(x * x))) == 7.0
    assert backends.backend_of(x) is backends.backend_of(fw.array(np.zeros(2)))
    assert backends.is_array(x)
    assert fw.module.__name__.split(".")[0] in (backends.backend_of(x).name, "array_api_strict")


def test_what_is_no_array() -> None:
    for other in (1.0, [1.0], (1.0,), None, "x", object(), range(3)):
        assert backends.backend_of(other) is None
        with pytest.raises(TypeError, match=r"^namespace: `arrays\[0\]` must be an array, got "):
            xp.namespace(other)
    with pytest.raises(TypeError, match=r"^namespace: takes at least one array, got none"):
        xp.namespace()
    with pytest.raises(TypeError, match=r"^namespace: `arrays\[1\]` must be an array, got builtins.int"):
        xp.namespace(np.zeros(2), 3)


def test_types_of_a_framework_that_are_no_arrays(fw: Framework) -> None:
    assert backends.backend_of(fw.array(np.zeros(2)).dtype) is None


def test_numpy_scalars_are_arrays() -> None:
    assert float(xp.l1(np.float32(-2.0))) == 2.0
    assert xp.l1(np.float64(-2.0)).dtype == np.float64
    total = xp.l1(np.asarray([1.0, -2.0], dtype=np.float32))
    assert total.dtype == np.float32
    assert xp.l1(np.ones(2), normalizer=np.float64(4.0)) == 0.5
    assert xp.l1(np.ones(2, dtype=np.float32), normalizer=np.float64(4.0)).dtype == np.float32
    assert xp.elastic_net(np.ones(2, dtype=np.float32), l1_ratio=np.float64(0.5)).dtype == np.float32
    assert xp.l2(np.ones(2, dtype=np.float32), center=np.float64(0.5)).dtype == np.float32


def test_subclasses_that_mean_something_else_are_refused() -> None:
    with pytest.raises(TypeError, match=r"^l1: `x` must be an array, got numpy.ma\S*MaskedArray. Pass its `data`, and"):
        xp.l1(np.ma.masked_array([1.0, 2.0], mask=[True, False]))
    with pytest.raises(TypeError, match=r"^l1: `x` must be an array, got numpy\S*matrix. Pass it through np.asarray"):
        xp.l1(np.ones((2, 2)).view(np.matrix))


def test_an_import_that_is_blocked() -> None:
    program = "import sys; sys.modules['torch'] = None\nimport xpenalties, numpy; print(xpenalties.l1(numpy.ones(3)))"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "3.0"


@pytest.mark.parametrize("framework", ["torch", "jax", "cupy", "autograd"])
def test_a_module_whose_import_failed(framework: str) -> None:
    """An empty module, as an installation without files leaves it, does not disturb the calls of others."""
    program = f"""
import importlib.util, sys, types
sys.modules[{framework!r}] = types.ModuleType({framework!r})
import xpenalties, numpy
x = numpy.ones((2, 3))
xpenalties.kl_divergence(x, x, from_logits=True)
xpenalties.compile(xpenalties.l1)(x)
xpenalties.Pipeline({{"l1": 1.0}}).compute(x)
if {framework!r} != "autograd" and importlib.util.find_spec("autograd"):
    assert xpenalties.grad(xpenalties.l2)(x).sum() == 12
try:
    xpenalties.l1([1.0])
except TypeError as error:
    assert str(error).startswith("l1: `x` must be an array, got builtins.list. Pass a NumPy"), error
print(xpenalties.l1(x))"""
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (out.stdout.strip(), out.returncode) == ("6.0", 0), out.stderr


def test_all_of_a_framework_is_known_at_once() -> None:
    """One that is imported late too: torch.compile would compile again for an entry more."""
    selected("torch", reason="is about PyTorch's classes")
    program = """
import xpenalties
from xpenalties.backends._registry import _BACKENDS
pipeline = xpenalties.Pipeline({"l1": 1.0})
import torch
pipeline(torch.ones(2))
before = len(_BACKENDS)
pipeline.with_weights(l1=2.0)(torch.nn.Parameter(torch.ones(2)))
print(len(_BACKENDS) - before)"""
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "0"


def test_a_subclass_is_of_its_parents_backend() -> None:
    class Mine(np.ndarray):
        pass

    assert float(xp.l1(np.ones(3).view(Mine))) == 3.0


def test_threads_share_the_table() -> None:
    classes = [type(f"Array{i}", (np.ndarray,), {}) for i in range(200)]
    found: list[object] = []

    def look() -> None:
        found.extend(backends.backend_of(np.ones(1).view(cls)) for cls in classes)

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 * 200 and len(set(found)) == 1


def test_import_imports_no_framework() -> None:
    program = (
        "import sys, xpenalties\n"
        "print([m for m in ('numpy', 'torch', 'jax', 'cupy', 'dask', 'autograd') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_one_framework_does_not_import_another(fw: Framework) -> None:
    module = fw.row["module"]
    mine = {"numpy", "dask.array", "array_api_strict"} & {module} or {module}
    program = f"""
import sys, xpenalties, {module}
others = {{"torch", "jax", "cupy", "autograd", "dask", "array_api_strict"}} - set(sys.modules)
import numpy
x = numpy.ones(3) if {module!r} == "numpy" else None
if x is None:
    xp = {module}.numpy if {module!r} == "jax" else {module}
    x = xp.ones(3)
assert float(xpenalties.l1(x)) == 3.0
print(sorted(others & set(sys.modules)))
"""
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]", mine


@pytest.mark.only("torch", reason="is about torch.compile")
def test_compiled_before_the_first_eager_call(fw: Framework) -> None:
    """torch.compile meets the type first: nothing in the look-up may break its graph or make it warn."""
    for order in ("import torch, xpenalties", "import xpenalties, torch"):
        program = f"""
import warnings; warnings.simplefilter("error")
{order}
f = torch.compile(xpenalties.l1, fullgraph=True, backend="aot_eager")
print(float(f(torch.ones(3))), float(f(torch.nn.Parameter(torch.ones(3))).detach()))
"""
        out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert out.stdout.strip() == "3.0 3.0", out.stderr


def test_a_dtype_is_described_once(fw: Framework) -> None:
    x = fw.array(np.zeros(2, dtype=np.int32), "int32")
    backend = backends.backend_of(x)
    assert backend is not None
    assert backend.dtype(x.dtype).kind == "other"
    assert backend.dtype(x.dtype) is backend.dtype(x.dtype)
    assert backend.name in repr(backend)
