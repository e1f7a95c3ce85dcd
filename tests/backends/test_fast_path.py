"""Formulas are evaluated without the masks of zeros, and with them where the result asks for it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, close
from xpenalties import Penalty, Pipeline, block_size
from xpenalties.backends._blocks import keep_pages
from xpenalties.backends._fast_path import FastPath, guards_are_skipped

INF = math.inf


def told(fast_path: FastPath, value: float, *, skips: bool = True) -> list[bool]:
    """Whether masks were left out, in each evaluation of a formula that returns `value`."""
    seen: list[bool] = []

    def formula(x: float) -> float:
        seen.append(skips and guards_are_skipped())
        return x

    assert fast_path(formula, (value,), {}) == value
    return seen


def test_what_is_finite_stays() -> None:
    fast_path = FastPath(math.isfinite)
    assert told(fast_path, 1.0) == [True] == told(fast_path, 2.0)
    assert not guards_are_skipped()


def test_what_is_not_finite_is_evaluated_again_and_so_are_those_after_it() -> None:
    fast_path = FastPath(math.isfinite)
    assert told(fast_path, INF) == [True, False]
    assert told(fast_path, 1.0) == [False] == told(fast_path, INF)


def test_a_formula_without_guards_is_not_looked_at() -> None:
    def finite(x: float) -> bool:
        raise AssertionError(x)

    assert told(FastPath(finite), INF, skips=False) == [False]


def test_an_exception_ends_the_fast_path() -> None:
    def formula() -> None:
        raise KeyError(guards_are_skipped())

    with pytest.raises(KeyError, match="True"):
        FastPath(math.isfinite)(formula, (), {})
    assert not guards_are_skipped()


PAIRS = {
    "nothing": ([0.5, 0.5], [0.25, 0.75], math.log(2) / 2 + math.log(2 / 3) / 2),
    "both": ([1.0, 0.0], [1.0, 0.0], 0.0),
    "p": ([1.0, 0.0], [0.5, 0.5], math.log(2)),
    "q": ([0.5, 0.5], [1.0, 0.0], INF),
}


@pytest.mark.parametrize("elements", [None, 2, 4])
def test_zeros_in_some_blocks(fw: Framework, elements: int | None) -> None:
    """Each row by its own definition, whichever came before it."""
    for names in (PAIRS, [*PAIRS][::-1], ["nothing"], ["nothing", "nothing", "both"]):
        with np.errstate(divide="ignore"):
            log_p, log_q = (np.log(np.asarray([PAIRS[name][i] for name in names])) for i in (0, 1))
        with block_size(elements):
            got = xp.kl_divergence(fw.array(log_p), fw.array(log_q), reduction="none")
        close(fw, got, np.asarray([PAIRS[name][2] for name in names]))


def test_a_subnormal_probability_is_zero(fw: Framework) -> None:
    """It would make the value infinite, not NaN: that is looked at as well."""
    log_p = fw.array(np.asarray([[0.0, -95.0]]), "float32")
    log_q = fw.array(np.asarray([[0.0, -INF]]), "float32")
    assert float(xp.kl_divergence(log_p, log_q)) == 0


NORMS = [0.0, 1e-44, 1e-30, 1e-12, 1e-6, 1.0, 1e12, 1e25, 1e38, INF]


@pytest.mark.parametrize("elements", [None, 4])
@pytest.mark.parametrize("sizes", [NORMS, NORMS[::-1], NORMS[2:-2]])
def test_norms_large_and_small(fw: Framework, sizes: list[float], elements: int | None) -> None:
    """Whatever their squares are, and whichever came before them."""
    x = np.asarray(sizes)[:, None] * np.asarray([0.5, 0.5, 0.5, 0.5])
    with np.errstate(invalid="ignore"):
        want = 2 * np.where(np.asarray(sizes) == INF, INF, np.sqrt(np.sum(x * x, axis=1)))  # in float64
    with block_size(elements):
        got = xp.group_lasso(fw.array(x, "float32"), reduction="none")
    np.testing.assert_allclose(fw.numpy(got)[want > 1e-37], want[want > 1e-37], rtol=1e-6)
    np.testing.assert_allclose(fw.numpy(got)[want < 1e-37], want[want < 1e-37], atol=1e-38)  # some flush them to zero


@pytest.mark.parametrize("size", NORMS[2:-2])
def test_the_whole_large_and_small(fw: Framework, size: float) -> None:
    got = xp.output_magnitude(fw.array(np.full(4, size / 2), "float32"), norm="l2", target=1.0)
    assert float(got) == pytest.approx((np.float64(size) - 1) ** 2 if size < 1e19 else INF, rel=1e-5)


@pytest.mark.parametrize("size", NORMS[2:-1])
def test_cosines_of_large_and_small(fw: Framework, size: float) -> None:
    a, b = np.asarray([[0.5, 0.5], [0.5, 0.5], [0.0, 0.0]]), np.asarray([[0.5, 0.0], [0.0, 0.5], [0.5, 0.5]])
    for x, y in ((a * size, b), (a, b * size), (a * size, b * size)):
        for rows in (2, 3):
            arrays = (fw.array(z[:rows], "float32") for z in (x, y))
            got = xp.consistency(*arrays, metric="cosine", reduction="none")
            want = [1 - math.sqrt(0.5)] * 2 + [1.0]
            np.testing.assert_allclose(fw.numpy(got), want[:rows], rtol=1e-6)


@pytest.mark.needs("autodiff")
@pytest.mark.parametrize("sizes", [NORMS[1:-2], NORMS[4:7]])
def test_gradients_of_norms_large_and_small(fw: Framework, sizes: list[float]) -> None:
    direction = np.asarray([0.5, -0.5, 0.5, -0.5])
    x = fw.array(np.asarray(sizes)[:, None] * direction, "float32")
    got = fw.numpy(xp.grad(xp.group_lasso)(x))
    kept = np.asarray(sizes) > 1e-37  # a subnormal number is 0 to some
    np.testing.assert_allclose(got[kept], np.broadcast_to(2 * direction, got.shape)[kept], rtol=1e-5)


@pytest.mark.parametrize("call", [{}, {"reduction": "sum"}, {"normalizer": 3.0}, {"normalizer": 3}])
def test_figures_beside_a_divided_sum(fw: Framework, call: dict[str, Any]) -> None:
    """The sum in a report is that of the terms, whatever the value has been divided by on the way."""
    generator = np.random.default_rng(0)
    x = fw.array(generator.normal(size=(6, 4)))
    if fw.name == "torch":
        x.requires_grad_()  # the sum is then computed beside the gradients
    for weights in (None, fw.array(np.linspace(0.5, 2, 6))):
        each = Pipeline([Penalty("entropy", options={"from_logits": True, "weights": weights, **call})])
        with block_size(8):
            got = each.compute(x)[1].flat()
        with block_size(None):
            want = each.compute(x)[1].flat()
        assert got == pytest.approx(want, rel=1e-12) and "entropy/custom/sum" in want


@pytest.mark.needs("autodiff")
@pytest.mark.parametrize("call", [{}, {"reduction": "sum"}, {"normalizer": 3.0}])
def test_gradient_of_a_divided_sum(fw: Framework, call: dict[str, Any]) -> None:
    x = fw.array(np.random.default_rng(0).normal(size=(6, 4)))
    for weights in (None, fw.array(np.linspace(0.5, 2, 6))):

        def of(x: Any, weights: Any = weights) -> Any:
            return 2.0 * xp.entropy(x, from_logits=True, weights=weights, **call)

        with block_size(8):
            got = xp.grad(of)(x)
        with block_size(None):
            close(fw, got, fw.numpy(xp.grad(of)(x)))


def test_pages_are_kept_for_blocks(fw: Framework) -> None:
    keep_pages.cache_clear()
    with block_size(8):
        xp.entropy(fw.array(np.zeros((6, 4))))
    assert keep_pages.cache_info().currsize == (fw.name in ("numpy", "torch"))


def test_pages_are_kept_once() -> None:
    sizes: list[int] = []
    for _ in range(2):
        keep_pages(sizes.append)
    (size,) = sizes
    assert 2**24 < size < 2**25  # as much as the C library takes notice of
