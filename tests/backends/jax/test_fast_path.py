"""What JAX's programs have of the care for extreme values, and what their transformations make of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework

pytestmark = pytest.mark.only("jax", reason="is about JAX")

ASKS = {
    "kl": (xp.kl_divergence, 2),
    "js": (xp.js_divergence, 2),
    "entropy": (xp.entropy, 1),
    "topk": (xp.topk_kl_divergence, 2),
    "group_lasso": (xp.group_lasso, 1),
    "cosine": (partial(xp.consistency, metric="cosine"), 2),
    "z_loss": (xp.z_loss, 1),
    "kl of logits": (partial(xp.kl_divergence, from_logits=True), 2),
    "output_magnitude": (xp.output_magnitude, 1),
}
PROBABILITIES = "kl", "js", "entropy", "topk", "z_loss", "kl of logits"
OF_LOGITS = "z_loss", "kl of logits"  # the largest of them may be infinite, guards or not
asks = pytest.mark.parametrize("name", ASKS)


@pytest.fixture
def jax(fw: Framework) -> Any:
    return fw.module


def rows(fw: Framework, *, zeros: float | None = None, seed: int = 0) -> Any:
    """Log-probabilities [3, 5], with a row of `zeros` among them or not."""
    log_p = np.log(np.random.default_rng(seed).dirichlet(np.ones(5), size=3))
    if zeros is not None:
        log_p[1] = [zeros, zeros, zeros, zeros, 0.0]
    return fw.array(log_p)


def branches(jax: Any, fn: Callable[..., Any], *arrays: Any) -> bool:
    """Whether there is a choice left in what the compiler gets."""
    text: str = jax.jit(fn).lower(*arrays).as_text()
    return "stablehlo.case" in text or "stablehlo.if" in text


@asks
def test_values_are_tried_without(jax: Any, fw: Framework, name: str) -> None:
    fn, count = ASKS[name]
    arrays = [rows(fw, seed=i) for i in range(count)]
    assert branches(jax, fn, *arrays)


@asks
def test_first_derivatives_of_rows_are_tried_without(jax: Any, fw: Framework, name: str) -> None:
    fn, count = ASKS[name]
    arrays = [rows(fw, seed=i) for i in range(count)]
    of_rows = name != "output_magnitude"
    assert branches(jax, jax.grad(fn), *arrays) == of_rows
    assert branches(jax, jax.value_and_grad(fn, argnums=count - 1), *arrays) == of_rows


@asks
def test_second_derivatives_and_batches_take_care(jax: Any, fw: Framework, name: str) -> None:
    fn, count = ASKS[name]
    arrays = [rows(fw, seed=i) for i in range(count)]

    def second(*arrays: Any) -> Any:
        return jax.grad(lambda *arrays: jax.numpy.sum(jax.grad(fn)(*arrays) ** 2))(*arrays)

    assert not branches(jax, second, *arrays)
    for batched in (jax.vmap(fn), jax.vmap(jax.grad(fn))):
        assert not branches(jax, batched, *(x[:, None, :] for x in arrays))
        text = jax.jit(batched).lower(*(x[:, None, :] for x in arrays)).as_text()
        assert name in OF_LOGITS or "stablehlo.is_finite" not in text  # both ways would be taken, and one be chosen


def masked(x: Any) -> Any:
    return xp.l2(x, where=x < -1, center="mean")


@pytest.mark.parametrize("fn", [xp.l1, xp.huber, xp.orthogonality, xp.covariance, masked])
def test_what_leaves_nothing_out_has_one_way(jax: Any, fw: Framework, fn: Any) -> None:
    x = rows(fw)
    assert not branches(jax, fn, x) and "custom_vmap" not in str(jax.make_jaxpr(fn)(x))


@asks
def test_a_device_has_one_way(jax: Any, fw: Framework, name: str) -> None:
    fn, count = ASKS[name]
    arrays = [rows(fw, seed=i) for i in range(count)]
    from jax import export

    for each in (fn, jax.grad(fn)):
        text: str = export.export(jax.jit(each), platforms=["cuda"])(*arrays).mlir_module()
        assert name in OF_LOGITS or "stablehlo.is_finite" not in text  # which would be waited for


@asks
def test_transformations_agree(jax: Any, fw: Framework, name: str) -> None:
    """In batches of which one alone has zeros, by one argument of two, within scans and checkpoints."""
    fn, count = ASKS[name]
    fill = -math.inf if name in PROBABILITIES else 0.0
    arrays = [jax.numpy.stack([rows(fw, zeros=fill), rows(fw, seed=i + 1)]) for i in range(count)]
    one = [[x[i] for x in arrays] for i in range(2)]

    def looped(*arrays: Any) -> Any:
        return jax.lax.map(lambda each: jax.checkpoint(fn)(*each), tuple(arrays))

    want = [float(fn(*each)) for each in one]
    for many in (jax.vmap(fn), jax.jit(jax.vmap(fn)), looped):
        np.testing.assert_allclose(fw.numpy(many(*arrays)), want, rtol=1e-9)
    for argnum in range(count):
        by = jax.grad(fn, argnums=argnum)
        want = [fw.numpy(by(*each)) for each in one]
        np.testing.assert_allclose(fw.numpy(jax.vmap(by)(*arrays)), want, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(
            fw.numpy(jax.grad(lambda *x: jax.numpy.sum(looped(*x)), argnum)(*arrays)), want, rtol=1e-9, atol=1e-12
        )
        forward = [fw.numpy(jax.jacfwd(fn, argnums=argnum)(*each)) for each in one]
        np.testing.assert_allclose(forward, want, rtol=1e-9, atol=1e-12)


@asks
def test_a_derivative_by_all_arrays_at_once(jax: Any, fw: Framework, name: str) -> None:
    fn, count = ASKS[name]
    arrays = [rows(fw, seed=i) for i in range(count)]
    tangents = [rows(fw, seed=i + 5) for i in range(count)]
    _, got = jax.jvp(fn, arrays, tangents)
    slopes = [fw.numpy(jax.grad(fn, argnums=i)(*arrays)) for i in range(count)]
    want = sum((slope * fw.numpy(tangent)).sum() for slope, tangent in zip(slopes, tangents, strict=True))
    assert float(got) == pytest.approx(want, rel=1e-9)


def test_a_batch_over_one_of_two_arrays(jax: Any, fw: Framework) -> None:
    p, q = rows(fw, zeros=-math.inf), rows(fw, seed=1)
    got = jax.vmap(xp.kl_divergence, in_axes=(0, None))(p[:, None, :], q[:1])
    want = [float(xp.kl_divergence(p[i : i + 1], q[:1])) for i in range(3)]
    np.testing.assert_allclose(fw.numpy(got), want, rtol=1e-9)
    assert all(math.isfinite(x) for x in want)


def test_slope_of_magnitudes(jax: Any, fw: Framework) -> None:
    x = fw.array(np.asarray([-2.0, -0.0, 0.0, 3.0]))
    slope = jax.grad(xp.l1)
    np.testing.assert_array_equal(fw.numpy(slope(x)), [-1.0, 0.0, 0.0, 1.0])
    np.testing.assert_array_equal(fw.numpy(jax.hessian(xp.l1)(x)), np.zeros((4, 4)))
    value, tangent = jax.jvp(xp.l1, (x,), (fw.module.numpy.ones_like(x),))
    assert (float(value), float(tangent)) == (5.0, 0.0)
