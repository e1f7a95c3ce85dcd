r"""Formulas for the Kullback-Leibler divergence of each row.

The sum of p log(p / q) cancels if P and Q are close: in float32, half of the values below 1e-7 come out negative. If
both distributions sum to 1, there are formulas whose summands are all >= 0. Let d = log q - log p, centered so that the
sum of p d is 0, and :math:`g(d) = e^d - 1 - d`. Then

.. math:: \mathrm{KL}(P\,\|\,Q) = \log \sum_i p_i e^{d_i} = \log(1 + \sum_i p_i g(d_i)).

A constant that is added to all of d drops out. So d can be the difference of the logits, which is exact if they are
close. An error of the center changes the value only by the square of that error. The same holds for the sum of p g(r)
with r = log q - log p, not centered. It is used if p may be 0.
"""

from __future__ import annotations

import math
from typing import Any

from .._arrays.numerics import (
    array_backend,
    exp_minus_tangent,
    exp_minus_tangent_by_series,
    log1p_minus_tangent,
    stop_gradient,
)
from ..backends import in_dynamo, namespace
from ..backends._fast_path import guards_are_skipped
from .log_probabilities import (
    log_probabilities,
    log_ratio,
    lowest,
    nan_if_small,
    probabilities,
    row_maximum,
    scaled,
    zero_outside_support,
)
from .skewed_kl import skewed_kl

__all__ = ["class_terms", "kl"]

_SMALL = 2**14  # elements; for smaller arrays, fewer operations are faster


def kl(
    log_p: Any,
    log_q: Any,
    *,
    direction: str,
    axis: int,
    temperature: float = 1.0,
    from_logits: bool = False,
    skew: float = 0.0,
) -> Any:
    """Return the `kl_divergence` of each row."""
    if skew != 0.0:
        options = {"axis": axis, "temperature": temperature, "from_logits": from_logits}
        return skewed_kl(log_p, log_q, skew=skew, direction=direction, **options)  # type: ignore[arg-type]
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
        formula = _in_two_passes if in_dynamo() else _guarded
        return formula(x_p, x_q, axis=axis, temperature=temperature)
    size = math.prod(x_p.shape)
    if type(size) is not int or size > _SMALL:  # or a symbol of an export
        return _fast(x_p, x_q, axis=axis, temperature=temperature)
    log_p = log_probabilities(x_p, axis=axis, temperature=temperature, from_logits=True)
    log_q = log_probabilities(x_q, axis=axis, temperature=temperature, from_logits=True)
    xp = namespace(log_p, log_q)
    value = 0.0 - xp.sum(xp.exp(log_p) * (log_q - log_p), axis=axis)
    return nan_if_small(value, value)


def _fast(x_p: Any, x_q: Any, *, axis: int, temperature: float) -> Any:
    """Return KL(P||Q). Rows that would be inexact are NaN: if probabilities underflow, or P and Q are very close.

    The center is a constant here, because that is cheaper to differentiate. `center - mean` is 0, but has the gradient
    that the center would have. The constant `p * d` in the sum corrects the rounding of the center.
    """
    xp = namespace(x_p, x_q)
    p, d, mean = _differences(x_p, x_q, axis=axis, temperature=temperature)
    center = stop_gradient(mean)
    d = d - center
    excess = xp.sum(p * xp.expm1(d) - stop_gradient(p) * stop_gradient(d), axis=axis, keepdims=True)
    value = xp.log1p(excess) + (center - mean)
    is_exact = _outweighs_rounding(excess, center) & (excess > array_backend(excess).dtype(excess.dtype).eps ** 0.75)
    is_exact = (is_exact | ((excess == 0) & (center == 0))) & ~_underflows(d, axis=axis)
    return xp.squeeze(xp.where(is_exact, value, math.nan), axis=axis)


def _guarded(x_p: Any, x_q: Any, *, axis: int, temperature: float) -> Any:
    r"""Return KL(P||Q) for any logits.

    It is :math:`\sum_i p_i g(r_i) + \log(1 + y) - y` with :math:`y = \sum_i (q_i - p_i)`, which is 0 up to the
    rounding of r.
    """
    log_p, log_q, r = log_ratio(x_p, x_q, axis=axis, temperature=temperature)
    xp = namespace(x_p, x_q)
    p, q = xp.exp(log_p), xp.exp(log_q)
    infinite = _infinite_if_lost(p, log_q, axis=axis)
    del log_p, log_q  # to save memory
    terms, changes = class_terms(p, q, r, is_close=xp.abs(r) <= 1)
    value = xp.sum(terms, axis=axis) + log1p_minus_tangent(xp.sum(changes, axis=axis))
    return value + infinite


