"""Penalties on the routers of mixtures of experts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Unpack

from .._arrays.numerics import array_backend, namespace_of, safe_divide, stop_gradient
from .._core.checks import PositiveInteger
from .._core.types import Array
from ..backends import common_backend, namespace
from .decorator import Shared, penalty
from .log_probabilities import probabilities
from .sample_means import mean_of_samples

__all__ = ["load_balancing"]


def _check(arrays: tuple[Any, ...], options: Mapping[str, Any]) -> None:
    (logits,) = arrays
    shape, top_k, counts = tuple(logits.shape), options.get("top_k", 1), options.get("counts")
    per_sequence = options.get("per_sequence", False)
    if len(shape) < 1 + per_sequence:
        axes = "(..., sequence, experts)" if per_sequence else "(..., experts)"
        raise ValueError(f"load_balancing: `logits` must have shape {axes}, got {shape}. Add an axis.")
    if type(shape[-1]) is int and 0 < shape[-1] < top_k:
        raise ValueError(
            f"load_balancing: `top_k` must be at most the number of experts, got {top_k} for {shape[-1]}. The experts "
            "are the last axis of `logits`."
        )
    if counts is None:
        return
    backend = common_backend("load_balancing", ("logits", "counts"), (logits, counts))
    if backend.dtype(counts.dtype).kind in ("complex", "bool"):
        raise TypeError(f"load_balancing: `counts` must be numbers, got {counts.dtype}. Pass one for each expert.")
    fits = tuple(counts.shape) == (shape if backend.in_parts else shape[-1:])  # parts are broadcast to `logits`
    if not fits or per_sequence:
        needs = "be None with per_sequence=True" if per_sequence else f"have shape {shape[-1:]}"
        raise ValueError(f"load_balancing: `counts` must {needs}, got shape {tuple(counts.shape)}. Sum it over tokens.")


@penalty(terms="whole", reduction="sum", extras=("weights",), check_arrays=_check, samples="rows")
def load_balancing(
    logits: Array,
    /,
    *,
    top_k: PositiveInteger = 1,
    scores: Literal["softmax", "sigmoid", "probabilities"] = "softmax",
    per_sequence: bool = False,
    counts: Any = None,
    **shared: Unpack[Shared],
) -> Array:
    r"""Imbalance of a router that spreads tokens over experts: 1 if all experts get the same share.

    :math:`E \sum_i f_i P_i` for E experts. :math:`f_i` is the share of all choices that fell on expert i, if each token
    chooses its `top_k` experts. It is a constant. :math:`P_i` is the mean score of expert i, over all tokens.

    Parameters
    ----------
    logits : array, shape (..., experts)
        Outputs of one layer's router for each token, real floating point. For several layers, add their values.
    top_k : int, default 1
        Number of experts that each token chooses: those with the largest logits. Of equal ones, the first are chosen.
    scores : {"softmax", "sigmoid", "probabilities"}, default "softmax"
        How logits become the scores of a token, which sum to 1. "sigmoid" divides the sigmoids by their sum.
        "probabilities" takes `logits` as scores.
    per_sequence : bool, default False
        Balance each sequence by itself, and return the mean over the sequences. The tokens of a sequence lie along the
        last axis but one.
    counts : array, shape (experts,), optional
        How often each expert was chosen. It replaces the choices of these tokens. Pass the sum over all devices for a
        global balance, or what your router counted, if it adds biases or drops tokens.

    Returns
    -------
    array, shape ()
        In float32 or wider. At most `experts` / `top_k`.

    Raises
    ------
    TypeError
        If `logits` is not a real floating-point array, or an option has the wrong type.
    ValueError
        If `top_k` is not in [1, experts], `scores` is not one of its names, or a shape does not fit.

    Notes
    -----
    The gradient flows through the scores alone. Shares divide by `top_k`, so a balanced router has the value 1 for any
    `top_k`. Some trainers do not divide, and their coefficients are smaller by that factor.

    The tokens are the samples that `where` and `weights` select. A padding token that is masked counts neither in
    :math:`f` nor in :math:`P`. Weights multiply both a token's choices and its scores. With ``per_sequence=True``, all
    sequences count alike, except for those without a token, which are left out.

    References
    ----------
    .. [1] Fedus, Zoph & Shazeer, "Switch transformers: scaling to trillion parameter models with simple and efficient
       sparsity", JMLR 23(120), 2022.
    .. [2] DeepSeek-AI, "DeepSeek-V3 technical report", arXiv:2412.19437, 2024, for sigmoids and sequences.
    .. [3] Qiu et al., "Demons in the detail: on implementing load balancing loss for training specialized
       mixture-of-expert models", arXiv:2501.11873, 2025, for `counts`.

    Examples
    --------
    >>> float(load_balancing(np.asarray([[0.0, -np.inf], [0.0, -np.inf]])))  # one of two experts gets all
    2.0
    >>> float(load_balancing(np.asarray([[0.0, -np.inf], [-np.inf, 0.0]])))
    1.0
    """
    weights: Any = shared.get("weights")
    xp = namespace_of(logits, weights)
    experts = array_backend(logits).number(logits.shape[-1], logits)
    p = _scores(logits, scores)
    tokens = (-2,) if per_sequence else tuple(range(logits.ndim - 1))
    if counts is None:
        f = _mean(_choices(logits, top_k), weights, tokens) / top_k
    else:
        counts = stop_gradient(counts)
        counts = counts if counts.dtype == p.dtype else namespace(logits, counts).astype(counts, p.dtype)
        counts = xp.max(counts, axis=tuple(range(counts.ndim - 1))) if counts.ndim > 1 else counts
        f = safe_divide(counts, xp.sum(counts))
    value = experts * xp.sum(f * _mean(p, weights, tokens), axis=-1)
    if not per_sequence:
        return value
    if weights is None:
        return xp.mean(value)
    has_tokens = xp.astype(xp.max(weights, axis=-1) != 0, value.dtype)
    return safe_divide(xp.sum(value * has_tokens), xp.sum(has_tokens))


def _mean(x: Any, weights: Any, axes: tuple[int, ...]) -> Any:
    """Return the mean over the axes of the tokens."""
    column = None if weights is None else namespace(weights).expand_dims(weights, axis=-1)
    return mean_of_samples(x, column, axis=axes, keepdims=False) if axes else x


def _scores(logits: Any, scores: str) -> Any:
    if scores == "probabilities":
        return logits
    if scores == "sigmoid":  # divided by their sum, they are the softmax of their logs, even if all are 0
        xp = namespace(logits)
        is_positive = logits > 0
        logits = xp.where(is_positive, 0.0, logits) - xp.log1p(xp.exp(xp.where(is_positive, -logits, logits)))
    return probabilities(logits, axis=-1, temperature=1.0)


def _choices(logits: Any, top_k: int) -> Any:
    """Return 1 for the `top_k` largest of each row, else 0, as a constant. Of equal ones, the first count.

    There is no sort: this also works if the experts are cut over devices.
    """
    x = stop_gradient(logits)
    backend = array_backend(x)
    xp = backend.xp
    places = backend.positions(x, x)
    chosen = xp.zeros_like(x)
    for _ in range(top_k):
        is_largest = x == xp.max(x, axis=-1, keepdims=True)
        first = xp.min(xp.where(is_largest, places, math.inf), axis=-1, keepdims=True)
        is_first = places == first
        chosen = xp.where(is_first, 1.0, chosen)
        x = xp.where(is_first, -math.inf, x)
    return chosen
