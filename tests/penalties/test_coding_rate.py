"""The coding rate of zeros, of orthogonal and collapsed samples, and of extreme sizes."""

from __future__ import annotations

import math
from typing import Any

import mpmath as mp
import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, first_and_second

autodiff = pytest.mark.needs("autodiff")
SHAPES = [(8, 3), (3, 8)]


def samples(shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape)


def value(fw: Framework, x: Any, dtype: str = "float64", **options: Any) -> float:
    return float(xp.coding_rate(fw.array(np.asarray(x), dtype), **{"mode": "penalty", **options}))


def exact(x: np.ndarray, eps: float = 0.5) -> float:
    """In 40 digits, by elimination."""
    with mp.workdps(40):
        n, d = x.shape
        matrix = mp.matrix(x.astype(float).tolist())
        return float(mp.log(mp.det(mp.eye(d) + matrix.T * matrix * mp.mpf(d) / (n * mp.mpf(eps) ** 2))) / 2)


@pytest.mark.parametrize("shape", SHAPES)
def test_values(fw: Framework, shape: tuple[int, int]) -> None:
    x = samples(shape)
    for eps in (0.5, 0.1, 3):
        assert value(fw, x, eps=eps) == pytest.approx(exact(x, eps), rel=1e-12)
        assert value(fw, x, eps=eps, mode="bonus") == -value(fw, x, eps=eps)
        assert value(fw, x, "float32", eps=eps) == pytest.approx(exact(x, eps), rel=1e-5)
    rotation, _ = np.linalg.qr(samples((shape[1], shape[1])))
    assert value(fw, x @ rotation) == pytest.approx(value(fw, x))
    assert value(fw, 7 * x, eps=3.5) == pytest.approx(value(fw, x))


def test_closed_forms(fw: Framework) -> None:
    n, d = 6, 4
    collapsed = np.full((n, d), 0.5)  # unit rows, all equal
    for dtype, rel in (("float64", 1e-12), ("float32", 1e-5)):
        assert value(fw, collapsed, dtype) == pytest.approx(math.log(1 + d / 0.25) / 2, rel=rel)
        assert value(fw, np.eye(d), dtype) == pytest.approx(d * math.log(1 + 1 / 0.25) / 2, rel=rel)
        assert value(fw, np.zeros((n, d)), dtype) == 0.0
    assert value(fw, [[3.0]], eps=1.0) == pytest.approx(math.log(10) / 2)
    assert value(fw, 1e15 * np.eye(d), "float32") == pytest.approx(d * math.log(1e30 * 4) / 2, rel=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shorter_batch(fw: Framework, shape: tuple[int, int]) -> None:
    x = samples(shape)
    n = shape[0]
    one, some = np.arange(n) == 1, np.arange(n) < n - 1
    bad = np.where(some[:, None], x, math.nan)
    assert value(fw, x, where=fw.array(one)) == pytest.approx(exact(x[1:2]))
    assert value(fw, bad, where=fw.array(some)) == pytest.approx(exact(x[:-1]))
    assert value(fw, x, weights=fw.array(3.0 * some)) == pytest.approx(exact(x[:-1]))
    twice = np.concatenate([x, x[:1]])
    assert value(fw, x, weights=fw.array(1.0 + (np.arange(n) == 0))) == pytest.approx(exact(twice))


@autodiff
@pytest.mark.parametrize("shape", SHAPES)
def test_gradient(fw: Framework, shape: tuple[int, int]) -> None:
    x = samples(shape)
    c = shape[1] / (shape[0] * 0.25)
    want = -c * x @ np.linalg.inv(np.eye(shape[1]) + c * x.T @ x)
    first, second = first_and_second(fw, xp.coding_rate, x)
    np.testing.assert_allclose(first, want, rtol=1e-9, atol=1e-12)
    assert np.isfinite(second).all()
    for at in (np.zeros(shape), np.full(shape, 0.1)):  # of zeros and of equal samples
        first, second = first_and_second(fw, xp.coding_rate, at)
        assert np.isfinite(first).all() and np.isfinite(second).all()
        assert (first == 0).all() or at.any()


@autodiff
@pytest.mark.parametrize("shape", SHAPES)
def test_weights_that_start_at_0(fw: Framework, shape: tuple[int, int]) -> None:
    """Their slope is the limit from weights above 0."""
    x = samples(shape)
    weights = np.asarray([1.0, 0.0, 0.5, 2.0, 1.0, 0.0, 1.0, 1.0])[: shape[0]]
    gradient = xp.grad(lambda w: xp.coding_rate(fw.array(x), weights=w))
    at, near = (fw.numpy(gradient(fw.array(w))) for w in (weights, weights + 1e-9 * (weights == 0)))
    assert abs(at[1]) > 1e-6
    np.testing.assert_allclose(at, near, rtol=1e-6)


@autodiff
@pytest.mark.parametrize("shape", SHAPES)
def test_weights_that_are_all_0(fw: Framework, shape: tuple[int, int]) -> None:
    x = fw.array(samples(shape))
    gradient = xp.grad(lambda w: xp.coding_rate(x, weights=w))(fw.array(np.zeros(shape[0])))
    assert (fw.numpy(gradient) == 0).all()


def test_half_precision(fw: Framework) -> None:
    for dtype in {"float16", "bfloat16"} & set(fw.dtypes):
        x = fw.array(samples((8, 3)), dtype)
        got = xp.coding_rate(x, mode="penalty")
        assert got.dtype == fw.dtype("float32")
        assert float(got) == pytest.approx(exact(fw.numpy(x).astype(np.float64)), rel=1e-5)


@pytest.mark.only("strict", reason="all others have a slogdet, and here it can be taken away")
def test_without_slogdet(fw: Framework, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(fw.module.linalg, "slogdet")
    with pytest.raises(
        NotImplementedError, match=r"^coding_rate: needs linalg.slogdet, which .*strict lacks\. Convert"
    ):
        xp.coding_rate(fw.array(np.ones((2, 2))))


def test_refused_shapes(fw: Framework) -> None:
    for shape in ((4,), (2, 3, 4)):
        with pytest.raises(
            ValueError, match=r"^coding_rate: `x` must have shape \(n, d\) with n >= 1, got .*Reshape it"
        ):
            xp.coding_rate(fw.array(np.ones(shape)))


@pytest.mark.parametrize("shape", [(2, 200_000), (200_000, 2)])
def test_only_the_smaller_matrix_is_built(fw: Framework, shape: tuple[int, int]) -> None:
    """The larger one would take 320 GB."""
    x = samples(shape)
    weighted = value(fw, x, weights=fw.array(np.ones(shape[0])))
    assert 0 < weighted == pytest.approx(value(fw, x))


@pytest.mark.parametrize("shape", SHAPES)
def test_nan_is_not_hidden(fw: Framework, shape: tuple[int, int]) -> None:
    x = samples(shape)
    x[1, 0] = math.nan
    assert math.isnan(value(fw, x))
    assert math.isnan(value(fw, x, weights=fw.array(np.ones(shape[0]))))
