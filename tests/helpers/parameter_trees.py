"""A tree of parameters with every kind of node, and the paths of its floating-point leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tests.helpers.harness import Framework

RNG = np.random.default_rng(5)
KERNEL, BIAS, SCALE = RNG.normal(size=(3, 4)), RNG.normal(size=4), RNG.normal(size=4)


class Norm(NamedTuple):
    scale: Any
    offset: Any


@dataclass
class Layer:
    kernel: Any
    bias: Any


def params(fw: Framework) -> dict[str, Any]:
    return {
        "encoder": [Layer(fw.array(KERNEL), fw.array(BIAS)), Layer(fw.array(2 * KERNEL), fw.array(-BIAS))],
        "norm": Norm(fw.array(SCALE), fw.array(0 * SCALE)),
        "steps": 3,
        "seen": fw.array(np.asarray([1, 2])),
        "rate": fw.array(np.asarray(0.5)),
    }


PATHS = [
    "encoder.0.kernel",
    "encoder.0.bias",
    "encoder.1.kernel",
    "encoder.1.bias",
    "norm.scale",
    "norm.offset",
    "rate",
]
