r"""Formulas for the Kullback-Leibler divergence of each row.

The sum of p log(p / q) cancels if P and Q are close: in float32, half of the values below 1e-7 come out negative. If
both distributions sum to 1, there are formulas whose summands are all >= 0. With d = log q - log p, centered so that
the sum of p d is 0, and :math:`g(d) = e^d - 1 - d`,

.. math:: KL(P\|Q) = \log \sum_i p_i e^{d_i} = \log(1 + \sum_i p_i g(d_i)).

A constant that is added to all of d drops out, so d can be the difference of the logits, which is exact if they are
close. It is enough that the center is right to rounding: an error of it changes the value by its square.
"""

from __future__ import annotations

import math
from typing import Any

from .._arrays.numerics import array_backend, exp_minus_tangent, stop_gradient
from ..backends import namespace
from ..backends._fast_path import guards_are_skipped
from .log_probabilities import (
    exponentials,
    log_probabilities,
    nan_if_small,
    probabilities,
    row_maximum,
    zero_outside_support,
)

__all__ = ["kl"]

_SMALL = 2**14  # elements; below, the number of operations decides the time


def kl(
    log_p: Any, log_q: Any, *, direction: str, axis: int, temperature: float = 1.0, from_logits: bool = False
) -> Any:
    """Return the `kl_divergence` of each row."""
    if direction == "reverse":
        log_p, log_q = log_q, log_p
    if not from_logits and temperature == 1.0:
        return _symmetric(log_p, log_q, axis=axis) if direction == "symmetric" else _forward(log_p, log_q, axis=axis)
    if direction == "symmetric":
        return _symmetric_of_logits(log_p, log_q, axis=axis, temperature=temperature)
    return _forward_of_logits(log_p, log_q, axis=axis, temperature=temperature)


def _forward(log_p: Any, log_q: Any, *, axis: int) -> Any:
    """Return KL(P||Q) of log-probabilities, which need not sum to 1."""
    xp = namespace(log_p, log_q)
    # with the minus outside, the gradient with respect to log q (the student, if P is a teacher) is one product
    return 0.0 - xp.sum(xp.exp(log_p) * zero_outside_support(log_q - log_p, log_p), axis=axis)


def _symmetric(log_p: Any, log_q: Any, *, axis: int) -> Any:
    """Return (KL(P||Q) + KL(Q||P)) / 2 of log-probabilities, which need not sum to 1."""
    xp = namespace(log_p, log_q)
    p, q = xp.exp(log_p), xp.exp(log_q)
    log_ratio = zero_outside_support(log_p - log_q, log_p, log_q)
    return xp.sum(0.5 * (p - q) * log_ratio, axis=axis)  # each summand >= 0


def _forward_of_logits(x_p: Any, x_q: Any, *, axis: int, temperature: float) -> Any:
    """Return KL(P||Q) of logits."""
    if not guards_are_skipped():
        return _guarded(x_p, x_q, axis=axis, temperature=temperature)
    size = math.prod(x_p.shape)
    if type(size) is not int or size > _SMALL:  # or a symbol of an export
        return _fast(x_p, x_q, axis=axis, temperature=temperature)
    log_p = log_probabilities(x_p, axis=axis, temperature=temperature, from_logits=True)
    log_q = log_probabilities(x_q, axis=axis, temperature=temperature, from_logits=True)
    xp = namespace(log_p, log_q)
    value = 0.0 - xp.sum(xp.exp(log_p) * (log_q - log_p), axis=axis)
    return nan_if_small(value, value)


def _fast(x_p: Any, x_q: Any, *, axis: int, temperature: float) -> Any:
    """Return KL(P||Q), with NaN where that would be inexact: for underflowing probabilities and for very close rows.

    The center is a constant here, because that is cheaper to differentiate: `center - mean` is 0, and has the gradient
    that the center would have. The constant in the sum corrects the rounding of the center.
    """
    xp = namespace(x_p, x_q)
    p, d, mean = _differences(x_p, x_q, axis=axis, temperature=temperature)
    center = stop_gradient(mean)
    d = d - center
    excess = xp.sum(p * xp.expm1(d) - stop_gradient(p) * stop_gradient(d), axis=axis, keepdims=True)
    value = xp.log1p(excess) + (center - mean)
    is_exact = (excess > array_backend(excess).dtype(excess.dtype).eps ** 0.75) | (excess == 0)
    return xp.squeeze(xp.where(is_exact & ~_underflows(d, axis=axis), value, math.nan), axis=axis)


