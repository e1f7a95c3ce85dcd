"""KL divergence from a part of the classes: the top k, or those of sampled tokens. Natural logarithms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Unpack

from .._arrays.numerics import exp_minus_tangent, log1p_minus_tangent, stop_gradient
from .._core.types import Array
from ..backends import namespace
from .decorator import Shared, penalty
from .kullback_leibler import class_terms, kl
from .log_probabilities import is_log_zero, support, zero_outside_support
from .spec import Distributions

__all__ = ["topk_kl_divergence", "sampled_kl"]

_LARGEST_LOGIT = 256.0  # up to this size of logits, `z - logsumexp(z)` is as exact as topk_kl_divergence assumes


def _of_top_k(options: Mapping[str, Any]) -> Distributions:
    return "complete" if options["tail"] == "included" else "partial"


@penalty(terms="rows", reduction="mean", extras=("eps",), distributions=_of_top_k)
def topk_kl_divergence(
    log_p: Array,
    log_q: Array,
    /,
    *,
    direction: Literal["forward", "reverse", "symmetric"] = "forward",
    tail: Literal["bucket", "renormalize", "truncate", "included"] = "bucket",
    axis: int = -1,
    **shared: Unpack[Shared],
) -> Array:
    r"""KL divergence from the log-probabilities of only k classes, such as a teacher's API returns.

    .. warning:: Values are not checked. If you pass probabilities or logits, the result is a plausible, wrong number.
       Use `set_value_checks` to find such calls.

    Each term is :math:`\sum_{i \le k} p_i (\log p_i - \log q_i)`; `tail` sets what happens to all other classes.

    Parameters
    ----------
    log_p, log_q : array, shape (..., k)
        Log-probabilities of the same k classes out of a larger number. Real floating point, of the same shape.
    direction : {"forward", "reverse", "symmetric"}, default "forward"
        KL(P||Q), KL(Q||P) or the mean of both. With "reverse", P and Q change places in all that follows.
    tail : {"bucket", "renormalize", "truncate", "included"}, default "bucket"
        "bucket" treats all other classes as one more class, "renormalize" makes the k probabilities sum to 1, and
        "truncate" leaves the other classes out. "included" is the same as "bucket", but exact: you pass the
        log-probability of all other classes as the last of the k classes.
    axis : int, default -1
        The axis of the k classes.

    Returns
    -------
    array, shape (), or that of the inputs without `axis` with ``reduction="none"``
        In nats, in float32 or wider. With "bucket" it is a lower bound on the KL divergence over all classes.

    Raises
    ------
    TypeError
        If an input is not a real floating-point array, or an option has the wrong type.
    ValueError
        If the shapes differ, the inputs have no such axis, or an option is not one of its names.

    Notes
    -----
    With "bucket" and "included", the code also adds :math:`q_i - p_i` for each class. The sum of these is 0 if both
    distributions sum to 1, and with them, each summand is >= 0. So the value keeps its digits if P and Q are close.

    "bucket" needs the tail of each distribution, 1 minus the sum of its k probabilities. Part of that may be rounding:

    - A tail of P counts as 0 if it is at most eps (1 + log k), because rounding the k log-probabilities may leave that
      much. eps is that of the inputs' dtype, the coarser one if they differ.
    - Q has no tail if its k probabilities sum to 1 or more. If P then has one, the value is +inf, as for any class with
      p > 0 and q = 0. In this case, the limit for P's tail is higher by 256 eps of the dtype computed in (3e-5 in
      float32), because `z - logsumexp(z)` may leave that much.

    In half precision a tail of a few percent may be rounding, so compute the log-probabilities in float32. If tails of
    1e-4 or less matter, append their logarithms to the arrays, and use "included".

    "renormalize" is finite even if Q has no tail, and "truncate" may be negative.

    References
    ----------
    .. [1] Cover & Thomas, "Elements of information theory", 2nd ed., Wiley 2006, section 2.7 (log-sum inequality).

    Examples
    --------
    >>> log_p, log_q = np.log([0.5, 0.25]), np.log([0.25, 0.25])
    >>> round(float(topk_kl_divergence(log_p, log_q)), 4)
    0.1733
    """
    if tail == "renormalize":
        return kl(log_p, log_q, direction=direction, axis=axis, from_logits=True)
    if tail == "truncate":
        return kl(log_p, log_q, direction=direction, axis=axis)
    rounding = None if tail == "included" else shared["eps"] * (1 + math.log(log_p.shape[axis]))  # type: ignore[typeddict-item]
    if direction == "reverse":
        log_p, log_q = log_q, log_p
    value = _forward(log_p, log_q, axis=axis, rounding=rounding)
    return value if direction != "symmetric" else 0.5 * (value + _forward(log_q, log_p, axis=axis, rounding=rounding))


def _forward(log_p: Any, log_q: Any, *, axis: int, rounding: float | None) -> Any:
    """Return the divergence of P from Q, with the tails as one more class unless `rounding` is None."""
    xp = namespace(log_p, log_q)
    p, q, r = xp.exp(log_p), xp.exp(log_q), zero_outside_support(log_q - log_p, log_p)
    terms, changes = class_terms(p, q, r, is_close=support(log_p) & (xp.abs(r) <= 1))
    over_k = xp.sum(terms, axis=axis)
    if rounding is None:
        return over_k
    rest_p, rest_q = 1 - xp.sum(p, axis=axis), 1 - xp.sum(q, axis=axis)
    return over_k + _rest_term(rest_p, rest_q, -xp.sum(changes, axis=axis), rounding=rounding)


def _rest_term(rest_p: Any, rest_q: Any, change: Any, *, rounding: float) -> Any:
    """Return the term of all classes that are not among the k, like `class_terms`. `change` is rest_q - rest_p."""
    xp = namespace(rest_p, rest_q)
    q_has_rest = rest_q > 0
    no_rest_of_q = xp.astype(~q_has_rest, rest_p.dtype)
    p_has_rest = rest_p > rounding + no_rest_of_q * (_LARGEST_LOGIT * xp.finfo(rest_p.dtype).eps)
    both = p_has_rest & q_has_rest
    p, q = xp.where(both, rest_p, 1.0), xp.where(both, rest_q, 1.0)
    u = xp.where(both, change, 0.0) / p
    is_near = xp.abs(u) < 0.5
    of_both = p * xp.where(is_near, -log1p_minus_tangent(xp.where(is_near, u, 0.0)), u - (xp.log(q) - xp.log(p)))
    of_one = xp.where(p_has_rest, math.inf, xp.where(rest_q > rounding, rest_q, 0.0))
    return xp.where(both, of_both, of_one)


@penalty(terms="elements", reduction="mean", distributions=lambda options: "elements")
def sampled_kl(
    log_p: Array,
    log_q: Array,
    /,
    *,
    estimator: Literal["k1", "k2", "k3"] = "k3",
    gradient: Literal["value", "k2"] = "value",
    **shared: Unpack[Shared],
) -> Array:
    r"""Monte Carlo estimate of KL(P||Q) from the log-probabilities of tokens sampled from P.

    .. warning:: Values are not checked. If you pass probabilities or logits, the result is a plausible, wrong number.
       Use `set_value_checks` to find such calls.

    With :math:`r = \log q - \log p`, each term is :math:`-r` for "k1", :math:`r^2 / 2` for "k2" and
    :math:`e^r - 1 - r` for "k3".

    Parameters
    ----------
    log_p, log_q : array, shape (...)
        Log-probabilities of the sampled tokens: `log_p` under the policy they were sampled from, `log_q` under the
        reference. Real floating point, of the same shape.
    estimator : {"k1", "k2", "k3"}, default "k3"
        "k1" is unbiased. "k2" has less variance and a bias. "k3" is unbiased and never negative.
    gradient : {"value", "k2"}, default "value"
        "value" differentiates the estimator itself. "k2" keeps the value, but with the gradient of k2. If the tokens
        are sampled from the current policy, k2 is the only one of the three whose expected gradient is that of the KL
        divergence.

    Returns
    -------
    array, shape (), or that of the inputs with ``reduction="none"``
        In nats, in float32 or wider.

    Raises
    ------
    TypeError
        If an input is not a real floating-point array, or an option has the wrong type.
    ValueError
        If the shapes differ, or an option is not one of its names.

    Notes
    -----
    A token with log-probability -inf in both arrays counts as masked and adds 0. If only one of the two is -inf, the
    term is inf or -inf, as the formula gives.

    References
    ----------
    .. [1] Schulman, "Approximating KL divergence", 2020, http://joschu.net/blog/kl-approx.html

    Examples
    --------
    >>> log_p, log_q = np.log([0.5, 0.5]), np.log([0.25, 0.5])
    >>> round(float(sampled_kl(log_p, log_q, estimator="k1")), 4)
    0.3466
    """
    xp = namespace(log_p, log_q)
    is_masked = is_log_zero(log_p) & is_log_zero(log_q)
    r = xp.where(is_masked, 0.0, log_q - log_p)
    if estimator == "k2":
        return 0.5 * r * r
    value = -r if estimator == "k1" else _k3(xp, r)
    return value if gradient == "value" else _with_gradient_of_k2(xp, value, r)


def _k3(xp: Any, r: Any) -> Any:
    """Return e^r - 1 - r, without inf - inf."""
    is_infinite = r == math.inf
    finite_r = xp.where(is_infinite, 0.0, r)
    return xp.where(is_infinite, math.inf, exp_minus_tangent(finite_r))


def _with_gradient_of_k2(xp: Any, value: Any, r: Any) -> Any:
    """Return `value` with the gradient of r^2 / 2."""
    r = xp.where(value == -math.inf, 0.0, r)  # no gradient at -inf, which minimizing would pursue
    k2 = 0.5 * r * r
    is_finite = xp.isfinite(k2)  # inf - inf would be NaN
    finite_r = xp.where(is_finite, r, 0.0)
    finite_k2 = 0.5 * finite_r * finite_r
    return xp.where(is_finite, stop_gradient(value) + (finite_k2 - stop_gradient(finite_k2)), k2)
