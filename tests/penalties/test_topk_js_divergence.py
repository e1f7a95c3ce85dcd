"""The Jensen-Shannon divergence of k classes, and the directions of the KL divergence, at their edges."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest
from scipy.spatial import distance

import xpenalties as xp
from tests.helpers.harness import Framework, first_and_second
from tests.helpers.samples import log

INF = math.inf
autodiff = pytest.mark.needs("autodiff")


def exact(a: np.ndarray, b: np.ndarray, beta: float) -> Any:
    """Return the divergence over k classes and the bucket."""
    p, q = ([mpmath.exp(mpmath.mpf(x)) for x in each.tolist()] for each in (a, b))
    p, q, s = [*p, 1 - sum(p)], [*q, 1 - sum(q)], mpmath.mpf(beta)
    m = [s * x + (1 - s) * y for x, y in zip(p, q, strict=True)]
    of_p, of_q = (sum(x * mpmath.log(x / y) for x, y in zip(each, m, strict=True)) for each in (p, q))
    return s * of_p + (1 - s) * of_q


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("beta", [1e-6, 0.5, 0.9])
def test_values(fw: Framework, dtype: str, beta: float) -> None:
    generator = np.random.default_rng(0)
    z = generator.standard_normal((6, 5))
    w = z + np.repeat([[1e-4], [0.1], [3.0]], 2, axis=0) * generator.standard_normal((6, 5))
    p, q = ((x - np.log(np.exp(x).sum(-1, keepdims=True)))[:, :4].astype(dtype) for x in (z, w))
    got = fw.numpy(xp.topk_js_divergence(fw.array(p, dtype), fw.array(q, dtype), beta=beta, reduction="none"))
    with mpmath.workdps(50):
        want = [float(exact(*pair, beta)) for pair in zip(p, q, strict=True)]
    assert (got >= 0).all()
    np.testing.assert_allclose(got, want, rtol=1e-3 if dtype == "float32" else 1e-9)


def test_lower_bound_of_the_divergence_over_all_classes(fw: Framework) -> None:
    generator = np.random.default_rng(0)
    z = 2 * generator.standard_normal((2, 50, 8))
    p, q = z - np.log(np.exp(z).sum(-1, keepdims=True))
    over_all = distance.jensenshannon(np.exp(p), np.exp(q), axis=-1) ** 2
    got = fw.numpy(xp.topk_js_divergence(fw.array(p[:, :3].copy()), fw.array(q[:, :3].copy()), reduction="none"))
    merged = [np.concatenate([np.exp(x[:, :3]), np.exp(x[:, 3:]).sum(-1, keepdims=True)], -1) for x in (p, q)]
    np.testing.assert_allclose(got, distance.jensenshannon(*merged, axis=-1) ** 2, rtol=1e-9)
    assert (got <= over_all + 1e-12).all()


ROWS = [  # log p, log q, divergence
    (log(0.5, 0.5), log(0.5, 0.5), 0.0),  # no tail on either side
    (log(0.5, 0.0), log(0.5, 0.0), 0.0),
    (log(1.0, 0.0), log(0.0, 1.0), math.log(2)),
    (log(1.0, 0.0), log(0.0, 0.0), math.log(2)),  # all of Q is tail
    (log(0.0, 0.0), log(1.0, 0.0), math.log(2)),
    (log(0.0, 0.0), log(0.0, 0.0), 0.0),
]


def test_tails_of_zero(fw: Framework) -> None:
    p, q, want = (np.asarray(x) for x in zip(*ROWS, strict=True))
    for dtype in ("float32", "float64"):
        got = xp.topk_js_divergence(fw.array(p, dtype), fw.array(q, dtype), reduction="none")
        np.testing.assert_allclose(fw.numpy(got), want, rtol=1e-6)


@autodiff
def test_gradients_at_edges_are_finite(fw: Framework) -> None:
    p, q, _ = (np.asarray(x) for x in zip(*ROWS, strict=True))
    for beta in (0.0, 0.3):
        for wrt in (0, 1):

            def fn(a: Any, b: Any, beta: float = beta) -> Any:
                return xp.topk_js_divergence(a, b, beta=beta, reduction="sum")

            assert np.isfinite(first_and_second(fw, fn, p, q, wrt=wrt)).all()


def test_beta_has_no_jump_to_zero(fw: Framework) -> None:
    p, q = fw.array(log(0.5, 0.25)), fw.array(log(0.25, 0.125))
    for tail in ("bucket", "renormalize"):
        for beta in (0.0, 1.0):
            assert float(xp.topk_js_divergence(p, q, beta=beta, tail=tail)) == 0.0
            assert 0 <= float(xp.topk_js_divergence(p, q, beta=abs(beta - 1e-12), tail=tail)) < 1e-11


def test_half_precision(fw: Framework) -> None:
    for dtype in (d for d in fw.dtypes if d in ("float16", "bfloat16")):
        arrays = [fw.array(x, dtype) for x in (log(0.5, 0.2), log(0.2, 0.4))]
        got = xp.topk_js_divergence(*arrays)
        assert got.dtype == fw.dtype("float32")
        assert float(got) == pytest.approx(float(exact(*(fw.numpy(x) for x in arrays), 0.5)), rel=1e-5)


def test_nan_is_kept(fw: Framework) -> None:
    p, q = fw.array(np.asarray([[math.nan, -1.0]])), fw.array(log(0.5, 0.25)[None])
    for arrays in ((p, q), (q, p)):
        assert math.isnan(float(xp.topk_js_divergence(*arrays)))


def test_directions_of_the_kl_divergence(fw: Framework) -> None:
    """ "reverse" exchanges P and Q, "symmetric" is the mean, and a tail that only one has is infinite in one."""
    for a, b in ((log(0.5, 0.25), log(0.25, 0.25)), (log(0.5, 0.5), log(0.25, 0.25))):
        p, q = fw.array(a), fw.array(b)
        for tail in ("bucket", "renormalize", "truncate", "included"):
            there, back = (float(xp.topk_kl_divergence(*pair, tail=tail)) for pair in ((p, q), (q, p)))
            assert float(xp.topk_kl_divergence(p, q, tail=tail, direction="reverse")) == back
            got = float(xp.topk_kl_divergence(p, q, tail=tail, direction="symmetric"))
            assert got == pytest.approx((there + back) / 2, rel=1e-12)
    assert float(xp.topk_kl_divergence(p, q, direction="reverse")) == INF