def _guarded(x_p: Any, x_q: Any, *, axis: int, temperature: float) -> Any:
    """Return KL(P||Q) for any logits.

    Written for XLA, whose CPU compiler stores an array for each selection: logits of -inf are clipped. Where p
    underflows, e^d p is computed from the logit of Q. A KL divergence above 43 may overflow in float32, so `offset` is
    taken out of the logarithm.
    """
    xp = namespace(x_p, x_q)
    limits = array_backend(x_p).dtype(x_p.dtype)
    max_p, max_q = row_maximum(x_p, axis=axis), row_maximum(x_q, axis=axis)
    exp, log_sum = exponentials(_scaled(x_p - max_p, temperature), axis=axis)
    p = exp * xp.exp(-log_sum)
    lowest = -math.exp(-2 - limits.log_least)
    lost = xp.sum(p * xp.astype(x_q < lowest, p.dtype), axis=axis, keepdims=True)  # P where Q is 0
    d = xp.clip(x_q, lowest, None) - xp.clip(x_p, max_p + 2 * limits.log_least * temperature, None)
    d = _scaled(d, temperature)
    center = xp.sum(p * d, axis=axis, keepdims=True)
    d = d - center
    log_sum = log_sum + center
    offset = stop_gradient(_scaled(max_q - max_p, temperature) - log_sum) + limits.log_least / 2
    offset = xp.where(offset > 0, offset, 0.0)
    scale = xp.exp(-offset)
    close = scale * p * exp_minus_tangent(xp.clip(d, -1.5, 1.5))  # wider than 1, so that the clip's kink is never used
    far = xp.exp(_scaled(x_q - max_p, temperature) - (log_sum + offset)) - scale * (p + p * d)
    excess = xp.sum(xp.where(xp.abs(d) <= 1, close, far), axis=axis, keepdims=True)
    value = xp.log1p(excess + xp.expm1(-offset)) + offset
    return xp.squeeze(value + xp.where(lost > math.exp(limits.log_least), math.inf, 0.0 * lost), axis=axis)


def _symmetric_of_logits(x_p: Any, x_q: Any, *, axis: int, temperature: float) -> Any:
    """Return (KL(P||Q) + KL(Q||P)) / 2 of logits."""
    if not guards_are_skipped():
        there = _guarded(x_p, x_q, axis=axis, temperature=temperature)
        return 0.5 * (there + _guarded(x_q, x_p, axis=axis, temperature=temperature))
    xp = namespace(x_p, x_q)
    p, d, mean = _differences(x_p, x_q, axis=axis, temperature=temperature)
    d = d - mean
    growth = xp.expm1(d)
    grown = p * growth
    excess = xp.sum(grown, axis=axis)
    value = 0.5 * xp.sum(grown * d, axis=axis) / (1 + excess)  # each summand >= 0
    return xp.where(xp.squeeze(_underflows(d, axis=axis), axis=axis), math.nan, value)


def _differences(x_p: Any, x_q: Any, *, axis: int, temperature: float) -> tuple[Any, Any, Any]:
    """Return p, the difference d of the scaled logits, and the mean of d under P."""
    xp = namespace(x_p, x_q)
    p = probabilities(x_p, axis=axis, temperature=temperature)
    d = _scaled(x_q - x_p, temperature)
    return p, d, xp.sum(p * d, axis=axis, keepdims=True)


def _underflows(d: Any, *, axis: int) -> Any:
    """Return True for rows where p may be 0 and q is not, because d is that large."""
    backend = array_backend(d)
    largest = backend.xp.max(stop_gradient(d), axis=axis, keepdims=True)
    return largest > -0.7 * backend.dtype(d.dtype).log_least


def _scaled(x: Any, temperature: float) -> Any:
    return x if temperature == 1.0 else x / temperature
