"""Linear maps in half precision in eager PyTorch: cast in parts, differentiated in every mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.backends.torch.test_blocks import Largest
from tests.helpers.harness import Framework
from xpenalties import block_size

pytestmark = pytest.mark.only("torch", reason="is about PyTorch")

RNG = np.random.default_rng(7)
ROWS, CLASSES, FEATURES = 24, 40, 6
HIDDEN, WEIGHT = RNG.standard_normal((ROWS, FEATURES)), RNG.standard_normal((CLASSES, FEATURES))
half = pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
in_blocks_or_not = pytest.mark.parametrize("elements", [4 * CLASSES, None], ids=["blocks", "whole"])


@pytest.fixture
def torch(fw: Framework) -> Any:
    return fw.module


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cast 7 classes at a time."""
    monkeypatch.setattr("xpenalties.backends.torch._linear.PART", 7 * FEATURES)


def arrays_of(torch: Any, dtype: str, **options: Any) -> list[Any]:
    return [torch.tensor(x).to(getattr(torch, dtype)).requires_grad_(**options) for x in (HIDDEN, WEIGHT)]


def exact(arrays: list[Any]) -> list[Any]:
    return [x.detach().double().requires_grad_() for x in arrays]


def entropy(hidden: Any, weight: Any) -> Any:
    return 64.0 * xp.linear_entropy(hidden, weight)


def check(got: Any, want: Any, dtype: Any, torch: Any) -> None:
    assert got.dtype == dtype
    assert (got.double() - want).norm() < torch.finfo(dtype).eps / 2 * want.norm()


@half
@in_blocks_or_not
@pytest.mark.usefixtures("in_parts")
def test_parts(torch: Any, dtype: str, elements: int | None) -> None:
    arrays = arrays_of(torch, dtype)
    with block_size(elements):
        value = entropy(*arrays)
        with torch.no_grad():
            torch.testing.assert_close(entropy(*arrays), value, rtol=1e-6, atol=0.0)
        single = xp.linear_entropy(arrays[0][0], arrays[1])  # one row, without an axis for rows
    value.backward()
    double = exact(arrays)
    want = entropy(*double)
    want.backward()
    torch.testing.assert_close(value.double(), want, rtol=1e-5, atol=0.0)
    torch.testing.assert_close(single.double(), xp.linear_entropy(double[0][0], double[1]), rtol=1e-5, atol=0.0)
    for x, y in zip(arrays, double, strict=True):
        check(x.grad, y.grad, x.dtype, torch)


@half
@in_blocks_or_not
@pytest.mark.usefixtures("in_parts")
def test_no_copy_of_the_map(torch: Any, dtype: str, elements: int | None) -> None:
    """Nothing as large as the map but its gradient, and the sum that gathers it."""
    hidden, weight = torch.randn(3, 64), torch.randn(512, 64)
    for learned, made in ((False, 0), (True, 2)):
        arrays = [x.to(getattr(torch, dtype)).requires_grad_(needs) for x, needs in ((hidden, True), (weight, learned))]
        watch = Largest(torch)
        with watch.mode:
            with block_size(elements):
                value = xp.linear_entropy(*arrays)
            value.backward()
        assert watch.larger_than(512 * 64 - 1) == made


@half
@in_blocks_or_not
def test_second_derivatives(torch: Any, dtype: str, elements: int | None) -> None:
    def squares(arrays: list[Any]) -> Any:
        gradients = torch.autograd.grad(entropy(*arrays), arrays, create_graph=True)
        return torch.autograd.grad(sum((x * x).sum() for x in gradients), arrays)

    arrays = arrays_of(torch, dtype)
    with block_size(elements):
        got = squares(arrays)
    for one, want in zip(got, squares(exact(arrays)), strict=True):
        # the gradients are rounded before they are squared
        assert (one.double() - want).norm() < 2 * torch.finfo(one.dtype).eps * want.norm()


@in_blocks_or_not
def test_many_cotangents(torch: Any, elements: int | None) -> None:
    arrays, cotangents = arrays_of(torch, "bfloat16"), torch.eye(ROWS)[:3]

    def jacobian(arrays: list[Any], cotangents: Any) -> Any:
        terms = xp.linear_entropy(*arrays, reduction="none")
        return torch.autograd.grad(terms, arrays, cotangents, is_grads_batched=True)

    with block_size(elements):
        got = jacobian(arrays, cotangents)
    for one, want in zip(got, jacobian(exact(arrays), cotangents.double()), strict=True):
        check(one, want, torch.bfloat16, torch)


