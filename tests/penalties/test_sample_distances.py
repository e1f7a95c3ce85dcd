"""MMD and Gram distances of equal, close, duplicated and extreme samples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

import xpenalties as xp
from tests.helpers.harness import Framework, first_and_second

autodiff = pytest.mark.needs("autodiff")
RNG = np.random.default_rng(0)
A, B = RNG.standard_normal((8, 3)), RNG.standard_normal((8, 3)) + 0.5
ROTATION, _ = np.linalg.qr(RNG.standard_normal((3, 3)))


def value(fw: Framework, fn: Any, a: np.ndarray, b: np.ndarray, dtype: str = "float64", **options: Any) -> float:
    return float(fn(fw.array(a, dtype), fw.array(b, dtype), **options))


def test_energy_distance_in_one_dimension(fw: Framework) -> None:
    for scale in (1.0, 1e-20, 1e20):
        a, b = scale * A[:, :1], scale * B[:, :1]
        want = stats.energy_distance(a[:, 0], b[:, 0]) ** 2
        assert value(fw, xp.mmd, a, b, kernel="energy") == pytest.approx(want)
    assert value(fw, xp.mmd, 1e25 * A, 1e25 * B, "float32", kernel="energy") == pytest.approx(
        1e25 * value(fw, xp.mmd, A, B, kernel="energy"), rel=1e-4
    )


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
def test_the_default_bandwidth(fw: Framework, kernel: str) -> None:
    squares = ((A[:, None] - B) ** 2).sum(axis=-1)
    want = value(fw, xp.mmd, A, B, kernel=kernel, bandwidths=math.sqrt(squares.mean()))
    for scale in (1.0, 1e-25, 1e25):  # it follows the scale of the samples
        for dtype in ("float64", "float32"):
            assert value(fw, xp.mmd, scale * A, scale * B, dtype, kernel=kernel) == pytest.approx(want, rel=1e-5)
    where = np.arange(8) < 5
    want = value(fw, xp.mmd, A[:5], B[:5], kernel=kernel)
    assert value(fw, xp.mmd, A, B, kernel=kernel, where=fw.array(where)) == pytest.approx(want)


@autodiff
def test_the_default_bandwidth_is_a_constant(fw: Framework) -> None:
    width = math.sqrt(((A[:, None] - B) ** 2).sum(axis=-1).mean())
    got, _ = first_and_second(fw, xp.mmd, A, B)
    want, _ = first_and_second(fw, lambda a, b: xp.mmd(a, b, bandwidths=width), A, B)
    np.testing.assert_allclose(got, want, rtol=1e-9)


def test_several_bandwidths_are_averaged(fw: Framework) -> None:
    each = [value(fw, xp.mmd, A, B, bandwidths=s) for s in (0.5, 1, 4.0)]
    assert value(fw, xp.mmd, A, B, bandwidths=(0.5, 1, 4.0)) == pytest.approx(np.mean(each))
    assert value(fw, xp.mmd, A, B, bandwidths=[0.5, 4.0]) == pytest.approx((each[0] + each[2]) / 2)


def test_bounds_of_mmd(fw: Framework) -> None:
    far = A + 1e6
    for kernel in ("rbf", "imq"):
        assert value(fw, xp.mmd, A, A, kernel=kernel) == pytest.approx(0.0, abs=1e-15)
        one, other = np.zeros((4, 2)), np.full((4, 2), 1e30)
        for dtype in ("float64", "float32"):
            assert value(fw, xp.mmd, one, other, dtype, kernel=kernel, bandwidths=1.0) == pytest.approx(2.0)
            assert value(fw, xp.mmd, one, one, dtype, kernel=kernel) == 0.0
    assert value(fw, xp.mmd, A, far, bandwidths=1.0) == pytest.approx(
        np.exp(-(((A[:, None] - A) ** 2).sum(axis=-1)) / 2).mean() * 2, rel=1e-6
    )
    assert value(fw, xp.mmd, A[:1], A[:1] + 1, kernel="energy") == pytest.approx(2 * math.sqrt(3))
    assert value(fw, xp.mmd, A, A, kernel="energy", unbiased=True) < 0


@autodiff
@pytest.mark.parametrize("kernel", ["rbf", "imq", "energy"])
def test_slopes_of_equal_samples(fw: Framework, kernel: str) -> None:
    duplicates = np.concatenate([A[:3], A[:2]])
    for a, b in ((A, A), (duplicates, A[:5]), (np.zeros((3, 2)), np.zeros((3, 2))), (A, A + 1e30)):
        for unbiased in (False, True):
            fn = lambda a, b, u=unbiased: xp.mmd(a, b, kernel=kernel, unbiased=u)  # noqa: E731
            first, second = first_and_second(fw, fn, a, b)
            assert np.isfinite(first).all() and np.isfinite(second).all()
    first, _ = first_and_second(fw, lambda a, b: xp.mmd(a, b, kernel=kernel), A, A)
    np.testing.assert_allclose(first, 0.0, atol=1e-15)


def test_one_sample_of_mmd(fw: Framework) -> None:
    one = fw.array(np.arange(8) == 3)
    assert value(fw, xp.mmd, A, B, unbiased=True, where=one) == 0.0
    want = value(fw, xp.mmd, A[3:4], B[3:4], bandwidths=1.0)
    assert value(fw, xp.mmd, A, B, bandwidths=1.0, where=one) == pytest.approx(want)
    with pytest.raises(ValueError, match=r"^mmd: `a` must have at least 2 samples with unbiased=True, got 1"):
        value(fw, xp.mmd, A[:1], B[:1], unbiased=True)


def test_refused_shapes(fw: Framework) -> None:
    for fn in (xp.mmd, xp.gram_distance):
        x = fw.array(np.ones((2, 3, 4)))
        with pytest.raises(
            ValueError, match=rf"^{fn.__name__}: `a` must have shape \(n, d\), got \(2, 3, 4\)\. Reshape"
        ):
            fn(x, x)


@pytest.mark.parametrize("normalize", ["rows", "gram", "none"])
def test_invariances_of_gram_distance(fw: Framework, normalize: str) -> None:
    for centered in (False, True):
        options = {"normalize": normalize, "centered": centered}
        want = value(fw, xp.gram_distance, A, B, **options)
        assert value(fw, xp.gram_distance, A @ ROTATION, B, **options) == pytest.approx(want)
        assert value(fw, xp.gram_distance, A, A @ ROTATION, **options) == pytest.approx(0.0, abs=1e-14)
        if normalize != "none":
            assert value(fw, xp.gram_distance, 3 * A, B / 7, **options) == pytest.approx(want)
        if centered:
            assert value(fw, xp.gram_distance, A + 4, B - 2, **options) == pytest.approx(want)


@pytest.mark.parametrize("shape", [(20, 4), (4, 20)])
@pytest.mark.parametrize("normalize", ["rows", "gram", "none"])
def test_close_representations_keep_their_digits(fw: Framework, shape: tuple[int, int], normalize: str) -> None:
    """The three traces of the d x d form would cancel."""
    rng = np.random.default_rng(1)
    a = rng.standard_normal(shape).astype(np.float32)
    b = (a + 1e-4 * rng.standard_normal(shape)).astype(np.float32)
    options = {"normalize": normalize}
    want = value(fw, xp.gram_distance, a, b, **options)
    assert 0 < want < 1e-5
    assert value(fw, xp.gram_distance, a, b, "float32", **options) == pytest.approx(want, rel=2e-2)
    assert value(fw, xp.gram_distance, a, a, "float32", **options) == 0.0


def test_cka_of_constant_features(fw: Framework) -> None:
    constant = np.full((8, 3), 0.1)
    for dtype in ("float64", "float32"):
        assert value(fw, xp.gram_distance, constant, A, dtype, normalize="gram", centered=True) == pytest.approx(1.0)
        assert value(fw, xp.gram_distance, constant, constant, dtype, normalize="gram", centered=True) == 1.0
        for scale in (1e25, 1e-25):
            got = value(fw, xp.gram_distance, scale * A, B, dtype, normalize="gram", centered=True)
            assert got == pytest.approx(value(fw, xp.gram_distance, A, B, normalize="gram", centered=True), rel=1e-5)


@autodiff
@pytest.mark.parametrize("normalize", ["rows", "gram", "none"])
def test_slopes_at_zeros_and_constants(fw: Framework, normalize: str) -> None:
    zero_row = np.concatenate([A[:3], np.zeros((1, 3))])
    for a, b in ((np.zeros((4, 3)), A[:4]), (np.full((4, 3), 0.1), A[:4]), (zero_row, A[:4]), (A[:2], A[:2])):
        for centered in (False, True):
            fn = lambda a, b, c=centered: xp.gram_distance(a, b, normalize=normalize, centered=c)  # noqa: E731
            for wrt in (0, 1):
                first, second = first_and_second(fw, fn, a, b, wrt=wrt)
                assert np.isfinite(first).all() and np.isfinite(second).all()
    first, _ = first_and_second(
        fw, lambda a, b: xp.gram_distance(a, b, normalize="gram", centered=True), np.full((8, 3), 0.1), A
    )
    assert (first == 0).all()


@autodiff
def test_weights_that_start_at_0(fw: Framework) -> None:
    """Their slope is the limit from weights above 0."""
    weights = np.asarray([1.0, 0.0, 0.5, 2.0, 1.0, 0.0, 1.0, 1.0])
    for fn in (
        lambda w: xp.mmd(fw.array(A), fw.array(B), weights=w, bandwidths=1.0),
        lambda w: xp.gram_distance(fw.array(A), fw.array(B), weights=w),
        lambda w: xp.gram_distance(fw.array(A), fw.array(B), weights=w, normalize="gram", centered=True),
    ):
        at, near = (fw.numpy(xp.grad(fn)(fw.array(w))) for w in (weights, weights + 1e-9 * (weights == 0)))
        assert (np.abs(at[[1, 5]]) > 1e-6).all()
        np.testing.assert_allclose(at, near, atol=1e-7)


def test_half_precision(fw: Framework) -> None:
    for dtype in {"float16", "bfloat16"} & set(fw.dtypes):
        for fn in (xp.mmd, xp.gram_distance):
            got = fn(fw.array(A, dtype), fw.array(B, dtype))
            assert got.dtype == fw.dtype("float32")
            assert float(got) == pytest.approx(value(fw, fn, A, B), rel=5e-2)


def test_nan_is_not_hidden(fw: Framework) -> None:
    bad = A.copy()
    bad[1, 0] = math.nan
    for kernel in ("rbf", "imq", "energy"):
        assert math.isnan(value(fw, xp.mmd, bad, B, kernel=kernel))
        assert math.isnan(value(fw, xp.mmd, A, bad, kernel=kernel))
    for normalize in ("rows", "gram", "none"):
        assert math.isnan(value(fw, xp.gram_distance, bad, B, normalize=normalize))
        assert math.isnan(value(fw, xp.gram_distance, A, bad, normalize=normalize))
