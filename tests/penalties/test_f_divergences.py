"""f-divergences at their edges: close, disjoint and extreme distributions, and powers near 0 and 1."""

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
KINDS = [
    ("tv", 0.5),
    ("hellinger", 0.5),
    ("chi2", 0.5),
    *(("alpha", a) for a in (-1.5, 1e-6, 0.3, 1.0, 1 + 1e-5, 80.0)),
    *(("renyi", a) for a in (0.3, 1 + 1e-5, 4.0)),
]
of_each_kind = pytest.mark.parametrize(("kind", "alpha"), KINDS)
of_a_few_kinds = pytest.mark.parametrize(("kind", "alpha"), [KINDS[i] for i in (0, 1, 2, 5, 6, 9, 11)])


def exact(kind: str, alpha: float, z_p: np.ndarray, z_q: np.ndarray) -> Any:
    """Return the divergence of one row of logits."""
    p, q = ([mpmath.exp(mpmath.mpf(x)) for x in z.tolist()] for z in (z_p, z_q))
    p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
    pairs, a = list(zip(p, q, strict=True)), mpmath.mpf(alpha)
    if kind == "tv":
        return sum(abs(x - y) for x, y in pairs) / 2
    if kind == "hellinger":
        return sum((mpmath.sqrt(x) - mpmath.sqrt(y)) ** 2 for x, y in pairs) / 2
    if kind == "chi2":
        return sum((x - y) ** 2 / y for x, y in pairs)
    if a == 1:
        return sum(x * mpmath.log(x / y) for x, y in pairs)
    if a == 0:
        return sum(y * mpmath.log(y / x) for x, y in pairs)
    total = sum(x**a * y ** (1 - a) for x, y in pairs)
    return (total - 1) / (a * (a - 1)) if kind == "alpha" else mpmath.log(total) / (a - 1)


def divergence(kind: str, alpha: float, **options: Any) -> Any:
    return lambda p, q: xp.f_divergence(p, q, kind=kind, alpha=alpha, from_logits=True, **options)


@of_each_kind
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values(fw: Framework, dtype: str, kind: str, alpha: float) -> None:
    generator = np.random.default_rng(0)
    z = generator.standard_normal((8, 6)).astype(dtype)
    distance = np.repeat([[1e-4], [0.1], [2.0], [15.0]], 2, axis=0)
    w = (z + distance * generator.standard_normal((8, 6))).astype(dtype)
    got = fw.numpy(divergence(kind, alpha, reduction="none")(fw.array(z, dtype), fw.array(w, dtype)))
    with mpmath.workdps(50):
        want = [exact(kind, alpha, *pair) for pair in zip(z, w, strict=True)]
    largest = np.finfo(dtype).max / 5 / max(1.0, alpha * (alpha - 1))  # a sum of exponentials, divided
    want = np.asarray([float(x) if x < largest else INF for x in want])
    got = np.where(got < largest, got, INF)
    assert (got >= 0).all()
    # an exponent has the rounding error of 80 logarithms
    digits = (1e-3 if alpha == 80.0 else 1e-4) if dtype == "float32" else 1e-10
    np.testing.assert_allclose(got, want, rtol=digits)


@of_each_kind
def test_equal_distributions(fw: Framework, kind: str, alpha: float) -> None:
    x = fw.array(np.asarray([[0.5, -1.0, 3.0, -INF], [100.0, -100.0, 0.0, 7.0]]))
    assert float(divergence(kind, alpha)(x, x)) == 0.0
    x = fw.array(np.asarray([log(0.5, 0.5, 0.0), log(1.0, 0.0, 0.0)]))
    assert float(xp.f_divergence(x, x, kind=kind, alpha=alpha)) == 0.0


