"""A small tree of parameters and one of gradients, for tests of gradient transforms."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.helpers.harness import Framework

RNG = np.random.default_rng(3)
KERNEL, BIAS = RNG.normal(size=(3, 4)), np.asarray([0.0, -0.2, 1.5, 0.01])
GRADIENT, SLOPE = RNG.normal(size=(3, 4)), np.asarray([0.3, -0.1, 0.0, -0.02])


def params(fw: Framework, dtype: str | None = None) -> dict[str, Any]:
    return {"kernel": fw.array(KERNEL, dtype), "rest": [fw.array(BIAS, dtype), 3]}


def gradients(fw: Framework, dtype: str | None = None) -> dict[str, Any]:
    return {"kernel": fw.array(GRADIENT, dtype), "rest": [fw.array(SLOPE, dtype), None]}


def soft(x: Any, by: float) -> Any:
    return np.sign(x) * np.maximum(np.abs(x) - by, 0)


def generator(fw: Framework, seed: int) -> Any:
    if fw.name == "torch":
        return fw.module.Generator().manual_seed(seed)
    return fw.key(seed) if fw.name == "jax" else np.random.default_rng(seed)
