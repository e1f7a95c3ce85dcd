"""Tsallis and Renyi entropies at their edges: powers near 1, certain and equal classes, probabilities of 0."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, curvature, first_and_second
from tests.helpers.samples import log

INF = math.inf
autodiff = pytest.mark.needs("autodiff")
KINDS = ("tsallis", "renyi")
POWERS = (1e-3, 0.5, 1 - 1e-3, 1 - 1e-5, 1.0, 1 + 1e-14, 1 + 1e-5, 2.0, 3.0, 50.0, 1e4)
of_each_kind = pytest.mark.parametrize("kind", KINDS)
of_each_power = pytest.mark.parametrize("alpha", POWERS)
of_a_few_powers = pytest.mark.parametrize("alpha", [0.5, 1 - 1e-3, 1.0, 1 + 1e-5, 3.0, 50.0])
ROWS = np.random.default_rng(0).standard_normal((14, 6)) * np.repeat([0, 1e-3, 0.1, 1, 5, 15, 30], 2)[:, None]


def exact(kind: str, alpha: float, z: Any) -> Any:
    """Return the entropy of one row of logits."""
    p = [mpmath.exp(mpmath.mpf(x)) for x in z]
    p, a = [x / sum(p) for x in p if x > 0], mpmath.mpf(alpha)
    if a == 1:
        return -sum(x * mpmath.log(x) for x in p)
    total = sum(x**a for x in p)
    return (1 - total) / (a - 1) if kind == "tsallis" else mpmath.log(total) / (1 - a)


def exact_rows(kind: str, alpha: float, z: np.ndarray) -> np.ndarray:
    with mpmath.workdps(300):
        return np.asarray([float(exact(kind, alpha, row)) for row in z.tolist()])


def entropies(kind: str, alpha: float, **options: Any) -> Any:
    return lambda z: xp.entropy(z, kind=kind, alpha=alpha, from_logits=True, reduction="none", **options)


@of_each_kind
@of_each_power
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values(fw: Framework, dtype: str, kind: str, alpha: float) -> None:
    """From equal classes to one that is certain but for 1e-20."""
    z = ROWS.astype(dtype)
    got = fw.numpy(entropies(kind, alpha)(fw.array(z, dtype)))
    # an exponent is as large as 40, and so is its rounding error
    np.testing.assert_allclose(got, exact_rows(kind, alpha, z), rtol=2e-5 if dtype == "float32" else 1e-13)


@autodiff
@of_each_kind
@of_a_few_powers
def test_gradients(fw: Framework, kind: str, alpha: float) -> None:
    z, along = ROWS[4:10], np.random.default_rng(1).standard_normal((6, 6))

    def fn(x: Any) -> Any:
        return xp.entropy(x, kind=kind, alpha=alpha, from_logits=True, reduction="sum")

    first, second = fw.numpy(xp.grad(fn)(fw.array(z))), curvature(fw, fn, z, along)
    with mpmath.workdps(60):
        for row, direction, slope, curved in zip(z, along, first, second, strict=True):

            def on_line(t: Any, row: Any = row, direction: Any = direction) -> Any:
                return exact(kind, alpha, [mpmath.mpf(x) + t * d for x, d in zip(row.tolist(), direction, strict=True)])

            assert slope @ direction == pytest.approx(float(mpmath.diff(on_line, 0)), rel=1e-9, abs=1e-14)
            want = float(mpmath.diff(on_line, 0, 2))
            assert curved @ direction == pytest.approx(want, rel=1e-9, abs=1e-12 * max(1.0, alpha))


@of_each_kind
def test_no_jump_at_shannon(fw: Framework, kind: str) -> None:
    z = fw.array(ROWS)
    shannon = fw.numpy(xp.entropy(z, from_logits=True, reduction="none"))
    for alpha in (1 - 1e-9, math.nextafter(1.0, 0.0), 1.0, math.nextafter(1.0, 2.0), 1 + 1e-9):
        got = fw.numpy(entropies(kind, alpha)(z))
        np.testing.assert_allclose(got, shannon, rtol=1e-12 if abs(alpha - 1) < 1e-15 else 1e-6)


@of_a_few_powers
def test_equal_classes_and_corners(fw: Framework, alpha: float) -> None:
    for n in (1, 7, 1000):
        equal = fw.array(np.full((1, n), -math.log(n)))
        corner = fw.array(np.asarray([[0.0] + [-INF] * (n - 1)]))
        largest = math.log(n) if alpha == 1 else -math.expm1((1 - alpha) * math.log(n)) / (alpha - 1)
        for options in ({}, {"from_logits": True}):
            assert float(xp.entropy(equal, kind="renyi", alpha=alpha, **options)) == pytest.approx(
                math.log(n), rel=1e-12
            )
            got = float(xp.entropy(equal, kind="tsallis", alpha=alpha, **options))
            assert got == pytest.approx(largest, rel=1e-12)
            for kind in KINDS:
                got = float(xp.entropy(equal, kind=kind, alpha=alpha, normalize=True, **options))
                assert got == pytest.approx(float(n > 1), rel=1e-12)
                for normalize in (False, True):
                    assert float(xp.entropy(corner, kind=kind, alpha=alpha, normalize=normalize, **options)) == 0.0


@autodiff
@of_each_kind
@pytest.mark.parametrize("alpha", [1e-3, 1.0, 1 + 1e-5, 2.0])
@pytest.mark.parametrize("from_logits", [False, True])
def test_classes_of_probability_zero(fw: Framework, kind: str, alpha: float, from_logits: bool) -> None:
    """They change nothing, and their gradients are 0, as the limits are."""

    def fn(x: Any) -> Any:
        return xp.entropy(x, kind=kind, alpha=alpha, from_logits=from_logits, reduction="sum")

    for p in ([0.5, 0.25, 0.25], [1.0]):
        with_zeros, without = log(*p, 0.0, 0.0), log(*p)
        assert float(fn(fw.array(with_zeros))) == pytest.approx(float(fn(fw.array(without))), rel=1e-14)
        for got, want in zip(first_and_second(fw, fn, with_zeros), first_and_second(fw, fn, without), strict=True):
            np.testing.assert_allclose(got[: len(p)], want, rtol=1e-12, atol=1e-14)
            assert (got[len(p) :] == 0).all()


@of_each_kind
def test_tiny_probabilities_count_with_their_power(fw: Framework, kind: str) -> None:
    """e^-800 is 0 in any dtype, but its power of 0.01 is 3e-4."""
    z = np.asarray([[0.0, -800.0], [-800.0, 0.0]])
    for dtype in ("float32", "float64"):
        got = fw.numpy(entropies(kind, 0.01)(fw.array(z, dtype)))
        np.testing.assert_allclose(got, exact_rows(kind, 0.01, z), rtol=1e-5)


@autodiff
@of_each_kind
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 50.0])
def test_extreme_logits(fw: Framework, kind: str, alpha: float) -> None:
    for z in ([1e30, 0.0, -1e30], [1e4, 1e4, -1e4], [-1e30, -1e30, -INF]):
        want = math.log(2) if z[0] == z[1] else 0.0
        if kind == "tsallis" and want and alpha != 1:
            want = -math.expm1((1 - alpha) * want) / (alpha - 1)
        for dtype in ("float32", "float64"):
            assert float(entropies(kind, alpha)(fw.array(np.asarray(z), dtype))) == pytest.approx(want, rel=1e-6)
        assert np.isfinite(first_and_second(fw, entropies(kind, alpha), np.asarray(z))).all()


def test_named_entropies(fw: Framework) -> None:
    """Gini impurity, collision entropy, min-entropy, and their order."""
    z = 2 * np.random.default_rng(2).standard_normal((50, 5))
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)

    def of(kind: str, alpha: float) -> np.ndarray:
        return fw.numpy(entropies(kind, alpha)(fw.array(z)))

    np.testing.assert_allclose(of("tsallis", 2.0), 1 - (p**2).sum(axis=1), rtol=1e-12)
    np.testing.assert_allclose(of("renyi", 2.0), -np.log((p**2).sum(axis=1)), rtol=1e-12)
    np.testing.assert_allclose(of("renyi", 1e9), -np.log(p.max(axis=1)), rtol=1e-8)
    for kind in KINDS:
        falling = np.stack([of(kind, alpha) for alpha in (0.1, 0.5, 1.0, 2.0, 3.0, 50.0)])
        assert (np.diff(falling, axis=0) < 0).all()


def test_log_probabilities_that_do_not_sum_to_one(fw: Framework) -> None:
    """They have no jump at an alpha of 1 either."""
    p = np.asarray([[0.5, 0.25, 0.125]])
    x = fw.array(np.log(p))
    for alpha in (0.5, 2.0):
        got = float(xp.entropy(x, kind="tsallis", alpha=alpha))
        assert got == pytest.approx((p.sum() - (p**alpha).sum()) / (alpha - 1), rel=1e-12)
        got = float(xp.entropy(x, kind="renyi", alpha=alpha))
        assert got == pytest.approx(float(xp.entropy(x, kind="renyi", alpha=alpha, from_logits=True)), rel=1e-12)
    near = float(xp.entropy(x, kind="tsallis", alpha=1 + 1e-9))
    assert near == pytest.approx(float(xp.entropy(x)), rel=1e-8)
    renyi = float(xp.entropy(x, kind="renyi", alpha=1.0))
    assert renyi == pytest.approx(float(xp.entropy(x, from_logits=True)), rel=1e-12)


@autodiff
@of_each_kind
def test_masks_and_weights(fw: Framework, kind: str) -> None:
    z = np.concatenate([ROWS[6:9], np.full((1, 6), math.nan)])
    where = fw.array(np.asarray([True, True, False, False]))
    weights = fw.array(np.asarray([1.0, 3.0, 0.0, 0.0]))
    for alpha in (0.5, 2.0):
        terms = fw.numpy(entropies(kind, alpha)(fw.array(z[:2])))

        def fn(x: Any, alpha: float = alpha, **options: Any) -> Any:
            return xp.entropy(x, kind=kind, alpha=alpha, from_logits=True, **options)

        assert float(fn(fw.array(z), where=where)) == pytest.approx(terms.mean(), rel=1e-12)
        assert float(fn(fw.array(z), weights=weights)) == pytest.approx(terms @ [0.25, 0.75], rel=1e-12)
        first, second = first_and_second(fw, lambda x, fn=fn: fn(x, where=where), z)
        assert np.isfinite(first).all() and np.isfinite(second).all() and (first[2:] == 0).all()


def test_half_precision(fw: Framework) -> None:
    for dtype in (d for d in fw.dtypes if d in ("float16", "bfloat16")):
        z = fw.array(np.asarray([[0.5, 12.0, -8.0], [0.5, 0.25, 0.0]]), dtype)
        for kind in KINDS:
            for alpha in (0.5, 1 + 1e-5, 3.0):
                got = entropies(kind, alpha)(z)
                assert got.dtype == fw.dtype("float32")
                np.testing.assert_allclose(fw.numpy(got), exact_rows(kind, alpha, fw.numpy(z)), rtol=1e-5)


def test_nan_is_kept(fw: Framework) -> None:
    for kind in KINDS:
        for alpha in (0.5, 1.0, 2.0):
            for from_logits in (False, True):
                z = fw.array(np.asarray([[math.nan, 0.0, -INF]]))
                assert math.isnan(float(xp.entropy(z, kind=kind, alpha=alpha, from_logits=from_logits)))


@of_each_kind
def test_a_large_vocabulary(fw: Framework, kind: str) -> None:
    """In blocks, and over more classes than a fused softmax of XLA takes."""
    z = (2 * np.random.default_rng(3).standard_normal((3, 128256))).astype(np.float32)
    p = np.exp(z.astype(np.float64))
    p /= p.sum(axis=1, keepdims=True)
    for alpha in (0.5, 2.0):
        total = (p**alpha).sum(axis=1)
        want = (1 - total) / (alpha - 1) if kind == "tsallis" else np.log(total) / (1 - alpha)
        np.testing.assert_allclose(fw.numpy(entropies(kind, alpha)(fw.array(z, "float32"))), want, rtol=3e-6)


@autodiff
def test_slopes_where_the_sum_of_powers_is_zero_within_rounding(fw: Framework) -> None:
    z = np.zeros((1, 1024))
    for alpha in (33.0, 1025.0):
        first, second = first_and_second(
            fw, lambda x, a=alpha: xp.entropy(x, kind="renyi", alpha=a, from_logits=True), z
        )
        np.testing.assert_allclose(first, 0.0, atol=1e-15)
        assert np.isfinite(second).all()
