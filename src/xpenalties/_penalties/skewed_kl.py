"""KL divergence from a distribution to a mixture that contains it."""

from __future__ import annotations

from typing import Any

from .._arrays.numerics import log1p_minus_tangent
from ..backends import namespace
from ..backends._fast_path import guards_are_skipped
from .jensen_shannon import log_mixture_ratios
from .log_probabilities import log_probabilities, log_ratio, nan_if_small, zero_outside_support

__all__ = ["skewed_kl"]


def skewed_kl(
    log_p: Any, log_q: Any, *, skew: float, direction: str, axis: int, temperature: float, from_logits: bool
) -> Any:
    """Return KL(P || skew P + (1 - skew) Q) of each row, for a skew > 0. `direction` is as in `kl_divergence`."""
    of_logits = from_logits or temperature != 1.0
    if direction == "reverse":
        log_p, log_q = log_q, log_p
    if of_logits and not guards_are_skipped():
        log_p, log_q, d = log_ratio(log_p, log_q, axis=axis, temperature=temperature)
    else:
        log_p = log_probabilities(log_p, axis=axis, temperature=temperature, from_logits=from_logits)
        log_q = log_probabilities(log_q, axis=axis, temperature=temperature, from_logits=from_logits)
        d = log_q - log_p
    value = _to_mixture(log_p, log_q, d, skew=skew, axis=axis, of_logits=of_logits)
    if direction == "symmetric":
        value = 0.5 * (value + _to_mixture(log_q, log_p, -d, skew=skew, axis=axis, of_logits=of_logits))
    return nan_if_small(value, value) if of_logits and guards_are_skipped() else value


def _to_mixture(log_p: Any, log_q: Any, d: Any, *, skew: float, axis: int, of_logits: bool) -> Any:
    """Return KL(P||M), given d = log q - log p. See `jensen_shannon`.

    For logits, each summand also has m - p. These add up to 0, and with them the summands are >= 0.
    """
    xp = namespace(log_p, log_q)
    p, q = xp.exp(log_p), xp.exp(log_q)
    if skew == 1.0:
        return xp.sum(0.0 * (p + q), axis=axis)
    d = zero_outside_support(d, log_p, log_q)
    change = (1 - skew) * xp.expm1(xp.clip(d, None, 40.0))  # m / p - 1, without overflow
    is_far = xp.abs(change) > 0.5  # the kink of the formula for far classes is nearer, at |2 skew - 1| < 0.5
    near = xp.where(is_far, 0.0, change)
    far, _ = log_mixture_ratios(d, beta=skew)
    log_m_over_p = xp.where(is_far, far, log1p_minus_tangent(near) if of_logits else xp.log1p(near))
    terms = p * zero_outside_support(log_m_over_p, log_p)
    if of_logits:
        terms = terms - xp.where(is_far, (1 - skew) * (q - p), 0.0)
    return 0.0 - xp.sum(terms, axis=axis)
