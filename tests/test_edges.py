"""Value, first and second gradient where probabilities are 0, logs are -inf, or numbers huge or close."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
from scipy.special import rel_entr

import xpenalties as xp
from harness import Framework

INF = math.inf
autodiff = pytest.mark.needs("autodiff")


@pytest.fixture(autouse=True)
def _dask_computes_later(fw: Framework, recwarn: pytest.WarningsRecorder) -> Any:
    """Dask's NumPy warns of the -inf - -inf that is masked afterwards; every other backend is silent."""
    if fw.name != "dask":
        return
    import warnings

    warnings.filterwarnings("ignore", "invalid value encountered", RuntimeWarning)


def log(*p: float) -> np.ndarray:
    return np.asarray([math.log(x) if x > 0 else -INF for x in p])


def first_and_second(
    fw: Framework, fn: Callable[..., Any], *arrays: np.ndarray, wrt: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient, and the gradient of the sum of its squares: a pass through every second derivative."""
    given = [fw.array(x) for x in arrays]
    x = given.pop(wrt)

    def of(x: Any) -> Any:
        return fn(*given[:wrt], x, *given[wrt:])

    gradient = xp.grad(of)
    second = xp.grad(lambda x: xp.namespace(x).sum(gradient(x) ** 2))
    return fw.numpy(gradient(x)), fw.numpy(second(x))


P, Q = log(0.5, 0.5, 0.0, 0.0), log(0.25, 0.25, 0.5, 0.0)
p, q = np.exp(P), np.exp(Q)


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
    assert float(xp.z_loss(fw.array(np.full(3, -INF)))) == INF


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


def test_counts_do_not_stop_at_2_to_the_24(fw: Framework) -> None:
    if fw.name not in ("numpy", "torch"):
        pytest.skip("33 million terms are only worth it where they are fast")
    n = 2**25 + 2**10
    where = fw.array(np.ones(n, dtype=bool))
    assert float(xp.l1(fw.array(np.ones(n, dtype=np.float32), "float32"), where=where, reduction="mean")) == 1.0


def test_half_precision_is_summed_in_float32(fw: Framework) -> None:
    for dtype in (d for d in fw.dtypes if d in ("float16", "bfloat16")):
        x = fw.array(np.full((200, 500), 2.0), dtype)
        got = xp.l2(x)  # 400000 is beyond float16 and the resolution of bfloat16
        assert float(got) == 400000.0 and got.dtype == fw.dtype("float32")
        weights = fw.array(np.ones((200, 500)), dtype)
        assert float(xp.l1(x, weights=weights, reduction="mean")) == 2.0


@autodiff
def test_spectral_gradient_at_multiple_eigenvalues(fw: Framework) -> None:
    # X = 2 I: every eigenvalue of G is 4, and (4 - 1)^2 falls along one eigenvector by 2 * 3 * d(lambda)
    for x in (2.0 * np.eye(3), 2.0 * np.eye(3, 5), 2.0 * np.eye(5, 3)):
        first, second = first_and_second(fw, lambda x: xp.orthogonality(x, mode="spectral", normalize=False), x)
        assert np.isfinite(first).all() and np.isfinite(second).all()
        assert np.linalg.norm(first) == pytest.approx(2 * 3 * 2 * 2.0)
    first, second = first_and_second(fw, lambda x: xp.orthogonality(x, mode="spectral"), np.eye(3))
    np.testing.assert_allclose(first, 0.0, atol=1e-15)
    assert np.isfinite(second).all()


def test_orthonormal_rows_and_columns(fw: Framework) -> None:
    if fw.name == "dask":
        pytest.skip("dask has no eigh")
    square, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))
    for mode in ("soft", "hard", "spectral"):
        for rows in (square, square[:4]):
            got = xp.orthogonality(fw.array(rows), mode=mode, normalize=False)
            assert abs(float(got)) < 1e-24 * 1e10
        tall = square[:, :4]  # six rows in four dimensions cannot be orthonormal: G = P, rank 4
        got = float(xp.orthogonality(fw.array(tall), mode=mode, normalize=False))
        gram = tall @ tall.T
        want = {
            "soft": np.sum((gram - np.diag(np.diag(gram))) ** 2),
            "hard": 2.0,
            "spectral": 1.0,
        }[mode]
        assert got == pytest.approx(want)


@autodiff
def test_zero_rows(fw: Framework) -> None:
    x = np.asarray([[1.0, 2.0, 0.5], [0.0, 0.0, 0.0], [0.3, -1.0, 2.0]])
    for mode in ("soft", "hard", "spectral"):
        first, second = first_and_second(fw, lambda x, mode=mode: xp.orthogonality(x, mode=mode), x)
        assert (first[1] == 0).all() and np.isfinite(first).all() and np.isfinite(second).all()
    first, second = first_and_second(fw, lambda a, b: xp.consistency(a, b, metric="cosine"), x, x + 1.0)
    assert (first[1] == 0).all() and np.isfinite(first).all() and np.isfinite(second).all()
    assert float(
        xp.consistency(fw.array(np.zeros((1, 2))), fw.array(np.ones((1, 2))), metric="cosine")
    ) == pytest.approx(1.0, rel=1e-15)


def test_nan_is_not_hidden(fw: Framework) -> None:
    bad = np.asarray([[0.0, math.nan, 1.0], [0.0, 1.0, 2.0]])
    for fn in (xp.l1, xp.l2, xp.elastic_net, xp.huber, xp.group_lasso, xp.entropy, xp.z_loss, xp.output_magnitude):
        assert math.isnan(float(fn(fw.array(bad)))), fn.__name__
    for fn in (xp.kl_divergence, xp.js_divergence, xp.topk_kl_divergence, xp.sampled_kl, xp.consistency):
        assert math.isnan(float(fn(fw.array(bad), fw.array(np.zeros((2, 3)))))), fn.__name__
        assert math.isnan(float(fn(fw.array(np.zeros((2, 3))), fw.array(bad)))), fn.__name__
    assert math.isnan(float(xp.orthogonality(fw.array(bad))))
    assert math.isnan(float(xp.covariance(fw.array(bad))))


@pytest.mark.needs("autodiff")
def test_jax_abs_still_needs_pinning(fw: Framework) -> None:
    if fw.name != "jax":
        pytest.skip("is about JAX's own abs")
    jax = fw.module
    assert float(jax.grad(jax.numpy.abs)(0.0)) == 1.0, "JAX gives slope 0 now: drop the where in _numerics.abs_"
