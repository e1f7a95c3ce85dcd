"""Nests of arrays (dicts, lists, tuples, named tuples, dataclasses) as a list of leaves and a way back.

JAX brings its own; this serves the frameworks that have none in public.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["flatten", "map_leaves"]

Rebuild = Callable[[Iterator[Any]], Any]


def flatten(nest: Any) -> tuple[list[Any], Rebuild]:
    """The leaves of `nest` in order, and a function that puts as many others in their places."""
    leaves: list[Any] = []
    rebuild = _walk(nest, leaves)
    return leaves, rebuild


def map_leaves(fn: Callable[[Any], Any], nest: Any) -> Any:
    leaves, rebuild = flatten(nest)
    return rebuild(iter([fn(leaf) for leaf in leaves]))


def _walk(nest: Any, leaves: list[Any]) -> Rebuild:
    if isinstance(nest, Mapping):
        keys = list(nest)
        parts = [_walk(nest[key], leaves) for key in keys]
        kind = type(nest) if isinstance(nest, dict) else dict
        return lambda new: kind(zip(keys, [part(new) for part in parts], strict=True))
    if isinstance(nest, tuple) and hasattr(nest, "_fields"):
        parts, named = [_walk(part, leaves) for part in nest], type(nest)
        return lambda new: named(*[part(new) for part in parts])
    if isinstance(nest, (list, tuple)):
        parts, sequence = [_walk(part, leaves) for part in nest], type(nest)
        return lambda new: sequence([part(new) for part in parts])
    if dataclasses.is_dataclass(nest) and not isinstance(nest, type):
        names = [field.name for field in dataclasses.fields(nest)]
        parts = [_walk(getattr(nest, name), leaves) for name in names]
        original = nest
        return lambda new: dataclasses.replace(original, **dict(zip(names, [part(new) for part in parts], strict=True)))
    leaves.append(nest)
    return next
