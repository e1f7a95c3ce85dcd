"""CORAL of close, shifted, constant and single samples."""

from __future__ import annotations

import math
from typing import Any

import mpmath as mp
import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, first_and_second

autodiff = pytest.mark.needs("autodiff")
RNG = np.random.default_rng(0)
SHAPES = [(8, 3), (3, 8)]


def samples(shape: tuple[int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape), rng.standard_normal(shape) + 0.5


def value(fw: Framework, a: Any, b: Any, dtype: str = "float64", **options: Any) -> float:
    return float(xp.coral(fw.array(np.asarray(a), dtype), fw.array(np.asarray(b), dtype), **options))


def exact(a: np.ndarray, b: np.ndarray) -> float:
    """In 40 digits, from the definition."""
    with mp.workdps(40):
        n, d = a.shape
        covariances = []
        for x in (a, b):
            columns = [[mp.mpf(float(v)) for v in column] for column in x.T]
            centered = [[v - mp.fsum(column) / n for v in column] for column in columns]
            covariances.append([[mp.fdot(u, v) / (n - 1) for v in centered] for u in centered])
        of_a, of_b = covariances
        return float(mp.fsum((of_a[i][j] - of_b[i][j]) ** 2 for i in range(d) for j in range(d)) / (4 * d**2))


@pytest.mark.parametrize("shape", SHAPES)
def test_what_it_ignores(fw: Framework, shape: tuple[int, int]) -> None:
    a, b = samples(shape)
    want = value(fw, a, b)
    assert want == pytest.approx(exact(a, b), rel=1e-12)
    assert value(fw, a + 4, b - np.arange(shape[1])) == pytest.approx(want)
    assert value(fw, a[::-1], b) == pytest.approx(want)
    rotation, _ = np.linalg.qr(RNG.standard_normal((shape[1], shape[1])))
    assert value(fw, a @ rotation, b @ rotation) == pytest.approx(want)
    assert value(fw, a, 3 - a) == pytest.approx(0.0, abs=1e-30)
    assert value(fw, 3 * a, 3 * b) == pytest.approx(81 * want)


@pytest.mark.parametrize("shape", [(20, 4), (4, 20)])
def test_close_samples_keep_their_digits(fw: Framework, shape: tuple[int, int]) -> None:
    """A difference of two covariances in float32 would have none left."""
    rng = np.random.default_rng(1)
    a = (1 + rng.standard_normal(shape)).astype(np.float32)
    b = (a + 1e-5 * rng.standard_normal(shape)).astype(np.float32)
    want = exact(a, b)
    assert 0 < want < 1e-10
    assert value(fw, a, b, "float32") == pytest.approx(want, rel=1e-4)
    assert value(fw, a, a, "float32") == 0.0
    assert value(fw, a, a - 4 * np.ones(shape[1]), "float64") == pytest.approx(0.0, abs=1e-30)


@pytest.mark.parametrize("shape", SHAPES)
def test_constant_samples(fw: Framework, shape: tuple[int, int]) -> None:
    a, _ = samples(shape)
    constant = np.full(shape, 0.1)
    for dtype in ("float64", "float32"):
        assert value(fw, constant, 3 * constant, dtype) == 0.0
        want = np.sum(np.cov(a, rowvar=False) ** 2) / (4 * shape[1] ** 2)
        assert value(fw, a, constant, dtype) == pytest.approx(want, rel=1e-5)


def test_one_sample(fw: Framework) -> None:
    a, b = samples((4, 3))
    with pytest.raises(ValueError, match=r"^coral: `a` must have shape \(n, d\) with n >= 2, got \(1, 3\)\. A single"):
        value(fw, a[:1], b[:1])
    with pytest.raises(ValueError, match=r"^coral: `a` must have shape \(n, d\) with n >= 2, got \(4,\)\. Reshape it"):
        value(fw, a[:, 0], b[:, 0])
    one = np.arange(4) == 2
    assert value(fw, a, b, where=fw.array(one)) == 0.0
    assert value(fw, a, b, weights=fw.array(np.where(one, 0.3, 0.0))) == 0.0
    two = one | (np.arange(4) == 0)
    want = exact(a[two], b[two])
    assert value(fw, a, b, where=fw.array(two)) == pytest.approx(want)
    assert value(fw, a, b, weights=fw.array(5.0 * two)) == pytest.approx(want)


@autodiff
@pytest.mark.parametrize("shape", SHAPES)
def test_one_sample_has_the_slope_0(fw: Framework, shape: tuple[int, int]) -> None:
    a, b = samples(shape)
    where = fw.array(np.arange(shape[0]) == 2)
    first, second = first_and_second(fw, lambda a, b: xp.coral(a, b, where=where), a, b)
    assert (first == 0).all() and (second == 0).all()


@autodiff
@pytest.mark.parametrize("shape", SHAPES)
def test_weights_that_start_at_0(fw: Framework, shape: tuple[int, int]) -> None:
    """Their slope is the limit from weights above 0."""
    a, b = samples(shape)
    weights = np.asarray([1.0, 0.0, 0.5, 2.0, 1.0, 0.0, 1.0, 1.0])[: shape[0]]
    gradient = xp.grad(lambda w: xp.coral(fw.array(a), fw.array(b), weights=w))
    at, near = (fw.numpy(gradient(fw.array(w))) for w in (weights, weights + 1e-9 * (weights == 0)))
    assert abs(at[1]) > 1e-6
    np.testing.assert_allclose(at, near, rtol=1e-6, atol=1e-7)


def test_half_precision(fw: Framework) -> None:
    a, b = samples((8, 3))
    for dtype in {"float16", "bfloat16"} & set(fw.dtypes):
        x, y = fw.array(a, dtype), fw.array(b, dtype)
        got = xp.coral(x, y)
        assert got.dtype == fw.dtype("float32")
        want = exact(fw.numpy(x).astype(np.float64), fw.numpy(y).astype(np.float64))
        assert float(got) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_nan_is_not_hidden(fw: Framework, shape: tuple[int, int]) -> None:
    a, b = samples(shape)
    bad = a.copy()
    bad[1, 0] = math.nan
    assert math.isnan(value(fw, bad, b))
    assert math.isnan(value(fw, b, bad))


@pytest.mark.parametrize("shape", [(2, 200_000), (200_000, 2)])
def test_only_the_smaller_matrix_is_built(fw: Framework, shape: tuple[int, int]) -> None:
    """The larger one would take 320 GB."""
    a, b = samples(shape)
    assert 0 < value(fw, a, b, weights=fw.array(np.ones(shape[0]))) == pytest.approx(value(fw, a, b))
