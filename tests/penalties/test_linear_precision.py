"""Linear layers in half precision: values and gradients are those in float64 of the same operands, rounded once."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, close
from xpenalties import block_size
from xpenalties._arrays.numerics import linear

RNG = np.random.default_rng(41)
ROWS, CLASSES, FEATURES = 64, 40, 8
WEIGHT, HIDDEN = RNG.standard_normal((CLASSES, FEATURES)), RNG.standard_normal((ROWS, FEATURES))
CLOSE = [HIDDEN, WEIGHT, HIDDEN + 0.05 * RNG.standard_normal(HIDDEN.shape), WEIGHT]
FAR = [HIDDEN, WEIGHT, RNG.standard_normal((ROWS, 5)), RNG.standard_normal((CLASSES, 5))]
FORMS: dict[str, tuple[Callable[..., Any], list[np.ndarray]]] = {
    "kl": (xp.linear_kl_divergence, FAR),
    "js": (xp.linear_js_divergence, FAR),
    "entropy": (xp.linear_entropy, FAR[:2]),
    "kl, close": (xp.linear_kl_divergence, CLOSE),
    "js, close": (xp.linear_js_divergence, CLOSE),
}
EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
half = pytest.mark.parametrize("dtype", EPS)
in_blocks_or_not = pytest.mark.parametrize("elements", [8 * CLASSES, None], ids=["blocks", "whole"])


@pytest.fixture(autouse=True)
def _has_dtype(request: pytest.FixtureRequest, fw: Framework) -> None:
    if request.node.callspec.params.get("dtype", fw.dtypes[0]) not in fw.dtypes:
        pytest.skip(f"{fw.name} has no such dtype")


def rounded(fw: Framework, arrays: list[np.ndarray], *dtypes: str) -> tuple[list[Any], list[Any]]:
    """Return arrays of the dtypes, in turn, and the same numbers in float64."""
    coarse = [fw.array(x, dtypes[i % len(dtypes)]) for i, x in enumerate(arrays)]
    return coarse, [fw.array(fw.numpy(x).astype(np.float64)) for x in coarse]


def both_alike(
    fw: Framework, fn: Callable[..., Any], coarse: list[Any], exact: list[Any], elements: int | None, *, atol: float
) -> None:
    """Compare the value and the gradients of `coarse` arrays with those of the same numbers in float64."""
    both = fw.once(xp.value_and_grad(lambda arrays: fn(*arrays)))
    with block_size(elements):
        value, gradients = both(coarse)
    want, exact_gradients = both(exact)
    close(fw, value, fw.numpy(want), rtol=1e-5)
    for one, other in zip(gradients, exact_gradients, strict=True):
        close(fw, one, fw.numpy(other), rtol=2e-3, atol=atol)


@pytest.mark.parametrize("form", FORMS)
@half
@in_blocks_or_not
def test_values(fw: Framework, form: str, dtype: str, elements: int | None) -> None:
    fn, arrays = FORMS[form]
    coarse, exact = rounded(fw, arrays, dtype)
    with block_size(elements):
        got = fw.once(lambda arrays: fn(*arrays, reduction="none"))(coarse)
    assert got.dtype == fw.dtype("float32")
    close(fw, got, fw.numpy(fn(*exact, reduction="none")), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
@half
@in_blocks_or_not
@pytest.mark.needs("autodiff")
def test_gradients(fw: Framework, form: str, dtype: str, elements: int | None) -> None:
    """Each is rounded once. Logits that are rounded would be 1 to 25 % off for close distributions."""
    fn, arrays = FORMS[form]
    coarse, exact = rounded(fw, arrays, dtype)
    gradients = fw.once(xp.grad(lambda arrays: 64.0 * fn(*arrays)))
    with block_size(elements):
        got = gradients(coarse)
    for one, want, x in zip(got, gradients(exact), coarse, strict=True):
        assert one.dtype == x.dtype
        error = np.linalg.norm(fw.numpy(one).astype(np.float64) - fw.numpy(want)) / np.linalg.norm(fw.numpy(want))
        assert error < EPS[dtype] / 2


@pytest.mark.parametrize("dtypes", [("float16", "float32"), ("float32", "float16")])
@in_blocks_or_not
@pytest.mark.needs("autodiff")
def test_two_precisions(fw: Framework, dtypes: tuple[str, str], elements: int | None) -> None:
    if "float16" not in fw.dtypes:
        pytest.skip(f"{fw.name} has no such dtype")
    coarse, exact = rounded(fw, CLOSE, *dtypes)
    both_alike(fw, xp.linear_js_divergence, coarse, exact, elements, atol=1e-6)


@in_blocks_or_not
@pytest.mark.needs("autodiff")
def test_logits_beyond_float16(fw: Framework, elements: int | None) -> None:
    """Of 2.5e5. Rounded to float16 they would be infinite, and every value NaN."""
    if "float16" not in fw.dtypes:
        pytest.skip(f"{fw.name} has no such dtype")
    weight = np.concatenate([WEIGHT[:1], WEIGHT[:1], WEIGHT[2:]])  # two classes are equal
    coarse, exact = rounded(fw, [300 * HIDDEN, 300 * weight], "float16")
    both_alike(fw, xp.linear_entropy, coarse, exact, elements, atol=1e-2)


@half
@pytest.mark.needs("autodiff")
def test_a_sum_over_many_blocks(fw: Framework, dtype: str) -> None:
    """The gradient of the weight is added up in float32: in half precision, sums stop growing."""
    arrays = [np.tile(x, (64, 1)) if i % 2 == 0 else x for i, x in enumerate(CLOSE)]
    coarse, exact = rounded(fw, arrays, dtype)
    gradient = fw.once(xp.grad(lambda arrays: 64.0 * xp.linear_js_divergence(*arrays)))
    with block_size(8 * CLASSES):
        got = gradient(coarse)[1]
    with block_size(None):
        want = fw.numpy(gradient(exact)[1])
    error = np.linalg.norm(fw.numpy(got).astype(np.float64) - want) / np.linalg.norm(want)
    assert error < EPS[dtype] / 2


@pytest.mark.only("numpy", reason="is about memory; tests/backends/torch/test_linear.py has PyTorch's")
def test_a_map_is_cast_in_parts(fw: Framework, monkeypatch: pytest.MonkeyPatch) -> None:
    from xpenalties.backends import base

    coarse, exact = rounded(fw, [RNG.standard_normal((8, 64)), RNG.standard_normal((4096, 64))], "float16")
    peaks = []
    for part in (64 * 64, 4096 * 64):
        monkeypatch.setattr(base, "PART", part)
        close(fw, linear(*coarse), exact[0] @ exact[1].T, rtol=1e-5, atol=1e-5)
        tracemalloc.start()
        try:
            xp.linear_entropy(coarse[0][0], coarse[1])
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[0] < 4096 * 64 * 4 < peaks[1]  # the size of a copy
