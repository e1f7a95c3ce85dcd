"""The divergence of Gaussians at its edges: close and extreme parameters, points, free bits."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, close, first_and_second

INF = math.inf
autodiff = pytest.mark.needs("autodiff")
NAMES = ("mean", "log_var", "mean_q", "log_var_q")
#: Parameters of P and Q. Each number can be held in float32.
POINTS = [
    (0.0, 0.0, 2.0**-13, 0.0),  # about 1e-4 apart
    (0.5, -3.0, 0.5, -3.0 + 2.0**-13),
    (0.5, 4.0, 0.5 + 2.0**-13, 4.0 - 2.0**-13),
    (1.0, 0.25, -2.0, 3.0),
    (-1.0, 80.0, 2.0, 80.0),
    (-1.0, 100.0, -1.0, 100.5),
    (0.25, -100.0, 0.25, -101.0),
    (0.25, -60.0, 0.5, 10.0),
    (3.0, -170.0, 3.0, -160.0),
    (1e15, 90.0, 0.0, 85.0),
]


def exact(mean: Any, log_var: Any, mean_q: Any, log_var_q: Any) -> Any:
    p, q = mpmath.exp(log_var), mpmath.exp(log_var_q)
    return (mpmath.log(q) - mpmath.log(p) + (p + (mean - mean_q) ** 2) / q - 1) / 2


def of_parameters(*values: Any) -> Any:
    mean, log_var, mean_q, log_var_q = values
    return xp.gaussian_kl(mean, log_var, mean_q=mean_q, log_var_q=log_var_q)


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values(fw: Framework, dtype: str, point: tuple[float, ...]) -> None:
    with mpmath.workdps(120):
        want = float(exact(*map(mpmath.mpf, point)))
    got = float(of_parameters(*(fw.array(np.asarray([x]), dtype) for x in point)))
    assert got == pytest.approx(want, rel=1e-4 if dtype == "float32" else 1e-9, abs=0)


@autodiff
@pytest.mark.parametrize("point", POINTS)
def test_gradients(fw: Framework, point: tuple[float, ...]) -> None:
    """First and second derivatives with respect to all four parameters."""
    arrays = [np.asarray([x]) for x in point]
    for i in range(4):
        got, second = first_and_second(fw, of_parameters, *arrays, wrt=i)
        with mpmath.workdps(120):
            order = [int(j == i) for j in range(4)]
            first = mpmath.diff(exact, tuple(map(mpmath.mpf, point)), tuple(order))
            twice = mpmath.diff(exact, tuple(map(mpmath.mpf, point)), tuple(2 * n for n in order))
        assert float(got[0]) == pytest.approx(float(first), rel=1e-9, abs=1e-12), NAMES[i]
        assert float(second[0]) == pytest.approx(float(2 * first * twice), rel=1e-9, abs=1e-12), NAMES[i]


def test_from_the_standard_normal(fw: Framework) -> None:
    """The obvious `exp(v) - 1 - v` is 3 times too large here."""
    got = float(xp.gaussian_kl(fw.array(np.zeros(1), "float32"), fw.array(np.full(1, 1e-4), "float32")))
    with mpmath.workdps(50):
        v = mpmath.mpf(float(np.float32(1e-4)))
        assert got == pytest.approx(float((mpmath.exp(v) - 1 - v) / 2), rel=1e-6, abs=0)


def test_equal_parameters(fw: Framework) -> None:
    for v in (-800.0, -100.0, 0.0, 3.0, 800.0):
        x = fw.array(np.asarray([1.5])), fw.array(np.asarray([v]))
        assert float(of_parameters(*x, *x)) == 0.0


def test_points(fw: Framework) -> None:
    """A log-variance of -inf."""
    mean, log_var = np.asarray([1.0, 1.0, 1.0, 1.0, 0.0]), np.asarray([-INF, -INF, 0.0, -INF, 0.0])
    mean_q, log_var_q = np.asarray([1.0, 2.0, 1.0, 1.0, 0.0]), np.asarray([-INF, -INF, -INF, 0.0, 0.0])
    options = {"mean_q": fw.array(mean_q), "log_var_q": fw.array(log_var_q)}
    got = xp.gaussian_kl(fw.array(mean), fw.array(log_var), reduction="none", **options)
    assert fw.numpy(got).tolist() == [0.0, INF, INF, INF, 0.0]


@autodiff
def test_gradients_at_points_are_not_nan(fw: Framework) -> None:
    arrays = [np.asarray(x) for x in ([1.0, 1.0, 1.0], [-INF, 0.0, -INF], [1.0, 1.0, 1.0], [-INF, -INF, 0.0])]
    for i in range(4):
        assert not np.isnan(first_and_second(fw, of_parameters, *arrays, wrt=i)).any(), NAMES[i]


def test_half_precision(fw: Framework) -> None:
    for dtype in (d for d in fw.dtypes if d in ("float16", "bfloat16")):
        mean, log_var = (fw.array(np.asarray(x), dtype) for x in ([0.5, 0.0], [12.0, -12.0]))
        close_to = fw.array(np.asarray([11.5, -12.5]), dtype)
        got = xp.gaussian_kl(mean, log_var, log_var_q=close_to, reduction="none")
        assert got.dtype == fw.dtype("float32")
        want = [float(exact(0.5, 12.0, 0.0, 11.5)), float(exact(0.0, -12.0, 0.0, -12.5))]
        close(fw, got, want, rtol=1e-5)


def test_a_number_and_an_array_for_q(fw: Framework) -> None:
    mean, log_var = np.asarray([[1.0, 2.0], [0.5, -1.0]]), np.asarray([[0.5, 0.0], [-0.5, 1.0]])
    arrays = fw.array(mean), fw.array(log_var)
    got = xp.gaussian_kl(*arrays, mean_q=1, log_var_q=fw.array(np.asarray([0.25, 0.0])))
    want = [exact(mean[i, j], log_var[i, j], 1, (0.25, 0)[j]) for i in (0, 1) for j in (0, 1)]
    assert float(got) == pytest.approx(float(sum(want)) / 4, rel=1e-12)
    with pytest.raises(ValueError, match=r"`mean_q` must broadcast to `mean`, got \(3,\) for \(2, 2\)\. Reshape it"):
        xp.gaussian_kl(*arrays, mean_q=fw.array(np.zeros(3)))
    with pytest.raises(ValueError, match=r"must have an axis of samples for `free_bits`, got shape \(\)\. Add one"):
        xp.gaussian_kl(fw.array(np.asarray(0.0)), fw.array(np.asarray(0.0)), free_bits=1.0)


@autodiff
def test_masked_parameters_of_q(fw: Framework) -> None:
    """They may be NaN where their term or their sample is masked, and have gradient 0 there."""
    mean = np.asarray([[1.0, 2.0], [3.0, 4.0]])
    mean_q, log_var_q = (fw.array(np.asarray([[0.0, 0.0], [math.nan, math.nan]])) for _ in range(2))
    for free_bits, want in ((0.0, [-1.0, -2.0]), (0.75, [0.0, -1.0])):

        def kl(q: Any, free_bits: float = free_bits) -> Any:
            zeros = fw.array(np.zeros_like(mean))
            where = fw.array(np.asarray([True, False] if free_bits else [[True], [False]]))
            options = {"mean_q": q, "log_var_q": log_var_q, "free_bits": free_bits}
            return xp.gaussian_kl(fw.array(mean), zeros, where=where, reduction="sum", **options)

        close(fw, kl(mean_q), 2.5 if free_bits == 0 else (0.75 + 2.0) / 2)
        np.testing.assert_allclose(fw.numpy(xp.grad(kl)(mean_q)), [want, [0.0, 0.0]], atol=1e-12)


def test_free_bits_are_of_each_latent(fw: Framework) -> None:
    """Of its mean over the samples: a sample below the floor counts if the mean is above."""
    mean = fw.array(np.asarray([[0.0, 1.0, 4.0], [2.0, 1.0, 0.0]]))
    zeros = fw.array(np.zeros((2, 3)))
    for reduction in ("sum", "mean", "none"):
        got = xp.gaussian_kl(mean, zeros, free_bits=0.75, reduction=reduction)
        assert tuple(got.shape) == () and float(got) == pytest.approx((1.0 + 0.75 + 4.0) / 3)
    got = xp.gaussian_kl(mean, zeros, free_bits=0.75, weights=fw.array(np.asarray([3.0, 1.0])))
    assert float(got) == pytest.approx((0.75 + 0.75 + 6.0) / 3)
    got = xp.gaussian_kl(mean, zeros, free_bits=0.75, where=fw.array(np.asarray([True, False])), normalizer=1 / 3)
    assert float(got) == pytest.approx(0.75 + 0.75 + 8.0)


def test_free_bits_of_zero_are_the_limit(fw: Framework) -> None:
    rng = np.random.default_rng(0)
    arrays = [fw.array(rng.standard_normal((5, 3))) for _ in range(2)]
    assert float(xp.gaussian_kl(*arrays, free_bits=1e-300)) == pytest.approx(float(xp.gaussian_kl(*arrays)), rel=1e-12)


@autodiff
def test_slope_of_free_bits(fw: Framework) -> None:
    """It is 0 up to the floor, the floor included."""
    mean = np.asarray([[1.0, 2.0, 0.5], [1.0, 2.0, 0.5]])
    log_var = np.zeros((2, 3))

    def kl(m: Any, v: Any) -> Any:
        return xp.gaussian_kl(m, v, free_bits=0.5)

    first, second = first_and_second(fw, kl, mean, log_var)
    np.testing.assert_allclose(first, [[0.0, 1 / 3, 0.0]] * 2, atol=1e-15)
    np.testing.assert_allclose(second, [[0.0, 1 / 9, 0.0]] * 2, atol=1e-15)


def test_free_bits_keep_nan_and_infinity(fw: Framework) -> None:
    zeros = np.zeros((2, 2))
    for value in (math.nan, INF):
        mean = np.asarray([[0.0, value], [0.0, 0.0]])
        got = float(xp.gaussian_kl(fw.array(mean), fw.array(zeros), free_bits=1.0))
        np.testing.assert_equal(got, value)
