"""Projections at their edges; test_operators.py has what they share with other proximal operators."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, close
from xpenalties import prox

RNG = np.random.default_rng(11)


def test_a_box_of_one_side(fw: Framework) -> None:
    x = np.asarray([-2.0, 0.5, 3.0])
    close(fw, prox.box(fw.array(x), low=0), np.maximum(x, 0))
    close(fw, prox.box(fw.array(x), high=1), np.minimum(x, 1))
    close(fw, prox.box(fw.array(x)), x)
    close(fw, prox.box(fw.array(x, "float32"), low=-1e300, high=1e300), x)  # what float32 does not hold


BOUNDS: list[tuple[Any, Any]] = [
    (np.asarray([-1.0, 0.0, 0.5]), np.asarray([[0.0], [1.0]])),
    (np.asarray(0.25), 1.0),
    (-0.5, np.full((2, 3), 0.5)),
    (None, np.asarray([-math.inf, math.inf, 0.0])),
]


@pytest.mark.parametrize(("low", "high"), BOUNDS)
def test_bounds_that_are_arrays(fw: Framework, low: Any, high: Any) -> None:
    x = RNG.normal(size=(2, 3))
    given = {side: bound for side, bound in (("low", low), ("high", high)) if bound is not None}
    arrays = {side: fw.array(bound) if isinstance(bound, np.ndarray) else bound for side, bound in given.items()}
    want = np.minimum(np.maximum(x, -math.inf if low is None else low), high)
    close(fw, prox.box(fw.array(x), **arrays), want)
    narrow = prox.box(fw.array(x, "float32"), **arrays)
    assert narrow.dtype == fw.dtype("float32") and tuple(narrow.shape) == (2, 3)
    close(fw, narrow, want, rtol=1e-6)
    if fw.has_jit:
        compiled, _ = fw.compile(lambda x, bounds: prox.box(x, **bounds))
        close(fw, compiled(fw.array(x), arrays), want)


@pytest.mark.needs("autodiff")
def test_gradients_by_bounds_and_radius(fw: Framework) -> None:
    x, factors = np.asarray([[-2.0, 0.5, 3.0]]), np.asarray([[1.0, 2.0, 4.0]])

    def clipped(bounds: Any) -> Any:
        result = prox.box(fw.array(x), low=bounds[0], high=bounds[1])
        return xp.namespace(result).sum(result * fw.array(factors))

    low, high = xp.grad(clipped)([fw.array(np.asarray([-1.0, -1.0, -1.0])), fw.array(np.asarray(1.0))])
    close(fw, low, np.asarray([1.0, 0.0, 0.0]))
    close(fw, high, np.asarray(4.0))

    def projected(radius: Any) -> Any:
        result = prox.simplex(fw.array(x), radius=radius)
        return xp.namespace(result).sum(result * fw.array(factors))

    close(fw, xp.grad(projected)(fw.array(np.asarray(1.0))), np.asarray(4.0))  # the largest element takes it all
    close(fw, xp.grad(projected)(fw.array(np.asarray([4.0]))), np.asarray([3.0]))  # two share it


@pytest.mark.parametrize(("axis", "shape"), [(0, (4,)), (1, (3,)), (-1, (1,)), (0, ())])
def test_radii_that_are_arrays(fw: Framework, axis: int, shape: tuple[int, ...]) -> None:
    x, radius = RNG.normal(size=(3, 4)), RNG.uniform(0.5, 2, size=shape)
    slices = np.moveaxis(x, axis, -1)
    radii = np.broadcast_to(radius, slices.shape[:1])
    each = [prox.simplex(row, radius=float(r)) for row, r in zip(slices, radii, strict=True)]
    want = np.moveaxis(np.stack(each), -1, axis)
    close(fw, prox.simplex(fw.array(x), radius=fw.array(radius), axis=axis), want)
    if fw.has_jit:
        compiled, count = fw.compile(lambda x, radius: prox.simplex(x, radius=radius, axis=axis))
        counts = set()
        for factor in (1.0, 1.0, 1.5):
            got = fw.numpy(compiled(fw.array(x), fw.array(factor * radius)))
            np.testing.assert_allclose(got.sum(axis), factor * radii)
            counts.add(count())
        assert len(counts) == 1


def test_simplex_of_large_and_masked(fw: Framework) -> None:
    close(fw, prox.simplex(fw.array(np.asarray([1e9, 1e9 - 0.5, -math.inf]))), np.asarray([0.75, 0.25, 0.0]))
    close(fw, prox.simplex(fw.array(np.asarray([-7.0]))), np.asarray([1.0]))
    close(fw, prox.simplex(fw.array(np.asarray([3e38, -3e38]), "float32")), np.asarray([1.0, 0.0]))  # without a warning
    x = RNG.normal(size=(1000,)) * 10
    got = fw.numpy(prox.simplex(fw.array(x)))
    assert got.sum() == pytest.approx(1, rel=1e-12) and got.min() == 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: prox.box(x, low="a"), TypeError, r"^box: `low` must be a number in \(-inf, inf\), got str"),
        (lambda x: prox.box(x, low=1, high=0), ValueError, r"^box: `low` must not be above `high`, got 1\.0 and 0\.0"),
        (lambda x: prox.box(x, low=x[0, :2]), ValueError, r"^box: `low` must broadcast to `x`, got shapes \(2,\) and"),
        (lambda x: prox.box(x, low=0, high=x > 0), TypeError, r"^box: `high` must be real, got .*bool"),
        (
            lambda x: prox.simplex(x, radius=x),
            ValueError,
            r"^simplex: `radius` must broadcast to `x` without `axis`, got shapes \(2, 3\) and \(2,\)",
        ),
        (lambda x: prox.simplex(x, axis=(0, 1)), TypeError, r"^simplex: `axis` must be an integer, got \(0, 1\)"),
        (lambda x: prox.simplex(x, radius=0), ValueError, r"^simplex: `radius` must be in \(0, inf\), got 0"),
        (lambda x: prox.simplex(x, axis=-3), ValueError, r"^simplex: `axis` must be an axis of `x`, got -3 for shape"),
        (
            lambda x: prox.simplex(x[0, 0]),
            ValueError,
            r"^simplex: `axis` must be an axis of `x`, got -1 for shape \(\)",
        ),
    ],
)
def test_errors(fw: Framework, call: Callable[[Any], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(fw.array(np.ones((2, 3))))
