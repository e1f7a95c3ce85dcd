"""Transforms can be copied and pickled, as those that an optimizer of another process runs."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from xpenalties import prox, schedules, transforms


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def unchanged(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
    return updates, state


def no_state(params: Any) -> tuple[()]:
    return ()


MADE: list[Callable[[], Any]] = [
    lambda: transforms.clip(0.5, match="w"),
    lambda: transforms.clip_by_block_rms(0.5),
    lambda: transforms.clip_by_global_norm(np.asarray(0.5)),
    lambda: transforms.adaptive_gradient_clipping(0.01, unit_axis=0, exclude="b"),
    lambda: transforms.centralize(unit_axis=-1, match="w"),
    lambda: transforms.add_l2_decay(schedules.linear(0.1, 0.5, steps=3), match="w", decoupled=True),
    lambda: transforms.add_l1_decay(0.1),
    lambda: transforms.add_elastic_net_decay(0.1, l1_ratio=0.3),
    lambda: transforms.proximal(prox.box, low=-0.1, high=0.1),
    lambda: transforms.add_noise(0.01, rng=np.random.default_rng(3)),
    lambda: transforms.chain(transforms.clip_by_global_norm(0.5), transforms.add_l2_decay(0.1)),
    lambda: transforms.GradientTransformation(no_state, unchanged),
]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
@pytest.mark.parametrize("make", MADE)
def test_a_copy_does_the_same(make: Callable[[], Any], copied: Callable[[Any], Any]) -> None:
    params = {"w": np.asarray([[1.0, -2.0], [0.5, 3.0]]), "b": np.asarray([0.3, -0.2])}
    updates = {"w": np.asarray([[0.3, 0.1], [-0.2, 4.0]]), "b": np.asarray([0.1, 1.0])}
    results = []
    for transform in (make(), copied(make())):
        state = transform.init(params)
        for _ in range(2):
            updated, state = transform.update(updates, state, params)
        results.append(updated)
    for name, expected in results[0].items():
        np.testing.assert_array_equal(results[1][name], expected)


def test_all_transforms_are_here() -> None:
    others = {"GradientTransformation", "NoiseState", "StepState", "apply_updates"}
    made = {function.__name__ for function in (vars(make().update).get("made_by", partial(dict)).func for make in MADE)}
    assert made - {"dict"} == set(transforms.__all__) - others


def test_a_transform_of_a_function_without_a_name() -> None:
    with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
        pickle.dumps(transforms.add_l2_decay(lambda step: 0.1))
