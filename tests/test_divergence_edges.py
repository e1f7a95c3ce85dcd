"""Divergences in value, first and second gradient: probabilities of 0, logs of -inf, numbers huge or close."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest
from scipy.special import rel_entr

import xpenalties as xp
from harness import Framework, first_and_second

INF = math.inf
autodiff = pytest.mark.needs("autodiff")


def log(*p: float) -> np.ndarray:
    return np.asarray([math.log(x) if x > 0 else -INF for x in p])


P, Q = log(0.5, 0.5, 0.0, 0.0), log(0.25, 0.25, 0.5, 0.0)
p, q = np.exp(P), np.exp(Q)


@pytest.mark.smoke
def test_kl_of_masked_tokens(fw: Framework) -> None:
    assert float(xp.kl_divergence(fw.array(P), fw.array(Q))) == pytest.approx(rel_entr(p, q).sum())
    assert float(xp.kl_divergence(fw.array(P), fw.array(Q), direction="reverse")) == INF
    assert float(xp.kl_divergence(fw.array(P), fw.array(Q), direction="symmetric")) == INF
    assert float(xp.kl_divergence(fw.array(P), fw.array(P), direction="symmetric")) == 0.0
    assert float(xp.kl_divergence(fw.array(np.full(3, -INF)), fw.array(np.full(3, -INF)))) == 0.0


@autodiff
def test_kl_gradients_with_masked_tokens(fw: Framework) -> None:
    # d/dlog_p of p (log p - log q) is p (log p - log q + 1), and d/dlog_q is -p
    first, second = first_and_second(fw, xp.kl_divergence, P, Q)
    want = np.asarray([0.5 * (math.log(2) + 1)] * 2 + [0.0, 0.0])
    slope = np.asarray([0.5 * (math.log(2) + 2)] * 2 + [0.0, 0.0])  # of want, by log_p again
    np.testing.assert_allclose(first, want, rtol=1e-12)
    np.testing.assert_allclose(second, 2 * want * slope, rtol=1e-12)
    first, second = first_and_second(fw, xp.kl_divergence, P, Q, wrt=1)
    np.testing.assert_allclose(first, -p, rtol=1e-12)
    np.testing.assert_allclose(second, 0.0)


@autodiff
def test_kl_gradient_by_q_is_finite_where_the_value_is_not(fw: Framework) -> None:
    first, second = first_and_second(fw, xp.kl_divergence, Q, P, wrt=1)
    np.testing.assert_allclose(first, -q, rtol=1e-12)
    np.testing.assert_allclose(second, 0.0)


@autodiff
def test_kl_from_logits_with_masked_tokens(fw: Framework) -> None:
    z_p, z_q = np.asarray([1.0, -0.5, -INF]), np.asarray([0.3, 0.2, -INF])
    for direction in ("forward", "reverse", "symmetric"):
        for temperature in (1.0, 2.0):
            options = {"direction": direction, "temperature": temperature, "from_logits": True}

            def of(a: Any, b: Any, options: Any = options) -> Any:
                return xp.kl_divergence(a, b, **options)

            assert float(of(fw.array(z_p), fw.array(z_q))) == pytest.approx(
                float(of(fw.array(z_p[:2]), fw.array(z_q[:2]))), rel=1e-12
            )
            for wrt in (0, 1):
                whole = first_and_second(fw, of, z_p, z_q, wrt=wrt)
                part = first_and_second(fw, of, z_p[:2], z_q[:2], wrt=wrt)
                for got, want in zip(whole, part, strict=True):
                    np.testing.assert_allclose(got[:2], want, rtol=1e-9, atol=1e-14)
                    assert got[2] == 0


def test_js_of_disjoint_distributions(fw: Framework) -> None:
    a, b = fw.array(log(0.5, 0.5, 0.0, 0.0)), fw.array(log(0.0, 0.0, 0.25, 0.75))
    assert float(xp.js_divergence(a, b)) == pytest.approx(math.log(2), rel=1e-15)
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

        def of(a: Any, b: Any, beta: float = beta) -> Any:
            return xp.js_divergence(a, b, beta=beta)

        first, second = first_and_second(fw, of, P, Q)
        want = beta * p * np.log(np.where(p > 0, p, 1) / np.where(p > 0, m, 1))
        np.testing.assert_allclose(first, want, rtol=1e-10, atol=1e-15)
        slope = want + beta * p * (1 - beta * p / np.where(m > 0, m, 1))
        np.testing.assert_allclose(second, 2 * want * slope, rtol=1e-10, atol=1e-15)
        first, second = first_and_second(fw, of, P, Q, wrt=1)
        want = (1 - beta) * q * np.log(np.where(q > 0, q, 1) / np.where(q > 0, m, 1))
        np.testing.assert_allclose(first, want, rtol=1e-10, atol=1e-15)
        assert np.isfinite(second).all()


def test_js_of_close_distributions_does_not_cancel(fw: Framework) -> None:
    with mpmath.workdps(60):
        a = np.log(np.random.default_rng(0).dirichlet(np.ones(50)))
        for gap in (1e-3, 1e-6, 1e-9):
            b = a + gap * np.random.default_rng(1).standard_normal(50)
            want = mpmath.mpf(0)
            for u, v in zip(a, b, strict=True):
                x, y = mpmath.exp(mpmath.mpf(float(u))), mpmath.exp(mpmath.mpf(float(v)))
                m = (x + y) / 2
                want += (x * mpmath.log(x / m) + y * mpmath.log(y / m)) / 2
            got = float(xp.js_divergence(fw.array(a), fw.array(b)))
            assert abs(got - float(want)) < 1e-16 * gap * 50


def test_js_of_close_distributions_and_unequal_weights(fw: Framework) -> None:
    a = np.log(np.random.default_rng(0).dirichlet(np.ones(20)))
    b = a + 0.1 * np.random.default_rng(1).standard_normal(20)
    b -= np.log(np.exp(b).sum())
    for dtype, rtol in (("float32", 1e-3), ("float64", 1e-10)):
        given = fw.array(a, dtype), fw.array(b, dtype)
        u, v = (np.asarray(fw.numpy(x), dtype=np.float64) for x in given)
        for beta in (1e-6, 1e-3, 0.5, 1 - 1e-3):
            with mpmath.workdps(50):
                want = mpmath.mpf(0)
                for s, t in zip(u.tolist(), v.tolist(), strict=True):
                    x, y = mpmath.exp(s), mpmath.exp(t)
                    m = beta * x + (1 - mpmath.mpf(beta)) * y
                    want += beta * x * mpmath.log(x / m) + (1 - mpmath.mpf(beta)) * y * mpmath.log(y / m)
            assert float(xp.js_divergence(*given, beta=beta)) == pytest.approx(float(want), rel=rtol)


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
        np.testing.assert_allclose(first, want, rtol=1e-7, atol=1e-14)  # log p - log m cancels where m is near p
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
        given = fw.array(a, dtype), fw.array(b, dtype)
        u, v = (fw.numpy(x).tolist() for x in given)
        for beta in (1e-8, 1e-20):
            with mpmath.workdps(50):
                want = mpmath.mpf(0)
                for s, t in zip(u, v, strict=True):
                    x, y = mpmath.exp(s), mpmath.exp(t)
                    m = beta * x + (1 - mpmath.mpf(beta)) * y
                    want += beta * x * mpmath.log(x / m) + (1 - mpmath.mpf(beta)) * y * mpmath.log(y / m)
            assert float(xp.js_divergence(*given, beta=beta)) == pytest.approx(float(want), rel=rtol)


@autodiff
def test_js_curvature_for_any_weights(fw: Framework) -> None:
    # d/dlog_p is beta p log(p / m), and by log_p again beta p (log(p / m) + 1 - beta p / m)
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


def test_logits_of_any_offset(fw: Framework) -> None:
    """Softmax does not depend on an offset; no precision may either. 1/8 is exact in float32 up to 2^21."""
    z = np.round(8 * np.random.default_rng(0).standard_normal((2, 50, 10))) / 8
    for name, call in (
        ("kl", lambda a, b, **o: xp.kl_divergence(a, b, from_logits=True, **o)),
        ("js", lambda a, b, **o: xp.js_divergence(a, b, from_logits=True, **o)),
        ("entropy", lambda a, b, **o: xp.entropy(a, from_logits=True, **o)),
        ("topk", lambda a, b, **o: xp.topk_kl_divergence(a, b, tail="renormalize")),
    ):
        for temperature in (1.0, 0.25):
            want = float(call(fw.array(z[0]), fw.array(z[1]), temperature=temperature))
            for offset in (64.0, 65536.0):
                a, b = (fw.array(each + offset, "float32") for each in z)
                got = float(call(a, b, temperature=temperature))
                assert got == pytest.approx(want, rel=2e-6), (name, temperature, offset)


def test_kl_of_extreme_ratios_is_not_clipped(fw: Framework) -> None:
    a, b = np.asarray([0.0, -1000.0]), np.asarray([-1000.0, 0.0])
    assert float(xp.kl_divergence(fw.array(a), fw.array(b))) == pytest.approx(1000.0)
    small = np.asarray([math.log1p(-1e-12), math.log(1e-12)])
    want = float(mpmath.mpf(1e-12) * (mpmath.log(mpmath.mpf(1e-12)) + 50)) + (1 - 1e-12) * math.log1p(-1e-12)
    assert float(xp.kl_divergence(fw.array(small), fw.array(np.asarray([0.0, -50.0])))) == pytest.approx(want, rel=1e-9)


def test_no_exponential_overflows(fw: Framework) -> None:
    for dtype in ("float32", "float64"):
        far = fw.array(np.asarray([0.0, -200.0, -90.0]), dtype), fw.array(np.asarray([-200.0, 0.0, -800.0]), dtype)
        assert float(xp.js_divergence(*far)) == pytest.approx(math.log(2), rel=1e-6)
        huge = fw.array(np.asarray([1e4, 0.0, -1e4]), dtype)
        assert float(xp.entropy(huge, from_logits=True)) == 0.0
        assert float(xp.z_loss(huge)) == pytest.approx(1e8)
        assert float(xp.kl_divergence(huge, huge, from_logits=True)) == 0.0


@autodiff
def test_entropy_of_a_point_mass(fw: Framework) -> None:
    point = log(1.0, 0.0, 0.0)
    assert float(xp.entropy(fw.array(point))) == 0.0
    first, second = first_and_second(fw, xp.entropy, point)
    np.testing.assert_allclose(first, [-1.0, 0.0, 0.0])  # d/dlog_p of -p log p is -p (log p + 1)
    np.testing.assert_allclose(second, [4.0, 0.0, 0.0])


def test_entropy_of_one_class(fw: Framework) -> None:
    assert float(xp.entropy(fw.array(np.zeros((2, 1))), normalize=True)) == 0.0


@autodiff
def test_z_loss_with_masked_logits(fw: Framework) -> None:
    z = np.asarray([0.3, -INF, 1.0])
    whole = first_and_second(fw, xp.z_loss, z)
    part = first_and_second(fw, xp.z_loss, z[[0, 2]])
    for got, want in zip(whole, part, strict=True):
        np.testing.assert_allclose(got[[0, 2]], want, rtol=1e-12)
        assert got[1] == 0
    for row in ([-INF, -INF, -INF], [INF, 0.0, -INF]):
        assert float(xp.z_loss(fw.array(np.asarray(row)))) == INF


def test_top_k_that_covers_all_mass(fw: Framework) -> None:
    for dtype in ("float32", "float64"):
        for seed in range(20):
            rng = np.random.default_rng(seed)
            a, b = (np.log(rng.dirichlet(np.ones(7))) for _ in range(2))
            given = fw.array(a, dtype), fw.array(b, dtype)
            want = rel_entr(np.exp(a), np.exp(b)).sum()
            assert float(xp.topk_kl_divergence(*given)) == pytest.approx(
                want, rel=1e-5 if dtype == "float32" else 1e-12
            )


def test_top_k_that_covers_all_mass_less_a_logsumexp(fw: Framework) -> None:
    """`z - logsumexp(z)` rounds by as much as the logits are large, in what it is computed in."""
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
            assert float(xp.topk_kl_divergence(*rounded)) == pytest.approx((np.exp(a) * (a - b)).sum(), rel=1e-5)


def test_top_k_of_two_precisions(fw: Framework) -> None:
    for half in (d for d in fw.dtypes if d in ("float16", "bfloat16")):
        for seed in range(20):
            rng = np.random.default_rng(seed)
            p, q = (np.log(rng.dirichlet(np.ones(20))) for _ in range(2))
            for dtypes in ((half, "float32"), ("float32", half)):
                given = [fw.array(x, d) for x, d in zip((p, q), dtypes, strict=True)]
                a, b = (fw.numpy(x) for x in given)
                assert float(xp.topk_kl_divergence(*given)) == pytest.approx((np.exp(a) * (a - b)).sum(), rel=1e-5)


def test_top_k_counts_small_rests(fw: Framework) -> None:
    for dtype, rest in (("float32", 1e-5), ("float64", 1e-13)):
        a, b = log(1 - rest - 0.25, 0.25), log(0.5, 0.25)
        p, q = np.exp(a), np.exp(b)
        want = rel_entr(p, q).sum() + rel_entr(rest, 0.25)
        got = float(xp.topk_kl_divergence(fw.array(a, dtype), fw.array(b, dtype)))
        assert got == pytest.approx(want, rel=1e-6 if dtype == "float32" else 1e-14)
        assert abs(got - rel_entr(p, q).sum()) > 5 * rest


def test_top_k_takes_no_more_than_rounding_for_none(fw: Framework) -> None:
    for dtype, eps in (("float32", 2.0**-23), ("float64", 2.0**-52)):
        rest = 4 * eps * (1 + math.log(2))
        given = [fw.array(np.log(x), dtype) for x in ([0.75 - rest, 0.25], [0.5, 0.25])]
        a, b = (fw.numpy(x) for x in given)
        without = (np.exp(a) * (a - b)).sum()
        assert float(xp.topk_kl_divergence(*given)) < without - 5 * rest


@autodiff
def test_top_k_gradient_where_all_mass_is_covered(fw: Framework) -> None:
    rng = np.random.default_rng(0)
    a, b = (np.log(rng.dirichlet(np.ones(7))) for _ in range(2))
    for wrt in (0, 1):
        got = first_and_second(fw, xp.topk_kl_divergence, a, b, wrt=wrt)
        want = first_and_second(fw, xp.kl_divergence, a, b, wrt=wrt)
        for x, y in zip(got, want, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-9)


def test_top_k_without_a_rest_in_q(fw: Framework) -> None:
    a, b = fw.array(log(0.5, 0.25)), fw.array(log(0.5, 0.5))
    assert float(xp.topk_kl_divergence(a, b)) == INF
    assert math.isfinite(float(xp.topk_kl_divergence(a, b, tail="renormalize")))


@autodiff
def test_top_k_gradients(fw: Framework) -> None:
    a, b = log(0.5, 0.25, 0.0), log(0.25, 0.5, 0.0)
    first, second = first_and_second(fw, xp.topk_kl_divergence, a, b, wrt=1)
    # -p_i, and the rest (1 - sum q) = 1/4 of both moves by q_i: + p_rest / q_rest * q_i
    np.testing.assert_allclose(first, [-0.5 + 0.25, -0.25 + 0.5, 0.0], atol=1e-14)
    assert np.isfinite(second).all()
    whole = log(0.5, 0.5, 0.0)
    first, second = first_and_second(fw, xp.topk_kl_divergence, whole, log(0.25, 0.5, 0.0))
    np.testing.assert_allclose(first, [0.5 * (math.log(2) + 1), 0.5, 0.0], atol=1e-12)
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
        got = float(xp.sampled_kl(fw.array(np.asarray([0.0])), fw.array(np.asarray([r]))))
        with mpmath.workdps(40):
            want = float(mpmath.expm1(r) - mpmath.mpf(r))
        assert abs(got - want) < 4e-16 * abs(r)


@autodiff
def test_sampled_kl_with_the_gradient_of_k2(fw: Framework) -> None:
    a, b = np.asarray([-1.0, -0.2, -INF]), np.asarray([-1.5, -0.9, -INF])
    for wrt in (0, 1):
        want = first_and_second(fw, lambda x, y: xp.sampled_kl(x, y, estimator="k2"), a, b, wrt=wrt)
        for estimator in ("k1", "k2", "k3"):

            def of(x: Any, y: Any, estimator: str = estimator) -> Any:
                return xp.sampled_kl(x, y, estimator=estimator, gradient="k2")

            got = first_and_second(fw, of, a, b, wrt=wrt)
            for x, y in zip(got, want, strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-13)
                assert x[2] == 0


@autodiff
def test_sampled_kl_with_the_gradient_of_k2_of_impossible_tokens(fw: Framework) -> None:
    for a, b in ((-1.0, -INF), (-INF, -1.0)):
        given = fw.array(np.asarray([a])), fw.array(np.asarray([b]))
        want = fw.numpy(xp.grad(lambda x, y: xp.sampled_kl(x, y, estimator="k2"))(*given))
        assert np.isinf(want).all()
        for estimator in ("k2", "k3", *(["k1"] if a > b else [])):  # k1 is -inf where a token that P lacks was drawn

            def of(x: Any, y: Any, estimator: str = estimator) -> Any:
                return xp.sampled_kl(x, y, estimator=estimator, gradient="k2")

            assert float(of(*given)) == INF
            assert fw.numpy(xp.grad(of)(*given)).tolist() == want.tolist()
    given = fw.array(np.asarray([-INF])), fw.array(np.asarray([-1.0]))
    assert float(xp.sampled_kl(*given, estimator="k1", gradient="k2")) == -INF
    assert float(xp.grad(lambda x, y: xp.sampled_kl(x, y, estimator="k1", gradient="k2"))(*given)[0]) == 0.0


def test_numpy_may_be_told_to_raise(fw: Framework) -> None:
    if fw.name != "numpy":
        pytest.skip("is about NumPy's floating-point errors")
    with np.errstate(all="raise"):
        for x, y in ((P, Q), (log(1.0, 0.0), log(0.0, 1.0)), (np.asarray([0.0, -800.0]), np.asarray([-800.0, 0.0]))):
            for fn in (xp.kl_divergence, xp.js_divergence, xp.sampled_kl, xp.topk_kl_divergence):
                assert not math.isnan(fn(x, y))
            assert xp.z_loss(x) >= 0 and xp.entropy(x) >= 0
