"""Jensen-Shannon divergence from the log-probabilities of only k classes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Unpack

from .._core.checks import UnitInterval
from .._core.types import Array
from ..backends import namespace
from .decorator import Shared, penalty
from .jensen_shannon import jensen_shannon, of_log_ratio
from .log_probabilities import lowest, zero_outside_support
from .spec import Distributions

__all__ = ["topk_js_divergence"]


def _partial(options: Mapping[str, Any]) -> Distributions:
    return "partial"


@penalty(terms="rows", reduction="mean", extras=("eps",), distributions=_partial)
def topk_js_divergence(
    log_p: Array,
    log_q: Array,
    /,
    *,
    beta: UnitInterval = 0.5,
    tail: Literal["bucket", "renormalize"] = "bucket",
    axis: int = -1,
    **shared: Unpack[Shared],
) -> Array:
    r"""Jensen-Shannon divergence from the log-probabilities of only k classes, such as a teacher's API returns.

    .. warning:: Values are not checked. If you pass probabilities or logits, the result is a plausible, wrong number.
       Use `set_value_checks` to find such calls.

    Each term is :math:`\beta \mathrm{KL}(P\,\|\,M) + (1 - \beta) \mathrm{KL}(Q\,\|\,M)` with
    :math:`M = \beta P + (1 - \beta) Q`; `tail` sets what happens to all other classes.

    Parameters
    ----------
    log_p, log_q : array, shape (..., k)
        Log-probabilities of the same k classes out of a larger number. Real floating point, of the same shape.
    beta : float, default 0.5
        Weight of P, in [0, 1]. At both ends the divergence is 0.
    tail : {"bucket", "renormalize"}, default "bucket"
        "bucket" treats all other classes as one more class, and "renormalize" makes the k probabilities sum to 1.
    axis : int, default -1
        The axis of the k classes.

    Returns
    -------
    array, shape (), or that of the inputs without `axis` with ``reduction="none"``
        In nats, in float32 or wider. Each term is between 0 and log 2, up to rounding. With "bucket" it is a lower
        bound on the divergence over all classes.

    Raises
    ------
    TypeError
        If an input is not a real floating-point array, or an option has the wrong type.
    ValueError
        If the shapes differ, the inputs have no such axis, or an option is out of range.

    Notes
    -----
    Finite for any two distributions. With "bucket", a tail is 1 minus the sum of k probabilities. It counts as 0 if it
    is at most eps (1 + log k), which rounding may leave; eps is that of the inputs' dtype, the coarser one if they
    differ. If you know the probability of the tail, append its logarithm to the arrays, and use `js_divergence`.

    References
    ----------
    .. [1] Lin, "Divergence measures based on the Shannon entropy", IEEE Trans. Inf. Theory 37(1), 1991.

    Examples
    --------
    >>> log_p, log_q = np.log([0.5, 0.25]), np.log([0.25, 0.25])
    >>> round(float(topk_js_divergence(log_p, log_q)), 4)
    0.0425
    """
    if tail == "renormalize":
        return jensen_shannon(log_p, log_q, beta=beta, axis=axis, from_logits=True)
    xp = namespace(log_p, log_q)
    over_k = jensen_shannon(log_p, log_q, beta=beta, axis=axis)
    p, q, r = xp.exp(log_p), xp.exp(log_q), zero_outside_support(log_q - log_p, log_p, log_q)
    changes = xp.where(xp.abs(r) <= 1, p * xp.expm1(xp.clip(r, -1.5, 1.5)), q - p)
    rests = 1 - xp.sum(p, axis=axis, keepdims=True), 1 - xp.sum(q, axis=axis, keepdims=True)
    rounding = shared["eps"] * (1 + math.log(log_p.shape[axis]))  # type: ignore[typeddict-item]
    change = -xp.sum(changes, axis=axis, keepdims=True)
    return over_k + _of_rests(*rests, change, beta=beta, axis=axis, rounding=rounding)


def _of_rests(rest_p: Any, rest_q: Any, change: Any, *, beta: float, axis: int, rounding: float) -> Any:
    """Return the term of all classes that are not among the k. `change` is rest_q - rest_p."""
    xp = namespace(rest_p, rest_q)
    has_p, has_q = rest_p > rounding, rest_q > rounding
    log_p, log_q = (xp.log(xp.where(has, rest, 1.0)) for has, rest in ((has_p, rest_p), (has_q, rest_q)))
    u = xp.where(has_p & has_q, change, 0.0) / xp.where(has_p, rest_p, 1.0)
    is_near = xp.abs(u) < 0.5
    d = xp.where(is_near, xp.log1p(xp.where(is_near, u, 0.0)), log_q - log_p)
    d = xp.where(has_q, xp.where(has_p, d, -lowest(rest_p)), lowest(rest_p))
    log_p, log_q = (xp.where(has, log, -math.inf) for has, log in ((has_p, log_p), (has_q, log_q)))
    return of_log_ratio(log_p, log_q, d, beta=beta, axis=axis)
