"""What rows of several families share: random arrays, functions, and refused options."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpenalties import namespace

__all__ = [
    "FUNCTION",
    "NEIGHBORS",
    "Bad",
    "apart",
    "curved",
    "curved_samples",
    "curved_whole",
    "log_probs",
    "normalized",
    "randn",
    "top_k",
]

_rng = np.random.default_rng(20260101)


def randn(*shape: int) -> np.ndarray:
    return _rng.standard_normal(shape)


def apart(*shape: int, seed: int = 0) -> np.ndarray:
    """Return normal numbers that depend on no other row."""
    return np.random.default_rng((seed, *shape)).standard_normal(shape)


def normalized(z: np.ndarray, axis: int = -1) -> np.ndarray:
    return z - np.log(np.exp(z).sum(axis=axis, keepdims=True))


def log_probs(*shape: int, axis: int = -1) -> np.ndarray:
    return normalized(1.5 * randn(*shape), axis)


def top_k(k: int, *shape: int) -> np.ndarray:
    return log_probs(*shape)[..., :k]


def curved(x: Any) -> Any:
    """Return x sin x of each element; `oracle.slope` is its derivative."""
    return x * namespace(x).sin(x)


def curved_samples(x: Any) -> Any:
    """Return the sum of `curved` over each sample."""
    return namespace(x).sum(curved(x), axis=tuple(range(1, x.ndim)))


def curved_whole(x: Any) -> Any:
    return namespace(x).sum(curved(x))


class Bad:
    """Refused options that several penalties share."""

    temperature = ({"temperature": 0.0}, ValueError, r"`temperature` must be in \(0, inf\), got 0.0")
    axis = ({"axis": 5}, ValueError, r"`axis` must be an axis of `\w+`, got 5 for shape \(\d, \d\)")
    axis_kind = ({"axis": 1.5}, TypeError, r"`axis` must be an integer, got 1.5")
    from_logits = ({"from_logits": 1}, TypeError, r"`from_logits` must be True or False, got 1")
    target_norm = ({"target_norm": -1}, ValueError, r"`target_norm` must be in \[0, inf\), got -1.0")
    one_sided = ({"one_sided": 1}, TypeError, r"`one_sided` must be True or False, got 1")
    rng = ({"rng": 1}, TypeError, r"`rng` must be a .*, got int\. Pass for example \S*random")
    no_axis = ({"axis": 0}, TypeError, r"`axis` is not an option. The options are \w+, ")
    no_logits = ({"from_logits": True}, TypeError, r"`from_logits` is not an option. The options are \w+, ")


# `fn` and its gradient are a handful of operations, and each of them rounds
FUNCTION = {"fn": curved_samples, "rounds_in_half": 4, "lacking": {"dask": "dask has no gradients, and no DLPack"}}

NEIGHBORS = {"dask": "neighbors are in other chunks"}
