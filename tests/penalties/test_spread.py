"""Samples that are equal, nearly equal, far apart or alone, for KoLeo, uniformity and SIGReg."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest
from scipy import stats
from scipy.spatial import cKDTree
from scipy.spatial.distance import pdist
from scipy.special import logsumexp

import xpenalties as xp
from tests.helpers.harness import Framework, close, first_and_second
from xpenalties import backends

autodiff = pytest.mark.needs("autodiff")
neighbors = pytest.mark.only("numpy", "torch", "jax", "strict", "cupy", reason="neighbors are in other chunks of Dask")
X = np.random.default_rng(0).standard_normal((40, 5))
DUPLICATES = np.concatenate([X[:5], X[:2]])


def units(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def value(fw: Framework, fn: Any, x: np.ndarray, dtype: str = "float64", **options: Any) -> float:
    return float(fn(fw.array(x, dtype), **options))


def sigreg_of(fw: Framework, x: np.ndarray, dtype: str = "float64", **options: Any) -> float:
    rng = fw.key(0) if fw.name == "jax" else np.random.default_rng(0)
    return value(fw, xp.sigreg, x, dtype, rng=rng, **options)


@neighbors
def test_koleo_against_a_tree_of_neighbors(fw: Framework) -> None:
    distances, _ = cKDTree(units(X)).query(units(X), k=2)
    assert value(fw, xp.koleo, X) == pytest.approx(-np.log(distances[:, 1]).mean())


@neighbors
@pytest.mark.parametrize("gap", [1e-1, 1e-3, 1e-5])
def test_koleo_of_close_rows(fw: Framework, gap: float) -> None:
    """Products of unit rows cannot tell apart the two that are near the first one."""
    angles = np.asarray([0.0, gap, -2.5 * gap, 2.0])
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    want = -np.log(2 * np.sin(np.asarray([gap, gap, 2.5 * gap, 2 - gap]) / 2)).mean()
    assert value(fw, xp.koleo, x) == pytest.approx(want, rel=1e-9)
    assert value(fw, xp.koleo, x, "float32") == pytest.approx(want, rel=1e-7 / gap)


@neighbors
def test_koleo_in_blocks(fw: Framework, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xpenalties._penalties.spread._BLOCK", 600)
    x = np.concatenate([X, X[:1] + 1e-5])  # close rows, so the products do not decide
    distances, _ = cKDTree(units(x)).query(units(x), k=2)
    assert value(fw, xp.koleo, x) == pytest.approx(-np.log(distances[:, 1]).mean())


@neighbors
@autodiff
def test_koleo_of_equal_rows(fw: Framework) -> None:
    for dtype in [d for d in fw.dtypes if d != "float64"] + ["float64"]:
        assert value(fw, xp.koleo, DUPLICATES, dtype) == math.inf
        got = value(fw, xp.koleo, DUPLICATES, dtype, floor=0.125)
        others, _ = cKDTree(units(DUPLICATES)).query(units(DUPLICATES), k=2)
        assert got == pytest.approx(-np.log(np.maximum(others[:, 1], 0.125)).mean(), rel=3e-2)
    for floor in (0.0, 0.125):
        first, second = first_and_second(fw, lambda x, f=floor: xp.koleo(x, floor=f), DUPLICATES)
        assert np.isfinite(first).all() and np.isfinite(second).all()
        assert (first[[0, 1, 5, 6]] == 0).all() and (first[2:5] != 0).any()


@neighbors
@autodiff
def test_koleo_of_zeros(fw: Framework) -> None:
    x = np.concatenate([X[:3], np.zeros((1, 5))])  # at a distance of 1 from all
    first, second = first_and_second(fw, xp.koleo, x)
    assert (first[3] == 0).all() and np.isfinite(first).all() and np.isfinite(second).all()
    assert value(fw, xp.koleo, np.asarray([[0.0, 0.0], [3.0, 0.0]])) == 0.0


@neighbors
@autodiff
def test_koleo_with_ties(fw: Framework) -> None:
    corners = np.eye(4)  # all are equally near
    assert value(fw, xp.koleo, corners) == pytest.approx(-math.log(2) / 2)
    first, second = first_and_second(fw, xp.koleo, corners)
    assert np.isfinite(first).all() and np.isfinite(second).all()


@neighbors
@autodiff
def test_a_masked_sample_is_nobodys_neighbor(fw: Framework) -> None:
    where = fw.array(np.arange(7) < 5)
    assert value(fw, xp.koleo, DUPLICATES, where=where) == pytest.approx(value(fw, xp.koleo, DUPLICATES[:5]))
    assert value(fw, xp.koleo, DUPLICATES, where=fw.array(np.arange(7) == 1)) == 0.0
    first, _ = first_and_second(fw, lambda x: xp.koleo(x, where=fw.array(np.arange(7) == 1)), DUPLICATES)
    assert (first == 0).all()


@pytest.mark.only("dask", reason="is about Dask")
def test_koleo_of_dask(fw: Framework) -> None:
    with pytest.raises(NotImplementedError, match=r"^koleo: `x` must not be a Dask array of .* use uniformity"):
        xp.koleo(fw.array(X).rechunk((20, 5)))
    distances, _ = cKDTree(units(X)).query(units(X), k=2)
    assert value(fw, xp.koleo, X) == pytest.approx(-np.log(distances[:, 1]).mean())  # one chunk


def test_uniformity_against_pairs(fw: Framework) -> None:
    for t in (0.1, 2.0, 1000.0):
        want = logsumexp(-t * pdist(units(X), "sqeuclidean")) - math.log(40 * 39 / 2)
        assert value(fw, xp.uniformity, X, t=t) == pytest.approx(want)


def test_uniformity_of_far_rows_is_finite(fw: Framework) -> None:
    x = np.asarray([[1.0, 0.0], [-1.0, 0.0]])
    assert value(fw, xp.uniformity, x, "float32", t=500.0) == -2000.0
    where = fw.array(np.asarray([True, True, False]))
    assert value(fw, xp.uniformity, np.concatenate([x, x[:1]]), "float32", t=500.0, where=where) == -2000.0


@autodiff
def test_uniformity_of_collapsed_rows(fw: Framework) -> None:
    for x in (np.full((4, 3), 0.3), np.zeros((4, 3)), DUPLICATES, np.asarray([[1.0, 0.0], [-1.0, 0.0]])):
        for t in (2.0, 300.0):
            first, second = first_and_second(fw, lambda x, t=t: xp.uniformity(x, t=t), x)
            assert np.isfinite(first).all() and np.isfinite(second).all()
    assert value(fw, xp.uniformity, np.full((4, 3), 0.3)) == pytest.approx(0.0, abs=1e-15)


@autodiff
def test_uniformity_of_one_sample(fw: Framework) -> None:
    one = fw.array(np.arange(7) == 1)
    assert value(fw, xp.uniformity, DUPLICATES, where=one) == 0.0
    first, second = first_and_second(fw, lambda x: xp.uniformity(x, where=one), DUPLICATES)
    assert (first == 0).all() and (second == 0).all()


def test_refused_shapes(fw: Framework) -> None:
    for shape in ((3,), (1, 3), (2, 3, 4)):
        x = fw.array(np.ones(shape))
        hint = "A single sample has no neighbor" if len(shape) == 2 else "Reshape it to two axes"
        for fn in (xp.koleo, xp.uniformity):
            name = fn.__name__
            with pytest.raises(
                ValueError, match=rf"^{name}: `x` must have shape \(n, d\) with n >= 2, got .*\. {hint}"
            ):
                fn(x)
    with pytest.raises(ValueError, match=r"^sigreg: `x` must have shape \(n, d\) with n >= 1, got \(3,\)\. Reshape"):
        xp.sigreg(fw.array(np.ones(3)))


def epps_pulley(z: np.ndarray) -> float:
    """The whole integral, by Baringhaus and Henze (1988)."""
    squares = (z[:, None] - z) ** 2
    parts = np.exp(-squares / 2).mean() - math.sqrt(2) * np.exp(-(z**2) / 4).mean() + 1 / math.sqrt(3)
    return math.sqrt(2 * math.pi) * len(z) * parts


def test_sigreg_against_the_closed_form(fw: Framework) -> None:
    for z in (X[:, :1], X[:, :1] + 0.5, 0.1 * X[:, :1], np.ones((7, 1))):
        assert sigreg_of(fw, z, slices=1) == pytest.approx(epps_pulley(z[:, 0]), rel=2e-2)


def whole_integral(z: np.ndarray) -> float:
    """The same with 50 digits."""
    with mpmath.workdps(50):
        numbers, n = [mpmath.mpf(x) for x in z.tolist()], len(z)
        pairs = mpmath.fsum(mpmath.exp(-((x - y) ** 2) / 2) for x in numbers for y in numbers) / n**2
        single = mpmath.fsum(mpmath.exp(-(x**2) / 4) for x in numbers) / n
        return float(mpmath.sqrt(2 * mpmath.pi) * n * (pairs - mpmath.sqrt(2) * single + 1 / mpmath.sqrt(3)))


def test_sigreg_of_the_whole_integral(fw: Framework) -> None:
    quantiles = stats.norm.ppf((np.arange(60) + 0.5) / 60)[:, None]  # as near to the normal distribution as 60 can be
    for z in (X[:, :1], X[:, :1] + 0.5, 10 * X[:, :1], 1e-3 * X[:, :1], np.ones((7, 1)), quantiles, X[:1, :1]):
        want = whole_integral(z[:, 0])
        assert sigreg_of(fw, z, slices=2, knots=None) == pytest.approx(want, rel=1e-13, abs=2e-16 * len(z))
        single = z.astype(np.float32)
        got = sigreg_of(fw, single, "float32", slices=2, knots=None)
        assert got == pytest.approx(whole_integral(single[:, 0].astype(float)), rel=2e-6, abs=2e-7 * len(z))


def test_many_knots_come_close_to_the_whole_integral(fw: Framework) -> None:
    """From -3 to 3, which leaves out less than 4 n times the integral of the weight beyond."""
    whole, cut_off = (sigreg_of(fw, X, slices=64, knots=knots) for knots in (None, 200))
    tail = 2 * math.sqrt(2 * math.pi) * stats.norm.sf(3)
    assert 0 < whole - cut_off < 4 * len(X) * tail
    assert whole == pytest.approx(cut_off, rel=1e-2)  # for any draw of so many directions


def test_sigreg_in_blocks_of_slices(fw: Framework, monkeypatch: pytest.MonkeyPatch) -> None:
    want = sigreg_of(fw, X, slices=5, knots=None)
    for pairs in (1, 2 * 40 * 40, 5 * 40 * 40):
        monkeypatch.setattr("xpenalties._penalties.spread._BLOCK", pairs)
        assert sigreg_of(fw, X, slices=5, knots=None) == pytest.approx(want, rel=1e-13)


@autodiff
def test_slopes_of_the_whole_integral(fw: Framework) -> None:
    """Against the derivatives of the closed form, and finite for equal and far samples."""
    x = np.asarray([[0.3], [-1.2], [0.8], [2.0]])

    def slopes(*z: Any) -> Any:
        n, root = len(z), mpmath.sqrt
        pairs = [2 * mpmath.fsum((y - x) * mpmath.exp(-((x - y) ** 2) / 2) for y in z) / n**2 for x in z]
        single = [root(2) * x / 2 * mpmath.exp(-(x**2) / 4) / n for x in z]
        return [root(2 * mpmath.pi) * n * (a + b) for a, b in zip(pairs, single, strict=True)]

    def squares(*z: Any) -> Any:
        return sum(s**2 for s in slopes(*z))

    z = x[:, 0].tolist()
    orders = [tuple(int(i == j) for j in range(4)) for i in range(4)]
    rng = fw.key(0)
    first, second = first_and_second(fw, lambda x: xp.sigreg(x, slices=3, knots=None, rng=rng), x)
    np.testing.assert_allclose(first[:, 0], [float(s) for s in slopes(*z)], rtol=1e-12)
    want = [float(mpmath.diff(squares, tuple(z), order)) for order in orders]
    np.testing.assert_allclose(second[:, 0], want, rtol=1e-7)
    for extreme in (np.zeros((6, 2)), np.full((6, 2), 0.1), 1e30 * X, X[:1], DUPLICATES):
        got = first_and_second(fw, lambda x: xp.sigreg(x, slices=3, knots=None, rng=rng), extreme)
        assert np.isfinite(got).all()


def test_masked_samples_of_the_whole_integral(fw: Framework) -> None:
    z = X[:6, :1].copy()
    z[[1, 4]] = math.nan
    where = fw.array(np.asarray([True, False, True, True, False, True]))
    kept = z[[0, 2, 3, 5], 0]
    assert sigreg_of(fw, z, slices=2, knots=None, where=where) == pytest.approx(epps_pulley(kept), rel=1e-12)
    assert sigreg_of(fw, z, slices=2, knots=None, where=fw.array(np.zeros(6, bool))) == 0.0
    doubled = fw.array(np.asarray([2.0, 0.0, 2.0, 2.0, 0.0, 2.0]))
    z[[1, 4]] = 0.0
    assert sigreg_of(fw, z, slices=2, knots=None, weights=doubled) == pytest.approx(epps_pulley(kept), rel=1e-12)


@pytest.mark.only("numpy", "strict", "torch", reason="the directions are those of NumPy's generator")
def test_sigreg_along_directions(fw: Framework) -> None:
    directions = np.random.default_rng(0).standard_normal((5, 3))
    want = [value(fw, xp.sigreg, X @ v[:, None] / np.linalg.norm(v), slices=1) for v in directions.T]
    assert sigreg_of(fw, X, slices=3) == pytest.approx(np.mean(want))


def test_sigreg_of_more_directions_is_less_random(fw: Framework) -> None:
    assert sigreg_of(fw, X) == pytest.approx(sigreg_of(fw, X[::-1].copy()), rel=1e-9)
    normal = np.random.default_rng(3).standard_normal((2000, 5))
    assert 0.0 < sigreg_of(fw, normal) < 2.0 < 100.0 < sigreg_of(fw, normal + 1)


def test_sigreg_of_extremes(fw: Framework) -> None:
    for x in (np.zeros((6, 2)), np.full((6, 2), 0.1), 1e20 * X, X[:1], DUPLICATES):
        for dtype in ("float32", "float64"):
            for knots in (17, None):
                assert math.isfinite(sigreg_of(fw, x, dtype, knots=knots))


@autodiff
def test_slopes_of_sigreg(fw: Framework) -> None:
    rng = fw.key(0)
    first, second = first_and_second(fw, lambda x: xp.sigreg(x, rng=rng), np.zeros((6, 2)))
    np.testing.assert_allclose(first, 0.0, atol=1e-15)  # symmetric about 0
    assert np.isfinite(second).all()
    first, _ = first_and_second(fw, lambda x: xp.sigreg(x, rng=rng), np.full((6, 2), 0.1))
    assert (first > 0).all() and np.ptp(first, axis=0).max() < 1e-12


def test_half_precision(fw: Framework) -> None:
    x = X[:10]
    for dtype in {"float16", "bfloat16"} & set(fw.dtypes):
        for fn in (xp.koleo, xp.uniformity) if fw.name != "dask" else (xp.uniformity,):
            got = fn(fw.array(x, dtype))
            assert got.dtype == fw.dtype("float32")
            assert float(got) == pytest.approx(value(fw, fn, x), rel=5e-2)
        if fw.name != "jax":  # which draws other numbers for another dtype
            for knots in (17, None):
                got = sigreg_of(fw, x, dtype, knots=knots)
                assert got == pytest.approx(sigreg_of(fw, x, knots=knots), rel=5e-2)


def test_nan_is_not_hidden(fw: Framework) -> None:
    bad = X[:6].copy()
    bad[1, 0] = math.nan
    fns = [xp.uniformity] if backends.backend_of(fw.array(bad)).lazy else [xp.uniformity, xp.koleo]
    for fn in fns:
        assert math.isnan(value(fw, fn, bad)), fn.__name__
    for knots in (17, None):
        assert math.isnan(sigreg_of(fw, bad, knots=knots))
    close(
        fw,
        xp.uniformity(fw.array(bad), where=fw.array(np.arange(6) != 1)),
        value(fw, xp.uniformity, bad[[0, 2, 3, 4, 5]]),
    )
