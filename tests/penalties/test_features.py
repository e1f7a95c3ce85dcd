"""Variance and correlations of features that are constant, nearly constant, duplicated or far from 0."""

from __future__ import annotations

import math

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, first_and_second

autodiff = pytest.mark.needs("autodiff")
X = np.random.default_rng(0).standard_normal((6, 3))


def value(fw: Framework, fn: object, *arrays: np.ndarray, dtype: str = "float64", **options: object) -> float:
    return float(fn(*[fw.array(x, dtype) for x in arrays], **options))  # type: ignore[operator]


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e6 + 0.1, 1e-30])
def test_collapsed_features_are_penalized_in_full(fw: Framework, constant: float) -> None:
    x = np.full((5, 4), constant)
    for dtype in ("float64", "float32"):
        assert value(fw, xp.variance, x, dtype=dtype) == pytest.approx(1.0, abs=1e-7)
        assert value(fw, xp.variance, x, dtype=dtype, target=3.0) == pytest.approx(3.0, abs=1e-7)
        assert value(fw, xp.cross_correlation, x, x, dtype=dtype) == 4.0
        assert value(fw, xp.cross_correlation, x, X[:5, :1] + 0 * x, dtype=dtype) == pytest.approx(4.0, rel=1e-6)


@autodiff
def test_slopes_of_collapsed_features(fw: Framework) -> None:
    for x in (np.zeros((5, 3)), np.full((5, 3), 0.1)):
        first, second = first_and_second(fw, xp.variance, x)
        np.testing.assert_allclose(first, 0.0, atol=1e-14)
        assert np.isfinite(second).all()
        for other in (x, X[:5]):
            first, second = first_and_second(fw, xp.cross_correlation, x, other)
            assert (first == 0).all() and np.isfinite(second).all()
            first, second = first_and_second(fw, xp.cross_correlation, x, other, wrt=1)
            np.testing.assert_allclose(first, 0.0, atol=1e-15)
            assert np.isfinite(second).all()


def test_small_deviations_are_not_overestimated(fw: Framework) -> None:
    for size in (1e-3, 1e-6, 1e-25):  # the squares of the last are 0 in float32
        x = size * X / X.std(axis=0, ddof=1)
        assert value(fw, xp.variance, x, dtype="float32", target=2 * size) == pytest.approx(size, rel=1e-5)


@autodiff
def test_slope_of_small_deviations(fw: Framework) -> None:
    """An eps of 1e-4 under the root would make it 10 times too small."""
    x = 1e-3 * X
    first, _ = first_and_second(fw, xp.variance, x)
    deviations = x.std(axis=0, ddof=1)
    np.testing.assert_allclose(first, -(x - x.mean(axis=0)) / (deviations * 5 * 3), rtol=1e-9)


@autodiff
def test_the_corner_of_variance(fw: Framework) -> None:
    x = np.asarray([[0.0], [2.0**0.5]])
    target = float(np.std(x, ddof=1))
    for beyond in (target, 0.5 * target):
        first, second = first_and_second(fw, lambda x, t=beyond: xp.variance(x, target=t), x)
        np.testing.assert_allclose(first, 0.0, atol=1e-15)
        assert np.isfinite(second).all()
    assert value(fw, xp.variance, x, target=target) == pytest.approx(0.0, abs=1e-15)


def test_large_numbers_and_offsets(fw: Framework) -> None:
    assert value(fw, xp.variance, 1e25 * X, dtype="float32") == 0.0
    want = value(fw, xp.cross_correlation, X, X[:, ::-1].copy())
    for scale, offset in ((1e25, 0.0), (1e-25, 0.0), (1.0, 100.0)):
        x = scale * X + offset
        got = value(fw, xp.cross_correlation, x, X[:, ::-1].copy(), dtype="float32")
        assert got == pytest.approx(want, rel=1e-4)


