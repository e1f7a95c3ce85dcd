r"""Divergences :math:`\sum_i q_i f(p_i / q_i)` with a convex f, and Renyi's, which is a logarithm of one.

A term that is linear in p / q can be added to f without changing the sum over all classes. With f(1) = 0 and
f'(1) = 0, each summand is >= 0, so that close distributions do not cancel. Each summand is computed from
r = log q - log p where |r| is small, and from the two logarithms elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Unpack

from .._arrays.numerics import abs_, array_backend, exp_minus_tangent, square, stop_gradient
from .._core.checks import Positive
from .._core.shown import shown
from .._core.types import Array
from ..backends import namespace
from .decorator import Shared, penalty
from .log_probabilities import complete_unless_normalized, log_ratio, lowest, row_maximum, support

__all__ = ["f_divergence"]

_TINY = 1e-14  # a power that is this close to 1 counts as 1


def _check_alpha(arrays: tuple[Any, ...], options: Mapping[str, Any]) -> None:
    alpha = options.get("alpha", 0.5)
    if options.get("kind") == "renyi" and alpha <= 0:
        raise ValueError(f"f_divergence: `alpha` must be > 0 for `kind` 'renyi', got {shown(alpha)}. Swap P and Q.")


@penalty(terms="rows", reduction="mean", distributions=complete_unless_normalized, check_arrays=_check_alpha)
def f_divergence(
    log_p: Array,
    log_q: Array,
    /,
    *,
    kind: Literal["tv", "hellinger", "chi2", "alpha", "renyi"] = "tv",
    alpha: float = 0.5,
    temperature: Positive = 1.0,
    axis: int = -1,
    from_logits: bool = False,
    **shared: Unpack[Shared],
) -> Array:
    r"""Divergence between two distributions over classes: total variation, Hellinger, chi-squared, alpha or Renyi.

    .. warning:: Values are not checked. If you pass probabilities, or logits without ``from_logits=True``, the result
       is a plausible, wrong number. Use `set_value_checks` to find such calls.

    Each term is, with sums over the classes,

    - :math:`\frac{1}{2} \sum |p - q|` for "tv", the total variation;
    - :math:`\frac{1}{2} \sum (\sqrt p - \sqrt q)^2` for "hellinger", the *squared* Hellinger distance;
    - :math:`\sum (p - q)^2 / q` for "chi2", Pearson's chi-squared;
    - :math:`\sum (p^\alpha q^{1 - \alpha} - \alpha p - (1 - \alpha) q) / (\alpha (\alpha - 1))` for "alpha", where the
      sum of the last two is 1 if both distributions sum to 1;
    - :math:`\log(\sum p^\alpha q^{1 - \alpha}) / (\alpha - 1)` for "renyi".

    Parameters
    ----------
    log_p, log_q : array, shape (..., classes)
        Log-probabilities, or logits if `from_logits` is True. Real floating point, of the same shape.
    kind : {"tv", "hellinger", "chi2", "alpha", "renyi"}, default "tv"
        The divergence.
    alpha : float, default 0.5
        Power of "alpha" and "renyi"; > 0 for "renyi". Other kinds do not use it. At 1 both are
        :math:`\mathrm{KL}(P\,\|\,Q)`, and "alpha" at 0 is :math:`\mathrm{KL}(Q\,\|\,P)`, without a jump.
    temperature : float, default 1.0
        Divides both inputs before a softmax normalizes them; > 0.
    axis : int, default -1
        The axis of the classes.
    from_logits : bool, default False
        Normalize the inputs by a log-softmax first. If False and `temperature` is 1, the inputs are used as they are.

    Returns
    -------
    array, shape (), or that of the inputs without `axis` with ``reduction="none"``
        "renyi" in nats. "tv" and "hellinger" are between 0 and 1, up to rounding. In float32 or wider.

    Raises
    ------
    TypeError
        If an input is not a real floating-point array, or an option has the wrong type.
    ValueError
        If the shapes differ, the inputs have no such axis, or an option is out of range.

    Notes
    -----
    "alpha" is 4 times "hellinger" for ``alpha=0.5``, and half of "chi2" for ``alpha=2``. To exchange P and Q is to
    replace alpha by 1 - alpha.

    "tv" has slope 0 for classes with p = q. A class with p = 0 and q = 0 adds 0. One with p > 0 and q = 0 makes "chi2"
    +inf, and "alpha" and "renyi" if alpha is 1 or more. One with q > 0 and p = 0 makes "alpha" +inf if alpha is 0 or
    less. For other alpha, "alpha" is finite, and "renyi" is +inf only if P and Q have no class in common. Probabilities
    below the dtype's smallest normal number count as 0. A value that is too large for the dtype is +inf.

    All kinds keep their digits if the distributions are close. For that, "renyi" always normalizes its inputs.

    References
    ----------
    .. [1] Csiszar, "Information-type measures of difference of probability distributions and indirect observations",
       Studia Sci. Math. Hungar. 2, 1967.
    .. [2] Cichocki & Amari, "Families of alpha- beta- and gamma-divergences: flexible and robust measures of
       similarities", Entropy 12(6), 2010.
    .. [3] van Erven & Harremoes, "Renyi divergence and Kullback-Leibler divergence", IEEE Trans. Inf. Theory 60(7),
       2014.

    Examples
    --------
    >>> log_p, log_q = np.log([0.5, 0.5]), np.log([0.75, 0.25])
    >>> round(float(f_divergence(log_p, log_q)), 4)
    0.25
    >>> round(float(f_divergence(log_p, log_q, kind="chi2")), 4)
    0.3333
    """
    xp = namespace(log_p, log_q)
    of_logits = from_logits or temperature != 1.0 or kind == "renyi"
    if of_logits:
        pair = _Pair(*log_ratio(log_p, log_q, axis=axis, temperature=temperature))
    else:
        least = lowest(log_p)
        pair = _Pair(log_p, log_q, xp.clip(log_q, least, None) - xp.clip(log_p, least, None))
    if kind == "tv":
        return 0.5 * xp.sum(_absolute_differences(pair, axis=axis, of_logits=of_logits), axis=axis)
    if kind == "hellinger":
        return 0.5 * xp.sum(_squared_differences_of_roots(pair), axis=axis)
    if kind == "chi2":
        return 2.0 * _alpha_divergence(pair, 2.0, axis=axis)
    divergence = _alpha_divergence(pair, alpha, axis=axis)
    return divergence if kind == "alpha" else _renyi(pair, divergence, alpha, axis=axis)


class _Pair(NamedTuple):
    """Two distributions of each row."""

    log_p: Any
    log_q: Any
    r: Any  # log q - log p, finite

    def swapped(self) -> _Pair:
        return _Pair(self.log_q, self.log_p, -self.r)


def _absolute_differences(pair: _Pair, *, axis: int, of_logits: bool) -> Any:
    """Return |p - q| as the larger of the two times 1 - e^-|r|.

    The values for a row of logits add up to 0 without the magnitude. What they add up to is removed, because a row of
    r has one rounding error in common. It would matter only here: in the other divergences, it is squared.
    """
    log_p, log_q, r = pair
    xp = namespace(log_p, log_q)
    if of_logits:
        p, q = xp.exp(log_p), xp.exp(log_q)
        changes = xp.where(xp.abs(r) <= 1, p * xp.expm1(xp.clip(r, -1.5, 1.5)), q - p)
        r = r - xp.log1p(stop_gradient(xp.sum(changes, axis=axis, keepdims=True)))
    return xp.exp(xp.where(r > 0, log_q, log_p)) * -xp.expm1(-abs_(r))


def _squared_differences_of_roots(pair: _Pair) -> Any:
    log_p, log_q, r = pair
    xp = namespace(log_p, log_q)
    near = xp.exp(log_p) * square(xp.expm1(0.5 * xp.clip(r, -1.5, 1.5)))  # 1.5, so that the clip's kink is never used
    return xp.where(xp.abs(r) <= 1, near, square(xp.exp(0.5 * log_p) - xp.exp(0.5 * log_q)))


def _alpha_divergence(pair: _Pair, alpha: float, *, axis: int) -> Any:
    r"""Return the alpha divergence of each row.

    With c = alpha - 1, a summand is p ((e^{-c r} - 1) / c - 1 + e^r) / alpha. For small r that is
    p (g(-c r) / c + g(r)) / alpha with g(x) = e^x - 1 - x.
    """
    if alpha < 0.5:
        pair, alpha = pair.swapped(), 1.0 - alpha
    log_p, log_q, r = pair
    xp = namespace(log_p, log_q)
    c = alpha - 1.0
    is_kl = abs(c) < _TINY
    widest = 1.0 if abs(c) <= 1 else 1.0 / abs(c)
    near = xp.clip(r, -1.5 * widest, 1.5 * widest)
    of_near = exp_minus_tangent(near)
    p, q = xp.exp(log_p), xp.exp(log_q)
    if is_kl:
        lost = support(log_p) & (log_q < lowest(log_q))
        growth = -p * r
    else:
        of_near = of_near + exp_minus_tangent(-c * near) / c
        exponent, lost = _exponent(pair, alpha)
        is_small = xp.abs(c * r) <= 1
        growth = xp.where(is_small, p * xp.expm1(xp.where(is_small, -c * r, 0.0)), xp.exp(exponent) - p) / c
    terms = xp.where(xp.abs(r) <= widest, p * of_near, growth + (q - p))
    infinite = _count(lost, p, axis=axis)
    return xp.sum(terms, axis=axis) / alpha + xp.where(infinite > 0, math.inf, infinite)


def _exponent(pair: _Pair, alpha: float) -> tuple[Any, Any]:
    """Return log(p^alpha q^(1 - alpha)), and a mask: True where it is too large for an exponential.

    It is a very negative number there, and where p counts as 0.
    """
    log_p, log_q, _ = pair
    backend = array_backend(log_p)
    xp, limit = namespace(log_p, log_q), -backend.dtype(log_p.dtype).log_least
    least = lowest(log_p)
    exponent = alpha * xp.clip(log_p, least, None) + (1.0 - alpha) * xp.clip(log_q, least, None)
    has_p = support(log_p)
    too_large = has_p & (exponent >= limit)
    return xp.where(too_large | (log_p <= -limit), least, exponent), too_large


def _renyi(pair: _Pair, divergence: Any, alpha: float, *, axis: int) -> Any:
    """Return the Renyi divergence of each row: a log1p if P and Q are close, else a logsumexp."""
    log_p, log_q, _ = pair
    xp = namespace(log_p, log_q)
    if abs(alpha - 1.0) < _TINY:
        return divergence
    least = lowest(log_p)
    change = (alpha * (alpha - 1.0)) * divergence  # the sum of p^alpha q^(1 - alpha), minus 1
    is_far = xp.abs(change) > 0.5
    near = xp.log1p(xp.where(is_far, 0.0, change))
    exponent = alpha * xp.clip(log_p, least, None) + (1.0 - alpha) * xp.clip(log_q, least, None)
    has_q = log_q >= least
    if alpha > 1:
        is_infinite = _count(support(log_p) & ~has_q, log_p, axis=axis) > 0
        is_used = support(log_p) & has_q
    else:
        is_used = (log_p >= least) & has_q
        is_infinite = _count(is_used, log_p, axis=axis) == 0
    exponent = xp.where(is_used, exponent, least)
    maximum = row_maximum(exponent, axis=axis)
    far = xp.log(xp.sum(xp.exp(exponent - maximum), axis=axis)) + xp.squeeze(maximum, axis=axis)
    far = xp.where(is_infinite, math.inf, far / (alpha - 1.0))
    return xp.where(is_far, far, near / (alpha - 1.0))


def _count(mask: Any, like: Any, *, axis: int) -> Any:
    """Count the classes of each row that are True."""
    xp = namespace(mask, like)
    return xp.sum(xp.astype(mask, like.dtype), axis=axis)
