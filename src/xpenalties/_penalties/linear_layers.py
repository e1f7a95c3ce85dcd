"""Check the shapes of hidden states and output layers, and compute their logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._arrays.numerics import linear
from ..backends import namespace

__all__ = ["layers_check", "logits_of_two_layers"]


def layers_check(name: str) -> Any:
    """Make a check that each weight fits its hidden states, and that all have the same rows and classes."""

    def check(arrays: tuple[Any, ...], options: Mapping[str, Any]) -> None:
        shapes = [tuple(x.shape) for x in arrays]
        suffixes = ("_p", "_q") if len(arrays) == 4 else ("",)
        for suffix, hidden, weight in zip(suffixes, shapes[::2], shapes[1::2], strict=True):
            if len(hidden) < 1 or len(weight) != 2 or weight[1:] != hidden[-1:] or 0 in weight:
                raise ValueError(
                    f"{name}: `weight{suffix}` must have shape (classes, features) for a `hidden{suffix}` of shape "
                    f"(..., features), got {weight} and {hidden}. Transpose a kernel of shape (features, classes)."
                )
        if shapes[0][:-1] != shapes[-2][:-1]:
            raise ValueError(
                f"{name}: `hidden_p` and `hidden_q` must have the same shape except for the features, got {shapes[0]} "
                f"and {shapes[-2]}. Broadcast them explicitly, in the order hidden_p, weight_p, hidden_q, weight_q."
            )
        if shapes[1][0] != shapes[-1][0]:
            raise ValueError(
                f"{name}: `weight_p` and `weight_q` must have the same number of classes, got {shapes[1][0]} and "
                f"{shapes[-1][0]}. Cut or pad one to the other's classes."
            )

    return check


def logits_of_two_layers(hidden_p: Any, weight_p: Any, hidden_q: Any, weight_q: Any) -> tuple[Any, Any]:
    """Return the logits of P and of Q, in the same dtype."""
    logits_p, logits_q = linear(hidden_p, weight_p), linear(hidden_q, weight_q)
    if logits_p.dtype == logits_q.dtype:
        return logits_p, logits_q
    xp = namespace(logits_p, logits_q)
    dtype = xp.result_type(logits_p.dtype, logits_q.dtype)
    return xp.astype(logits_p, dtype), xp.astype(logits_q, dtype)
