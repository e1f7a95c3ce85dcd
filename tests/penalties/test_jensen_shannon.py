"""The Jensen-Shannon divergence at its edges: disjoint, close and far distributions, weights near 0 and 1."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest
from scipy.special import rel_entr

import xpenalties as xp
from tests.helpers.harness import Framework, first_and_second
from tests.helpers.samples import P, Q, log

INF = math.inf
autodiff = pytest.mark.needs("autodiff")

p, q = np.exp(P), np.exp(Q)


def exact_js(a: np.ndarray, b: np.ndarray, beta: float = 0.5) -> float:
    """Return the divergence of log-probabilities, computed by mpmath without normalizing them."""
    with mpmath.workdps(60):
        want, rest = mpmath.mpf(0), 1 - mpmath.mpf(beta)
        for u, v in zip(np.asarray(a, dtype=float).tolist(), np.asarray(b, dtype=float).tolist(), strict=True):
            p, q = mpmath.exp(u), mpmath.exp(v)
            m = beta * p + rest * q
            want += beta * p * mpmath.log(p / m) + rest * q * mpmath.log(q / m)
        return float(want)


def test_js_of_disjoint_distributions(fw: Framework) -> None:
    a, b = fw.array(log(0.5, 0.5, 0.0, 0.0)), fw.array(log(0.0, 0.0, 0.25, 0.75))
    assert float(xp.js_divergence(a, b)) == pytest.approx(math.log(2), rel=8 * 2.0**-52)
    for beta in (0.25, 0.9):
        entropy = -beta * math.log(beta) - (1 - beta) * math.log(1 - beta)
        assert float(xp.js_divergence(a, b, beta=beta)) == pytest.approx(entropy, rel=1e-14)
    for beta in (0.0, 1.0):
        assert float(xp.js_divergence(a, b, beta=beta)) == 0.0


@autodiff
def test_js_gradients_with_masked_tokens(fw: Framework) -> None:
    # d/dlog_p is beta p log(p / m)
    for beta in (0.5, 0.2):
        m = beta * p + (1 - beta) * q

        def js(a: Any, b: Any, beta: float = beta) -> Any:
            return xp.js_divergence(a, b, beta=beta)

        first, second = first_and_second(fw, js, P, Q)
        want = beta * p * np.log(np.where(p > 0, p, 1) / np.where(p > 0, m, 1))
        np.testing.assert_allclose(first, want, rtol=1e-10, atol=1e-15)
        slope = want + beta * p * (1 - beta * p / np.where(m > 0, m, 1))
        np.testing.assert_allclose(second, 2 * want * slope, rtol=1e-10, atol=1e-15)
        first, second = first_and_second(fw, js, P, Q, wrt=1)
        want = (1 - beta) * q * np.log(np.where(q > 0, q, 1) / np.where(q > 0, m, 1))
        np.testing.assert_allclose(first, want, rtol=1e-10, atol=1e-15)
        assert np.isfinite(second).all()


def test_js_of_close_distributions_does_not_cancel(fw: Framework) -> None:
    a = np.log(np.random.default_rng(0).dirichlet(np.ones(50)))
    for gap in (1e-3, 1e-6, 1e-9):
        b = a + gap * np.random.default_rng(1).standard_normal(50)
        got = float(xp.js_divergence(fw.array(a), fw.array(b)))
        assert abs(got - exact_js(a, b)) < 1e-16 * gap * 50


def test_js_of_close_distributions_and_unequal_weights(fw: Framework) -> None:
    a = np.log(np.random.default_rng(0).dirichlet(np.ones(20)))
    b = a + 0.1 * np.random.default_rng(1).standard_normal(20)
    b -= np.log(np.exp(b).sum())
    for dtype, rtol in (("float32", 1e-3), ("float64", 1e-10)):
        arrays = fw.array(a, dtype), fw.array(b, dtype)
        u, v = (fw.numpy(x) for x in arrays)
        for beta in (1e-6, 1e-3, 0.5, 1 - 1e-3):
            assert float(xp.js_divergence(*arrays, beta=beta)) == pytest.approx(exact_js(u, v, beta), rel=rtol)


def test_js_of_very_unequal_weights(fw: Framework) -> None:
    a, b = log(0.7, 0.3, 0.0), log(0.0, 0.5, 0.5)
    for dtype in ("float32", "float64"):
        for beta in (1e-8, 1e-30, 1e-45, 1e-310, 5e-324, 1 - 2.0**-53):
            m = [beta * x + (1 - beta) * y for x, y in zip(np.exp(a), np.exp(b), strict=True)]
            want = beta * rel_entr(np.exp(a), m).sum() + (1 - beta) * rel_entr(np.exp(b), m).sum()
            got = float(xp.js_divergence(fw.array(a, dtype), fw.array(b, dtype), beta=beta))
            assert got == pytest.approx(want, rel=1e-5, abs=1e-7 if beta > 0.5 or dtype == "float32" else 1e-15)


@autodiff
def test_js_gradients_of_very_unequal_weights(fw: Framework) -> None:
    a, b = log(0.7, 0.3, 0.0), log(0.0, 0.5, 0.5)
    for beta in (1e-8, 1 - 1e-8):
        m = beta * np.exp(a) + (1 - beta) * np.exp(b)
        first, second = first_and_second(fw, lambda x, y, beta=beta: xp.js_divergence(x, y, beta=beta), a, b)
        want = [beta * u * math.log(u / v) if u else 0.0 for u, v in zip(np.exp(a), m, strict=True)]
        np.testing.assert_allclose(first, want, rtol=1e-7, atol=1e-14)  # log p - log m cancels if m is near p
        assert np.isfinite(second).all()


@autodiff
def test_js_at_the_ends_is_nan_for_nan(fw: Framework) -> None:
    a, b = fw.array(np.asarray([0.0, math.nan])), fw.array(P[:2])
    for beta in (0.0, 1.0):
        assert math.isnan(float(xp.js_divergence(a, b, beta=beta)))
        assert math.isnan(float(xp.js_divergence(b, a, beta=beta)))
        gradient = xp.grad(lambda a, beta=beta: xp.js_divergence(a, b, beta=beta))(b)
        assert (fw.numpy(gradient) == 0).all()


def test_js_of_far_distributions_and_unequal_weights(fw: Framework) -> None:
    a = np.log([0.5, 0.5])
    b = np.asarray([-40.0, math.log1p(-math.exp(-40.0))])
    for dtype, rtol in (("float32", 1e-5), ("float64", 1e-9)):
        arrays = fw.array(a, dtype), fw.array(b, dtype)
        u, v = (fw.numpy(x) for x in arrays)
        for beta in (1e-8, 1e-20):
            assert float(xp.js_divergence(*arrays, beta=beta)) == pytest.approx(exact_js(u, v, beta), rel=rtol)


@autodiff
def test_js_curvature_for_any_weights(fw: Framework) -> None:
    # d/dlog_p is beta p log(p / m), and d^2/dlog_p^2 is beta p (log(p / m) + 1 - beta p / m)
    a, b = log(0.2, 0.8), log(0.0, 1.0)
    for beta in (1e-10, 1e-20, 1e-40, 1e-200, 5e-324):
        first, second = first_and_second(fw, lambda x, y, beta=beta: xp.js_divergence(x, y, beta=beta), a, b)
        p, m = np.exp(a), beta * np.exp(a) + (1 - beta) * np.exp(b)
        assert np.isfinite(second).all()
        if beta * beta > 0:
            want = beta * p * (np.log(p) - np.asarray([math.log(beta) + a[0], math.log(m[1])]))
            slope = want + beta * p * (1 - beta * p / m)
            np.testing.assert_allclose(first, want, rtol=1e-10)
            np.testing.assert_allclose(second, 2 * want * slope, rtol=1e-9)


def test_js_is_within_its_bounds(fw: Framework) -> None:
    for dtype, eps in (("float32", 2.0**-23), ("float64", 2.0**-52)):
        for gap in (0.0, 1e-7, 1e-6, 1e-4, 1e-2):
            a = fw.array(np.log(np.random.default_rng(0).dirichlet(np.ones(3), size=500)), dtype)
            b = a + fw.array(gap * np.random.default_rng(1).standard_normal((500, 3)), dtype)
            assert (fw.numpy(xp.js_divergence(a, b, reduction="none")) >= 0).all(), gap
        rows = np.log(np.random.default_rng(0).dirichlet(np.ones(50), size=200))
        nothing = np.full_like(rows, -INF)
        a, b = np.concatenate([rows, nothing], axis=1), np.concatenate([nothing, rows], axis=1)
        terms = fw.numpy(xp.js_divergence(fw.array(a, dtype), fw.array(b, dtype), reduction="none"))
        np.testing.assert_allclose(terms, math.log(2), rtol=8 * eps)
