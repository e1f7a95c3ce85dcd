"""Cross-orthogonality of subspaces, different numbers of rows, zeros and extreme sizes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, close, first_and_second

autodiff = pytest.mark.needs("autodiff")
RNG = np.random.default_rng(0)
#: m, n, d: the product is m x n, or d x d
SHAPES = [(3, 2, 6), (6, 5, 4)]


def matrices(m: int, n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.standard_normal((m, d)), rng.standard_normal((n, d))


def value(fw: Framework, a: Any, b: Any, dtype: str = "float64", **options: Any) -> float:
    return float(xp.cross_orthogonality(fw.array(np.asarray(a), dtype), fw.array(np.asarray(b), dtype), **options))


def test_the_halves_of_a_basis_are_orthogonal(fw: Framework) -> None:
    q, _ = np.linalg.qr(RNG.standard_normal((8, 8)))
    for dtype, atol in (("float64", 1e-28), ("float32", 1e-11)):
        assert value(fw, q[:3], q[3:], dtype) == pytest.approx(0.0, abs=atol)
    few, many = RNG.standard_normal((30, 3)) @ q[:3], RNG.standard_normal((20, 5)) @ q[3:]  # 30 x 20 products of 8
    assert value(fw, few, many) == pytest.approx(0.0, abs=1e-13)
    assert value(fw, q[:3], q[:5]) == pytest.approx(3.0)
    assert value(fw, q, q[:, ::-1]) == pytest.approx(8.0)


@pytest.mark.parametrize("shape", SHAPES)
def test_cosines(fw: Framework, shape: tuple[int, int, int]) -> None:
    a, b = matrices(*shape)
    want = sum((u @ v) ** 2 / (u @ u) / (v @ v) for u in a for v in b)
    sizes = 10.0 ** RNG.integers(-20, 20, len(a))[:, None]
    for dtype in ("float64", "float32"):
        assert value(fw, a, b, dtype) == pytest.approx(want, rel=1e-5)
        assert value(fw, sizes * a, b / 7, dtype) == pytest.approx(want, rel=1e-5)
    assert value(fw, np.concatenate([a, a[:1]]), b) > want
    assert value(fw, b, a) == pytest.approx(want)
    assert value(fw, 3 * a, b, normalize=False) == pytest.approx(9 * np.sum((a @ b.T) ** 2))


def test_stacks(fw: Framework) -> None:
    """One term for each pair of matrices, which `where` and `weights` select."""
    a, b = RNG.standard_normal((2, 3, 2, 4)), RNG.standard_normal((2, 3, 5, 4))
    want = np.asarray([[value(fw, a[i, j], b[i, j]) for j in range(3)] for i in range(2)])
    terms = xp.cross_orthogonality(fw.array(a), fw.array(b), reduction="none")
    close(fw, terms, want)
    where, weights = np.asarray([[True, False, True]] * 2), np.arange(6.0).reshape(2, 3)
    bad = np.where(where[..., None, None], b, np.nan)
    got = xp.cross_orthogonality(
        fw.array(a), fw.array(bad), where=fw.array(where), weights=fw.array(weights), reduction="mean"
    )
    close(fw, got, np.average(want[where], weights=weights[where]))


@pytest.mark.parametrize("shape", SHAPES)
def test_no_rows(fw: Framework, shape: tuple[int, int, int]) -> None:
    """The first task has no earlier ones."""
    a, b = matrices(*shape)
    assert value(fw, a, b[:0]) == 0.0
    assert value(fw, a[:0], b) == 0.0
    assert value(fw, a[:, :0], b[:, :0]) == 0.0


@pytest.mark.parametrize(
    ("of_a", "of_b"), [((4,), (4,)), ((2, 4), (4,)), ((2, 4), (2, 5)), ((2, 2, 4), (2, 4)), ((2, 2, 4), (3, 2, 4))]
)
def test_refused_shapes(fw: Framework, of_a: tuple[int, ...], of_b: tuple[int, ...]) -> None:
    a, b = fw.array(np.ones(of_a)), fw.array(np.ones(of_b))
    with pytest.raises(
        ValueError, match=r"^cross_orthogonality: `a` and `b` must have the shapes \(\.\.\., m, d\) and"
    ):
        xp.cross_orthogonality(a, b)


def test_weights_of_rows_are_refused(fw: Framework) -> None:
    a, b = (fw.array(x) for x in matrices(3, 2, 6))
    with pytest.raises(
        ValueError, match=r"^cross_orthogonality: `weights` must broadcast to the terms' shape \(\), got"
    ):
        xp.cross_orthogonality(a, b, weights=fw.array(np.ones(3)))
    with pytest.raises(ValueError, match=r"^cross_orthogonality: `where` must broadcast to the terms' shape \(\), got"):
        xp.cross_orthogonality(a, b, where=fw.array(np.ones(3) > 0))


@autodiff
@pytest.mark.parametrize("shape", SHAPES)
def test_a_row_of_zeros(fw: Framework, shape: tuple[int, int, int]) -> None:
    a, b = matrices(*shape)
    a[1] = 0.0
    for wrt in (0, 1):
        first, second = first_and_second(fw, xp.cross_orthogonality, a, b, wrt=wrt)
        assert np.isfinite(first).all() and np.isfinite(second).all()
        assert wrt == 1 or ((first[1] == 0).all() and (first[0] != 0).all())
    assert value(fw, a, b) == pytest.approx(value(fw, np.delete(a, 1, axis=0), b))


@autodiff
@pytest.mark.parametrize("shape", SHAPES)
def test_gradient(fw: Framework, shape: tuple[int, int, int]) -> None:
    a, b = matrices(*shape)
    first, _ = first_and_second(fw, lambda a, b: xp.cross_orthogonality(a, b, normalize=False), a, b)
    np.testing.assert_allclose(first, 2 * a @ b.T @ b, rtol=1e-10)


def test_half_precision(fw: Framework) -> None:
    a, b = matrices(3, 2, 6)
    for dtype in {"float16", "bfloat16"} & set(fw.dtypes):
        x, y = fw.array(a, dtype), fw.array(b, dtype)
        got = xp.cross_orthogonality(x, y)
        assert got.dtype == fw.dtype("float32")
        want = value(fw, fw.numpy(x).astype(np.float64), fw.numpy(y).astype(np.float64))
        assert float(got) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("shape", [(4, 2, 200_000), (200_000, 100_000, 2)])
def test_only_the_smaller_matrix_is_built(fw: Framework, shape: tuple[int, int, int]) -> None:
    """The larger one would take 160 GB or more."""
    a, b = matrices(*shape)
    assert value(fw, a, b, normalize=False) == pytest.approx(
        np.sum((a.T @ a) * (b.T @ b)) if shape[2] == 2 else np.sum((a @ b.T) ** 2)
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_nan_is_not_hidden(fw: Framework, shape: tuple[int, int, int]) -> None:
    a, b = matrices(*shape)
    b[0, 0] = math.nan
    assert math.isnan(value(fw, a, b))
    assert math.isnan(value(fw, b, a))