@autodiff
@of_a_few_kinds
def test_second_derivatives_at_equal_distributions(fw: Framework, kind: str, alpha: float) -> None:
    """They are f''(1) times the Fisher information. That of the total variation is 0, as its slope is."""
    z, along = np.asarray([[0.5, -1.0, 1.5]]), np.asarray([[1.0, -0.5, 0.25]])
    p = np.exp(z) / np.exp(z).sum()
    fisher = p * along - p * (p * along).sum()
    factor = {"tv": 0.0, "hellinger": 0.25, "chi2": 2.0, "alpha": 1.0, "renyi": alpha}[kind]

    def fn(x: Any) -> Any:
        return divergence(kind, alpha)(fw.array(z), x)

    assert np.abs(fw.numpy(xp.grad(fn)(fw.array(z)))).max() < 1e-15
    np.testing.assert_allclose(curvature(fw, fn, z, along), factor * fisher, rtol=1e-9, atol=1e-14)


DISJOINT = {
    "tv": 1.0,
    "hellinger": 1.0,
    "chi2": INF,
    ("alpha", 0.25): 16 / 3,
    ("alpha", 0.5): 4.0,
    ("alpha", 1.0): INF,
    ("alpha", 0.0): INF,
    ("alpha", 2.0): INF,
    ("alpha", -1.0): INF,
    ("renyi", 0.5): INF,
    ("renyi", 1.0): INF,
    ("renyi", 3.0): INF,
}


@pytest.mark.parametrize("key", DISJOINT, ids=str)
@pytest.mark.parametrize("from_logits", [False, True])
def test_disjoint_distributions(fw: Framework, key: Any, from_logits: bool) -> None:
    """With a class that both lack."""
    kind, alpha = (key, 0.5) if isinstance(key, str) else key
    p, q = fw.array(log(0.5, 0.5, 0.0, 0.0)), fw.array(log(0.0, 0.0, 1.0, 0.0))
    got = float(xp.f_divergence(p, q, kind=kind, alpha=alpha, from_logits=from_logits))
    assert got == pytest.approx(DISJOINT[key], rel=1e-12)


ONE_SIDED = [  # P is certain, Q is not
    ("tv", 0.5, 0.75, 0.75),
    ("hellinger", 0.5, 0.5, 0.5),
    ("chi2", 0.5, 3.0, INF),
    ("alpha", 0.5, 2.0, 2.0),
    ("alpha", 1.0, math.log(4), INF),
    ("alpha", 0.0, INF, math.log(4)),
    ("alpha", 2.0, 1.5, INF),
    ("alpha", -1.0, INF, 1.5),
    ("renyi", 0.5, math.log(4), math.log(4)),
    ("renyi", 2.0, math.log(4), INF),
    ("renyi", 0.25, math.log(4), math.log(4) / 3),
]


@pytest.mark.parametrize(("kind", "alpha", "there", "back"), ONE_SIDED)
@pytest.mark.parametrize("from_logits", [False, True])
def test_a_class_of_one_distribution(
    fw: Framework, kind: str, alpha: float, there: float, back: float, from_logits: bool
) -> None:
    p, q = fw.array(log(1.0, 0.0, 0.0)), fw.array(log(0.25, 0.75, 0.0))
    options = {"kind": kind, "alpha": alpha, "from_logits": from_logits}
    assert float(xp.f_divergence(p, q, **options)) == pytest.approx(there, rel=1e-12)
    assert float(xp.f_divergence(q, p, **options)) == pytest.approx(back, rel=1e-12)


@autodiff
@of_a_few_kinds
@pytest.mark.parametrize("from_logits", [False, True])
def test_gradients_at_edges_are_not_nan(fw: Framework, kind: str, alpha: float, from_logits: bool) -> None:
    rows = [
        log(0.5, 0.5, 0.0, 0.0),
        log(0.0, 0.0, 1.0, 0.0),
        log(0.25, 0.25, 0.25, 0.25),
        [-1e-9, -21.0, -800.0, -1e30],
    ]
    first = np.asarray([row for row in rows for _ in rows])
    second = np.asarray([row for _ in rows for row in rows])

    def fn(p: Any, q: Any) -> Any:
        return xp.f_divergence(p, q, kind=kind, alpha=alpha, from_logits=from_logits, reduction="sum")

    for wrt in (0, 1):
        assert np.isfinite(first_and_second(fw, fn, first, second, wrt=wrt)).all()


