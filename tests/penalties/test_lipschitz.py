"""The Lipschitz penalty: its mean and its bias, kinks, dtypes, sizes, and what it asks of a function."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, close, first_and_second
from tests.matrix import oracle

RNG = np.random.default_rng(3)
MANY = 20000


def generator(fw: Framework) -> Any:
    return np.random.default_rng(0) if fw.key(0) is None else fw.key(0)


def products(x: Any, w: Any) -> Any:
    """Return x @ w of samples, in a way that every namespace has."""
    return xp.namespace(x, w).sum(x[..., None] * w, axis=1)


@pytest.mark.parametrize("sigma", [1e-3, 0.5, 10.0])
def test_the_mean_of_a_linear_function_is_exact(fw: Framework, sigma: float) -> None:
    w = RNG.standard_normal((3, 2))
    x = fw.array(np.zeros((MANY, 3)))
    got = xp.lipschitz_penalty(lambda x: products(x, fw.array(w)), x, sigma=sigma, rng=generator(fw))
    assert float(got) == pytest.approx(np.sum(w**2), rel=0.05)


def test_the_bias_of_a_quadratic_function(fw: Framework) -> None:
    hessian, sigma = np.asarray([[2.0, 1.0], [1.0, -4.0]]), 0.7
    at = np.asarray([0.5, -0.25])

    def fn(x: Any) -> Any:
        return xp.namespace(x).sum(products(x, fw.array(hessian)) * x, axis=1) / 2

    x = fw.array(np.broadcast_to(at, (MANY, 2)).copy())
    want = np.sum((hessian @ at) ** 2) + sigma**2 / 4 * (2 * np.sum(hessian**2) + np.trace(hessian) ** 2)
    got = xp.lipschitz_penalty(fn, x, sigma=sigma, projections=2, rng=generator(fw))
    assert float(got) == pytest.approx(want, rel=0.05)


@pytest.mark.needs("autodiff")
def test_it_becomes_the_gradient_penalty_along_the_noise(fw: Framework) -> None:
    x, noise = RNG.standard_normal((2, 5, 3))

    def fn(x: Any) -> Any:
        return xp.namespace(x).sum(x * xp.namespace(x).sin(x), axis=1)

    got = xp.lipschitz_penalty(fn, fw.array(x), sigma=1e-6, noise=fw.array(noise), reduction="none")
    close(fw, got, np.sum((np.sin(x) + x * np.cos(x)) * noise, axis=1) ** 2, rtol=1e-4)


@pytest.mark.needs("autodiff")
@pytest.mark.parametrize(("target", "one_sided"), [(0.0, False), (1.0, False), (1.0, True)])
def test_derivatives_at_a_constant_function(fw: Framework, target: float, one_sided: bool) -> None:
    x, noise = RNG.standard_normal((2, 4, 2))

    def of(w: Any) -> Any:
        options = {"target": target, "one_sided": one_sided, "noise": fw.array(noise)}
        return xp.lipschitz_penalty(lambda x: products(x, w), fw.array(x), **options)

    zeros = np.zeros((2, 3))
    assert (fw.numpy(xp.grad(of)(fw.array(zeros))) == 0).all()
    if not one_sided:  # else it is constant around zeros
        assert np.isfinite(first_and_second(fw, of, zeros)[1]).all()
    assert float(of(fw.array(np.zeros((2, 3))))) == (0.0 if one_sided else target**2)


@pytest.mark.needs("autodiff")
def test_gradients_flow_through_both_values(fw: Framework) -> None:
    x, noise = fw.array(RNG.standard_normal((4, 2))), fw.array(RNG.standard_normal((4, 2)))
    slope = xp.grad(lambda b: xp.lipschitz_penalty(lambda x: x[:, 0] ** 2 + b, x, noise=noise))
    assert abs(float(slope(fw.array(np.asarray(3.0))))) < 1e-9  # what both have in common


def test_a_hinge_keeps_missing_numbers(fw: Framework) -> None:
    x = fw.array(np.asarray([[1.0], [2.0]]))
    noise = fw.array(np.ones((2, 1)))

    def fn(x: Any) -> Any:
        return xp.namespace(x).where(x[:, 0] > 1.5, math.nan, x[:, 0])

    for target in (0.0, 5.0):
        for one_sided in (False, True):
            options = {"target": target, "one_sided": one_sided, "noise": noise, "reduction": "none"}
            got = fw.numpy(xp.lipschitz_penalty(fn, x, **options))
            assert np.isfinite(got[0]) and np.isnan(got[1])


@pytest.mark.parametrize("target", [0.0, 2.0])
def test_several_projections(fw: Framework, target: float) -> None:
    x, noise = RNG.standard_normal((4, 3)), RNG.standard_normal((5, 4, 3))

    def fn(x: Any) -> Any:
        return xp.namespace(x).sum(x * xp.namespace(x).sin(x), axis=1)

    options = {"sigma": 0.3, "target": target}
    got = xp.lipschitz_penalty(fn, fw.array(x), projections=5, noise=fw.array(noise), reduction="none", **options)
    close(fw, got, oracle.lipschitz_penalty(x, noise, **options))


def test_one_call_for_all_points(fw: Framework) -> None:
    calls = []

    def fn(x: Any) -> Any:
        calls.append(tuple(x.shape))
        return x

    x = fw.array(np.zeros((4, 2, 3)))
    noise = fw.array(np.ones((2, 4, 2, 3)))
    got = xp.lipschitz_penalty(fn, x, projections=2, noise=noise, reduction="none")
    assert calls == [(12, 2, 3)]
    close(fw, got, np.full(4, 6.0))


@pytest.mark.parametrize("size", [1e-20, 1e15])
def test_functions_of_any_size(fw: Framework, size: float) -> None:
    x, noise = fw.array(np.zeros((2, 1)), "float32"), fw.array(np.ones((2, 1)), "float32")
    for target in (0.0, 1.0):
        got = float(xp.lipschitz_penalty(lambda x: size * x[:, 0], x, noise=noise, target=target))
        assert got == pytest.approx((size - target) ** 2, rel=1e-5, abs=1e-30)


def test_the_default_sigma_is_larger_in_half_precision(fw: Framework) -> None:
    for dtype in fw.dtypes:
        half = dtype in ("float16", "bfloat16")
        x = fw.array(np.zeros((3, 2)), dtype)
        noise = fw.array(np.ones((3, 2)), dtype)
        seen = []

        def fn(x: Any) -> Any:
            seen.append(float(x[3, 0]))  # noqa: B023
            return x[:, 0]

        got = xp.lipschitz_penalty(fn, x, noise=noise)
        assert seen == [pytest.approx(0.1 if half else 0.01, rel=1e-2)]
        assert got.dtype == fw.dtype("float64" if dtype == "float64" else "float32")
        assert float(got) == pytest.approx(1.0, rel=2e-2)


def test_refused(fw: Framework) -> None:
    x = fw.array(np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"^lipschitz_penalty: `x` must have at least 1 axis.*Add one"):
        xp.lipschitz_penalty(lambda x: x, fw.array(np.asarray(1.0)))
    with pytest.raises(ValueError, match=r"^lipschitz_penalty: `fn` must return each sample's outputs, shape \(6, "):
        xp.lipschitz_penalty(lambda x: x[:3, ...], x, noise=x)
    with pytest.raises(ValueError, match=r"^lipschitz_penalty: `noise` must have .*\(2, 3, 2\), got \(3, 2\)"):
        xp.lipschitz_penalty(lambda x: x, x, projections=2, noise=x)
    with pytest.raises(TypeError, match=r"^lipschitz_penalty: `noise` must be real floating point, got .*bool"):
        xp.lipschitz_penalty(lambda x: x, x, noise=x == x)
    with pytest.raises(TypeError, match=r"^lipschitz_penalty: `fn` must be callable, got int"):
        xp.lipschitz_penalty(3, x)
    with pytest.raises(TypeError, match=r"^lipschitz_penalty: `fn` must return a \w+ array, like its .*list"):
        xp.lipschitz_penalty(lambda x: [0.0] * 6, x, noise=x)


@pytest.mark.only("torch", reason="is about an operation of PyTorch that has no second derivative")
def test_functions_that_cannot_be_differentiated_twice(fw: Framework) -> None:
    torch = fw.module

    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return 2 * x

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, cotangent: Any) -> Any:
            return 2 * cotangent

    weight = torch.ones(2, dtype=torch.float64, requires_grad=True)
    x = fw.array(np.ones((3, 2)))
    xp.lipschitz_penalty(lambda x: Once.apply(x * weight), x, noise=torch.ones_like(x)).backward()
    close(fw, weight.grad, [8.0, 8.0])
