"""Nests of arrays (dicts, lists, tuples, named tuples, dataclasses) as a list of leaves and a way back.

JAX brings its own, see backends/jax.py; this serves the frameworks that have none in public.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

__all__ = ["Rebuild", "flatten"]

Rebuild = Callable[[Iterator[Any]], Any]


def flatten(nest: Any) -> tuple[list[Any], Rebuild]:
    """The leaves of `nest` in order, and a function that puts as many others in their places."""
    leaves: list[Any] = []
    rebuild = _walk(nest, leaves)
    return leaves, rebuild


def _walk(nest: Any, leaves: list[Any]) -> Rebuild:
    if isinstance(nest, Mapping):
        keys = list(nest)
        parts = [_walk(nest[key], leaves) for key in keys]
        if type(nest) is dict or not isinstance(nest, dict):  # torch.compile traces no copy of one
            return lambda new: dict(zip(keys, [part(new) for part in parts], strict=True))
        return lambda new: _filled(copy.copy(nest), keys, [part(new) for part in parts])
    if isinstance(nest, tuple) and hasattr(nest, "_make"):
        parts, make = [_walk(part, leaves) for part in nest], nest._make
        return lambda new: make([part(new) for part in parts])
    if isinstance(nest, (list, tuple)):
        parts, sequence = [_walk(part, leaves) for part in nest], type(nest)
        return lambda new: sequence([part(new) for part in parts])
    if hasattr(nest, "tree_unflatten") and not isinstance(nest, type):  # a pipeline or a report, as JAX sees it
        children, static = nest.tree_flatten()
        parts, unflatten = [_walk(child, leaves) for child in children], nest.tree_unflatten
        return lambda new: unflatten(static, [part(new) for part in parts])
    if dataclasses.is_dataclass(nest) and not isinstance(nest, type):
        names = [field.name for field in dataclasses.fields(nest)]
        parts = [_walk(getattr(nest, name), leaves) for name in names]
        return lambda new: _with_fields(copy.copy(nest), names, [part(new) for part in parts])
    leaves.append(nest)
    return next


def _filled(mapping: Any, keys: list[Any], values: list[Any]) -> Any:
    """`mapping`, a copy that keeps its class and what a defaultdict knows, with these values."""
    mapping.update(zip(keys, values, strict=True))
    return mapping


def _with_fields(instance: Any, names: list[str], values: list[Any]) -> Any:
    """`instance` with other fields. Not by dataclasses.replace: __post_init__ would check, and compute, once more.

    What it has computed lazily of the former fields is computed anew.
    """
    for name in [*getattr(instance, "__dict__", ())]:
        if isinstance(getattr(type(instance), name, None), cached_property):
            del instance.__dict__[name]
    for name, value in zip(names, values, strict=True):
        object.__setattr__(instance, name, value)
    return instance
