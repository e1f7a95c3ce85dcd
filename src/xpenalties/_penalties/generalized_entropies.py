"""Formulas for the Tsallis and Renyi entropies of each row."""

from __future__ import annotations

from typing import Any

from ..backends import namespace
from .log_probabilities import exponentials, log_of_classes, shifted

__all__ = ["generalized_entropy"]


def generalized_entropy(
    log_p: Any, *, kind: str, alpha: float, normalize: bool, axis: int, temperature: float, from_logits: bool
) -> Any:
    """Return the Tsallis or Renyi entropy of each row, for an alpha that is not 1. "renyi" normalizes its input."""
    xp = namespace(log_p)
    if from_logits or temperature != 1.0 or kind == "renyi":
        x = shifted(log_p, axis=axis, temperature=temperature)
        _, log_sum = exponentials(x, axis=axis)
        log_p = x - log_sum
    tsallis = _tsallis(log_p, alpha, axis=axis)
    if kind == "tsallis":
        if not normalize:
            return tsallis
        # an array, because `math` cannot compute with the symbol that torch.compile makes of a changing alpha
        exponent = xp.ones_like(tsallis) * ((1.0 - alpha) * log_of_classes(log_p, axis=axis))
        return tsallis / (xp.expm1(exponent) / (1.0 - alpha))
    change = (1.0 - alpha) * tsallis  # the sum of p^alpha, minus 1
    if alpha < 1:
        entropy = xp.log1p(change) / (1.0 - alpha)
    else:
        is_far = change < -0.5  # then the log1p would lose digits
        far = xp.squeeze(xp.log(xp.sum(xp.exp(alpha * x), axis=axis, keepdims=True)) - alpha * log_sum, axis=axis)
        entropy = xp.where(is_far, far, xp.log1p(xp.where(is_far, 0.0, change))) / (1.0 - alpha)
    return entropy / log_of_classes(log_p, axis=axis) if normalize else entropy


def _tsallis(log_p: Any, alpha: float, *, axis: int) -> Any:
    """Return the sum of (p - p^alpha) / (alpha - 1).

    A summand is the larger of the two powers times (1 - e^(|alpha - 1| log p)) / |alpha - 1|. That is >= 0, keeps its
    digits for any alpha, and has finite derivatives at p = 0.
    """
    xp = namespace(log_p)
    larger, change = (log_p, alpha - 1.0) if alpha > 1 else (alpha * log_p, 1.0 - alpha)
    return (0.0 - xp.sum(xp.exp(larger) * xp.expm1(change * log_p), axis=axis)) / change
