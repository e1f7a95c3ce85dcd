"""Divergences of single events at their edges: certain, impossible, close and extreme ones."""

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
KINDS = ("kl", "tv")
LOGITS = np.asarray([0.0, 0.5, -2.0, 5.0, -5.0, 15.0, -15.0, 30.0])
LOGS = np.log([0.5, 0.7, 0.01, 0.99, 1e-6, 1 - 1e-3, 1e-30, 0.4])


def exact(p: Any, not_p: Any, q: Any, not_q: Any, kind: str) -> Any:
    if kind == "tv":
        return abs(p - q)
    terms = [a * mpmath.log(a / b) if a else mpmath.mpf(0) for a, b in ((p, q), (not_p, not_q))]
    return sum(terms)


def exact_of(x: float, y: float, kind: str, from_logits: bool) -> Any:
    x, y = mpmath.mpf(x), mpmath.mpf(y)
    if not from_logits:
        return exact(mpmath.exp(x), -mpmath.expm1(x), mpmath.exp(y), -mpmath.expm1(y), kind)
    return exact(*(1 / (1 + mpmath.exp(s * z)) for z in (x, y) for s in (-1, 1)), kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values(fw: Framework, dtype: str, from_logits: bool, kind: str) -> None:
    """For all pairs, and for neighbors at a distance of 1e-4 and 0.1."""
    x = (LOGITS if from_logits else LOGS).astype(dtype)
    first, second = (each.ravel() for each in np.meshgrid(x, x))
    moved = [x * np.asarray(1 + h, dtype) for h in (1e-4, -1e-4, 0.1)]
    first = np.concatenate([first, x, x, x])
    second = np.concatenate([second, *moved])
    arrays = fw.array(first, dtype), fw.array(second, dtype)
    got = fw.numpy(xp.bernoulli_kl(*arrays, kind=kind, from_logits=from_logits, reduction="none"))
    with mpmath.workdps(60):
        want = [float(exact_of(a, b, kind, from_logits)) for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    assert (got >= 0).all()
    np.testing.assert_allclose(got, want, rtol=1e-4 if dtype == "float32" else 1e-10, atol=1e-37)


def test_an_event_that_is_nearly_certain(fw: Framework) -> None:
    """With 1 - p in float32, which is 0, and 1e-8 in the logarithm, the value would be 6.58."""
    arrays = (fw.array(np.asarray([x]), "float32") for x in (-0.5, -1e-9))
    assert float(xp.bernoulli_kl(*arrays)) == pytest.approx(float(exact_of(-0.5, -1e-9, "kl", False)), rel=1e-6)


def test_extreme_logits(fw: Framework) -> None:
    for dtype in ("float32", "float64"):
        for p, q, want in ((0.0, 200.0, 100 - math.log(2)), (200.0, -200.0, 200.0), (1e4, -1e4, 1e4), (-1e4, -2e4, 0)):
            arrays = [fw.array(np.asarray([x]), dtype) for x in (p, q)]
            assert float(xp.bernoulli_kl(*arrays, from_logits=True)) == pytest.approx(want, rel=1e-6)


ROWS = [  # p, q, KL, TV
    (0.0, 0.0, 0.0, 0.0),
    (1.0, 1.0, 0.0, 0.0),
    (0.0, 0.75, math.log(4), 0.75),
    (1.0, 0.25, math.log(4), 0.75),
    (0.5, 0.0, INF, 0.5),
    (0.5, 1.0, INF, 0.5),
    (0.0, 1.0, INF, 1.0),
    (1.0, 0.0, INF, 1.0),
]


@pytest.mark.parametrize("from_logits", [False, True])
def test_certain_and_impossible_events(fw: Framework, from_logits: bool) -> None:
    p, q, *want = zip(*ROWS, strict=True)
    arrays = [np.asarray(log(*x)) - (np.asarray(log(*[1 - y for y in x])) if from_logits else 0.0) for x in (p, q)]
    for kind, each in zip(KINDS, want, strict=True):
        got = xp.bernoulli_kl(*map(fw.array, arrays), kind=kind, from_logits=from_logits, reduction="none")
        np.testing.assert_allclose(fw.numpy(got), each, rtol=1e-12)


@autodiff
@pytest.mark.parametrize("from_logits", [False, True])
def test_gradients_at_edges_are_finite(fw: Framework, from_logits: bool) -> None:
    x = np.asarray([-INF, -1e4, -100.0, -1.0, -1e-9, 0.0, *((1.0, 100.0, 1e4, INF) if from_logits else ())])
    first, second = (each.ravel() for each in np.meshgrid(x, x))
    for kind in KINDS:

        def fn(p: Any, q: Any, kind: str = kind) -> Any:
            return xp.bernoulli_kl(p, q, kind=kind, from_logits=from_logits, reduction="sum")

        for wrt in (0, 1):
            assert np.isfinite(first_and_second(fw, fn, first, second, wrt=wrt)).all(), (kind, wrt)


@autodiff
def test_gradients_of_logits(fw: Framework) -> None:
    """That with respect to the logit of Q is q - p, and its derivative q (1 - q)."""
    z, w = np.asarray([0.0, 0.5, -3.0, 8.0, 40.0]), np.asarray([0.0, 0.5001, 2.0, 7.5, -40.0])
    p, q = (1 / (1 + np.exp(-x)) for x in (z, w))

    def kl(a: Any, b: Any) -> Any:
        return xp.bernoulli_kl(a, b, from_logits=True, reduction="sum")

    first, second = first_and_second(fw, kl, z, w, wrt=1)
    np.testing.assert_allclose(first, q - p, rtol=1e-9, atol=1e-16)
    np.testing.assert_allclose(second, 2 * (q - p) * q * (1 - q), rtol=1e-9, atol=1e-16)
    first, _ = first_and_second(fw, kl, z, w, wrt=0)
    np.testing.assert_allclose(first, p / (1 + np.exp(z)) * (z - w), rtol=1e-9, atol=1e-16)


@autodiff
def test_second_derivatives_at_equal_events(fw: Framework) -> None:
    z = np.asarray([-3.0, 0.0, 0.5, 6.0])
    p = 1 / (1 + np.exp(-z))
    for kind, want in (("kl", p * (1 - p)), ("tv", 0 * p)):
        other = fw.array(z)

        def fn(x: Any, kind: str = kind, other: Any = other) -> Any:
            return xp.bernoulli_kl(other, x, kind=kind, from_logits=True, reduction="sum")

        np.testing.assert_allclose(curvature(fw, fn, z, np.ones(4)), want, rtol=1e-9, atol=1e-15)


def test_lower_bound_of_the_divergence_over_all_tokens(fw: Framework) -> None:
    generator = np.random.default_rng(0)
    z = generator.standard_normal((2, 100, 6))
    p, q = (fw.array(x - np.log(np.exp(x).sum(-1, keepdims=True))) for x in z)
    over_all = fw.numpy(xp.kl_divergence(p, q, reduction="none"))
    events = fw.numpy(xp.bernoulli_kl(p, q, reduction="none"))
    assert (events <= over_all[:, None] + 1e-12).all()
    distance = fw.numpy(xp.f_divergence(p, q, reduction="none"))
    events = fw.numpy(xp.bernoulli_kl(p, q, kind="tv", reduction="none"))
    assert (events <= distance[:, None] + 1e-12).all()


def test_half_precision(fw: Framework) -> None:
    for dtype in (d for d in fw.dtypes if d in ("float16", "bfloat16")):
        p, q = (fw.array(np.asarray(x), dtype) for x in ([0.5, 12.0, -8.0], [0.625, 11.0, -8.5]))
        for kind in KINDS:
            got = xp.bernoulli_kl(p, q, kind=kind, from_logits=True, reduction="none")
            assert got.dtype == fw.dtype("float32")
            pairs = zip(fw.numpy(p).tolist(), fw.numpy(q).tolist(), strict=True)
            with mpmath.workdps(50):
                want = [float(exact_of(a, b, kind, True)) for a, b in pairs]
            np.testing.assert_allclose(fw.numpy(got), want, rtol=1e-4)


def test_nan_is_kept(fw: Framework) -> None:
    p, q = fw.array(np.asarray([math.nan, -1.0])), fw.array(np.asarray([-1.0, math.nan]))
    for kind in KINDS:
        for from_logits in (False, True):
            got = fw.numpy(xp.bernoulli_kl(p, q, kind=kind, from_logits=from_logits, reduction="none"))
            assert np.isnan(got).all()
