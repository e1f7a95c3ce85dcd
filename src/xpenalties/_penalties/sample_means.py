"""Means over samples, and products of the samples' weights. `column` is their weights in shape (n, 1), or None."""

from __future__ import annotations

import math
from typing import Any

from .._arrays.numerics import gram_matrix, namespace_of, safe_divide
from .log_probabilities import row_maximum

__all__ = ["deviations_from_mean", "weighted_mean", "weights_of_pairs"]


def deviations_from_mean(x: Any, column: Any) -> Any:
    """Return the deviations from the means. Those of constant features are exactly 0.

    The mean of equal numbers may be rounded, and a correlation would then enlarge its rounding error. So subtract one
    of the numbers first.
    """
    xp = namespace_of(x, column)
    if column is None:
        x = x - row_maximum(x, axis=0)
        return x - xp.mean(x, axis=0, keepdims=True)
    x = x - row_maximum(xp.where(column == 0, -math.inf, x), axis=0)
    return x - weighted_mean(x, column)


def weighted_mean(x: Any, column: Any) -> Any:
    """Return the mean over the samples, 0 if none is left."""
    xp = namespace_of(x, column)
    return safe_divide(xp.sum(column * x, axis=0, keepdims=True), xp.sum(column))


def weights_of_pairs(weights: Any) -> Any:
    """Return the products of the weights of all pairs of samples, shape (n, n).

    A product of arrays that broadcast would be wrong if samples are cut over devices: no device has all pairs.
    """
    return gram_matrix(namespace_of(weights).expand_dims(weights, axis=-1), (0,), (1,))
