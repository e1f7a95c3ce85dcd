"""Decoupled decays and proximal steps whose weight is multiplied by the learning rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.helpers.harness import Framework, close
from tests.helpers.updates import BIAS, GRADIENT, KERNEL, SLOPE, gradients, params, soft
from xpenalties import prox, schedules, transforms

RATES = {"kernel": 0.1, "rest.0": 0.4}

MADE: list[Callable[[Any], Any]] = [
    lambda w: transforms.add_l2_decay(w, decoupled=True),
    lambda w: transforms.add_l1_decay(w, decoupled=True),
    lambda w: transforms.add_elastic_net_decay(w, l1_ratio=0.3, decoupled=True),
    lambda w: transforms.proximal(prox.l1, scale=w),
    lambda w: transforms.chain(
        transforms.centralize(), transforms.chain(transforms.add_l2_decay(w, decoupled=True)), transforms.centralize()
    ),
]


def updated(transform: Any, updates: Any, params: Any, **extra: Any) -> Any:
    return transform.update(updates, transform.init(params), params, **extra)[0]


@pytest.mark.parametrize("make", MADE)
def test_one_rate_for_all_or_one_for_each_path(fw: Framework, make: Callable[[Any], Any]) -> None:
    ps, us = params(fw), gradients(fw)
    for rates in ({"kernel": 0.25, "rest.0": 0.25}, RATES):
        expected = {path: updated(make(0.5 * rate), us, ps) for path, rate in rates.items()}
        mappings: list[Any] = [rates, {path: fw.array(np.asarray(rate)) for path, rate in rates.items()}]
        if rates is not RATES:
            mappings += [0.25, fw.array(np.asarray(0.25))]
        for learning_rate in mappings:
            result = updated(make(0.5), us, ps, learning_rate=learning_rate)
            close(fw, result["kernel"], fw.numpy(expected["kernel"]["kernel"]))
            close(fw, result["rest"][0], fw.numpy(expected["rest.0"]["rest"][0]))
            assert result["rest"][1] is None


def test_closed_form_of_a_schedule(fw: Framework) -> None:
    transform = transforms.add_l2_decay(schedules.linear(0.0, 0.5, steps=2), decoupled=True, match="kernel")
    ps, us = params(fw), gradients(fw)
    state = transform.init(ps)
    for step in range(3):
        result, state = transform.update(us, state, ps, learning_rate={"kernel": 0.1})
        close(fw, result["kernel"], GRADIENT - 0.1 * 0.25 * step * KERNEL, atol=1e-7)  # of the default float
        close(fw, result["rest"][0], SLOPE)
    close(fw, transform.update(us, state, ps)[0]["kernel"], GRADIENT - 0.5 * KERNEL, atol=1e-7)


def test_a_scale_for_each_element(fw: Framework) -> None:
    each = np.asarray([[0.1, 0.5, 0.9, 0.0]])
    ps, us = {"w": fw.array(KERNEL)}, {"w": fw.array(GRADIENT)}
    transform = transforms.proximal(prox.l1, scale=fw.array(each))
    result = updated(transform, us, ps, learning_rate={"w": 0.5})["w"]
    close(fw, result, soft(KERNEL + GRADIENT, 0.5 * each) - KERNEL)


@pytest.mark.needs("jit")
@pytest.mark.only("jax", reason="is about a traced learning rate")
def test_a_traced_rate(fw: Framework) -> None:
    transform = transforms.proximal(prox.l2, scale=0.5)
    u, p = fw.array(SLOPE), fw.array(BIAS)
    result = fw.module.jit(lambda rate: transform.update(u, (), p, learning_rate=rate)[0])(0.2)
    close(fw, result, (BIAS + SLOPE) / 1.2 - BIAS)


X = np.ones(2)
DECAY = transforms.add_l2_decay(0.5, decoupled=True)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: updated(DECAY, {"w": X}, {"w": X}, learning_rate={"v": 0.1}),
            ValueError,
            "^add_l2_decay: `learning_rate` must have a number for each selected path, got none for 'w'",
        ),
        (
            lambda: updated(DECAY, X, X, learning_rate=-0.1),
            ValueError,
            r"^add_l2_decay: `learning_rate` must be in \[0, inf\), got -0.1",
        ),
        (
            lambda: updated(DECAY, X, X, learning_rate=X),
            ValueError,
            r"^add_l2_decay: `learning_rate` must be 0-d, got shape \(2,\)",
        ),
        (lambda: updated(transforms.add_l2_decay(0.5), X, X, learning_rate=0.1), TypeError, "learning_rate"),
        (lambda: updated(transforms.proximal(prox.box, low=0.0), X, X, learning_rate=0.1), TypeError, "learning_rate"),
    ],
)
def test_errors(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
