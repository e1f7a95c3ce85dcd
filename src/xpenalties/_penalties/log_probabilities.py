"""Shared parts of the divergences and entropies: log-probabilities, and formulas for each row of them.

Every formula here accepts log-probabilities of -inf, such as those of masked tokens, and so do its first and second
derivatives.
"""

from __future__ import annotations

import math
from typing import Any

from .._arrays.numerics import array_backend, stop_gradient
from ..backends import common_backend, in_dynamo, namespace
from ..backends._fast_path import guards_are_skipped

__all__ = [
    "is_log_zero",
    "jensen_shannon",
    "kl",
    "log_probabilities",
    "logsumexp",
    "negative_entropy",
    "symmetric_kl",
    "zero_outside_support",
]


def log_probabilities(x: Any, *, axis: int, temperature: float, from_logits: bool) -> Any:
    """Return log softmax(x / temperature), or `x` itself if it holds log-probabilities at temperature 1."""
    if not from_logits and temperature == 1.0:
        return x
    backend = array_backend(x)
    log_softmax = backend.log_softmax
    if log_softmax is None or temperature != 1.0:
        # never added back: the larger the logits, the more the sum would be rounded
        x = x - _row_maximum(x, axis=axis)
    if temperature != 1.0:
        x = x / temperature
    if log_softmax is not None:
        return log_softmax(x, axis)
    xp = backend.xp
    return x - xp.log(xp.sum(xp.exp(x), axis=axis, keepdims=True))


def logsumexp(x: Any, *, axis: int) -> Any:
    """Return the log of the sum of exponentials: -inf for a row of -inf."""
    xp = namespace(x)
    maximum = _row_maximum(x, axis=axis)
    return xp.squeeze(xp.log(xp.sum(xp.exp(x - maximum), axis=axis, keepdims=True)) + maximum, axis=axis)


def _row_maximum(x: Any, *, axis: int) -> Any:
    """Return the largest element of each row as a constant, 0 if it is infinite.

    It is a constant because its gradient cancels, and 0 because -inf - -inf is NaN.
    """
    xp = namespace(x)
    maximum = stop_gradient(xp.max(x, axis=axis, keepdims=True))
    return xp.where(xp.isfinite(maximum), maximum, 0.0)


def is_log_zero(log_p: Any) -> Any:
    """Return a mask: True where a log-probability is -inf."""
    return log_p == -math.inf


def zero_outside_support(x: Any, *log_ps: Any) -> Any:
    """Return `x` where at least one of the probabilities is a normal number, and 0 elsewhere.

    The product with p is then the limit of p log p for p = 0, with a finite gradient.
    """
    if guards_are_skipped():
        return x
    backend = common_backend("zero_outside_support", ("x", "log_p"), (x, log_ps[-1]))
    least = backend.dtype(x.dtype).log_least
    support = log_ps[0] > least  # compare log p, not p: with exp(log p), XLA's CPU programs take three times as long
    for log_p in log_ps[1:]:
        support = support | (log_p > least)
    return backend.xp.where(support, x, 0.0)


def kl(log_p: Any, log_q: Any, *, direction: str, axis: int) -> Any:
    """Return the `kl_divergence` of each row of log-probabilities."""
    if direction == "symmetric":
        return symmetric_kl(log_p, log_q, axis=axis)
    if direction == "reverse":
        log_p, log_q = log_q, log_p
    xp = namespace(log_p, log_q)
    # with the minus outside, the gradient with respect to log q (the student, if P is a teacher) is one product
    return 0.0 - xp.sum(xp.exp(log_p) * zero_outside_support(log_q - log_p, log_p), axis=axis)


def symmetric_kl(log_p: Any, log_q: Any, *, axis: int) -> Any:
    """Return (KL(P||Q) + KL(Q||P)) / 2 of each row of log-probabilities."""
    xp = namespace(log_p, log_q)
    p, q = xp.exp(log_p), xp.exp(log_q)
    log_ratio = zero_outside_support(log_p - log_q, log_p, log_q)
    return xp.sum(0.5 * (p - q) * log_ratio, axis=axis)  # each summand >= 0


def negative_entropy(log_p: Any, *, normalize: bool, axis: int) -> Any:
    """Return -H of each row of log-probabilities."""
    xp = namespace(log_p)
    negative = xp.sum(xp.exp(log_p) * zero_outside_support(log_p, log_p), axis=axis)
    classes = log_p.shape[axis]
    return negative / math.log(classes) if normalize and classes > 1 else negative


def jensen_shannon(log_p: Any, log_q: Any, *, beta: float, axis: int) -> Any:
    """Return the `js_divergence` of each row of log-probabilities.

    Let d = log q - log p. Then log m - log p = log1p(u) with u = (1 - beta) expm1(d), and log m - log q = log1p(v) with
    v = beta expm1(-d). Both are exact for small d, so that close distributions do not cancel. The code uses
    log1p(u) - u and log1p(v) - v instead: in the sum over P and Q, the terms with u and v cancel, and every summand is
    >= 0.

    For large |d|, log m is logaddexp(log(beta) + log p, log(1 - beta) + log q), whose derivatives are bounded for any
    beta.
    """
    xp = namespace(log_p, log_q)
    p, q = xp.exp(log_p), xp.exp(log_q)
    if beta in (0.0, 1.0):
        return xp.sum(0.0 * (p + q), axis=axis)
    d = zero_outside_support(log_q - log_p, log_p, log_q)
    is_far = xp.abs(d) > 1
    near = xp.clip(d, -1.5, 1.5)  # wider than 1, so that the clip's kink is never used
    u, v = (1 - beta) * xp.expm1(near), beta * xp.expm1(-near)
    far_over_p, far_over_q = _log_mixture_ratios(d, beta=beta)
    log_m_over_p = xp.where(is_far, far_over_p, xp.log1p(u) - u)
    log_m_over_q = xp.where(is_far, far_over_q, xp.log1p(v) - v)
    p_part = p * zero_outside_support(log_m_over_p, log_p)
    q_part = q * zero_outside_support(log_m_over_q, log_q)
    return 0.0 - xp.sum(beta * p_part + (1 - beta) * q_part, axis=axis)


def _log_mixture_ratios(d: Any, *, beta: float) -> tuple[Any, Any]:
    """Return log m - log p and log m - log q for |d| > 1, computed as logaddexp does."""
    xp = namespace(d)
    traced = in_dynamo()  # torch.compile would make a program for each number of which math takes a logarithm
    if traced:  # pragma: no cover - Dynamo's trace, which no coverage sees
        share = xp.sum(xp.reshape(d, (-1,))[:0]) + beta
        log_beta, log_rest = xp.log(share), xp.log1p(-share)
    else:
        log_beta, log_rest = math.log(beta), math.log1p(-beta)
    gap = d + (log_rest - log_beta)
    if not traced and abs(log_rest - log_beta) < 1:  # then the kink of |gap|, at equal shares of m, is at |d| < 1
        tail = xp.log1p(xp.exp(-xp.abs(gap)))
        return tail + xp.clip(d + log_rest, log_beta, None), tail + xp.clip(log_beta - d, log_rest, None)
    q_is_larger = gap > 0
    tail = xp.log1p(xp.exp(xp.where(q_is_larger, -gap, gap)))
    above = xp.where(q_is_larger, tail + log_rest, tail + log_beta)
    return above + xp.where(q_is_larger, d, 0.0), above - xp.where(q_is_larger, 0.0, d)
