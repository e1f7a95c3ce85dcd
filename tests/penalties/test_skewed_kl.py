"""`skew` of the KL divergences at its edges: close, disjoint and extreme distributions, and a skew near 0 and 1."""

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
DIRECTIONS = ("forward", "reverse", "symmetric")


def exact(z_p: np.ndarray, z_q: np.ndarray, skew: float, direction: str) -> Any:
    """Return the divergence of one row of logits."""
    p, q = ([mpmath.exp(mpmath.mpf(x)) for x in z.tolist()] for z in (z_p, z_q))
    p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
    s = mpmath.mpf(skew)

    def kl(p: list[Any], q: list[Any]) -> Any:
        return sum(x * mpmath.log(x / (s * x + (1 - s) * y)) for x, y in zip(p, q, strict=True))

    return {"forward": kl(p, q), "reverse": kl(q, p), "symmetric": (kl(p, q) + kl(q, p)) / 2}[direction]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("skew", [1e-6, 0.1, 0.999])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values(fw: Framework, dtype: str, skew: float, direction: str) -> None:
    generator = np.random.default_rng(0)
    z = generator.standard_normal((8, 6)).astype(dtype)
    distance = np.repeat([[1e-4], [0.1], [2.0], [30.0]], 2, axis=0)
    w = (z + distance * generator.standard_normal((8, 6))).astype(dtype)
    options = {"direction": direction, "skew": skew, "from_logits": True, "reduction": "none"}
    got = fw.numpy(xp.kl_divergence(fw.array(z, dtype), fw.array(w, dtype), **options))
    with mpmath.workdps(50):
        want = [float(exact(*pair, skew, direction)) for pair in zip(z, w, strict=True)]
    assert (got >= 0).all()
    # at a skew near 1 the values of close rows are below 1e-14
    np.testing.assert_allclose(got, want, rtol=1e-4 if dtype == "float32" else 1e-9, atol=1e-16)


def test_no_jump_at_either_end(fw: Framework) -> None:
    p, q = (np.asarray(x) for x in ([[0.5, 3.0, -1.0]], [[2.0, -1.0, 0.5]]))
    logs = [z - np.log(np.exp(z).sum()) for z in (p, q)]
    for direction in DIRECTIONS:
        for arrays, from_logits in (((p, q), True), (logs, False)):
            inputs = [fw.array(x) for x in arrays]

            options = {"direction": direction, "from_logits": from_logits}

            def kl(skew: float, inputs: Any = inputs, options: Any = options) -> float:
                return float(xp.kl_divergence(*inputs, skew=skew, **options))

            plain = float(xp.kl_divergence(*inputs, **options))
            assert kl(0.0) == plain
            assert kl(1e-9) == pytest.approx(plain, rel=1e-6) and kl(1e-300) == pytest.approx(plain, rel=1e-12)
            assert kl(1.0) == 0.0
            assert 0 <= kl(1 - 1e-6) < 1e-10


@pytest.mark.parametrize("from_logits", [False, True])
def test_disjoint_distributions(fw: Framework, from_logits: bool) -> None:
    """With a class that both lack."""
    p, q = fw.array(log(0.5, 0.5, 0.0, 0.0)), fw.array(log(0.0, 0.0, 1.0, 0.0))
    for direction in DIRECTIONS:
        options = {"direction": direction, "from_logits": from_logits}
        assert float(xp.kl_divergence(p, q, **options)) == INF
        for skew in (1e-6, 0.25, 0.9):
            assert float(xp.kl_divergence(p, q, skew=skew, **options)) == pytest.approx(-math.log(skew), rel=1e-12)
            assert float(xp.kl_divergence(p, p, skew=skew, **options)) == 0.0


@autodiff
@pytest.mark.parametrize("from_logits", [False, True])
def test_gradients_at_edges_are_finite(fw: Framework, from_logits: bool) -> None:
    rows = [log(0.5, 0.5, 0.0, 0.0), log(0.0, 0.0, 1.0, 0.0), log(*[0.25] * 4), [-1e-9, -21.0, -800.0, -1e30]]
    first = np.asarray([row for row in rows for _ in rows])
    second = np.asarray([row for _ in rows for row in rows])
    for skew in (0.1, 1.0):

        def fn(p: Any, q: Any, skew: float = skew) -> Any:
            options = {"skew": skew, "direction": "symmetric", "from_logits": from_logits, "reduction": "sum"}
            return xp.kl_divergence(p, q, **options)

        assert np.isfinite(first_and_second(fw, fn, first, second)).all()


@autodiff
def test_second_derivatives_at_equal_distributions(fw: Framework) -> None:
    """(1 - skew)^2 times the Fisher information."""
    z, along = np.asarray([[0.5, -1.0, 1.5]]), np.asarray([[1.0, -0.5, 0.25]])
    p = np.exp(z) / np.exp(z).sum()
    fisher = p * along - p * (p * along).sum()
    other = fw.array(z)
    got = curvature(fw, lambda x: xp.kl_divergence(other, x, skew=0.3, from_logits=True), z, along)
    np.testing.assert_allclose(got, 0.49 * fisher, rtol=1e-9, atol=1e-14)


def test_extreme_logits(fw: Framework) -> None:
    for dtype in ("float32", "float64"):
        p, q = (fw.array(1e4 * np.asarray(x), dtype) for x in ([1.0, 0.0, -1.0], [-1.0, 0.0, 1.0]))
        got = float(xp.kl_divergence(p, q, skew=0.01, from_logits=True))
        assert got == pytest.approx(math.log(100), rel=1e-6)


def test_half_precision(fw: Framework) -> None:
    for dtype in (d for d in fw.dtypes if d in ("float16", "bfloat16")):
        p, q = (fw.array(np.asarray(x), dtype) for x in ([0.5, 1.0, -8.0], [0.625, 1.0, -8.5]))
        got = xp.kl_divergence(p, q, skew=0.1, from_logits=True)
        assert got.dtype == fw.dtype("float32")
        with mpmath.workdps(50):
            want = float(exact(*(fw.numpy(x) for x in (p, q)), 0.1, "forward"))
        assert float(got) == pytest.approx(want, rel=1e-4)


def test_linear_layers(fw: Framework) -> None:
    """The same number as that of the logits."""
    generator = np.random.default_rng(0)
    h, w, g, v = (generator.standard_normal(shape) for shape in ((4, 3), (6, 3), (4, 2), (6, 2)))
    for direction in DIRECTIONS:
        options = {"skew": 0.2, "direction": direction}
        got = float(xp.linear_kl_divergence(*(fw.array(x) for x in (h, w, g, v)), **options))
        want = float(xp.kl_divergence(fw.array(h @ w.T), fw.array(g @ v.T), from_logits=True, **options))
        assert got == pytest.approx(want, rel=1e-12)


def test_nan_is_kept(fw: Framework) -> None:
    p, q = fw.array(np.asarray([[math.nan, 0.0]])), fw.array(np.asarray([[0.0, -INF]]))
    for arrays in ((p, q), (q, p)):
        assert math.isnan(float(xp.kl_divergence(*arrays, skew=0.5, from_logits=True)))