def _in_two_passes(x_p: Any, x_q: Any, *, axis: int, temperature: float) -> Any:
    """Return KL(P||Q) for any logits, in two passes after those for the maxima. torch.compile makes a loop of each.

    The value is log(1 + sum p g(d)), with d centered. Where |d| > 1/2, p e^d is q times a factor of the row. The
    derivative is that of the plain sum of p log(p / q), which takes half the time.
    """
    backend = array_backend(x_p)
    xp, limits = backend.xp, backend.dtype(x_p.dtype)
    max_p, max_q = row_maximum(x_p, axis=axis), row_maximum(x_q, axis=axis)
    offset = scaled(max_q - max_p, temperature)
    log_p, log_q = scaled(x_p - max_p, temperature), scaled(x_q - max_q, temperature)  # not normalized
    p, q = xp.exp(log_p), xp.exp(log_q)
    sum_p, sum_q = xp.sum(p, axis=axis, keepdims=True), xp.sum(q, axis=axis, keepdims=True)

    least = lowest(log_p)
    difference = log_q - log_p  # NaN or infinite where probabilities are 0
    clipped = xp.clip(log_q, least, None) - xp.clip(log_p, least, None)
    mean = xp.sum(p * xp.where(log_p > limits.log_least, difference, 0.0), axis=axis, keepdims=True) / sum_p
    center = stop_gradient(xp.clip(mean, 1e4 * least, None))
    is_exact = (xp.abs(difference) <= 1) & (xp.abs(offset) <= 4)  # see `log_ratio`
    d = xp.where(is_exact, scaled(x_q - x_p, temperature) - offset, clipped) - center
    remainder = xp.sum(p * d, axis=axis, keepdims=True) / sum_p  # 0 up to rounding, unless d was clipped
    is_lost = remainder > 1 + 0.5 * xp.abs(center)  # P has a class with q = 0

    is_close = xp.abs(d) <= 0.5
    p_part = xp.sum(xp.where(is_close, p * exp_minus_tangent_by_series(d), -p - p * d), axis=axis, keepdims=True)
    q_part = xp.sum(xp.where(is_close, 0.0, q), axis=axis, keepdims=True)
    p_part, q_part = p_part / sum_p, q_part / sum_p
    near = xp.log1p(p_part + q_part * xp.exp(-center))
    far = xp.log(xp.exp(center) * (1 + p_part) + q_part) - center  # if exp(-center) may overflow
    value = xp.where(is_lost, math.inf, xp.where(center > -1, near, far))
    plain = remainder - xp.log(sum_q / sum_p)  # the divergence up to a constant
    return xp.squeeze(stop_gradient(value) + (stop_gradient(plain) - plain), axis=axis)


def class_terms(p: Any, q: Any, r: Any, *, is_close: Any) -> tuple[Any, Any]:
    """Return p log(p / q) + q - p, which is >= 0, and q - p for each class. Over all classes, the sum of q - p is 0.

    r is log(q / p), finite. `is_close` must be False where |r| > 1, and where p = 0 but q is not.
    """
    xp = namespace(p, q, r)
    near = xp.clip(r, -1.5, 1.5)  # wider than 1, so that the clip's kink is never used
    close = p * exp_minus_tangent(near)
    return xp.where(is_close, close, q - p - p * r), xp.where(is_close, close + p * near, q - p)


def _symmetric_of_logits(x_p: Any, x_q: Any, *, axis: int, temperature: float) -> Any:
    """Return (KL(P||Q) + KL(Q||P)) / 2 of logits. Each summand is >= 0."""
    xp = namespace(x_p, x_q)
    if not guards_are_skipped():
        log_p, log_q, r = log_ratio(x_p, x_q, axis=axis, temperature=temperature)
        p, q = xp.exp(log_p), xp.exp(log_q)
        close = p * xp.expm1(xp.clip(r, -1.5, 1.5))
        value = 0.5 * xp.sum(xp.where(xp.abs(r) <= 1, close, q - p) * r, axis=axis)
        return value + _infinite_if_lost(p, log_q, axis=axis) + _infinite_if_lost(q, log_p, axis=axis)
    p, d, mean = _differences(x_p, x_q, axis=axis, temperature=temperature)
    d = d - mean
    growth = p * xp.expm1(d)
    excess = xp.sum(growth, axis=axis, keepdims=True)
    value = 0.5 * xp.sum(growth * d, axis=axis, keepdims=True) / (1 + excess)
    is_exact = _outweighs_rounding(value, mean) & ~_underflows(d, axis=axis)
    return xp.squeeze(xp.where(is_exact, value, math.nan), axis=axis)


def _outweighs_rounding(value: Any, center: Any) -> Any:
    """Return True for rows whose value is large enough for the rounding of logits with an offset of `center`.

    The differences are off by eps * center, which changes the value by about that times its square root.
    """
    limit = stop_gradient(center) * array_backend(value).dtype(value.dtype).eps ** 0.35
    return value >= limit * limit


def _infinite_if_lost(p: Any, log_q: Any, *, axis: int) -> Any:
    """Return +inf for rows in which P has a class with q = 0, else 0."""
    backend = array_backend(p)
    xp, limits = backend.xp, backend.dtype(p.dtype)
    lost = xp.sum(p * xp.astype(log_q < lowest(log_q), p.dtype), axis=axis)
    return xp.where(lost > math.exp(limits.log_least), math.inf, 0.0 * lost)


def _differences(x_p: Any, x_q: Any, *, axis: int, temperature: float) -> tuple[Any, Any, Any]:
    """Return p, the difference d of the scaled logits, and the mean of d under P."""
    xp = namespace(x_p, x_q)
    p = probabilities(x_p, axis=axis, temperature=temperature)
    d = scaled(x_q - x_p, temperature)
    return p, d, xp.sum(p * d, axis=axis, keepdims=True)


def _underflows(d: Any, *, axis: int) -> Any:
    """Return True for rows in which p may underflow to 0 but q does not, because d is too large."""
    backend = array_backend(d)
    largest = backend.xp.max(stop_gradient(d), axis=axis, keepdims=True)
    return largest > -0.7 * backend.dtype(d.dtype).log_least
