"""Nests of arrays (dicts, lists, tuples, named tuples, dataclasses) as a list of leaves and a way back.

JAX brings its own, see backends/jax/; this serves the frameworks that have none in public.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

__all__ = ["NODES", "Rebuild", "flatten", "flatten_with_paths", "joined", "node", "watch_nodes"]

Rebuild = Callable[[Iterator[Any]], Any]


C = TypeVar("C", bound=type)

NODES: list[type] = []  # this package's own classes that are nests
_watchers: list[Callable[[type], None]] = []


def node(cls: C) -> C:
    """Register a class with `tree_flatten`, `tree_keys` and `tree_unflatten` as a pytree, here and in JAX."""
    NODES.append(cls)
    for watcher in _watchers:
        watcher(cls)
    return cls


def watch_nodes(watcher: Callable[[type], None]) -> None:
    """Call `watcher` with each such class, those that there are and those to come."""
    _watchers.append(watcher)
    for cls in NODES:
        watcher(cls)


class Node(NamedTuple):
    """What a nest is made of."""

    names: list[str]
    children: list[Any]
    make: Callable[[list[Any]], Any]  # the same of other children


def flatten(nest: Any) -> tuple[list[Any], Rebuild]:
    """The leaves of `nest` in order, and a function that puts as many others in their places."""
    leaves: list[Any] = []
    rebuild = _walk(nest, leaves)
    return leaves, rebuild


def flatten_with_paths(nest: Any) -> tuple[list[Any], Rebuild, list[str]]:
    """The same, and where each leaf is: keys, fields and indices, with dots between; "" for a leaf that is no nest."""
    leaves: list[Any] = []
    paths: list[str] = []
    rebuild = _walk(nest, leaves, paths)
    return leaves, rebuild, paths


def joined(outer: str, inner: str) -> str:
    """A path of two."""
    return f"{outer}.{inner}" if outer and inner else outer or inner


def _walk(nest: Any, leaves: list[Any], paths: list[str] | None = None, path: str = "") -> Rebuild:
    node = _node(nest)
    if node is None:
        leaves.append(nest)
        if paths is not None:
            paths.append(path)
        return next
    if paths is None:
        parts = [_walk(child, leaves) for child in node.children]
    else:
        at = [joined(path, name) for name in node.names]
        parts = [_walk(child, leaves, paths, each) for child, each in zip(node.children, at, strict=True)]
    make = node.make
    return lambda new: make([part(new) for part in parts])


def _node(nest: Any) -> Node | None:
    """`nest` taken apart, or None for a leaf."""
    if isinstance(nest, Mapping):
        keys = list(nest)
        plain = type(nest) is dict or not isinstance(nest, dict)  # torch.compile traces no copy of one
        return Node(
            [str(key) for key in keys],
            [nest[key] for key in keys],
            lambda new: dict(zip(keys, new, strict=True)) if plain else _filled(copy.copy(nest), keys, new),
        )
    if isinstance(nest, tuple) and hasattr(nest, "_make"):
        return Node(list(getattr(nest, "_fields", map(str, range(len(nest))))), list(nest), nest._make)
    if isinstance(nest, (list, tuple)):
        return Node([str(i) for i in range(len(nest))], list(nest), type(nest))
    if hasattr(nest, "tree_flatten") and not isinstance(nest, type):  # a pipeline or a report, as JAX sees it
        children, static = nest.tree_flatten()
        unflatten = nest.tree_unflatten
        names = list(nest.tree_keys()) if hasattr(nest, "tree_keys") else [str(i) for i in range(len(children))]
        return Node(names, list(children), lambda new: unflatten(static, new))
    if dataclasses.is_dataclass(nest) and not isinstance(nest, type):
        names = [field.name for field in dataclasses.fields(nest) if hasattr(nest, field.name)]
        values = [getattr(nest, name) for name in names]
        return Node(names, values, lambda new: _with_fields(copy.copy(nest), names, new))
    return None


def _filled(mapping: Any, keys: list[Any], values: list[Any]) -> Any:
    """`mapping`, a copy that keeps its class and what a defaultdict knows, with these values."""
    for key, value in zip(keys, values, strict=True):  # some refuse `update`
        mapping[key] = value
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