@pytest.mark.parametrize("scale", [100.0, 1e4, 1e15])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extreme_logits(fw: Framework, dtype: str, scale: float) -> None:
    p, q = (fw.array(scale * np.asarray(x), dtype) for x in ([1.0, 0.0, -1.0], [-1.0, 0.0, 1.0]))
    for kind in ("tv", "hellinger"):
        assert float(divergence(kind, 0.5)(p, q)) == pytest.approx(1.0)
    assert float(divergence("alpha", 0.5)(p, q)) == pytest.approx(4.0)
    for alpha in (0.5, 2.0, 30.0):  # a logarithm: it does not overflow
        want = 2.0 * scale if alpha > 1 else 2.0 * (scale - math.log(3))
        assert float(divergence("renyi", alpha)(p, q)) == pytest.approx(want, rel=1e-5)


def test_powers_have_no_jump(fw: Framework) -> None:
    p, q = (fw.array(np.asarray(x)) for x in ([0.5, 3.0, -1.0], [2.0, -1.0, 0.5]))
    for kind, at in (("alpha", 0.0), ("alpha", 0.5), ("alpha", 1.0), ("renyi", 0.5), ("renyi", 1.0)):
        values = [float(divergence(kind, at + h)(p, q)) for h in (-1e-9, -1e-13, 0.0, 1e-15, 1e-9)]
        np.testing.assert_allclose(values, values[2], rtol=1e-8)


def test_inequalities(fw: Framework) -> None:
    """Pinsker's, those between Hellinger and total variation, and data processing."""
    generator = np.random.default_rng(1)
    p, q = (fw.array(3 * generator.standard_normal((200, 5))) for _ in range(2))

    def of(kind: str, alpha: float = 0.5, a: Any = p, b: Any = q) -> np.ndarray:
        return fw.numpy(divergence(kind, alpha, reduction="none")(a, b))

    tv, hellinger, kl = of("tv"), of("hellinger"), of("alpha", 1.0)
    np.testing.assert_allclose(kl, fw.numpy(xp.kl_divergence(p, q, from_logits=True, reduction="none")), rtol=1e-9)
    np.testing.assert_allclose(of("alpha", 0.5), 4 * hellinger, rtol=1e-12)
    np.testing.assert_allclose(of("alpha", 2.0), of("chi2") / 2, rtol=1e-12)
    np.testing.assert_allclose(of("alpha", -0.7), of("alpha", 1.7, q, p), rtol=1e-12)
    assert (tv**2 <= kl / 2 + 1e-12).all()
    assert (hellinger <= tv + 1e-12).all() and (tv <= np.sqrt(2 * hellinger) + 1e-12).all()
    merged = [np.logaddexp(x[:, 0], x[:, 1])[:, None] for x in (fw.numpy(p), fw.numpy(q))]
    coarse = [fw.array(np.concatenate([m, fw.numpy(x)[:, 2:]], axis=1)) for m, x in zip(merged, (p, q), strict=True)]
    for kind, alpha in KINDS[:6]:
        assert (of(kind, alpha, *coarse) <= of(kind, alpha) * (1 + 1e-9) + 1e-12).all(), (kind, alpha)


def test_half_precision(fw: Framework) -> None:
    for dtype in (d for d in fw.dtypes if d in ("float16", "bfloat16")):
        p, q = (fw.array(np.asarray(x), dtype) for x in ([0.5, 12.0, -8.0], [0.625, 12.0, -8.5]))
        for kind, alpha in KINDS[::4]:
            got = divergence(kind, alpha)(p, q)
            assert got.dtype == fw.dtype("float32")
            with mpmath.workdps(50):
                want = float(exact(kind, alpha, *(fw.numpy(x) for x in (p, q))))
            assert float(got) == pytest.approx(want, rel=1e-4)


def test_nan_is_kept(fw: Framework) -> None:
    for nan in ([[math.nan, 0.0, 0.0]], [[-INF, math.nan, 0.0]]):
        for kind, alpha in KINDS[::3]:
            for i in (0, 1):
                arrays = [fw.array(np.asarray(x)) for x in (nan, [[0.0, -INF, 0.0]])]
                got = float(divergence(kind, alpha)(*(arrays if i == 0 else arrays[::-1])))
                assert math.isnan(got), (kind, alpha, i)
