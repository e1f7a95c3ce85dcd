"""JAX: stop_gradient, one transfer for many scalars, jax.value_and_grad, and the pytrees of Pipeline and Report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import jax
import jax.numpy as jnp

from .._pipeline import Pipeline
from .._report import PenaltyReport, Report
from .base import Backend, OfLeaves

__all__ = ["KNOWN", "find"]


class JaxBackend(Backend):
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


for _node in (Report, PenaltyReport):
    jax.tree_util.register_dataclass(_node, data_fields=[field.name for field in fields(_node)], meta_fields=[])
jax.tree_util.register_pytree_node(Pipeline, Pipeline.tree_flatten, Pipeline.tree_unflatten)
