"""JAX: stop_gradient, one transfer for many scalars, jax.value_and_grad, and the pytrees of Pipeline and Report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .._pipeline import Pipeline
from .._report import PenaltyReport, Report
from .base import Backend, OfLeaves

__all__ = ["KNOWN", "find"]


class JaxBackend(Backend):
    def evaluate(self, formula: Callable[..., Any], arrays: Sequence[Any], options: Mapping[str, Any]) -> Any:
        return formula(*arrays, **options)

    def stop_gradient(self, x: Any) -> Any:
        return jax.lax.stop_gradient(x)

    def to_floats(self, scalars: Sequence[Any]) -> list[float]:
        return [float(scalar) for scalar in jax.device_get(list(scalars))]

    def differentiate(self, fn: OfLeaves, leaves: list[Any]) -> tuple[Any, list[Any], list[Any]]:
        (value, aux), gradients = jax.value_and_grad(fn, has_aux=True)(leaves)
        return value, aux, gradients


_JAX = JaxBackend("jax", jnp)
KNOWN: dict[type, Backend] = {}  # naming the array type would start the devices at import


def find(cls: type) -> Backend | None:
    return _JAX if issubclass(cls, (jax.Array, jax.core.Tracer)) else None


# register_dataclass would sort the names of penalties and metrics: a report keeps their order through a jit
jax.tree_util.register_pytree_node(Report, Report.tree_flatten, Report.tree_unflatten)
jax.tree_util.register_pytree_node(PenaltyReport, PenaltyReport.tree_flatten, PenaltyReport.tree_unflatten)
jax.tree_util.register_pytree_node(Pipeline, Pipeline.tree_flatten, Pipeline.tree_unflatten)
