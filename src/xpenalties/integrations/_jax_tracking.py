"""Gradient norms with respect to parameters on JAX: gradients of penalties, pulled back through the forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._pipeline.wrt import PulledBack
from ..backends import backend_of
from ..backends.jax._linear import linear_or_none

__all__ = ["check_differentiable", "pulled_back"]


def check_differentiable(params: Any) -> None:
    """Raise an error if a parameter is not a floating-point array, as jax.grad does."""
    other = next((x for x in jax.tree.leaves(params) if not jnp.issubdtype(jnp.result_type(x), jnp.inexact)), None)
    if other is not None:
        raise TypeError(
            f"train_step: `params` must hold floating-point arrays, got {jnp.result_type(other)}. Return integers and "
            "other state from `forward`, with has_aux=True."
        )


def pulled_back(outputs: list[Any], params: Any, pull: Callable[[list[Any]], tuple[Any]]) -> PulledBack:
    """Return the `wrt` of penalties that depend on `params` directly and through `outputs`.

    `pull` takes cotangents of `outputs`, and returns those of `params` through the forward pass.
    """
    leaves = jax.tree.leaves(params)
    real = [i for i, x in enumerate(leaves) if _kind(x) == "real"]
    constant = jax.tree.map(jax.lax.stop_gradient, pull)  # an outer derivative must not go through it

    def back(traced: list[Any], gradients: list[Any]) -> list[Any]:
        by_id = {id(x): g for x, g in zip(traced, gradients, strict=True) if g is not None}
        total = [by_id.get(id(leaves[i])) for i in real]
        used = [i for i, x in enumerate(outputs) if id(x) in by_id]
        if not used:
            return total

        def through_forward(*cotangents: Any) -> list[Any]:
            full = list(map(_zero_cotangent, outputs))
            for i, cotangent in zip(used, cotangents, strict=True):
                full[i] = cotangent
            pulled = jax.tree.leaves(constant(full)[0])
            return [pulled[i] for i in real]

        more = linear_or_none(through_forward, *(by_id[id(outputs[i])] for i in used))
        return [a if b is None else b if a is None else a + b for a, b in zip(total, more, strict=True)]

    return PulledBack([leaves[i] for i in real], back, "params")


def _kind(x: Any) -> str:
    backend = backend_of(x)
    return "" if backend is None else backend.dtype(x.dtype).kind


def _zero_cotangent(x: Any) -> Any:
    return jnp.zeros_like(x) if jnp.issubdtype(x.dtype, jnp.inexact) else np.zeros(x.shape, jax.dtypes.float0)
