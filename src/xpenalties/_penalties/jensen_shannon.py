"""Formulas for the Jensen-Shannon divergence of each row."""

from __future__ import annotations

import math
from typing import Any

from .._arrays.numerics import log1p_minus_tangent, stop_gradient
from ..backends import in_dynamo, namespace
from ..backends._fast_path import guards_are_skipped
from .log_probabilities import log_probabilities, log_ratio, nan_if_small, zero_outside_support

__all__ = ["jensen_shannon", "log_mixture_ratios", "of_log_ratio"]


def jensen_shannon(
    log_p: Any, log_q: Any, *, beta: float, axis: int, temperature: float = 1.0, from_logits: bool = False
) -> Any:
    """Return the `js_divergence` of each row.

    Let d = log q - log p. Then log m - log p = log1p(u) with u = (1 - beta) expm1(d), and log m - log q = log1p(v) with
    v = beta expm1(-d). Both are exact for small d, so that close distributions do not cancel. The code uses
    log1p(u) - u and log1p(v) - v instead: in the sum over P and Q, the terms with u and v cancel, and every summand is
    >= 0.

    For large |d|, log m is logaddexp(log(beta) + log p, log(1 - beta) + log q), whose derivatives are bounded for any
    beta.
    """
    of_logits = from_logits or temperature != 1.0
    if of_logits and not guards_are_skipped():
        log_p, log_q, d = log_ratio(log_p, log_q, axis=axis, temperature=temperature)
    else:
        log_p = log_probabilities(log_p, axis=axis, temperature=temperature, from_logits=from_logits)
        log_q = log_probabilities(log_q, axis=axis, temperature=temperature, from_logits=from_logits)
        d = log_q - log_p
    value = of_log_ratio(log_p, log_q, d, beta=beta, axis=axis)
    return nan_if_small(value, value) if of_logits and guards_are_skipped() else value


def of_log_ratio(log_p: Any, log_q: Any, d: Any, *, beta: float, axis: int) -> Any:
    """Return the divergence of each row, given d = log q - log p. The classes need not be all of them."""
    xp = namespace(log_p, log_q)
    p, q = xp.exp(log_p), xp.exp(log_q)
    if beta in (0.0, 1.0):
        return xp.sum(0.0 * (p + q), axis=axis)
    d = zero_outside_support(d, log_p, log_q)
    is_far = xp.abs(d) > 1
    near = xp.clip(d, -1.5, 1.5)  # wider than 1, so that the clip's kink is never used
    far_over_p, far_over_q = log_mixture_ratios(d, beta=beta)
    log_m_over_p = xp.where(is_far, far_over_p, log1p_minus_tangent((1 - beta) * xp.expm1(near)))
    log_m_over_q = xp.where(is_far, far_over_q, log1p_minus_tangent(beta * xp.expm1(-near)))
    p_part = p * zero_outside_support(log_m_over_p, log_p)
    q_part = q * zero_outside_support(log_m_over_q, log_q)
    return 0.0 - xp.sum(beta * p_part + (1 - beta) * q_part, axis=axis)


def log_mixture_ratios(d: Any, *, beta: float) -> tuple[Any, Any]:
    """Return log m - log p and log m - log q for |d| > 1, computed as logaddexp does."""
    xp = namespace(d)
    traced = in_dynamo()  # a logarithm by `math` would make torch.compile compile again for each `beta`
    if traced:  # pragma: no cover - Dynamo's trace, which no coverage sees
        share = stop_gradient(xp.sum(d[:0, ...])) + beta
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
