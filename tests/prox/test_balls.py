"""Projections onto balls and spheres, and hard thresholding, at their edges. test_operators.py has the convex ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, close
from xpenalties import prox

RNG = np.random.default_rng(5)
NO_SORT = pytest.mark.without("dask", reason="Dask cannot sort")


def test_sphere(fw: Framework) -> None:
    x = RNG.normal(size=(3, 4))
    x[1] = 0.0
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    want = 2.0 * x / np.where(lengths == 0, 1, lengths)
    close(fw, prox.l2_sphere(fw.array(x), radius=2.0), want)
    close(fw, prox.l2_sphere(fw.array(x), radius=fw.array(np.asarray([2.0, 1.0, 2.0]))), want)
    close(fw, prox.l2_sphere(fw.array(x), axis=(0, 1)), x / np.linalg.norm(x))
    tiny = prox.l2_sphere(fw.array(np.asarray([1e-30, 1e30 * 0]), "float32"))
    close(fw, tiny, np.asarray([1.0, 0.0]))


@pytest.mark.needs("autodiff")
def test_slopes_of_the_sphere(fw: Framework) -> None:
    """Lengths have no slope: the gradient is orthogonal to the vector, and 0 for a zero vector."""
    x, factors = np.asarray([[3.0, 4.0], [0.0, 0.0]]), fw.array(np.asarray([[1.0, 2.0], [1.0, 2.0]]))
    got = fw.numpy(xp.grad(lambda x: xp.namespace(x).sum(prox.l2_sphere(x) * factors))(fw.array(x)))
    np.testing.assert_allclose(got, [[-8 / 125, 6 / 125], [0.0, 0.0]], rtol=1e-12)


@NO_SORT
def test_top_k(fw: Framework) -> None:
    x = np.asarray([[0.5, -3.0, 1.0, -1.0], [0.0, 0.0, 0.0, 0.0], [2.0, -2.0, 2.0, -2.0]])
    want = np.asarray([[0.0, -3.0, 1.0, 0.0], [0.0] * 4, [2.0, -2.0, 0.0, 0.0]])  # of ties, the first
    close(fw, prox.top_k(fw.array(x), k=2), want)
    close(fw, prox.top_k(fw.array(x), k=4), x)
    close(fw, prox.top_k(fw.array(x), k=9), x)
    close(fw, prox.top_k(fw.array(x), k=1, axis=0), [[0.0, -3.0, 0.0, 0.0], [0.0] * 4, [2.0, 0.0, 2.0, -2.0]])
    for dtype in fw.dtypes:
        got = prox.top_k(fw.array(x, dtype), k=2)
        assert got.dtype == fw.dtype(dtype)
        close(fw, got, want)
    close(fw, prox.top_k(fw.array(np.asarray([1.0, math.nan, 2.0])), k=2), np.asarray([0.0, math.nan, 2.0]))


@NO_SORT
@pytest.mark.needs("autodiff")
def test_slopes_of_top_k(fw: Framework) -> None:
    x = fw.array(np.asarray([0.5, -3.0, 1.0]))
    gradient = xp.grad(lambda x: xp.namespace(x).sum(prox.top_k(x, k=2) ** 2))(x)
    close(fw, gradient, np.asarray([0.0, -6.0, 2.0]))


@NO_SORT
@pytest.mark.needs("jit")
def test_compiled(fw: Framework) -> None:
    x = fw.array(RNG.normal(size=(3, 4)))
    compiled, _ = fw.compile(lambda x: (prox.top_k(x, k=2), prox.l2_sphere(x)))
    for got, want in zip(compiled(x), (prox.top_k(x, k=2), prox.l2_sphere(x)), strict=True):
        close(fw, got, fw.numpy(want))


@pytest.mark.only("dask", reason="the others can sort")
def test_dask_cannot_sort(fw: Framework) -> None:
    with pytest.raises(NotImplementedError, match=r"^top_k: `x` must be sorted, which Dask cannot do"):
        prox.top_k(fw.array(np.ones(3)), k=2)


def test_inside_nothing_changes(fw: Framework) -> None:
    x = 0.1 * RNG.normal(size=(3, 4))
    for project in (prox.l1_ball, prox.l2_ball, prox.spectral_ball):
        close(fw, project(fw.array(x), radius=10.0), x)


def test_radii_that_are_arrays(fw: Framework) -> None:
    x, radius = RNG.normal(size=(3, 4)), np.asarray([0.5, 1.0, 2.0])
    for project in (prox.l1_ball, prox.l2_ball):
        each = [fw.numpy(project(fw.array(row), radius=float(r))) for row, r in zip(x, radius, strict=True)]
        close(fw, project(fw.array(x), radius=fw.array(radius)), np.stack(each))


@pytest.mark.without("dask", reason="Dask decomposes one matrix, no batch")
def test_a_radius_for_each_matrix(fw: Framework) -> None:
    x, radius = RNG.normal(size=(2, 4, 3)), np.asarray([0.5, 1.0])
    got = fw.numpy(prox.spectral_ball(fw.array(x), radius=fw.array(radius)))
    want = np.minimum(np.linalg.svd(x, compute_uv=False), radius[:, None])
    np.testing.assert_allclose(np.linalg.svd(got, compute_uv=False), want, rtol=1e-12)


def test_extreme_sizes(fw: Framework) -> None:
    close(fw, prox.l2_ball(fw.array(np.asarray([3e30, 4e30]), "float32")), [0.6, 0.8], rtol=1e-6)
    close(fw, prox.l1_ball(fw.array(np.asarray([3e38, -1e38]), "float32")), [1.0, 0.0])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: prox.l1_ball(x, radius=0), ValueError, r"^l1_ball: `radius` must be in \(0, inf\), got 0"),
        (lambda x: prox.l2_ball(x, axis=2), ValueError, r"^l2_ball: `axis` must be an axis of `x`, got 2 for shape"),
        (lambda x: prox.l2_sphere(x, radius=x), ValueError, r"^l2_sphere: `radius` must broadcast to `x` without"),
        (
            lambda x: prox.spectral_ball(x[0, :]),
            ValueError,
            r"^spectral_ball: `x` must have at least 2 axes, got",
        ),
        (lambda x: prox.top_k(x, k=0), ValueError, r"^top_k: `k` must be at least 1, got 0"),
        (lambda x: prox.top_k(x, k=1.5), TypeError, r"^top_k: `k` must be an integer"),
    ],
)
def test_errors(fw: Framework, call: Callable[[Any], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(fw.array(np.ones((2, 3))))
