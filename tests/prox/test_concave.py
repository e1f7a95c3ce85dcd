"""The operators of concave penalties: the smallest of all minima, where they jump, and their edges."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, close
from xpenalties import prox

RNG = np.random.default_rng(23)

CASES: list[tuple[str, dict[str, float], Callable[[Any], Any], tuple[float, ...]]] = [
    # the operator, its options, the penalty of one magnitude, and scales on both sides of where the sum is convex
    ("mcp", {"threshold": 2.0}, lambda z: np.where(z <= 2, z - z * z / 4, 1.0), (0.1, 1.0, 1.99, 2.0, 2.5, 9.0)),
    ("mcp", {"threshold": 1e-3}, lambda z: np.where(z <= 1e-3, z - z * z / 2e-3, 5e-4), (1e-4, 1.0)),
    (
        "scad",
        {"knee": 0.5, "a": 3.0},
        lambda z: np.where(z <= 0.5, z, np.where(z <= 1.5, z - (z - 0.5) ** 2 / 2, 1.0)),
        (0.1, 0.7, 0.99, 1.0, 1.5, 2.0, 2.5, 9.0),
    ),
    ("log_sum", {"eps": 1.0}, np.log1p, (0.1, 0.9, 1.0, 1.1, 2.0, 6.0)),
    ("log_sum", {"eps": 0.01}, lambda z: np.log1p(z / 0.01), (1e-5, 1e-4, 0.1, 2.0)),
    ("lp", {"p": 0.5}, np.sqrt, (0.01, 1.0, 5.0)),
    ("lp", {"p": 0.05}, lambda z: z**0.05, (0.01, 1.0, 5.0)),
    ("lp", {"p": 0.97}, lambda z: z**0.97, (0.01, 1.0, 5.0)),
]
each = pytest.mark.parametrize("problem", CASES, ids=[f"{name} {options}" for name, options, *_ in CASES])


@each
def test_the_smallest_minimum(fw: Framework, problem: Any) -> None:
    """On a grid, which knows neither slopes nor thresholds."""
    name, options, penalty, scales = problem
    grid = np.concatenate([[0.0], np.geomspace(1e-8, 1e-2, 2001), np.linspace(1e-2, 10, 20_001)])
    x = np.concatenate([np.linspace(0.003, 6.003, 61), np.geomspace(1e-5, 0.3, 20), [9.9]])
    for scale in scales:
        result = fw.numpy(getattr(prox, name)(fw.array(-x), scale=scale, **options))
        assert np.all(result <= 0) and np.all(-result <= x)
        for one, got in zip(x, -result, strict=True):
            sums = 0.5 * (grid - one) ** 2 + scale * penalty(grid)
            assert 0.5 * (got - one) ** 2 + scale * penalty(got) <= np.min(sums) + 1e-12 * (1 + one * one)
            assert got == 0 or got >= 1e-8  # not a small number in place of 0


@pytest.mark.parametrize("p", [0.01, 0.3, 0.5, 2 / 3, 0.9, 0.999, 1 - 2.1e-6, 1 - 1e-12])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e6])
def test_newton_has_converged(fw: Framework, p: float, scale: float) -> None:
    """Against the equation's solution with 50 digits, from just above the jump, where the start is farthest from it."""
    with mpmath.workdps(50):
        power = mpmath.mpf(p)
        lowest = float((2 - power) / (2 - 2 * power) * (2 * scale * (1 - power)) ** (1 / (2 - power)))
        x = np.asarray([lowest * factor for factor in (1 + 1e-9, 1.001, 1.1, 2.0, 10.0, 1e6)])
        want = []
        for one in x:
            z = mpmath.mpf(float(one))
            for _ in range(100):
                pull = scale * power * z ** (power - 1)
                z -= (z + pull - float(one)) / (1 - (1 - power) * pull / z)
            want.append(float(z))
    assert np.all(np.abs(fw.numpy(prox.lp(fw.array(x), scale=scale, p=p)) - want) <= 1e-15 * x)
    below = fw.numpy(prox.lp(fw.array(np.asarray([lowest * (1 - 1e-9)])), scale=scale, p=p))
    assert below[0] == 0


