"""What holds for all penalties: curvature at 0, half precision, numbers of any size, NaN, shapes that are refused."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, curvature

INF = math.inf
autodiff = pytest.mark.needs("autodiff")


@autodiff
def test_curvature_where_the_slope_is_zero(fw: Framework) -> None:
    c = np.asarray([1.0, -2.0, 3.0, 0.5])
    x = np.asarray([0.0, 0.0, 0.1, -3.0])
    inside = np.asarray([1.0, 1.0, 1.0, 0.0])
    np.testing.assert_allclose(curvature(fw, xp.huber, x, c), inside * c)
    np.testing.assert_allclose(curvature(fw, lambda x: xp.l2(x, clip=2.0), x, c), 2 * inside * c)
    np.testing.assert_allclose(curvature(fw, xp.l2, x, c), 2 * c)
    np.testing.assert_allclose(curvature(fw, lambda x: xp.elastic_net(x, l1_ratio=0.25), x, c), 1.5 * c)
    for norm, scale in (("rms", 4), ("l2", 1)):
        zeros = np.zeros(4)
        got = curvature(fw, lambda x, norm=norm: xp.output_magnitude(x, target=0.0, norm=norm), zeros, c)
        np.testing.assert_allclose(got, 2 * c / scale)
        assert (curvature(fw, lambda x, norm=norm: xp.output_magnitude(x, norm=norm), zeros, c) == 0).all()


@pytest.mark.only("numpy", "torch", reason="33 million terms are slow elsewhere")
def test_counts_do_not_stop_at_2_to_the_24(fw: Framework) -> None:
    n = 2**25 + 2**10
    where = fw.array(np.ones(n, dtype=bool))
    assert float(xp.l1(fw.array(np.ones(n, dtype=np.float32), "float32"), where=where, reduction="mean")) == 1.0


def test_half_precision_is_summed_in_float32(fw: Framework) -> None:
    for dtype in (d for d in fw.dtypes if d in ("float16", "bfloat16")):
        x = fw.array(np.full((200, 500), 2.0), dtype)
        got = xp.l2(x)  # 400000 is beyond float16 and the resolution of bfloat16
        assert float(got) == 400000.0 and got.dtype == fw.dtype("float32")
        weights = fw.array(np.ones((200, 500)), dtype)
        assert float(xp.l1(x, weights=weights, reduction="mean")) == 2.0


@pytest.mark.only("torch", reason="is about torch.autocast")
def test_under_autocast(fw: Framework) -> None:
    torch = fw.module
    x = fw.array(np.random.default_rng(0).standard_normal((6, 9)), "float32")
    for fn in (
        xp.orthogonality,
        lambda x: xp.orthogonality(x.mT, mode="hard"),
        lambda x: xp.orthogonality(x, mode="spectral"),
        xp.covariance,
        lambda x: xp.covariance(x.mT),
        lambda x: xp.kl_divergence(x, 2 * x, from_logits=True),
    ):
        want = fn(x)
        compiled, _ = fw.compile(fn)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            for got in (fn(x), compiled(x)):
                assert got.dtype == torch.float32 and float(got) == pytest.approx(float(want), rel=1e-6)


ROWS = np.asarray([[3.0, 4.0], [4.0, 3.0]])
#: penalties of these rows, with their values and the power of the rows' scale that they grow with
SCALED: dict[str, tuple[Callable[..., Any], float, int]] = {
    "group_lasso": (lambda x: xp.group_lasso(x[:1, :]), 5 * 2**0.5, 1),
    "cosine": (lambda x: xp.consistency(x[:1, :], x[1:, :], metric="cosine"), 0.04, 0),
    "orthogonality": (xp.orthogonality, 2 * 0.96**2, 0),
    "spectral": (lambda x: xp.orthogonality(x, mode="spectral"), 0.96**2, 0),
}


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("exponent", [-30, -20, 19, 30])
def test_numbers_whose_squares_overflow_or_underflow(fw: Framework, name: str, exponent: int) -> None:
    fn, want, power = SCALED[name]
    scale = 10.0**exponent
    x = fw.array(scale * ROWS, "float32")
    assert float(fn(x)) == pytest.approx(want * scale**power, rel=1e-5)
    if fw.has_autodiff:
        got = fw.numpy(xp.grad(fn)(x)).astype(np.float64)
        want = fw.numpy(xp.grad(fn)(fw.array(ROWS, "float32"))) * scale ** (power - 1)
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-5 * np.abs(want).max())


def test_no_axes(fw: Framework) -> None:
    one, two = (fw.array(np.asarray(x)) for x in (1.0, 3.0))
    for metric, want in (("mse", 4.0), ("l1", 2.0)):
        assert float(xp.consistency(one, two, metric=metric)) == want
    assert float(xp.l2(two, center=one)) == 4.0 and float(xp.output_magnitude(two)) == 4.0
    with pytest.raises(ValueError, match=r"^z_loss: `logits` must have at least 1 axis, got shape \(\). Add one"):
        xp.z_loss(one)


@pytest.mark.only("torch", reason="only PyTorch's arrays are on a graph of their own")
def test_empty_arrays_are_on_the_graph(fw: Framework) -> None:
    p, q = (fw.array(np.zeros((0, 3))).requires_grad_() for _ in range(2))
    xp.kl_divergence(p, q).backward()
    assert tuple(p.grad.shape) == tuple(q.grad.shape) == (0, 3)


def test_refused_shapes_axes_and_centers(fw: Framework) -> None:
    def array(*shape: int) -> Any:
        return fw.array(np.ones(shape))

    for axis in (2, -3):
        with pytest.raises(
            ValueError, match=rf"^z_loss: `axis` must be an axis of `logits`, got {axis} for .*\[-2, 1\]"
        ):
            xp.z_loss(array(2, 3), axis=axis)
    with pytest.raises(TypeError, match=r"^z_loss: `axis` must be an integer, got True"):
        xp.z_loss(array(2, 3), axis=True)
    assert float(xp.z_loss(fw.array(np.zeros((2, 1))), axis=np.int64(1))) == 0.0
    for shape in ((3,), (0,)):
        for per_sample in (False, True):
            with pytest.raises(ValueError, match=r"^orthogonality: `x` must have at least 2 axes, got shape \("):
                xp.orthogonality(array(*shape), per_sample=per_sample, reduction="none")
    for shape in ((3,), (1, 3), (2, 3, 4), (0,), (1, 0), (0, 3, 4)):
        hint = "A single sample has no" if len(shape) == 2 else "Reshape it to two axes"
        with pytest.raises(
            ValueError, match=rf"^covariance: `x` must have shape \(n, d\) with n >= 2, got .*\. {hint}"
        ):
            xp.covariance(array(*shape))
    for center in ((2,), (1, 2, 3)):
        with pytest.raises(ValueError, match=r"^l2: `center` must broadcast to `x`, got \(.* for \(2, 3\)"):
            xp.l2(array(2, 3), center=array(*center))
    for center in ("median", array(2), 1j):
        with pytest.raises((ValueError, TypeError), match=r"^l2: `center` must "):
            xp.l2(array(0), center=center)
    with pytest.raises(TypeError, match=r"^l2: `center` must be real for a real `x`, got .*complex"):
        xp.l2(array(2), center=fw.array(np.ones(2) * 1j))
    for number in (math.inf, math.nan):
        with pytest.raises(ValueError, match=r"^l2: `center` must be in \(-inf, inf\), got "):
            xp.l2(array(2), center=number)
    assert float(xp.l2(array(2), center=fw.array(np.asarray([3, 4])), clip=None)) == 4.0 + 9.0


def test_a_complex_normalizer(fw: Framework) -> None:
    with pytest.raises(TypeError, match=r"^l1: `normalizer` must be real, got .*complex.*. Pass a count"):
        xp.l1(fw.array(np.ones(2)), normalizer=fw.array(np.asarray(1j)))


def test_a_normalizer_of_0(fw: Framework) -> None:
    zero = fw.array(np.asarray(0.0))
    x = fw.array(np.ones(2))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "divide by zero", RuntimeWarning)
        assert float(xp.l1(x, normalizer=zero)) == INF
    assert float(xp.l1(x - x, normalizer=zero)) == 0.0


def test_nan_is_not_hidden(fw: Framework) -> None:
    bad = np.asarray([[0.0, math.nan, 1.0], [0.0, 1.0, 2.0]])
    clipped = partial(xp.l2, clip=0.5)
    clipped.__name__ = "l2"  # type: ignore[attr-defined]
    norms = (xp.l1, xp.l2, clipped, xp.elastic_net, xp.huber, xp.group_lasso, xp.output_magnitude)
    for fn in (*norms, xp.entropy, xp.z_loss):
        assert math.isnan(float(fn(fw.array(bad)))), fn.__name__
    for fn in (xp.kl_divergence, xp.js_divergence, xp.topk_kl_divergence, xp.sampled_kl, xp.consistency):
        assert math.isnan(float(fn(fw.array(bad), fw.array(np.zeros((2, 3)))))), fn.__name__
        assert math.isnan(float(fn(fw.array(np.zeros((2, 3))), fw.array(bad)))), fn.__name__
    assert math.isnan(float(xp.orthogonality(fw.array(bad))))
    assert math.isnan(float(xp.covariance(fw.array(bad))))
