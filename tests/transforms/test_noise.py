"""Gradient noise: its variance, independence and generators."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.helpers.harness import Framework, close
from tests.helpers.updates import SLOPE, generator
from xpenalties import transforms


def test_noise(fw: Framework) -> None:
    noise = transforms.add_noise(0.04, gamma=1.5, rng=generator(fw, 1))
    zeros = {"a": fw.array(np.zeros((200, 100))), "b": fw.array(np.zeros(20000), "float32"), "n": None}
    state = noise.init(zeros)
    drawn = []
    for step in range(3):
        updates, state = noise.update(zeros, state)
        assert int(state.step) == step + 1 and updates["n"] is None
        assert updates["b"].dtype == fw.dtype("float32")
        for each in (fw.numpy(updates["a"]).ravel(), fw.numpy(updates["b"])):
            deviation = math.sqrt(0.04 / (1 + step) ** 1.5)
            assert abs(each.std() / deviation - 1) < 0.03  # 20000 numbers: six times 0.005
            assert abs(each.mean() / deviation) < 0.045
            drawn.append(each / deviation)
    for i, a in enumerate(drawn):
        assert all(abs(np.mean(a * b)) < 0.045 for b in drawn[:i])  # independent
    again, _ = transforms.add_noise(0.04, gamma=1.5, rng=generator(fw, 1)).update(
        zeros, noise.init(zeros)._replace(rng=generator(fw, 1))
    )
    close(fw, again["a"], 0.2 * drawn[0].reshape(200, 100))
    assert noise.update({"n": None}, noise.init(zeros))[1].step == 1


@pytest.mark.needs("autodiff")
def test_noise_is_a_constant(fw: Framework) -> None:
    import xpenalties as xp

    noise = transforms.add_noise(0.5, rng=generator(fw, 3))
    state = noise.init(fw.array(SLOPE))

    def total(g: Any) -> Any:
        return xp.namespace(g).sum(3 * noise.update(g, state)[0])

    close(fw, xp.value_and_grad(total)(fw.array(SLOPE))[1], np.full(4, 3.0))


X = np.ones((2, 2))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: transforms.add_noise(1, rng=3).update(X, ()), TypeError, r"^add_noise: `state` must be what `init`"),
        (lambda: transforms.add_noise(-1, rng=None), ValueError, "^add_noise: `eta` must be in"),
        (lambda: transforms.add_noise(1, gamma=-1, rng=None), ValueError, "^add_noise: `gamma` must be in"),
        (
            lambda: (noise := transforms.add_noise(1, rng=3)).update(X, noise.init(X)),
            TypeError,
            "^add_noise: `rng` must be a numpy.random.Generator, got int",
        ),
        (
            lambda: (noise := transforms.add_noise(1, rng=np.random.default_rng(0))).update(X * 1j, noise.init(X)),
            TypeError,
            "^add_noise: `updates` must be real, got complex128",
        ),
    ],
)
def test_errors(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
