"""The Jensen-Shannon divergence of log-probabilities, for any weights and for probabilities however close or far."""

from __future__ import annotations

import math
from typing import Any

from .._arrays.numerics import supported
from ..backends import namespace

__all__ = ["jensen_shannon"]


def jensen_shannon(log_p: Any, log_q: Any, *, beta: float, axis: int) -> Any:
    """`js_divergence` of log-probabilities, for each row.

    With d = log q - log p, log m is log1p((1 - beta) expm1(d)) above log p, and log1p(beta expm1(-d)) above log q: that
    is exact for small d, so that close distributions do not cancel. Each is taken less its argument there, which sums
    to nothing for each class and makes its share of the divergence >= 0. For large |d|, log m is the logaddexp of
    log(beta) + log p and log(1 - beta) + log q, whose derivatives are bounded whatever beta is.
    """
    xp = namespace(log_p, log_q)
    p, q = xp.exp(log_p), xp.exp(log_q)
    if beta in (0.0, 1.0):
        return xp.sum(0.0 * (p + q), axis=axis)
    d = supported(log_q - log_p, log_p, log_q)
    far = xp.abs(d) > 1
    near = xp.clip(d, -1.5, 1.5)  # where it has no kink
    from_p, from_q = (1 - beta) * xp.expm1(near), beta * xp.expm1(-near)
    far_from_p, far_from_q = _log_mixture(d, beta=beta)
    log_m_over_p = xp.where(far, far_from_p, xp.log1p(from_p) - from_p)
    log_m_over_q = xp.where(far, far_from_q, xp.log1p(from_q) - from_q)
    of_p, of_q = p * supported(log_m_over_p, log_p), q * supported(log_m_over_q, log_q)
    return 0.0 - xp.sum(beta * of_p + (1 - beta) * of_q, axis=axis)


def _log_mixture(d: Any, *, beta: float) -> tuple[Any, Any]:
    """log m - log p and log m - log q for |d| > 1, as logaddexp has them."""
    xp = namespace(d)
    log_beta, log_rest = math.log(beta), math.log1p(-beta)
    gap = d + (log_rest - log_beta)
    if abs(log_rest - log_beta) < 1:  # the kink, where both shares of m are equal, is not here
        tail = xp.log1p(xp.exp(-xp.abs(gap)))
        return tail + xp.clip(d + log_rest, log_beta, None), tail + xp.clip(log_beta - d, log_rest, None)
    q_larger = gap > 0
    tail = xp.log1p(xp.exp(xp.where(q_larger, -gap, gap)))
    above = xp.where(q_larger, tail + log_rest, tail + log_beta)
    return above + xp.where(q_larger, d, 0.0), above - xp.where(q_larger, 0.0, d)
