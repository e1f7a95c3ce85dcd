"""Optimal transport of rows and samples: ties, sizes, masks, weights, infinity, and what it must equal."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy import optimize, stats

import xpenalties as xp
from tests.helpers.harness import Framework, close, first_and_second

autodiff = pytest.mark.needs("autodiff")
not_dask = pytest.mark.without("dask", reason="test_chunks has what is refused")
POWERS = (1.0, 1.5, 2.0, 3.0)


def samples(*shape: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape), rng.standard_normal(shape) + 0.5


def transported(a: np.ndarray, b: np.ndarray, w: np.ndarray, v: np.ndarray, p: float) -> float:
    """Solve the linear program of optimal transport between two sets of numbers."""
    costs = np.abs(a[:, None] - b) ** p
    rows = np.kron(np.eye(len(a)), np.ones(len(b)))
    columns = np.kron(np.ones(len(a)), np.eye(len(b)))
    result = optimize.linprog(costs.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.concatenate([w, v]))
    return float(result.fun)


@not_dask
@pytest.mark.parametrize("p", POWERS)
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 4), (4, 1), (5, 5), (6, 4), (3, 7)])
def test_it_is_the_least_cost(fw: Framework, n: int, m: int, p: float) -> None:
    (a, _), (b, _) = samples(2, n), samples(2, m, seed=1)
    want = [transported(u, v, np.full(n, 1 / n), np.full(m, 1 / m), p) for u, v in zip(a, b, strict=True)]
    close(fw, xp.wasserstein(fw.array(a), fw.array(b), p=p, reduction="none"), np.asarray(want), rtol=1e-7)
    if p == 1:
        scipy = [stats.wasserstein_distance(u, v) for u, v in zip(a, b, strict=True)]
        close(fw, xp.wasserstein(fw.array(a), fw.array(b), reduction="none"), np.asarray(scipy), rtol=1e-12)


@pytest.mark.parametrize("p", POWERS)
def test_no_permutation_is_cheaper(fw: Framework, p: float) -> None:
    a, b = samples(5)
    best = min(np.mean(np.abs(a - b[list(order)]) ** p) for order in itertools.permutations(range(5)))
    close(fw, xp.wasserstein(fw.array(a), fw.array(b), p=p), best)


@not_dask
@pytest.mark.parametrize("p", POWERS)
def test_laws(fw: Framework, p: float) -> None:
    a, b = samples(3, 6)
    order = np.random.default_rng(2).permutation(6)

    def value(a: np.ndarray, b: np.ndarray) -> float:
        return float(xp.wasserstein(fw.array(a), fw.array(b), p=p))

    assert value(a, a[:, order]) == 0.0
    assert value(a, b) == pytest.approx(value(b, a)) == pytest.approx(value(a[:, order], b))
    assert value(a, a[:, order] + 0.25) == pytest.approx(0.25**p)  # a shift
    assert value(3 * a, 3 * b) == pytest.approx(3**p * value(a, b))
    assert value(a, np.repeat(b, 2, axis=1)) == pytest.approx(value(a, b))  # copies have the same quantiles
    assert value(np.repeat(a, 3, axis=1), np.repeat(b, 2, axis=1)) == pytest.approx(value(a, b))


@not_dask
@pytest.mark.parametrize("n", [3, 7, 10, 49])
def test_levels_that_are_equal_are_one(fw: Framework, n: int) -> None:
    """In float64, 3 / 49 and 9 / 147 may differ, and a sliver of mass would go to the other end."""
    steps = 1e12 * np.arange(n)
    assert float(xp.wasserstein(fw.array(steps), fw.array(np.repeat(steps, 3)))) == 0.0


@autodiff
@pytest.mark.parametrize("p", POWERS)
def test_slopes_at_ties(fw: Framework, p: float) -> None:
    """Of the sorted pairs (0, 0), (1, 2) and (2, 3), one is equal."""
    a, b = np.asarray([2.0, 0.0, 1.0]), np.asarray([0.0, 2.0, 3.0])
    d = a - np.asarray([3.0, 0.0, 2.0])  # the numbers of b that those of a meet
    slope = p * np.abs(d) ** (p - 1) * np.sign(d) / 3
    curvature = np.where(d == 0, 2.0 if p == 2 else 0.0, p * (p - 1) * np.where(d == 0, 1.0, np.abs(d)) ** (p - 2)) / 3
    gradient = xp.grad(lambda x: xp.wasserstein(x, fw.array(b), p=p))
    close(fw, gradient(fw.array(a)), slope, rtol=1e-12)
    second = xp.grad(lambda x: xp.namespace(x).sum(gradient(x)))(fw.array(a))
    close(fw, second, curvature, rtol=1e-12)


@autodiff
def test_the_sort_is_stable(fw: Framework) -> None:
    """Of equal numbers, the first one meets the smallest."""
    b = np.arange(64.0)
    gradient = xp.grad(lambda x: xp.wasserstein(x, fw.array(b), p=2))(fw.array(np.ones(64)))
    close(fw, gradient, 2 * (1 - b) / 64)


@autodiff
def test_equal_numbers_have_finite_slopes_of_every_power(fw: Framework) -> None:
    a = np.asarray([[1.0, 1.0, 1.0], [2.0, 1.0, 2.0]])
    for p in (1.0, 1.2, 2.0, 2.5):
        for b in (a, np.ones((2, 2))):
            first, second = first_and_second(fw, lambda a, b, p=p: xp.wasserstein(a, b, p=p), a, b)
            assert np.isfinite(first).all() and np.isfinite(second).all()
        first, _ = first_and_second(fw, lambda a, b, p=p: xp.wasserstein(a, b, p=p), a, a)
        assert (first == 0).all()


@autodiff
@pytest.mark.parametrize("p", [1.0, 2.0])
def test_unequal_sizes_in_blocks(fw: Framework, p: float) -> None:
    (a, _), (b, _) = samples(4, 2, 6), samples(4, 2, 4, seed=1)

    def both() -> Any:
        return xp.value_and_grad(lambda a: xp.wasserstein(a, fw.array(b), p=p))(fw.array(a))

    value, gradient = both()
    with xp.block_size(8):
        in_blocks, of_blocks = both()
    close(fw, in_blocks, fw.numpy(value))
    close(fw, of_blocks, fw.numpy(gradient))
    turned = [fw.array(np.swapaxes(x, 1, 2)) for x in (a, b)]
    terms = xp.wasserstein(*turned, p=p, axis=1, reduction="none")
    close(fw, terms, fw.numpy(xp.wasserstein(fw.array(a), fw.array(b), p=p, reduction="none")))


@not_dask
def test_masks_and_weights_are_of_rows(fw: Framework) -> None:
    (a, _), (b, _) = samples(3, 6), samples(3, 4, seed=1)
    terms = fw.numpy(xp.wasserstein(fw.array(a), fw.array(b), reduction="none"))
    a[0], b[0, 1] = math.nan, math.inf
    where, weights = fw.array(np.asarray([False, True, True])), fw.array(np.asarray([1.0, 2.0, 0.5]))
    close(fw, xp.wasserstein(fw.array(a), fw.array(b), where=where), terms[1:].mean())
    want = (2 * terms[1] + terms[2] / 2) / 2.5
    close(fw, xp.wasserstein(fw.array(a), fw.array(b), where=where, weights=weights), want)


def test_shapes_that_are_refused(fw: Framework) -> None:
    def call(of_a: tuple[int, ...], of_b: tuple[int, ...], **options: Any) -> Any:
        return xp.wasserstein(fw.array(np.ones(of_a)), fw.array(np.ones(of_b)), **options)

    for of_a, of_b, options in (
        ((2, 3), (3, 3), {}),
        ((2, 3), (2, 4), {"axis": 0}),
        ((2, 3), (3,), {}),
        ((2, 3), (2, 0), {}),
        ((2, 0), (2, 3), {}),
        ((2, 3), (2, 4), {"axis": 2}),
    ):
        with pytest.raises(
            ValueError, match=r"^wasserstein: `a` and `b` must have the same shape, except along `axis`"
        ):
            call(of_a, of_b, **options)
    with pytest.raises(ValueError, match=r"^wasserstein: `a` must have at least 1 axis, got shape \(\)"):
        call((), ())
    assert tuple(call((0, 3), (0, 4), reduction="none").shape) == (0,)


@not_dask
def test_infinity_and_nan(fw: Framework) -> None:
    inf = math.inf
    rows_a = np.asarray([[inf, 0.0], [-inf, inf], [inf, 0.0], [math.nan, 0.0], [0.0, 1.0]])
    rows_b = np.asarray([[1.0, 0.0], [0.0, 1.0], [0.0, inf], [0.0, 1.0], [0.0, math.nan]])
    got = fw.numpy(xp.wasserstein(fw.array(rows_a), fw.array(rows_b), reduction="none"))
    np.testing.assert_array_equal(got, [inf, inf, math.nan, math.nan, math.nan])


def test_half_precision(fw: Framework) -> None:
    a, b = samples(3, 8)
    x, y = samples(8, 3)
    for dtype in {"float16", "bfloat16"} & set(fw.dtypes):
        for function, u, v in ((xp.wasserstein, a, b), (xp.sliced_wasserstein, x[:, :1], y[:, :1])):
            low = [fw.array(z, dtype) for z in (u, v)]
            options = {"rng": generator(fw)} if function is xp.sliced_wasserstein else {}  # of one feature
            got = function(*low, p=2, **options)
            assert got.dtype == fw.dtype("float32")
            want = function(*[fw.numpy(z).astype(np.float64) for z in low], p=2)
            assert float(got) == pytest.approx(float(want), rel=1e-5)


def generator(fw: Framework) -> Any:
    """Return a new source of the same random numbers."""
    if fw.name == "torch":
        return fw.module.Generator().manual_seed(0)
    return fw.key(0) if fw.name == "jax" else np.random.default_rng(0)


def weighted(a: np.ndarray, b: np.ndarray, p: float, w: np.ndarray) -> float:
    return transported(a[:, 0], b[:, 0], w / w.sum(), w / w.sum(), p)


def sliced(fw: Framework, a: Any, b: Any, **options: Any) -> Any:
    return xp.sliced_wasserstein(fw.array(np.asarray(a)), fw.array(np.asarray(b)), rng=generator(fw), **options)


@not_dask
@pytest.mark.parametrize("p", POWERS)
def test_one_feature_is_exact(fw: Framework, p: float) -> None:
    a, b = samples(7, 1)
    close(fw, sliced(fw, a, b, p=p), weighted(a, b, p, np.ones(7)), rtol=1e-7)
    for weights in (np.random.default_rng(3).random(7), np.asarray([1.0, 0.0, 2.0, 0.0, 1.0, 1.0, 3.0])):
        close(fw, sliced(fw, a, b, p=p, weights=fw.array(weights)), weighted(a, b, p, weights), rtol=1e-7)
        if p == 1:
            scipy = stats.wasserstein_distance(a[:, 0], b[:, 0], weights, weights)
            close(fw, sliced(fw, a, b, p=1, weights=fw.array(weights)), scipy, rtol=1e-12)


@not_dask
def test_directions(fw: Framework) -> None:
    """A shift by c moves each projection by c . v, whose square is |c|^2 / d in the mean."""
    a, _ = samples(50, 3)
    shift = np.asarray([1.0, -2.0, 0.5])
    value = float(sliced(fw, a, a + shift, slices=4000))
    assert value == pytest.approx(np.sum(shift**2) / 3, rel=0.05)
    assert value == pytest.approx(float(sliced(fw, a, a + shift, slices=4000)), rel=1e-12)  # the same key
    assert float(sliced(fw, a, a[::-1])) == pytest.approx(0.0, abs=1e-28)
    assert float(sliced(fw, a, a + shift, p=1, slices=1)) <= np.linalg.norm(shift) + 1e-12


@not_dask
def test_weights_are_masses(fw: Framework) -> None:
    """A weight of 2 is a sample twice. Equal weights of any size are none, and a mask takes samples out exactly."""
    a, b = samples(5, 3)
    weights = np.asarray([1.0, 2.0, 1.0, 3.0, 1.0])
    twice = weights.astype(int)
    want = float(sliced(fw, np.repeat(a, twice, axis=0), np.repeat(b, twice, axis=0)))
    for factor in (1.0, 0.3):
        assert float(sliced(fw, a, b, weights=fw.array(factor * weights))) == pytest.approx(want)
        assert float(sliced(fw, a, b, weights=fw.array(np.full(5, factor)))) == pytest.approx(float(sliced(fw, a, b)))
    where = fw.array(np.asarray([True, False, True, True, False]))
    assert float(sliced(fw, a, a[[2, 1, 3, 0, 4]], where=where)) == pytest.approx(0.0, abs=1e-28)


@not_dask
def test_one_sample_and_none(fw: Framework) -> None:
    a, b = samples(4, 1)
    assert float(sliced(fw, a[:1], b[:1])) == pytest.approx(float((a[0, 0] - b[0, 0]) ** 2))
    one = fw.array(np.arange(4) == 2)
    assert float(sliced(fw, a, b, where=one)) == pytest.approx(float((a[2, 0] - b[2, 0]) ** 2))
    assert float(sliced(fw, a, b, where=fw.array(np.zeros(4) > 0))) == 0.0
    assert float(sliced(fw, a[:0], b[:0])) == 0.0
    with pytest.raises(ValueError, match=r"^sliced_wasserstein: `a` must have shape \(n, d\) with n >= 1, got \(4,\)"):
        sliced(fw, a[:, 0], b[:, 0])


@not_dask
def test_nan_is_not_hidden(fw: Framework) -> None:
    a, b = samples(4, 3)
    a[1, 0] = math.nan
    weights, where = fw.array(np.asarray([1.0, 0.5, 1.0, 2.0])), fw.array(np.asarray([True, False, True, True]))
    for options in ({}, {"weights": weights}):
        assert math.isnan(float(sliced(fw, a, b, **options)))
        assert math.isnan(float(sliced(fw, b, a, **options)))
        assert math.isfinite(float(sliced(fw, a, b, where=where, **options)))


@autodiff
@pytest.mark.parametrize("p", [1.0, 2.0, 2.5])
def test_a_masked_batch_is_a_shorter_one(fw: Framework, p: float) -> None:
    a, b = samples(6, 3)
    keep = np.asarray([True, False, True, True, False, True])
    bad = np.where(keep[:, None], a, math.nan)

    def value(a: Any, b: Any, **options: Any) -> Any:
        return xp.sliced_wasserstein(a, b, p=p, slices=5, rng=generator(fw), **options)

    masked = first_and_second(fw, lambda a, b: value(a, b, where=fw.array(keep)), bad, np.where(keep[:, None], b, 0))
    shorter = first_and_second(fw, value, a[keep], b[keep])
    for got, want in zip(masked, shorter, strict=True):
        np.testing.assert_allclose(got[keep], want, rtol=1e-9, atol=1e-12)
        assert (got[~keep] == 0).all()


@autodiff
@pytest.mark.parametrize("p", [1.0, 2.0])
def test_weights_that_start_at_0(fw: Framework, p: float) -> None:
    """Their slope is the limit from weights above 0."""
    a, b = samples(8, 3)
    weights = np.asarray([1.0, 0.0, 0.5, 2.0, 1.3, 0.0, 1.1, 0.7])
    gradient = xp.grad(lambda w: sliced(fw, a, b, weights=w, p=p, slices=4))
    at, near = (fw.numpy(gradient(fw.array(w))) for w in (weights, weights + 1e-9 * (weights == 0)))
    assert abs(at[1]) > 1e-6
    np.testing.assert_allclose(at, near, rtol=1e-6, atol=1e-7)


@autodiff
def test_the_slope_of_equal_weights_is_that_of_one_side(fw: Framework) -> None:
    """A transport cost is convex in the masses, so any slope gives a lower bound."""
    a, b = samples(5, 1)

    def cost(w: Any) -> Any:  # of masses that are not divided by their sum
        return xp.namespace(w).sum(w) * sliced(fw, a, b, weights=w)

    ones = np.ones(5)
    value, slope = xp.value_and_grad(cost)(fw.array(ones))
    for step in 0.01 * np.random.default_rng(4).standard_normal((10, 5)):
        assert float(cost(fw.array(ones + step))) >= float(value) + fw.numpy(slope) @ step - 1e-12


@pytest.mark.only("dask", reason="is about chunks")
def test_chunks(fw: Framework) -> None:
    import dask.array as da

    a, b = samples(4, 6)
    rows = [da.from_array(x, chunks=(2, 6)) for x in (a, b)]
    assert float(xp.wasserstein(*rows)) == pytest.approx(float(xp.wasserstein(a, b)))
    with pytest.raises(NotImplementedError, match="Dask sorts rows that are in one chunk"):
        xp.wasserstein(*[x.rechunk((4, 3)) for x in rows])
    with pytest.raises(NotImplementedError, match="Dask sorts rows that are in one chunk"):
        xp.wasserstein(rows[0], rows[1][:, :3])
    with pytest.raises(NotImplementedError, match=r"^sliced_wasserstein: `a` must not be a Dask array"):
        xp.sliced_wasserstein(*rows)
    whole = [x[:, :1].rechunk(-1) for x in rows]
    assert float(xp.sliced_wasserstein(*whole)) == pytest.approx(float(xp.sliced_wasserstein(a[:, :1], b[:, :1])))
