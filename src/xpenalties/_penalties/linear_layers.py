"""Shared parts of the functions of hidden states and output layers: the check of their shapes, and the logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._arrays.numerics import linear
from .log_probabilities import log_probabilities

__all__ = ["layers_check", "log_probabilities_of_layer"]


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


def log_probabilities_of_layer(hidden: Any, weight: Any, temperature: float) -> Any:
    """Return the log-probabilities of the logits `hidden @ weight.T`, in at least float32."""
    return log_probabilities(linear(hidden, weight), axis=-1, temperature=temperature, from_logits=True)
