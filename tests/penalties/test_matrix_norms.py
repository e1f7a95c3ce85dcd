"""Norms of matrices: zeros, equal singular values, low rank, numbers of any size, NaN, half precision."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, close, curvature, first_and_second

autodiff = pytest.mark.needs("autodiff")
NORMS = pytest.mark.parametrize("norm", [xp.spectral_norm, xp.nuclear_norm], ids=lambda norm: norm.__name__)
RNG = np.random.default_rng(11)
Q, _ = np.linalg.qr(RNG.standard_normal((4, 4)))


def with_values(*values: float, shape: tuple[int, int] = (3, 4)) -> np.ndarray:
    """Return a matrix with these singular values."""
    u, _ = np.linalg.qr(RNG.standard_normal((shape[0], shape[0])))
    v, _ = np.linalg.qr(RNG.standard_normal((shape[1], shape[1])))
    s, places = np.zeros(shape), range(len(values))
    s[places, places] = values
    return u @ s @ v.T


#: matrices at which the derivatives of a decomposition are not finite
DEGENERATE = {
    "zeros": np.zeros((3, 4)),
    "identity": np.eye(3),
    "orthogonal": Q,
    "equal": with_values(2.0, 2.0, 1.0),
    "rank 1": np.ones((3, 2)),
    "rank 2": with_values(2.0, 1.0),
    "nearly equal": with_values(1.0, 1.0 + 1e-15, 0.5),
}


@autodiff
@NORMS
@pytest.mark.parametrize("name", DEGENERATE)
def test_derivatives_are_finite(fw: Framework, norm: Callable[..., Any], name: str) -> None:
    x = DEGENERATE[name]
    both = np.concatenate([np.stack([x, 2 * x]), np.zeros((2, *x.shape))])
    for one in (both, np.swapaxes(both, 1, 2).copy()):
        first, second = first_and_second(fw, fw.once(norm), one)
        assert np.isfinite(first).all() and np.isfinite(second).all()
        assert np.abs(first).max() <= 4 * np.abs(one).max() + 1 and np.abs(second).max() < 1e3
        assert (first[2:] == 0).all()


@autodiff
def test_the_gradient_at_ties_is_a_subgradient(fw: Framework) -> None:
    got = fw.numpy(xp.grad(xp.spectral_norm)(fw.array(Q)))
    u, s, _ = np.linalg.svd(got)
    np.testing.assert_allclose(s, [2.0, 0.0, 0.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(u[:, 0] @ got @ Q.T @ u[:, 0], 2.0)
    np.testing.assert_allclose(fw.numpy(xp.grad(xp.nuclear_norm)(fw.array(Q))), Q, atol=1e-12)
    low = with_values(2.0, 1.0)
    u, _, vh = np.linalg.svd(low)
    np.testing.assert_allclose(fw.numpy(xp.grad(xp.nuclear_norm)(fw.array(low))), u[:, :2] @ vh[:2], atol=1e-10)


@autodiff
@pytest.mark.parametrize("shape", [(3, 4), (4, 3), (3, 3)])
def test_the_curvature_of_the_nuclear_norm_where_values_are_equal(fw: Framework, shape: tuple[int, int]) -> None:
    """It is smooth there: differences of values are right, and those of gradients."""
    x, along = with_values(2.0, 2.0, 1.0, shape=shape), RNG.standard_normal(shape)
    step = 1e-3

    def value(t: float) -> float:
        return float(np.linalg.norm(x + t * along, ord="nuc"))

    want = (value(step) - 2 * value(0.0) + value(-step)) / step**2
    got = curvature(fw, xp.nuclear_norm, x, along)
    assert np.sum(got * along) == pytest.approx(want, rel=1e-5)


@autodiff
def test_the_curvature_of_low_rank_is_that_of_the_nonzero_values(fw: Framework) -> None:
    x, along, step = with_values(2.0, 1.0), RNG.standard_normal((3, 4)), 1e-3

    def value(t: float) -> float:
        return float(np.sum(np.linalg.svd(x + t * along, compute_uv=False)[:2]))

    want = (value(step) - 2 * value(0.0) + value(-step)) / step**2
    assert np.sum(curvature(fw, xp.nuclear_norm, x, along) * along) == pytest.approx(want, rel=1e-5)


def test_between_the_two_is_the_frobenius_norm(fw: Framework) -> None:
    x = fw.array(RNG.standard_normal((5, 3, 4)))
    spectral, squares = (fw.numpy(each) for each in (xp.spectral_norm(x, reduction="none"), x * x))
    nuclear = fw.numpy(xp.nuclear_norm(x, reduction="none"))
    frobenius = np.sqrt(squares.sum(axis=(1, 2)))
    assert (np.sqrt(spectral) <= frobenius).all() and (frobenius <= nuclear).all()
    assert (nuclear <= np.sqrt(3 * squares.sum(axis=(1, 2)))).all()


@autodiff
def test_the_proximal_operator_of_the_nuclear_norm_is_its_own(fw: Framework) -> None:
    """At its result w, `x - w` is `scale` times a subgradient: the gradient, and at most 1 where values are 0."""
    x = with_values(3.0, 1.0, 0.2)
    w = xp.prox.nuclear_norm(fw.array(x), scale=0.5)
    rest = (x - fw.numpy(w)) / 0.5 - fw.numpy(xp.grad(xp.nuclear_norm)(w))
    assert np.linalg.norm(rest, ord=2) <= 1
    assert np.abs(fw.numpy(w).T @ rest).max() < 1e-10


@NORMS
@pytest.mark.parametrize("scale", [1e-18, 1e18])
def test_numbers_of_any_size(fw: Framework, norm: Callable[..., Any], scale: float) -> None:
    x = with_values(3.0, 1.0, 0.5)
    power = 2 if norm is xp.spectral_norm else 1
    got = float(norm(fw.array(scale * x, "float32")))
    assert got == pytest.approx(float(norm(fw.array(x))) * scale**power, rel=1e-5)
    if fw.has_autodiff:
        gradient = fw.numpy(xp.grad(norm)(fw.array(scale * x, "float32")))
        want = fw.numpy(xp.grad(norm)(fw.array(x))) * scale ** (power - 1)
        np.testing.assert_allclose(gradient, want, rtol=1e-3, atol=1e-5 * np.abs(want).max())


@NORMS
def test_numbers_whose_squares_are_out_of_range(fw: Framework, norm: Callable[..., Any]) -> None:
    x = with_values(3.0, 1.0, 0.5)
    for scale, spectral in ((1e-30, 0.0), (1e30, math.inf)):
        got = float(norm(fw.array(scale * x, "float32")))
        assert got == pytest.approx(spectral if norm is xp.spectral_norm else 4.5 * scale, rel=1e-5)
    if fw.has_autodiff:
        assert np.isfinite(fw.numpy(xp.grad(norm)(fw.array(1e-30 * x, "float32")))).all()


@autodiff
def test_the_smallest_numbers(fw: Framework) -> None:
    """Their reciprocals are infinite, or they are flushed to 0."""
    x = np.asarray([[1e-45, 0.0], [0.0, 1e-42]])
    first = xp.grad(xp.nuclear_norm)
    both = xp.grad(lambda x: xp.namespace(x).sum(first(x) ** 2))
    for derivative in (first, both):
        assert np.isfinite(fw.numpy(derivative(fw.array(x, "float32")))).all()


@NORMS
def test_infinite_and_missing_numbers(fw: Framework, norm: Callable[..., Any]) -> None:
    x = np.stack([np.eye(2)] * 3)
    x[0, 0, 1], x[1, 1, 0] = math.nan, math.inf
    got = fw.numpy(norm(fw.array(x), reduction="none"))
    assert np.isnan(got[0]) and got[1] == math.inf
    close(fw, norm(fw.array(x[2:])), got[2])


@NORMS
def test_half_precision(fw: Framework, norm: Callable[..., Any]) -> None:
    for dtype in {"float16", "bfloat16"} & set(fw.dtypes):
        x = fw.array(300 * RNG.standard_normal((4, 6)), dtype)
        got, want = norm(x), norm(fw.array(fw.numpy(x)))
        assert got.dtype == fw.dtype("float32") and float(got) == pytest.approx(float(want), rel=1e-5)


@NORMS
def test_too_few_axes(fw: Framework, norm: Callable[..., Any]) -> None:
    for x in (np.asarray(1.0), np.ones(3)):
        with pytest.raises(ValueError, match=rf"^{norm.__name__}: `x` must have at least 2 axes, got shape .*Reshape"):
            norm(fw.array(x))


@NORMS
def test_single_rows_and_columns(fw: Framework, norm: Callable[..., Any]) -> None:
    want = 25.0 if norm is xp.spectral_norm else 5.0
    for x in (np.asarray([[3.0, 4.0]]), np.asarray([[3.0], [4.0]])):
        close(fw, norm(fw.array(x)), want)


@pytest.mark.only("dask", reason="is about chunks")
def test_chunks_that_hold_parts_of_a_matrix(fw: Framework) -> None:
    x = RNG.standard_normal((4, 6))
    parts = fw.array(x).rechunk(2)
    close(fw, xp.spectral_norm(parts), float(xp.spectral_norm(x)))
    with pytest.raises(NotImplementedError, match=r"^nuclear_norm: `x` must have chunks of whole matrices.*rechunk"):
        xp.nuclear_norm(parts)
    close(fw, xp.nuclear_norm(parts.rechunk(-1)), float(xp.nuclear_norm(x)))