@in_blocks_or_not
@pytest.mark.parametrize("needs", [(True, False), (False, True)])
def test_autocast_and_frozen_arrays(torch: Any, elements: int | None, needs: tuple[bool, bool]) -> None:
    """Products stay in float32, in both passes."""
    arrays = [
        x.requires_grad_(need) for x, need in zip(arrays_of(torch, "float16", requires_grad=False), needs, strict=True)
    ]
    double = exact(arrays)
    with torch.autocast("cpu", dtype=torch.bfloat16), block_size(elements):
        value = entropy(*arrays)
        value.backward()
    want = entropy(*double)
    want.backward()
    torch.testing.assert_close(value.double(), want, rtol=1e-5, atol=0.0)
    for x, y, need in zip(arrays, double, needs, strict=True):
        if need:
            check(x.grad, y.grad, x.dtype, torch)
        else:
            assert x.grad is None


@in_blocks_or_not
def test_a_map_made_in_inference_mode(torch: Any, elements: int | None) -> None:
    hidden, _ = arrays_of(torch, "bfloat16")
    with torch.inference_mode():
        weight = torch.tensor(WEIGHT).bfloat16()
    with block_size(elements):
        entropy(hidden, weight).backward()
    double = exact([hidden, weight.clone()])
    entropy(*double).backward()
    check(hidden.grad, double[0].grad, torch.bfloat16, torch)


@half
@in_blocks_or_not
@pytest.mark.usefixtures("in_parts")
def test_products_of_a_cuda_device(
    torch: Any, monkeypatch: pytest.MonkeyPatch, dtype: str, elements: int | None
) -> None:
    """They take operands of half precision, and sum in float32. Gradients of logits are as two such operands."""
    mm: Callable[..., Any] = torch.mm
    products = []

    def in_float32(a: Any, b: Any, *, out_dtype: Any = None, out: Any = None) -> Any:
        if out_dtype is None:
            return mm(a, b, out=out)
        assert a.dtype == b.dtype == getattr(torch, dtype)
        assert out_dtype == torch.float32
        products.append(a.shape)
        return mm(a.float(), b.float())

    monkeypatch.setattr(torch, "mm", in_float32)
    monkeypatch.setattr(
        "xpenalties.backends.torch._linear.sums_in_float32", lambda x: x.dtype in (torch.float16, torch.bfloat16)
    )
    arrays = arrays_of(torch, dtype)
    with block_size(elements):
        value = entropy(*arrays)
    value.backward()
    assert len(products) > (6 if dtype == "bfloat16" else 0)
    double = exact(arrays)
    want = entropy(*double)
    want.backward()
    torch.testing.assert_close(value.double(), want, rtol=1e-5, atol=0.0)
    for x, y in zip(arrays, double, strict=True):
        check(x.grad, y.grad, x.dtype, torch)


def test_a_cuda_device_with_float64(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside float64, nothing is multiplied in half precision."""
    monkeypatch.setattr(
        "xpenalties.backends.torch._linear.sums_in_float32", lambda x: x.dtype in (torch.float16, torch.bfloat16)
    )
    hidden, weight = torch.tensor(HIDDEN).requires_grad_(), torch.tensor(WEIGHT).bfloat16().requires_grad_()
    entropy(hidden, weight).backward()
    double = exact([hidden, weight])
    entropy(*double).backward()
    torch.testing.assert_close(hidden.grad, double[0].grad)
    check(weight.grad, double[1].grad, torch.bfloat16, torch)


def test_which_devices_sum_in_float32(torch: Any) -> None:
    from xpenalties.backends.torch import _linear

    for kind, dtype, expected in (("cuda", "bfloat16", True), ("cuda", "float32", False), ("cpu", "float16", False)):
        x = _Described()
        x.device, x.dtype = _Described(), getattr(torch, dtype)
        x.device.type = kind
        assert _linear.sums_in_float32(x) is expected


class _Described:
    """Stands for a tensor of a device that is not here."""

    device: Any
    dtype: Any
    type: str
