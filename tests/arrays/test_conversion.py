"""Arrays that go from one framework to another, explicitly."""

from __future__ import annotations

import warnings
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from tests.conftest import SELECTED, selected
from tests.helpers.harness import Framework, framework
from xpenalties import to_like, value_and_grad
from xpenalties.backends import backend_of

X = np.arange(6.0).reshape(2, 3)


@pytest.mark.mixed
@pytest.mark.parametrize("there", [name for name in SELECTED if name != "dask"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "bool", "complex64"])
def test_values_and_dtypes(fw: Framework, there: str, dtype: str) -> None:
    if "strict" in (fw.name, there) and dtype == "float16":
        pytest.skip("the standard has no float16")
    if fw.name == "dask":
        pytest.skip("dask has no DLPack")
    other = framework(there)
    x = fw.array(X.astype(dtype), dtype)
    like = other.array(np.zeros(1), "float32")
    found = to_like({"x": [x, x.T, x[:, :2]], "n": 3}, like)
    for array in found["x"]:
        assert backend_of(array) is backend_of(like)
        assert str(array.dtype).rpartition(".")[2] == dtype and found["n"] == 3
    np.testing.assert_array_equal(other.numpy(found["x"][0]), fw.numpy(x))
    np.testing.assert_array_equal(other.numpy(found["x"][1]), fw.numpy(x).T)
    np.testing.assert_array_equal(other.numpy(found["x"][2]), fw.numpy(x)[:, :2])


@pytest.mark.mixed
@pytest.mark.parametrize("gaps", [False, True])
def test_what_numpy_has_not_goes_to_jax(gaps: bool) -> None:
    torch = selected("torch", reason="has bfloat16, which NumPy has not")
    selected("jax", reason="has bfloat16, which NumPy has not")
    x = torch.arange(6.0, dtype=torch.bfloat16).reshape(2, 3)
    x = x[:, ::2] if gaps else x
    found = to_like(x, framework("jax").array(np.zeros(1), "float32"))
    assert str(found.dtype) == "bfloat16" and found.tolist() == x.tolist()


def test_its_own_arrays_stay(fw: Framework) -> None:
    x = fw.array(X)
    assert to_like(x, fw.array(np.zeros(1))) is x


@pytest.mark.parametrize("there", [name for name in SELECTED if name in ("torch", "strict")])
def test_memory_is_shared(there: str) -> None:
    x = X.copy()
    found = to_like(x, framework(there).array(np.zeros(1)))
    x[0, 0] = 7.0
    assert framework(there).numpy(found)[0, 0] == 7.0


@pytest.mark.without("dask", reason="dask has no DLPack")
def test_what_lies_backwards_or_is_read_only(fw: Framework) -> None:
    locked = X.copy()
    locked.flags.writeable = False
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        for x in (X[::-1, ::-1], X.T, X.astype(">f8"), locked, np.float64(3.0)):
            np.testing.assert_array_equal(fw.numpy(to_like(x, fw.array(np.zeros(1)))), x)


@pytest.mark.parametrize("axes", list(permutations(range(3))))
@pytest.mark.parametrize("offset", [0, 16])  # bytes: JAX shares memory that begins at a multiple of 64 only
@pytest.mark.without("dask", reason="dask has no DLPack")
def test_layouts(fw: Framework, axes: tuple[int, ...], offset: int) -> None:
    memory = np.empty(24 * 8 + 128, np.uint8)
    start = -memory.ctypes.data % 64 + offset
    x = memory[start : start + 24 * 8].view(np.float64).reshape(2, 3, 4)
    x[...] = np.arange(24.0).reshape(2, 3, 4)
    x = x.transpose(axes)
    found = to_like(x, fw.array(np.zeros(1)))
    np.testing.assert_array_equal(fw.numpy(found), x)
    np.testing.assert_array_equal(fw.numpy(found * 2), x * 2)
    np.testing.assert_array_equal(fw.numpy(found[1, 0, :]), x[1, 0])


def test_devices() -> None:
    torch = selected("torch", reason="is about PyTorch's devices")
    assert to_like(torch.ones(2), torch.ones(1, device="meta")).device.type == "meta"
    assert to_like(X, torch.ones(1, device="meta")).device.type == "meta"


def test_views_that_are_computed_later() -> None:
    torch = selected("torch", reason="has conjugates and negatives that are views")
    x = torch.tensor([1.0 + 2.0j])
    np.testing.assert_array_equal(to_like(x.conj(), X), [1.0 - 2.0j])
    np.testing.assert_array_equal(to_like(x.conj().imag, X), [-2.0])


def test_no_gradient_goes_across() -> None:
    torch = selected("torch", reason="is about gradients of PyTorch")
    for x in (torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True) * 2):
        with pytest.raises(
            TypeError, match=r"^to_like: `x` must be without gradients, got an array of torch that is dif"
        ):
            to_like(x, X)
    assert to_like(torch.ones(2, requires_grad=True).detach(), X).tolist() == [1.0, 1.0]


@pytest.mark.needs("autodiff")
def test_what_is_traced_is_refused(fw: Framework) -> None:
    def fn(x: Any) -> Any:
        to_like(x, X)

    if fw.name == "torch":
        fn = fw.module.func.grad(fn)
        with pytest.raises(TypeError, match=r"^to_like: `x` must be without gradients"):
            fn(fw.array(X))
    else:
        with pytest.raises(TypeError, match=r"^to_like: `x` must be without gradients"):
            value_and_grad(fn)(fw.array(X))


@pytest.mark.parametrize(
    ("x", "like", "message"),
    [
        (X, 3, "^to_like: `like` must be an array, got int"),
        (
            np.asarray(["a"]),
            "torch",
            r"^to_like: `x` must be what torch takes by DLPack, got <U1 of numpy \(no numbers\)",
        ),
    ],
)
def test_errors(x: Any, like: Any, message: str) -> None:
    if like == "torch":
        like = selected("torch", reason="is about PyTorch's arrays").ones(1)
    with pytest.raises(TypeError, match=message):
        to_like(x, like)


def test_a_dtype_that_the_other_has_not() -> None:
    torch = selected("torch", reason="has bfloat16, which NumPy has not")
    with pytest.raises(
        TypeError, match=r"what numpy takes by DLPack, got torch\.bfloat16 of torch .*Cast it, or move it"
    ):
        to_like(torch.ones(2, dtype=torch.bfloat16), X)
