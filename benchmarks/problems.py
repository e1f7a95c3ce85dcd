"""Arrays to compute with, as float32 NumPy arrays: the same for every framework."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from table import Framework, Scale

__all__ = ["arrays", "linear_heads", "steps"]


def arrays(framework: Framework, scale: Scale, *kinds: str) -> tuple:
    """Return one array of each kind, of a framework."""
    return tuple(framework.asarray(_array(kind, scale, seed)) for seed, kind in enumerate(kinds))


def _array(kind: str, scale: Scale, seed: int) -> np.ndarray:
    if kind == "top_k":
        n, k = scale.top_k
        return _log_softmax(_normal(seed, n, 2 * k))[:, :k].copy()
    if kind in ("wide", "tall", "samples", "points", "matrix"):
        return _normal(seed, *getattr(scale, kind))
    logits = _normal(seed, scale.rows, scale.classes)
    return _log_softmax(logits) if kind == "log_p" else logits


def _normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def _log_softmax(z: np.ndarray) -> np.ndarray:
    return z - np.log(np.sum(np.exp(z), axis=-1, keepdims=True))


def linear_heads(framework: Framework, scale: Scale, heads: int) -> list:
    """Return hidden states [tokens, hidden] and weights [classes, hidden] of output layers, two for each head."""
    shapes = ((scale.tokens, scale.hidden), (scale.classes, scale.hidden))
    found = [_normal(seed, *shapes[seed % 2]) for seed in range(2 * heads)]
    return [framework.asarray(x / scale.hidden**0.5 if i % 2 else x) for i, x in enumerate(found)]


def steps(scale: Scale) -> list[Scale]:
    """Return the scales of a series with a growing number of rows."""
    return [replace(scale, rows=n) for n in scale.growth]
