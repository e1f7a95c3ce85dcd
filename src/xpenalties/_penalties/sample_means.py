"""Means over samples, and the check that there are enough. `column` is their weights in shape (n, 1), or None."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from .._arrays.numerics import array_backend, count_true, gram_matrix, namespace_of, safe_divide, square
from ..backends import namespace
from .log_probabilities import row_maximum

__all__ = [
    "degrees_of_freedom",
    "deviations_from_mean",
    "mean_of_samples",
    "products_of_features",
    "samples_check",
    "weights_of_pairs",
]


def degrees_of_freedom(weights: Any) -> tuple[Any, Any]:
    """Return if there are two samples, and the denominator of the variance, or 1 if there are not."""
    xp = namespace(weights)
    total = xp.sum(weights)
    has_two = count_true(weights != 0, weights.dtype) > 1
    return has_two, xp.where(has_two, total - safe_divide(xp.sum(square(weights)), total), 1.0)


def deviations_from_mean(x: Any, column: Any) -> Any:
    """Return the deviations from the means. Those of constant features are exactly 0.

    The mean of equal numbers may be rounded, and a correlation would then enlarge its rounding error. So subtract one
    of the numbers first.
    """
    xp = namespace_of(x, column)
    x = x - row_maximum(x if column is None else xp.where(column == 0, -math.inf, x), axis=0)
    return x - mean_of_samples(x, column)


def mean_of_samples(x: Any, column: Any, *, axis: int | tuple[int, ...] | None = 0, keepdims: bool = True) -> Any:
    """Return the mean over the samples, which lie along `axis`: 0 if none is left. `column` broadcasts to `x`."""
    xp = namespace_of(x, column)
    if column is None:
        return xp.mean(x, axis=axis, keepdims=keepdims)
    total = xp.sum(column, axis=axis, keepdims=keepdims)
    return safe_divide(xp.sum(column * x, axis=axis, keepdims=keepdims), total)


def products_of_features(x: Any, column: Any) -> Any:
    """Return the products of all pairs of features, summed over the weighted samples."""
    whole = array_backend(x).with_whole_columns(x)  # once, not for each factor
    return gram_matrix(whole * column, (1,), (0,), whole)


def samples_check(
    caller: str, name: str, why_two: str | None = None
) -> Callable[[tuple[Any, ...], Mapping[str, Any]], None]:
    """Make a check that arrays have two axes, and two samples if `why_two` says why one is not enough."""

    def check(arrays: tuple[Any, ...], options: Mapping[str, Any]) -> None:
        shape = tuple(arrays[0].shape)
        if len(shape) != 2 or (why_two is not None and shape[0] == 1):
            least = 1 if why_two is None else 2
            hint = "Reshape it to two axes" if len(shape) != 2 else why_two
            raise ValueError(f"{caller}: `{name}` must have shape (n, d) with n >= {least}, got {shape}. {hint}.")

    return check


def weights_of_pairs(weights: Any) -> Any:
    """Return the products of the weights of all pairs of samples, shape (n, n).

    A product of arrays that broadcast would be wrong if samples are cut over devices: no device has all pairs.
    """
    return gram_matrix(namespace_of(weights).expand_dims(weights, axis=-1), (0,), (1,))
