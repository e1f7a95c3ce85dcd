"""Transforms that clip: closed forms, and edges that those of units share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.helpers.harness import Framework, close
from tests.helpers.updates import GRADIENT, SLOPE, params
from xpenalties import transforms

RNG = np.random.default_rng(3)


@pytest.mark.parametrize("factor", [1.0, 1e-3, 1e30, 0.0, math.nan, math.inf])
def test_clip_by_global_norm(fw: Framework, factor: float) -> None:
    with np.errstate(invalid="ignore"):
        given = factor * GRADIENT, factor * SLOPE
    updates = {"a": fw.array(given[0], "float32"), "b": [fw.array(given[1], "float32"), None]}
    result, state = transforms.clip_by_global_norm(0.5).update(updates, ())
    assert state == () and result["b"][1] is None
    g, s = (np.asarray(x, np.float32).astype(np.float64) for x in given)
    norm = math.hypot(*g.ravel(), *s)
    shrink = 1.0 if norm < 0.5 else 0.5 / norm
    with np.errstate(invalid="ignore"):
        rtol = (16 / 2 + 3) * 2**-24  # the root of 16 squares, in any order, and three operations, in float32
        close(fw, result["a"], g * shrink, rtol=rtol)
        close(fw, result["b"][0], s * shrink, rtol=rtol)


def test_clip_of_nothing(fw: Framework) -> None:
    clip = transforms.clip_by_global_norm(0.5)
    assert clip.init(params(fw)) == ()
    assert clip.update({"a": None}, ()) == ({"a": None}, ())


def test_clip(fw: Framework) -> None:
    x = np.asarray([3.0, -0.5, -math.inf, math.nan, 1.0])
    updates = {"a": fw.array(x, "float32"), "b": [fw.array(x), None]}
    for limit in (1.0, fw.array(np.asarray(1.0))):
        clip = transforms.clip(limit, match="a")
        result, state = clip.update(updates, clip.init({"a": 0, "b": 0}))
        assert state == () and result["b"] is not None and result["a"].dtype == fw.dtype("float32")
        close(fw, result["a"], np.asarray([1.0, -0.5, -1.0, math.nan, 1.0]))
        close(fw, result["b"][0], x)
    with pytest.raises(TypeError, match=r"^clip: `updates` must be real, got .*complex128\. Clip by a norm"):
        transforms.clip(1.0).update(fw.array(np.asarray([1j])), ())


@pytest.mark.parametrize("factor", [1.0, 1e-3, 1e30, 0.0, math.nan])
def test_clip_by_block_rms(fw: Framework, factor: float) -> None:
    given = {"a": factor * GRADIENT, "b": SLOPE}
    updates = {name: fw.array(x, "float32") for name, x in given.items()} | {"c": fw.array(np.zeros((0, 3))), "d": None}
    result, state = transforms.clip_by_block_rms(0.2).update(updates, ())
    assert state == () and result["d"] is None and tuple(result["c"].shape) == (0, 3)
    for name, x in given.items():
        rms = np.sqrt(np.mean(x**2))
        close(fw, result[name], x if rms < 0.2 else x * (0.2 / rms), rtol=1e-6)


def test_half_precision_is_computed_in_float32(fw: Framework) -> None:
    x = fw.array(np.full(4, 60000.0), "float16" if "float16" in fw.dtypes else "float32")
    result, _ = transforms.clip_by_global_norm(60000.0).update([x], ())  # a norm of 120000, which float16 has not
    close(fw, result[0], np.full(4, 30000.0), rtol=1e-3)


def test_empty_leaves(fw: Framework) -> None:
    empty, x = fw.array(np.zeros((0, 3))), fw.array(np.full(4, 2.0))
    result, _ = transforms.clip_by_global_norm(1.0).update([empty, x], ())
    assert tuple(result[0].shape) == (0, 3)
    close(fw, result[1], np.full(4, 0.5))
    close(fw, transforms.clip_by_global_norm(1.0).update([empty], ())[0][0], np.zeros((0, 3)))
    for each in (empty, fw.array(np.zeros((3, 0))), fw.array(np.zeros(0))):
        for transform in (transforms.adaptive_gradient_clipping(0.1), transforms.centralize()):
            assert tuple(transform.update(each, (), each)[0].shape) == tuple(each.shape)


@pytest.mark.needs("autodiff")
@pytest.mark.parametrize(
    "transform",
    [
        transforms.clip_by_global_norm(1.0),
        transforms.adaptive_gradient_clipping(0.1),
        transforms.clip_by_block_rms(1.0),
        transforms.clip(1.0),
    ],
)
def test_gradients_at_zero(fw: Framework, transform: Any) -> None:
    import xpenalties as xp

    zeros = fw.array(np.zeros((2, 3)))

    def after(g: Any) -> Any:
        return xp.l2(transform.update(g, (), fw.array(np.ones((2, 3))))[0] + 1)

    _, gradient = xp.value_and_grad(after)(zeros)
    close(fw, gradient, np.full((2, 3), 2.0))


def _block_rms(g: np.ndarray, limit: float) -> np.ndarray:
    return g * min(1.0, limit / float(np.sqrt(np.mean(g**2))))


def _units(g: np.ndarray, limit: float) -> np.ndarray:
    """Scale each unit along both axes. The parameters are 1, so the norm of theirs is 1 too."""
    return g * np.minimum(1.0, limit / np.abs(g))


CLIPS: dict[str, tuple[Callable[[Any], Any], Callable[[np.ndarray, float], np.ndarray]]] = {
    "clip": (transforms.clip, lambda g, limit: np.clip(g, -limit, limit)),
    "clip_by_block_rms": (transforms.clip_by_block_rms, _block_rms),
    "adaptive_gradient_clipping": (lambda x: transforms.adaptive_gradient_clipping(x, unit_axis=(0, -1)), _units),
}


@pytest.mark.needs("jit")
@pytest.mark.parametrize("name", CLIPS)
def test_a_traced_limit(fw: Framework, name: str) -> None:
    make, want = CLIPS[name]
    ones = fw.array(np.ones_like(GRADIENT))
    compiled, count = fw.compile(lambda g, limit: make(limit).update(g, (), ones)[0])
    counts = set()
    for limit in (0.3, 0.3, 0.1, 1e3):
        close(fw, compiled(fw.array(GRADIENT), fw.array(np.asarray(limit))), want(GRADIENT, limit))
        counts.add(count())
    assert len(counts) == 1


@pytest.mark.needs("autodiff")
@pytest.mark.parametrize("name", CLIPS)
def test_gradients(fw: Framework, name: str) -> None:
    """With respect to the updates and to the limit, against central differences of the definition."""
    import xpenalties as xp

    make, want = CLIPS[name]
    factors, ones = RNG.normal(size=GRADIENT.shape), fw.array(np.ones_like(GRADIENT))

    def weighted(arrays: Any) -> Any:
        result = make(arrays[1]).update(arrays[0], (), ones)[0]
        return xp.namespace(result).sum(result * fw.array(factors))

    of_updates, of_limit = xp.grad(weighted)([fw.array(GRADIENT), fw.array(np.asarray(0.3))])
    step = 1e-6
    for i in np.ndindex(GRADIENT.shape):
        change = np.zeros_like(GRADIENT)
        change[i] = step
        slope = ((want(GRADIENT + change, 0.3) - want(GRADIENT - change, 0.3)) * factors).sum() / (2 * step)
        assert float(of_updates[i]) == pytest.approx(slope, rel=1e-6, abs=1e-8)
    slope = ((want(GRADIENT, 0.3 + step) - want(GRADIENT, 0.3 - step)) * factors).sum() / (2 * step)
    assert float(of_limit) == pytest.approx(slope, rel=1e-6, abs=1e-8)


X = np.ones((2, 2))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: transforms.clip_by_global_norm(X),
            ValueError,
            r"`max_norm` must be 0-d, got shape \(2, 2\)\. Index it",
        ),
        (
            lambda: transforms.clip_by_global_norm(np.asarray(True)),
            TypeError,
            r"`max_norm` must be real, got bool\. Cast it",
        ),
        (
            lambda: transforms.clip_by_global_norm(1.0).update({"a": np.ma.masked_array([1.0])}, ()),
            TypeError,
            r"must be a tree of arrays of one framework, got numpy\.ma\S*MaskedArray at 'a'\. Pass what it holds",
        ),
        (lambda: transforms.clip(0), ValueError, r"^clip: `max_delta` must be in \(0, inf\), got 0"),
        (lambda: transforms.clip_by_block_rms(-1), ValueError, r"^clip_by_block_rms: `threshold` must be in \(0, "),
        (lambda: transforms.clip_by_global_norm(0), ValueError, r"`max_norm` must be in \(0, inf\), got 0"),
        (lambda: transforms.adaptive_gradient_clipping(0), ValueError, "`clipping` must be in"),
        (lambda: transforms.adaptive_gradient_clipping(1, eps=0), ValueError, "`eps` must be in"),
        (lambda: transforms.adaptive_gradient_clipping(1, unit_axis=0.5), TypeError, "`unit_axis` must be an integer"),
        (
            lambda: transforms.adaptive_gradient_clipping(1, unit_axis=2).update(X, (), X),
            ValueError,
            r"^adaptive_gradient_clipping: `unit_axis` must be an axis of each array, got 2 for shape \(2, 2\)\. Leave",
        ),
        (
            lambda: transforms.centralize(unit_axis=-3).update(X, ()),
            ValueError,
            "^centralize: `unit_axis` must be an axis",
        ),
    ],
)
def test_errors(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
