"""Transforms of units: closed forms, and which axes are those of the units."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.helpers.harness import Framework, close
from tests.helpers.updates import GRADIENT, SLOPE
from xpenalties import transforms

RNG = np.random.default_rng(3)


@pytest.mark.parametrize(
    ("shape", "unit_axis", "axes"),
    [
        ((4,), None, (0,)),
        ((), None, ()),
        ((1, 4), None, (0, 1)),
        ((4, 1), None, (0, 1)),
        ((4, 3), 0, (1,)),
        ((4, 3), -1, (0,)),
        ((2, 3, 4), 1, (0, 2)),
        ((2, 2, 3, 4), -1, (0, 1, 2)),
        ((2, 3, 4), (0, -1), (1,)),
        ((2, 3, 4), (), (0, 1, 2)),
        ((2, 3), (0, 1), ()),
    ],
)
def test_adaptive_gradient_clipping(
    fw: Framework, shape: tuple[int, ...], unit_axis: Any, axes: tuple[int, ...]
) -> None:
    p, g = RNG.normal(size=shape), 0.2 * RNG.normal(size=shape)
    clip = transforms.adaptive_gradient_clipping(0.1, unit_axis=unit_axis)
    updates, state = clip.update(fw.array(g), clip.init(fw.array(p)), fw.array(p))
    norm, least = (np.sqrt(np.sum(x**2, axis=axes, keepdims=True)) for x in (g, p))
    assert state == ()
    close(fw, updates, g * np.minimum(1, 0.1 * np.maximum(least, 1e-3) / norm))


def test_units_by_default(fw: Framework) -> None:
    for shape, elsewhere in (((4, 3), (0,)), ((2, 3, 4), (0,)), ((2, 2, 3, 4), (0, 1, 2))):
        p, g = RNG.normal(size=shape), RNG.normal(size=shape)
        axes = tuple(range(1, len(shape))) if fw.name == "torch" else elsewhere
        clip = transforms.adaptive_gradient_clipping(0.1)
        norm, least = (np.sqrt(np.sum(x**2, axis=axes, keepdims=True)) for x in (g, p))
        close(fw, clip.update(fw.array(g), (), fw.array(p))[0], g * np.minimum(1, 0.1 * least / norm))


def test_units_at_zero(fw: Framework) -> None:
    clip = transforms.adaptive_gradient_clipping(0.1, eps=0.01, unit_axis=0)
    p, g = np.zeros((2, 2)), np.asarray([[3.0, 4.0], [0.0, 0.0]])
    close(fw, clip.update(fw.array(g), (), fw.array(p))[0], np.asarray([[6e-4, 8e-4], [0.0, 0.0]]))


def test_centralize(fw: Framework) -> None:
    updates = {"a": fw.array(GRADIENT), "b": fw.array(SLOPE), "c": fw.array(np.asarray(RNG.normal(size=(2, 3, 4))))}
    result, state = transforms.centralize().update(updates, transforms.centralize().init(updates))
    assert state == ()
    close(fw, result["a"], GRADIENT - GRADIENT.mean(1, keepdims=True))
    close(fw, result["b"], SLOPE)
    c = fw.numpy(updates["c"])
    close(fw, result["c"], c - c.mean((1, 2), keepdims=True))
    result, _ = transforms.centralize(unit_axis=-1, exclude="a").update(updates, ())
    close(fw, result["a"], GRADIENT)
    close(fw, result["c"], c - c.mean((0, 1), keepdims=True))
    result, _ = transforms.centralize(unit_axis=(0, 1), exclude="a").update(updates, ())
    close(fw, result["c"], c - c.mean(2, keepdims=True))
