"""Reduce terms to the value of a penalty and its metrics."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from .._arrays.numerics import count_true, safe_divide
from ..backends import Backend, common_backend
from .arguments import Call

__all__ = ["METRICS", "Terms", "metrics", "reduce"]

METRICS = ("sum", "mean", "min", "max")


class Terms(NamedTuple):
    """The terms of a penalty before weights and reduction."""

    backend: Backend
    values: Any  # masked terms are 0
    mask: Any = None
    weights: Any = None
    total: Any = None  # their weighted sum divided by `divisor`, if the backend fused it
    divisor: float = 1.0


def reduce(call: Call, terms: Terms) -> tuple[Any, Any]:
    """Reduce the terms. Returns the value and the weighted sum; for "none", the weighted terms and not their sum."""
    backend, values, mask, weights, fused, divisor = terms
    xp = backend.xp
    if fused is not None and (divisor != 1 and not call.with_metrics):
        return fused, None
    if fused is not None and divisor == 1:
        total = fused
    else:
        if weights is not None:
            values = values * weights
        total = values if call.reduction == "none" else xp.sum(values)
        if fused is not None:
            return fused, total
    if call.normalizer is not None:
        return _divide(call, total), total
    if call.reduction != "mean":
        return total, total
    if mask is None and weights is None:
        return total / (1.0 * max(math.prod(values.shape), 1)), total  # JAX has no larger ints than int32
    return safe_divide(total, count_true(mask, values.dtype) if weights is None else xp.sum(weights)), total


def _divide(call: Call, total: Any) -> Any:
    """Divide by the normalizer. 0 / 0 is 0 for an array."""
    normalizer = call.normalizer
    if type(normalizer) is float:
        return total / normalizer
    backend = common_backend(call.spec.name, (call.spec.arrays[0], "normalizer"), (total, normalizer))
    if normalizer.dtype != total.dtype:
        normalizer = backend.xp.astype(normalizer, total.dtype)
    return safe_divide(total, normalizer)


def metrics(terms: Terms, total: Any) -> tuple[Any, Any, Any, Any]:
    """Return sum (`total`), mean, min and max of the terms that are not masked, as constants.

    Sum and mean are weighted, min and max are not. Mean, min and max are NaN if all terms are masked.
    """
    xp = terms.backend.xp
    stop = terms.backend.autodiff.stop_gradient
    inf, nan = math.inf, math.nan
    values = stop(terms.values)
    mask, weights = terms.mask, None if terms.weights is None else stop(terms.weights)
    total = stop(total)
    size = math.prod(values.shape)
    if size == 0:
        return total, total * nan, total * nan, total * nan
    if mask is None and weights is None:
        return total, total / (1.0 * size), *terms.backend.extrema(values)
    share = count_true(mask, values.dtype) if weights is None else xp.sum(weights)
    any_left = share > 0
    return (
        total,
        xp.where(any_left, total / xp.where(any_left, share, 1.0), nan),
        xp.where(any_left, xp.min(values if mask is None else xp.where(mask, values, inf)), nan),
        xp.where(any_left, xp.max(values if mask is None else xp.where(mask, values, -inf)), nan),
    )
