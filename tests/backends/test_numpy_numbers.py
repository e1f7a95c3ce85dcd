"""Scalars and 0-d arrays of NumPy's, such as jax.device_get returns: numbers beside arrays of all other frameworks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, close
from xpenalties import Penalty, Pipeline, prox

EAGER = {"backend": "eager", "fullgraph": True}
NUMBERS = {"0-d": np.asarray(0.5), "float64": np.float64(0.5), "float32": np.float32(0.5)}
X = np.asarray([1.0, -2.0, 3.0])
CALLS: dict[str, tuple[Callable[[Any, Any], Any], float]] = {
    "weights": (lambda x, number: xp.l1(x, weights=number), 3.0),
    "the mean with weights": (lambda x, number: xp.l1(x, weights=number, reduction="mean"), 2.0),
    "normalizer": (lambda x, number: xp.l1(x, normalizer=number), 12.0),
    "option": (lambda x, number: xp.elastic_net(x, l1_ratio=number), 10.0),
    "center": (lambda x, number: xp.l2(x, center=number), 12.75),
    "the weight of a pipeline": (lambda x, number: Pipeline([Penalty("l1", weight=number)])(x), 3.0),
    "a report": (lambda x, number: Pipeline([Penalty("l1", weight=number)]).compute(x)[1].loss_total, 3.0),
    "prox": (lambda x, number: prox.l1(x, scale=number)[0], 0.5),
}


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("name", CALLS)
def test_numbers(fw: Framework, name: str, kind: str) -> None:
    (call, want), number = CALLS[name], NUMBERS[kind]
    close(fw, call(fw.array(X), number), want)
    single = call(fw.array(X, "float32"), number)
    assert fw.name == "numpy" or single.dtype == fw.dtype("float32")


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.only("jax", reason="is about numbers that a program is compiled with")
def test_numbers_in_a_program(fw: Framework, name: str) -> None:
    call, want = CALLS[name]
    compiled, _ = fw.compile(lambda x: call(x, np.asarray(0.5)))
    close(fw, compiled(fw.array(X)), want)


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.needs("jit")
def test_weights_of_compiled_pipelines(fw: Framework, kind: str) -> None:
    compiled = xp.compile(Pipeline([Penalty("l1", weight=NUMBERS[kind])]), torch=EAGER)
    close(fw, compiled(fw.array(X)), 3.0)
    close(fw, compiled.compute(fw.array(X))[0], 3.0)


@pytest.mark.parametrize("kept", [True, False])
def test_a_mask_of_one_number(fw: Framework, kept: bool) -> None:
    for where in (np.asarray(kept), np.bool_(kept)):
        close(fw, xp.l1(fw.array(X), where=where), 6.0 * kept)


def test_a_normalizer_of_0(fw: Framework) -> None:
    """A 0-d array behaves as one of the framework does: 0 / 0 is 0."""
    close(fw, xp.l1(fw.array(0 * X), normalizer=np.asarray(0.0)), 0.0)


@pytest.mark.without("numpy", reason="is about arrays of two frameworks")
def test_arrays_of_numpy_are_no_numbers(fw: Framework) -> None:
    with pytest.raises(TypeError, match=r"^l1: `x` and `weights` must be arrays of one framework, got \w+ and numpy"):
        xp.l1(fw.array(X), weights=np.ones(3))


def test_masks_of_integers(fw: Framework) -> None:
    with pytest.raises(TypeError, match=r"^l1: `where` must be a boolean array, got \S*int64\S*\. Pass `where != 0`\."):
        xp.l1(fw.array(X), where=fw.array(np.asarray([0, 1, 1]), "int64"))
