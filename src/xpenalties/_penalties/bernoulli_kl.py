r"""Divergences between the probabilities of single events: that it is this token, that this unit is active.

There are two classes, the event and its complement. Two logarithms of ratios are enough: r = log(q / p), and the same
for the complements. If P and Q are close, each is a log1p of something small.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Unpack

from .._arrays.numerics import abs_
from .._core.types import Array
from ..backends import namespace
from .decorator import Shared, penalty
from .kullback_leibler import class_terms
from .log_probabilities import lowest, support, zero_outside_support
from .spec import Distributions

__all__ = ["bernoulli_kl"]


def _distributions(options: Mapping[str, Any]) -> Distributions | None:
    return None if options["from_logits"] else "elements"


@penalty(terms="elements", reduction="mean", distributions=_distributions)
def bernoulli_kl(
    log_p: Array,
    log_q: Array,
    /,
    *,
    kind: Literal["kl", "tv"] = "kl",
    from_logits: bool = False,
    **shared: Unpack[Shared],
) -> Array:
    r"""Divergence between the probabilities of single events, such as sampled tokens or active units.

    .. warning:: Values are not checked. If you pass probabilities, or logits without ``from_logits=True``, the result
       is a plausible, wrong number. Use `set_value_checks` to find such calls.

    Each term is :math:`p \log \frac{p}{q} + (1 - p) \log \frac{1 - p}{1 - q}` for "kl", the divergence of two Bernoulli
    distributions, and :math:`|p - q|` for "tv", their total variation.

    Parameters
    ----------
    log_p, log_q : array, shape (...)
        Logarithms of the events' probabilities, or logits :math:`\log(p / (1 - p))` if `from_logits` is True. Real
        floating point, of the same shape.
    kind : {"kl", "tv"}, default "kl"
        The divergence.
    from_logits : bool, default False
        Take the inputs to be logits, which a sigmoid turns into probabilities.

    Returns
    -------
    array, shape (), or that of the inputs with ``reduction="none"``
        "kl" in nats. In float32 or wider.

    Raises
    ------
    TypeError
        If an input is not a real floating-point array, or an option has the wrong type.
    ValueError
        If the shapes differ, or `kind` is not one of its names.

    Notes
    -----
    For the probabilities of sampled tokens, each term is a lower bound of the divergence over all tokens, because all
    other tokens count as one. Unlike `sampled_kl`, it does not estimate that divergence.

    An outcome of probability 0 under P adds 0. One that has probability 0 under Q only makes "kl" +inf. Near p = 1, log
    p has no digits of 1 - p: with probabilities that close to 1, pass logits. "tv" has slope 0 where p = q. For
    ``log_p = 0``, the gradient with respect to it leaves out the infinite slope of (1 - p) log(1 - p).

    For the sparsity of units, P is the target: a constant array of log(0.05), say. Take the mean activity over the
    batch before its logarithm.

    References
    ----------
    .. [1] Ng, "Sparse autoencoder", CS294A lecture notes, Stanford 2011, for the sparsity of units.
    .. [2] Kullback & Leibler, "On information and sufficiency", Ann. Math. Statist. 22(1), 1951.

    Examples
    --------
    >>> log_p, log_q = np.log([0.5, 0.5]), np.log([0.25, 0.5])
    >>> round(float(bernoulli_kl(log_p, log_q, reduction="sum")), 4)
    0.1438
    >>> float(bernoulli_kl(log_p, log_q, kind="tv", reduction="sum"))
    0.25
    """
    xp = namespace(log_p, log_q)
    pair = _of_logits(log_p, log_q) if from_logits else _of_log_probabilities(log_p, log_q)
    if kind == "tv":  # the larger of the two times 1 - e^-|r|
        return xp.exp(xp.where(pair.r > 0, pair.log_q, pair.log_p)) * -xp.expm1(-abs_(pair.r))
    return _term(pair.log_p, pair.log_q, pair.r) + _term(pair.log_not_p, pair.log_not_q, pair.r_not)


class _Pair(NamedTuple):
    """The logarithms of both events' probabilities, of their complements', and of the ratios, which are finite."""

    log_p: Any
    log_q: Any
    log_not_p: Any
    log_not_q: Any
    r: Any  # log q - log p
    r_not: Any


def _of_logits(z_p: Any, z_q: Any) -> _Pair:
    xp = namespace(z_p, z_q)
    (log_p, log_not_p), (log_q, log_not_q) = _log_sigmoids(z_p), _log_sigmoids(z_q)
    is_near = xp.abs(z_q - z_p) <= 1
    d = xp.where(is_near, z_q - z_p, 0.0)
    near = -xp.log1p(xp.exp(log_not_p) * xp.expm1(-d))
    near_not = -xp.log1p(xp.exp(log_p) * xp.expm1(d))
    r = xp.where(is_near, near, _log_ratio(log_p, log_q))
    r_not = xp.where(is_near, near_not, _log_ratio(log_not_p, log_not_q))
    return _Pair(log_p, log_q, log_not_p, log_not_q, r, r_not)


def _log_sigmoids(z: Any) -> tuple[Any, Any]:
    """Return the logarithms of the sigmoid of z and of -z."""
    xp = namespace(z)
    is_negative = z < 0
    rest = xp.log1p(xp.exp(xp.where(is_negative, z, -z)))
    return xp.where(is_negative, z, 0.0) - rest, xp.where(is_negative, 0.0, -z) - rest


def _of_log_probabilities(log_p: Any, log_q: Any) -> _Pair:
    xp = namespace(log_p, log_q)
    log_not_p, log_not_q = _log_complement(log_p), _log_complement(log_q)
    r = _log_ratio(log_p, log_q)
    not_p = -xp.expm1(log_p)
    may_be_near = (xp.abs(r) <= 1) & (not_p != 0)
    # the following is (1 - q) / (1 - p) - 1
    change = -xp.exp(log_p) * xp.expm1(xp.where(may_be_near, r, 0.0)) / xp.where(may_be_near, not_p, 1.0)
    is_near = may_be_near & (xp.abs(change) <= 0.5)
    r_not = xp.where(is_near, xp.log1p(xp.where(is_near, change, 0.0)), _log_ratio(log_not_p, log_not_q))
    return _Pair(log_p, log_q, log_not_p, log_not_q, r, r_not)


def _log_complement(log_p: Any) -> Any:
    """Return log(1 - p). At p = 1, it is -inf, with gradient 0."""
    xp = namespace(log_p)
    is_one = log_p == 0
    log_p = xp.where(is_one, -1.0, log_p)
    is_large = log_p > -math.log(2)
    large = xp.log(-xp.expm1(xp.where(is_large, log_p, -1.0)))
    small = xp.log1p(-xp.exp(xp.where(is_large, -1.0, log_p)))
    return xp.where(is_one, -math.inf, xp.where(is_large, large, small))


def _log_ratio(log_p: Any, log_q: Any) -> Any:
    """Return log q - log p, finite: logarithms of -inf are clipped for it."""
    xp, least = namespace(log_p, log_q), lowest(log_p)
    return xp.clip(log_q, least, None) - xp.clip(log_p, least, None)


def _term(log_p: Any, log_q: Any, r: Any) -> Any:
    """Return p log(p / q) + q - p, which is >= 0. For an event and its complement together, q - p cancels."""
    xp = namespace(log_p, log_q)
    has_p = support(log_p)
    r = zero_outside_support(r, log_p)
    term, _ = class_terms(xp.exp(log_p), xp.exp(log_q), r, is_close=has_p & (xp.abs(r) <= 1))
    return xp.where(has_p & (log_q < lowest(log_q)), math.inf, term)
