"""Divergences from a part of the classes, top-k and sampled ones, at their edges."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest
from scipy.special import rel_entr

import xpenalties as xp
from tests.helpers.harness import Framework, first_and_second
from tests.helpers.samples import log

INF = math.inf
autodiff = pytest.mark.needs("autodiff")


def of_whole_distributions(a: np.ndarray, b: np.ndarray) -> float:
    """Return the value for log-probabilities that sum to 1 up to their rounding: each class adds q - p too."""
    p, q = np.exp(a), np.exp(b)
    return float((p * (a - b) + q - p).sum())


def test_top_k_that_covers_all_mass(fw: Framework) -> None:
    for dtype in ("float32", "float64"):
        for seed in range(20):
            rng = np.random.default_rng(seed)
            a, b = (np.log(rng.dirichlet(np.ones(7))) for _ in range(2))
            arrays = fw.array(a, dtype), fw.array(b, dtype)
            want = rel_entr(np.exp(a), np.exp(b)).sum()
            assert float(xp.topk_kl_divergence(*arrays)) == pytest.approx(
                want, rel=1e-5 if dtype == "float32" else 1e-12
            )


def test_top_k_that_covers_all_mass_by_a_subtracted_logsumexp(fw: Framework) -> None:
    """The rounding error of `z - logsumexp(z)` grows with the size of the logits."""
    for dtype in ("float32", "float64"):
        for scale in (3.0, 20.0):
            z = (scale * np.random.default_rng(0).standard_normal((2, 2000, 2))).astype(dtype)
            a, b = z - np.log(np.exp(z).sum(-1, keepdims=True))
            got = xp.topk_kl_divergence(fw.array(a, dtype), fw.array(b, dtype))
            want = xp.kl_divergence(fw.array(a, dtype), fw.array(b, dtype))
            assert float(got) == pytest.approx(float(want), rel=1e-5 if dtype == "float32" else 1e-12)


def test_top_k_that_covers_all_mass_in_half_precision(fw: Framework) -> None:
    for dtype in (d for d in fw.dtypes if d in ("float16", "bfloat16")):
        for seed in range(20):
            rng = np.random.default_rng(seed)
            rounded = [fw.array(np.log(rng.dirichlet(np.ones(20))), dtype) for _ in range(2)]
            a, b = (fw.numpy(x) for x in rounded)
            assert float(xp.topk_kl_divergence(*rounded)) == pytest.approx(of_whole_distributions(a, b), rel=1e-5)


def test_top_k_of_two_precisions(fw: Framework) -> None:
    for half in (d for d in fw.dtypes if d in ("float16", "bfloat16")):
        for seed in range(20):
            rng = np.random.default_rng(seed)
            p, q = (np.log(rng.dirichlet(np.ones(20))) for _ in range(2))
            for dtypes in ((half, "float32"), ("float32", half)):
                arrays = [fw.array(x, d) for x, d in zip((p, q), dtypes, strict=True)]
                a, b = (fw.numpy(x) for x in arrays)
                assert float(xp.topk_kl_divergence(*arrays)) == pytest.approx(of_whole_distributions(a, b), rel=1e-5)


def test_top_k_counts_small_rests(fw: Framework) -> None:
    for dtype, left, eps in (("float32", 1e-5, 2.0**-23), ("float64", 1e-13, 2.0**-52)):
        given = [fw.array(each, dtype) for each in (log(1 - left - 0.25, 0.25), log(0.5, 0.25))]
        p, q = (np.exp(fw.numpy(each)) for each in given)
        rest = 1 - p.sum()  # as the inputs are rounded
        want = rel_entr(p, q).sum() + rel_entr(rest, 0.25)
        got = float(xp.topk_kl_divergence(*given))
        # the rest is 1 less two exponentials, each off by a unit or so, and has a slope of log(rest / 0.25) + 1
        assert got == pytest.approx(want, rel=4 * eps, abs=2 * eps * math.log(0.25 / rest))
        assert abs(got - rel_entr(p, q).sum()) > 5 * rest


def test_top_k_takes_only_rounding_for_no_rest(fw: Framework) -> None:
    for dtype, eps in (("float32", 2.0**-23), ("float64", 2.0**-52)):
        rest = 4 * eps * (1 + math.log(2))
        arrays = [fw.array(np.log(x), dtype) for x in ([0.75 - rest, 0.25], [0.5, 0.25])]
        a, b = (fw.numpy(x) for x in arrays)
        without_rest = (np.exp(a) * (a - b)).sum()
        assert float(xp.topk_kl_divergence(*arrays)) < without_rest - 5 * rest


def of_logits(penalty: Any) -> Any:
    def fn(*logits: Any) -> Any:
        ns = xp.namespace(*logits)
        return penalty(*(z - ns.log(ns.sum(ns.exp(z), axis=-1, keepdims=True)) for z in logits))

    return fn


@autodiff
def test_top_k_gradient_if_all_mass_is_covered(fw: Framework) -> None:
    rng = np.random.default_rng(0)
    a, b = (np.log(rng.dirichlet(np.ones(7))) for _ in range(2))
    for wrt in (0, 1):
        got = first_and_second(fw, of_logits(xp.topk_kl_divergence), a, b, wrt=wrt)
        want = first_and_second(fw, of_logits(xp.kl_divergence), a, b, wrt=wrt)
        for x, y in zip(got, want, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-9)


def test_top_k_without_a_rest_in_p(fw: Framework) -> None:
    a, b = fw.array(log(0.5, 0.5)), fw.array(log(0.25, 0.25))
    assert float(xp.topk_kl_divergence(a, b)) == pytest.approx(math.log(2), rel=1e-14)


def test_top_k_without_a_rest_in_q(fw: Framework) -> None:
    a, b = fw.array(log(0.5, 0.25)), fw.array(log(0.5, 0.5))
    assert float(xp.topk_kl_divergence(a, b)) == INF
    assert math.isfinite(float(xp.topk_kl_divergence(a, b, tail="renormalize")))


@autodiff
def test_top_k_gradients(fw: Framework) -> None:
    a, b = log(0.5, 0.25, 0.0), log(0.25, 0.5, 0.0)
    first, second = first_and_second(fw, xp.topk_kl_divergence, a, b, wrt=1)
    # -p_i for the class itself; the rest of Q, 1 - sum q = 1/4, falls by q_i: + p_rest / q_rest * q_i
    np.testing.assert_allclose(first, [-0.5 + 0.25, -0.25 + 0.5, 0.0], atol=1e-14)
    assert np.isfinite(second).all()
    whole = log(0.5, 0.5, 0.0)
    first, second = first_and_second(fw, xp.topk_kl_divergence, whole, log(0.25, 0.5, 0.0))
    np.testing.assert_allclose(first, [0.5 * math.log(2), 0.0, 0.0], atol=1e-12)  # p log(p / q), of the sum with q - p
    assert np.isfinite(second).all()


def test_sampled_kl_of_masked_tokens(fw: Framework) -> None:
    a, b = fw.array(np.asarray([-1.0, -INF])), fw.array(np.asarray([-1.5, -INF]))
    for estimator, want in (("k1", 0.5), ("k2", 0.125), ("k3", math.exp(-0.5) - 0.5)):
        for gradient in ("value", "k2"):
            got = xp.sampled_kl(a, b, estimator=estimator, gradient=gradient, reduction="none")
            np.testing.assert_allclose(fw.numpy(got), [want, 0.0], rtol=1e-14)
    assert float(xp.sampled_kl(a, fw.array(np.asarray([-INF, -INF])), gradient="k2")) == INF


def test_sampled_kl_of_impossible_tokens(fw: Framework) -> None:
    a, b = fw.array(np.asarray([-INF, -1.0])), fw.array(np.asarray([-1.0, -INF]))
    for estimator, want in (("k1", [-INF, INF]), ("k2", [INF, INF]), ("k3", [INF, INF])):
        assert fw.numpy(xp.sampled_kl(a, b, estimator=estimator, reduction="none")).tolist() == want


def test_sampled_kl_does_not_cancel(fw: Framework) -> None:
    for r in (1e-3, -1e-5, 1e-7):
        x = fw.array(np.asarray([r]))
        got, expm1 = float(xp.sampled_kl(x - x, x)), float(xp.namespace(x).expm1(x)[0])
        with mpmath.workdps(40):
            exact = mpmath.expm1(r)
            want = exact - mpmath.mpf(r)
            # no larger error than that of the framework's expm1
            assert abs(got - want) <= abs(expm1 - exact) + 2.0**-52 * abs(want)


@autodiff
def test_sampled_kl_with_the_gradient_of_k2(fw: Framework) -> None:
    a, b = np.asarray([-1.0, -0.2, -INF]), np.asarray([-1.5, -0.9, -INF])
    for wrt in (0, 1):
        want = first_and_second(fw, lambda x, y: xp.sampled_kl(x, y, estimator="k2"), a, b, wrt=wrt)
        for estimator in ("k1", "k2", "k3"):

            def estimate(x: Any, y: Any, estimator: str = estimator) -> Any:
                return xp.sampled_kl(x, y, estimator=estimator, gradient="k2")

            got = first_and_second(fw, estimate, a, b, wrt=wrt)
            for x, y in zip(got, want, strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-13)
                assert x[2] == 0


@autodiff
def test_sampled_kl_with_the_gradient_of_k2_of_impossible_tokens(fw: Framework) -> None:
    for a, b in ((-1.0, -INF), (-INF, -1.0)):
        arrays = fw.array(np.asarray([a])), fw.array(np.asarray([b]))
        want = fw.numpy(xp.grad(lambda x, y: xp.sampled_kl(x, y, estimator="k2"))(*arrays))
        assert np.isinf(want).all()
        for estimator in ("k2", "k3", *(["k1"] if a > b else [])):  # k1 is -inf for a token that P gives probability 0

            def estimate(x: Any, y: Any, estimator: str = estimator) -> Any:
                return xp.sampled_kl(x, y, estimator=estimator, gradient="k2")

            assert float(estimate(*arrays)) == INF
            assert fw.numpy(xp.grad(estimate)(*arrays)).tolist() == want.tolist()
    arrays = fw.array(np.asarray([-INF])), fw.array(np.asarray([-1.0]))
    assert float(xp.sampled_kl(*arrays, estimator="k1", gradient="k2")) == -INF
    assert float(xp.grad(lambda x, y: xp.sampled_kl(x, y, estimator="k1", gradient="k2"))(*arrays)[0]) == 0.0