@autodiff
def test_views_that_agree_keep_their_digits(fw: Framework) -> None:
    noise = 1e-4 * np.random.default_rng(1).standard_normal(X.shape)
    a, b = X.astype(np.float32), (X + noise).astype(np.float32)
    want = value(fw, xp.cross_correlation, a, b, off_diagonal=0.0)
    assert value(fw, xp.cross_correlation, a, b, dtype="float32", off_diagonal=0.0) == pytest.approx(want, rel=1e-2)
    assert 0 < want < 1e-14
    same, _ = first_and_second(fw, lambda a, b: xp.cross_correlation(a, b, off_diagonal=0.0), X, 2 * X + 1)
    np.testing.assert_allclose(same, 0.0, atol=1e-14)


def test_both_matrices_give_the_same(fw: Framework) -> None:
    """For more features than samples, the n x n matrix replaces the d x d one."""
    wide = np.random.default_rng(2).standard_normal((3, 5))
    other = wide[:, ::-1].copy()
    twice = np.concatenate([wide, wide]), np.concatenate([other, other])  # the same correlations, from 6 samples
    want = value(fw, xp.cross_correlation, *twice, off_diagonal=1.0)
    assert value(fw, xp.cross_correlation, wide, other, off_diagonal=1.0) == pytest.approx(want)


def test_one_sample(fw: Framework) -> None:
    one = fw.array(np.arange(6) == 2)
    assert value(fw, xp.variance, X, where=one) == 0.0
    assert value(fw, xp.cross_correlation, X, X, where=one) == 0.0
    for shape in ((3,), (1, 3), (2, 3, 4)):
        x = fw.array(np.ones(shape))
        hint = "A single sample has no" if len(shape) == 2 else "Reshape it to two axes"
        with pytest.raises(ValueError, match=rf"^variance: `x` must have shape \(n, d\) with n >= 2, got .*\. {hint}"):
            xp.variance(x)
        with pytest.raises(ValueError, match=rf"^cross_correlation: `a` must have shape \(n, d\) .*\. {hint}"):
            xp.cross_correlation(x, x)


@autodiff
def test_slopes_of_one_sample(fw: Framework) -> None:
    one = fw.array(np.arange(6) == 2)
    for fn in (lambda x: xp.variance(x, where=one), lambda x: xp.cross_correlation(x, x, where=one)):
        first, second = first_and_second(fw, fn, X)
        assert (first == 0).all() and (second == 0).all()


@autodiff
def test_weights_that_start_at_0(fw: Framework) -> None:
    """Their slope is the limit from weights above 0."""
    weights = np.asarray([1.0, 0.0, 0.5, 2.0, 1.0, 0.0])
    other = X[:, ::-1].copy()
    for fn in (
        lambda w: xp.variance(fw.array(X), weights=w, target=3.0),
        lambda w: xp.cross_correlation(fw.array(X), fw.array(other), weights=w),
    ):
        at, near = (fw.numpy(xp.grad(fn)(fw.array(w))) for w in (weights, weights + 1e-9 * (weights == 0)))
        assert (np.abs(at[[1, 5]]) > 1e-6).all()
        np.testing.assert_allclose(at, near, atol=1e-7)


def test_half_precision(fw: Framework) -> None:
    x = np.tile(X, (500, 1))
    for dtype in {"float16", "bfloat16"} & set(fw.dtypes):
        got = xp.variance(fw.array(0.1 * x, dtype))
        assert got.dtype == fw.dtype("float32")
        assert float(got) == pytest.approx(value(fw, xp.variance, 0.1 * x), rel=1e-2)
        got = xp.cross_correlation(*[fw.array(x, dtype)] * 2)
        assert float(got) == pytest.approx(value(fw, xp.cross_correlation, x, x), rel=5e-2)


def test_nan_is_not_hidden(fw: Framework) -> None:
    bad = X.copy()
    bad[1, 0] = math.nan
    assert math.isnan(value(fw, xp.variance, bad))
    assert math.isnan(value(fw, xp.cross_correlation, bad, X)) and math.isnan(value(fw, xp.cross_correlation, X, bad))
