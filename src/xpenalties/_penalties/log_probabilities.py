"""Compute log-probabilities, and the parts that divergences and entropies share.

Everything here accepts log-probabilities of -inf, such as those of masked tokens, and so do its first and second
derivatives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .._arrays.numerics import array_backend, stop_gradient
from ..backends import common_backend, namespace
from ..backends._fast_path import guards_are_skipped
from .spec import Distributions

__all__ = [
    "complete_unless_normalized",
    "exponentials",
    "is_log_zero",
    "log_of_classes",
    "log_probabilities",
    "log_ratio",
    "logsumexp",
    "lowest",
    "negative_entropy",
    "nan_if_small",
    "probabilities",
    "row_maximum",
    "scaled",
    "shifted",
    "support",
    "zero_outside_support",
]


def complete_unless_normalized(options: Mapping[str, Any]) -> Distributions | None:
    """Return what the arrays of a divergence hold, for given options: log-probabilities, or logits."""
    return None if options["from_logits"] or options["temperature"] != 1 else "complete"


def log_probabilities(x: Any, *, axis: int, temperature: float, from_logits: bool) -> Any:
    """Return log softmax(x / temperature), or `x` itself if it holds log-probabilities at temperature 1."""
    if not from_logits and temperature == 1.0:
        return x
    backend = array_backend(x)
    fused = backend.log_softmax if x.shape[axis] <= backend.softmax_classes else None
    if fused is None or temperature != 1.0:
        x = shifted(x, axis=axis, temperature=temperature)
    if fused is not None:
        return fused(x, axis)
    xp = backend.xp
    return x - xp.log(xp.sum(xp.exp(x), axis=axis, keepdims=True))


def probabilities(x: Any, *, axis: int, temperature: float) -> Any:
    """Return softmax(x / temperature)."""
    backend = array_backend(x)
    fused = backend.softmax if x.shape[axis] <= backend.softmax_classes else None
    if fused is None or temperature != 1.0:
        x = shifted(x, axis=axis, temperature=temperature)
    if fused is not None:
        return fused(x, axis)
    exp = backend.xp.exp(x)
    return exp / backend.xp.sum(exp, axis=axis, keepdims=True)


def shifted(x: Any, *, axis: int, temperature: float) -> Any:
    """Return (x - maximum) / temperature. Do not add a large maximum back later: that would round the result."""
    x = x - row_maximum(x, axis=axis)
    return scaled(x, temperature)


def row_maximum(x: Any, *, axis: int) -> Any:
    """Return the largest element of each row as a constant, 0 if it is infinite.

    It is a constant because its gradient cancels, and 0 because -inf - -inf is NaN.
    """
    xp = namespace(x)
    maximum = stop_gradient(xp.max(x, axis=axis, keepdims=True))
    return xp.where(xp.isfinite(maximum), maximum, 0.0)


def exponentials(x: Any, *, axis: int) -> tuple[Any, Any]:
    """Return exp(x) and the log of its sum over each row, for rows whose largest element is 0.

    If one class has almost all the probability, the sum is close to 1, and its log would lose digits. So the largest
    elements, each of which adds exactly 1, are summed separately, and the log is a log1p.
    """
    backend = array_backend(x)
    xp = backend.xp
    exp = xp.exp(x)
    # multiply by 0 or 1 instead of `where`, for which XLA's CPU programs would store an array
    is_smaller = stop_gradient(xp.clip(x * -math.exp(-backend.dtype(x.dtype).log_least), None, 1.0))
    smaller = exp * is_smaller
    rest = xp.sum(smaller, axis=axis, keepdims=True) + (xp.sum(exp - smaller, axis=axis, keepdims=True) - 1)
    return exp, xp.log1p(rest)


def log_ratio(x_p: Any, x_q: Any, *, axis: int, temperature: float) -> tuple[Any, Any, Any]:
    """Return log p, log q and log q - log p of logits.

    The third result is always finite: log-probabilities of -inf are clipped for it. Where it is small, it is computed
    from the difference of the logits, which is exact if they are close. A large offset between the rows would round
    that difference. Then it is computed from the logits minus their largest.
    """
    xp = namespace(x_p, x_q)
    max_p, max_q = row_maximum(x_p, axis=axis), row_maximum(x_q, axis=axis)
    log_p, log_q = scaled(x_p - max_p, temperature), scaled(x_q - max_q, temperature)
    sum_p, sum_q = (xp.sum(xp.exp(x), axis=axis, keepdims=True) for x in (log_p, log_q))
    least = lowest(log_p)
    r = xp.clip(log_q, least, None) - xp.clip(log_p, least, None)
    offset = max_q - max_p
    is_close = (xp.abs(r) <= 1) & (log_p > least) & (xp.abs(offset) <= 4)
    r = xp.where(is_close, scaled((x_q - x_p) - offset, temperature), r)
    r = r - xp.log(sum_q / sum_p)  # a ratio close to 1 if they are close
    return log_p - xp.log(sum_p), log_q - xp.log(sum_q), r


def lowest(log_p: Any) -> float:
    """Return a number below which log-probabilities count as -inf. Its square is finite."""
    return -math.exp(array_backend(log_p).dtype(log_p.dtype).log_least / -2)


def scaled(x: Any, temperature: float) -> Any:
    """Return x / temperature."""
    return x if temperature == 1.0 else x / temperature


def logsumexp(x: Any, *, axis: int) -> Any:
    """Return the log of the sum of exponentials: -inf for a row of -inf."""
    xp = namespace(x)
    maximum = row_maximum(x, axis=axis)
    if guards_are_skipped():
        log_sum = xp.log(xp.sum(xp.exp(x - maximum), axis=axis, keepdims=True))
        result = log_sum + maximum
        result = nan_if_small(result, xp.abs(result))
    else:
        result = exponentials(x - maximum, axis=axis)[1] + maximum
        result = xp.where(xp.max(x, axis=axis, keepdims=True) == math.inf, math.inf, result)
    return xp.squeeze(result, axis=axis)


def nan_if_small(x: Any, size: Any) -> Any:
    """Return `x`, with NaN where `size` is less than eps to the power of 0.3.

    On the fast path, NaN makes the backend evaluate the formula again, with guards. `size` has an absolute error of a
    few eps, so results that are not NaN have 4 correct digits in float32, and 10 in float64.
    """
    backend = array_backend(x)
    return backend.xp.where(size > backend.dtype(x.dtype).eps ** 0.3, x, math.nan)


def is_log_zero(log_p: Any) -> Any:
    """Return a mask: True where a log-probability is -inf."""
    return log_p == -math.inf


def support(*log_ps: Any) -> Any:
    """Return a mask: True where at least one of the probabilities is a normal number."""
    backend = common_backend("support", [f"log_ps[{i}]" for i in range(len(log_ps))], log_ps)
    least = backend.dtype(log_ps[0].dtype).log_least
    mask = log_ps[0] > least  # compare log p, not p: with exp(log p), XLA's CPU programs take three times as long
    for log_p in log_ps[1:]:
        mask = mask | (log_p > least)
    return mask


def zero_outside_support(x: Any, *log_ps: Any) -> Any:
    """Return `x` where at least one of the probabilities is a normal number, and 0 elsewhere.

    The product with p is then the limit of p log p for p = 0, with a finite gradient.
    """
    return x if guards_are_skipped() else namespace(x, *log_ps).where(support(*log_ps), x, 0.0)


def negative_entropy(
    log_p: Any, *, normalize: bool, axis: int, temperature: float = 1.0, from_logits: bool = False
) -> Any:
    """Return -H of each row."""
    of_logits = from_logits or temperature != 1.0
    if of_logits and not guards_are_skipped():
        negative = _negative_entropy_of_logits(log_p, axis=axis, temperature=temperature)
    else:
        log_p = log_probabilities(log_p, axis=axis, temperature=temperature, from_logits=from_logits)
        backend = array_backend(log_p)
        xp = backend.xp
        if backend.sums_products:
            p = xp.exp(log_p)
            negative = backend.sum_of_products(p, zero_outside_support(log_p, log_p), axis=axis)
        else:  # NumPy multiplies in place here, because neither factor has a name
            negative = xp.sum(xp.exp(log_p) * zero_outside_support(log_p, log_p), axis=axis)
        if of_logits:
            negative = nan_if_small(negative, -negative)
    return negative / log_of_classes(log_p, axis=axis) if normalize else negative


def log_of_classes(log_p: Any, *, axis: int) -> Any:
    """Return the log of the number of classes, the largest entropy. For a single class, return 1, to divide 0 by."""
    classes = log_p.shape[axis]
    if isinstance(classes, int):
        return math.log(classes) if classes > 1 else 1.0
    xp = namespace(log_p)  # a symbolic size of an exported program
    count = xp.sum(xp.ones_like(log_p), axis=axis)
    return xp.log(xp.where(count > 1, count, math.e))


def _negative_entropy_of_logits(x: Any, *, axis: int, temperature: float) -> Any:
    """Return sum(p x) - logsumexp(x), with x shifted so that its maximum is 0. Then nothing cancels."""
    backend = array_backend(x)
    xp = backend.xp
    x = shifted(x, axis=axis, temperature=temperature)
    exp, log_sum = exponentials(x, axis=axis)
    finite = xp.clip(x, 2 * backend.dtype(x.dtype).log_least, None)  # where exp(x) is 0
    summed = backend.sum_of_products(exp, finite, axis=axis, keepdims=True)
    return xp.squeeze(summed / xp.exp(log_sum) - log_sum, axis=axis)
