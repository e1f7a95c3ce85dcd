"""Counts and concave penalties: straight-through slopes, joints, numbers of any size, NaN, half precision."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, close, curvature, first_and_second

autodiff = pytest.mark.needs("autodiff")
PENALTIES: dict[str, Callable[..., Any]] = {
    "step": xp.l0,
    "step, both": lambda x, **shared: xp.l0(x, threshold=0.5, through="both", **shared),
    "tanh": lambda x, **shared: xp.l0(x, kind="tanh", **shared),
    "hard_concrete": lambda x, **shared: xp.l0(x, kind="hard_concrete", **shared),
    "mcp": xp.mcp,
    "scad": xp.scad,
    "log_sum": xp.log_sum,
    "lp": xp.lp,
    "hoyer": xp.hoyer,
    "hoyer, rows": lambda x, **shared: xp.hoyer(x, axis=-1, **shared),
    "log_cosh": xp.log_cosh,
    "charbonnier": xp.charbonnier,
}
ALL = pytest.mark.parametrize("name", PENALTIES)


@autodiff
@ALL
def test_zeros(fw: Framework, name: str) -> None:
    x = np.zeros((2, 3))
    first, second = first_and_second(fw, PENALTIES[name], x)
    assert np.isfinite(first).all() and np.isfinite(second).all()
    if name != "hard_concrete":
        assert float(PENALTIES[name](fw.array(x))) == 0.0 and (first == 0).all()


@ALL
def test_missing_numbers(fw: Framework, name: str) -> None:
    x = fw.array(np.asarray([[0.25, math.nan], [1.0, 0.5]]))
    got = fw.numpy(PENALTIES[name](x, reduction="none"))
    if name == "hoyer":
        assert np.isnan(got)
    elif name == "hoyer, rows":
        assert np.isnan(got).tolist() == [True, False]
    else:
        assert np.isnan(got).tolist() == [[False, True], [False, False]]
    assert np.isnan(float(PENALTIES[name](x)))


@ALL
@pytest.mark.parametrize("size", [1e-36, 1e-20, 1e20, 1e36])
def test_numbers_of_any_size(fw: Framework, name: str, size: float) -> None:
    x = np.asarray([[1.0, -2.0, 0.5]]) * size
    single = fw.array(x, "float32")
    want = float(PENALTIES[name](fw.array(fw.numpy(single))))
    assert float(PENALTIES[name](single)) == pytest.approx(want, rel=2e-6) and math.isfinite(want)
    if fw.has_autodiff:
        gradient = fw.numpy(xp.grad(PENALTIES[name])(single))
        assert np.isfinite(gradient).all()
        wanted = fw.numpy(xp.grad(PENALTIES[name])(fw.array(fw.numpy(single))))
        np.testing.assert_allclose(gradient, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())


@ALL
def test_half_precision(fw: Framework, name: str) -> None:
    for dtype in {"float16", "bfloat16"} & set(fw.dtypes):
        x = fw.array(np.asarray([[300.0, -400.0, 0.125]] * 500), dtype)
        got, want = PENALTIES[name](x), PENALTIES[name](fw.array(fw.numpy(x)))
        assert got.dtype == fw.dtype("float32") and float(got) == pytest.approx(float(want), rel=1e-5)


@ALL
def test_no_axes(fw: Framework, name: str) -> None:
    if name == "hoyer, rows":
        with pytest.raises(ValueError, match=r"^hoyer: `x` must have at least 1 axis, got shape \(\)"):
            PENALTIES[name](fw.array(np.asarray(3.0)))
    else:
        got = PENALTIES[name](fw.array(np.asarray(3.0)))
        assert tuple(got.shape) == ()
        close(fw, got, fw.numpy(PENALTIES[name](fw.array(np.asarray([3.0])))))


def smoothed_step(x: np.ndarray, threshold: np.ndarray, width: float) -> np.ndarray:
    """Return the mean of the step over a window of thresholds, whose derivative is the straight-through slope."""
    thresholds = threshold + width * (np.arange(2000) + 0.5 - 1000) / 2000
    return np.mean(np.abs(x)[..., None] > thresholds, axis=-1)


@autodiff
def test_the_slope_of_a_step_is_that_of_a_window_of_steps(fw: Framework) -> None:
    x, threshold, width = np.asarray([-1.09, -0.95, 0.0, 0.91, 1.04, 3.0]), 1.0, 0.2
    step = 0.01
    want = (smoothed_step(x, threshold + step, width) - smoothed_step(x, threshold - step, width)) / (2 * step)

    def of(x: Any, threshold: Any, through: str = "threshold") -> Any:
        return xp.l0(x, threshold=threshold, bandwidth=width, through=through)

    at = fw.array(np.full(6, threshold))
    assert float(of(fw.array(x), at)) == 3.0
    got = fw.numpy(xp.grad(lambda t: of(fw.array(x), t))(at))
    np.testing.assert_allclose(got, want, atol=1e-2)
    assert got.tolist() == pytest.approx([-5.0, -5.0, 0.0, -5.0, -5.0, 0.0])
    assert (fw.numpy(xp.grad(lambda x: of(x, at))(fw.array(x))) == 0).all()
    by_x = fw.numpy(xp.grad(lambda x: of(x, at, "both"))(fw.array(x)))
    assert by_x.tolist() == pytest.approx([-5.0, -5.0, 0.0, 5.0, 5.0, 0.0])
    both = xp.grad(lambda x: xp.namespace(x).sum(xp.grad(lambda x: of(x, at, "both"))(x) ** 2))
    assert (fw.numpy(fw.once(both)(fw.array(x))) == 0).all()


@autodiff
def test_one_threshold_for_each_feature(fw: Framework) -> None:
    x = fw.array(np.asarray([[1.0, 2.0, 0.0], [0.9, 1.9, 0.0]]))
    threshold = fw.array(np.asarray([0.95, 1.0, 0.0]))
    value, slope = xp.value_and_grad(lambda t: xp.l0(x, threshold=t, bandwidth=0.5, reduction="mean"))(threshold)
    assert float(value) == 0.5
    np.testing.assert_allclose(fw.numpy(slope), np.asarray([-4.0, 0.0, -4.0]) / 6)
    with pytest.raises(ValueError, match=r"^l0: `threshold` must broadcast to `x`, got \(2,\) for \(2, 3\)\. Reshape"):
        xp.l0(x, threshold=threshold[:2])
    with pytest.raises(TypeError, match=r"^l0: `threshold` must be real floating point, got .*bool"):
        xp.l0(x, threshold=threshold > 0)


def test_a_threshold_does_not_widen(fw: Framework) -> None:
    x, threshold = fw.array(np.ones(3), "float32"), fw.array(np.ones(3) / 2)
    assert xp.l0(x, threshold=threshold).dtype == fw.dtype("float32")


def test_the_probability_that_a_gate_is_open(fw: Framework) -> None:
    """By drawing hard concrete gates."""
    log_alpha, beta, gamma, zeta = 0.3, 2 / 3, -0.1, 1.1
    u = (np.arange(100000) + 0.5) / 100000
    gates = 1 / (1 + np.exp(-(np.log(u) - np.log(1 - u) + log_alpha) / beta)) * (zeta - gamma) + gamma
    got = float(xp.l0(fw.array(np.asarray(log_alpha)), kind="hard_concrete"))
    assert got == pytest.approx(np.mean(gates > 0), abs=1e-4)


@autodiff
def test_closed_gates_keep_their_slope(fw: Framework) -> None:
    x = fw.array(np.asarray([-60.0, 60.0]), "float32")
    got = fw.numpy(xp.grad(lambda x: xp.l0(x, kind="hard_concrete"))(x))
    np.testing.assert_allclose(got, 11 ** (2 / 3) * np.exp([-60.0, -60.0]) * [1, 11 ** (-4 / 3)], rtol=1e-4)


@autodiff
def test_curvature(fw: Framework) -> None:
    c = np.asarray([1.0, -2.0, 3.0])
    zeros = np.zeros(3)
    np.testing.assert_allclose(curvature(fw, lambda x: xp.mcp(x, threshold=2.0), zeros, c), -c / 2)
    np.testing.assert_allclose(curvature(fw, lambda x: xp.log_cosh(x, scale=0.25), zeros, c), c)
    np.testing.assert_allclose(curvature(fw, lambda x: xp.charbonnier(x, eps=0.25), zeros, c), 4 * c)
    for penalty in (xp.scad, xp.lp, xp.log_sum, xp.hoyer):
        assert np.isfinite(curvature(fw, penalty, zeros, c)).all()


@autodiff
def test_joints_are_smooth(fw: Framework) -> None:
    for penalty, joint in (
        (lambda x: xp.mcp(x, threshold=2.0), 2.0),
        (lambda x: xp.scad(x, knee=0.5, a=4.0), 0.5),
        (lambda x: xp.scad(x, knee=0.5, a=4.0), 2.0),
        (lambda x: xp.log_sum(x, eps=1e-3), 1e14),
        (lambda x: xp.log_cosh(x, scale=0.5), 0.5),
        (lambda x: xp.charbonnier(x, eps=0.5), 5e7),
        (lambda x: xp.l0(x, kind="tanh"), 5.0),
    ):
        around = fw.array(joint * np.asarray([1 - 1e-9, 1.0, 1 + 1e-9]))
        values, slopes = fw.numpy(penalty(around)), fw.numpy(xp.grad(penalty)(around))
        assert np.isfinite(values).all()
        np.testing.assert_allclose(slopes, slopes[1], rtol=1e-6, atol=1e-8)


def test_small_values_keep_their_digits(fw: Framework) -> None:
    x = fw.array(np.asarray([1e-4]), "float32")
    assert float(xp.log_cosh(x)) == pytest.approx(5e-9, rel=1e-5)
    assert float(xp.charbonnier(x)) == pytest.approx(5e-9, rel=1e-5)
    assert float(xp.log_sum(x)) == pytest.approx(math.log1p(1e-4), rel=1e-5)


def test_ratios_that_overflow(fw: Framework) -> None:
    x = fw.array(np.asarray([1e36]), "float32")
    assert float(xp.log_sum(x, eps=1e-6)) == pytest.approx(math.log(1e42), rel=1e-5)


def test_the_hoyer_ratio_counts(fw: Framework) -> None:
    x = np.zeros((3, 8))
    x[0, :1], x[1, :4], x[2] = 7.0, -2.0, 1e-3
    close(fw, xp.hoyer(fw.array(x), axis=-1, reduction="none"), [1.0, 4.0, 8.0])
    close(fw, xp.hoyer(fw.array(x), axis=-1, squared=False, reduction="none"), [1.0, 2.0, 8**0.5])


def test_published_parameters(fw: Framework) -> None:
    """MCP and SCAD with lambda and gamma, by the integral of their published slopes."""
    lam, gamma, x = 0.7, 3.0, np.asarray([0.3, 1.9, 5.0])
    mcp = np.where(x < gamma * lam, lam * x - x**2 / (2 * gamma), gamma * lam**2 / 2)
    close(fw, lam * xp.mcp(fw.array(x), threshold=gamma * lam, reduction="none"), mcp)
    middle = (2 * gamma * lam * x - x**2 - lam**2) / (2 * (gamma - 1))
    scad = np.where(x <= lam, lam * x, np.where(x <= gamma * lam, middle, lam**2 * (gamma + 1) / 2))
    close(fw, lam * xp.scad(fw.array(x), knee=lam, a=gamma, reduction="none"), scad)