def test_the_square_root_in_closed_form(fw: Framework) -> None:
    """Of Xu, Chang, Xu and Zhang (2012), whose factor is 1/2 of ours: half thresholding by a cosine."""
    x, scale = np.asarray([1.6, 2.0, 5.0, 100.0]), 1.0
    angle = np.arccos(2 * scale / 8 * (x / 3) ** -1.5)
    want = 2 / 3 * x * (1 + np.cos(2 * math.pi / 3 - 2 / 3 * angle))
    close(fw, prox.lp(fw.array(x), scale=scale), want, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "options"),
    [("mcp", {"threshold": 3.0}), ("scad", {"knee": 1.0, "a": 3.0})],
)
def test_large_elements_stay_to_the_last_bit(fw: Framework, name: str, options: dict[str, float]) -> None:
    x = np.asarray([3.7, -17.3, 1e300, math.inf])
    for scale in (0.3, 2.5):
        assert fw.numpy(getattr(prox, name)(fw.array(x), scale=scale, **options)).tolist() == x.tolist()


@pytest.mark.parametrize("name", ["mcp", "scad", "log_sum", "lp"])
def test_a_scale_of_0_changes_nothing(fw: Framework, name: str) -> None:
    """Also not for numbers that are tiny or huge, and their slope is 1: a warm-up begins there."""
    x = np.asarray([1e-40, -1e-8, 0.7, -1e30, 0.0, math.inf])
    operator = getattr(prox, name)
    for scale in (0.0, fw.array(np.asarray(0.0))):
        assert fw.numpy(operator(fw.array(x), scale=scale)).tolist() == x.tolist()


@pytest.mark.parametrize("name", ["mcp", "scad", "log_sum", "lp"])
@pytest.mark.needs("autodiff")
def test_slopes_at_a_scale_of_0(fw: Framework, name: str) -> None:
    """With respect to an element it is 1. With respect to the scale it is minus the penalty's own slope."""
    x = np.asarray([0.3, -0.7, 1e-3, 0.0])
    operator, of_zero = getattr(prox, name), fw.array(np.asarray([0.0] * 4))
    by_x = xp.grad(lambda x: xp.namespace(x).sum(operator(x, scale=0.0)))(fw.array(x[:3]))
    np.testing.assert_allclose(fw.numpy(by_x), 1.0, rtol=1e-12)
    by_scale = xp.grad(lambda scale: xp.namespace(scale).sum(operator(fw.array(x), scale=scale)))(of_zero)
    own = xp.grad(getattr(xp, name))(fw.array(x))
    np.testing.assert_allclose(fw.numpy(by_scale), -fw.numpy(own), rtol=1e-12)


@pytest.mark.parametrize("name", ["mcp", "scad", "log_sum", "lp"])
@pytest.mark.needs("autodiff")
def test_slopes_of_zeros(fw: Framework, name: str) -> None:
    for scale in (0.7, 9.0):
        slope = xp.grad(lambda x, scale=scale: xp.namespace(x).sum(getattr(prox, name)(x, scale=scale)))
        close(fw, slope(fw.array(np.asarray([0.0, 0.1, -0.2]))), np.zeros(3))


@each
@pytest.mark.needs("autodiff")
def test_second_derivatives(fw: Framework, problem: Any) -> None:
    name, options, _, scales = problem
    operator, x = getattr(prox, name), RNG.normal(size=12) * 3

    def total(x: Any) -> Any:
        result = operator(x, scale=scales[1], **options)
        return xp.namespace(x).sum(result * result)

    def slope(x: Any) -> Any:
        return xp.grad(total)(x)

    def of_slopes(x: Any) -> Any:
        return xp.namespace(x).sum(slope(x))

    got = fw.numpy(xp.grad(of_slopes)(fw.array(x)))
    up, down = (fw.numpy(slope(fw.array(x + step))) for step in (1e-5, -1e-5))
    np.testing.assert_allclose(got, (up - down) / 2e-5, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: prox.mcp(x, scale=-1.0), r"^mcp: `scale` must be in \[0, inf\), got -1\.0"),
        (lambda x: prox.mcp(x, scale=1.0, threshold=0), r"^mcp: `threshold` must be in \(0, inf\), got 0"),
        (lambda x: prox.scad(x, scale=1.0, knee=0), r"^scad: `knee` must be in \(0, inf\), got 0"),
        (lambda x: prox.scad(x, scale=1.0, a=2), r"^scad: `a` must be in \(2, inf\), got 2"),
        (lambda x: prox.log_sum(x, scale=1.0, eps=0), r"^log_sum: `eps` must be in \(0, inf\), got 0"),
        (lambda x: prox.lp(x, scale=1.0, p=0), r"^lp: `p` must be in \(0, 1\], got 0"),
        (lambda x: prox.lp(x, scale=x[:2]), r"^lp: `scale` must broadcast to `x`, got shapes \(2,\) and \(3,\)"),
    ],
)
def test_errors(fw: Framework, call: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(fw.array(np.ones(3)))
