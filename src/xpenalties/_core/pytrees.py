"""Flatten trees of arrays (dicts, lists, tuples, named tuples, dataclasses) into a list of leaves, and rebuild them.

JAX has its own pytrees, see backends/jax/. This module serves the frameworks that have no public ones. optree does not
fit: it treats plain dataclasses and Mappings as leaves, it sorts the keys of dicts, and it would be a second runtime
dependency to replace the 70 lines below.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

__all__ = [
    "NODES",
    "Rebuild",
    "flatten",
    "flatten_with_paths",
    "join_paths",
    "node",
    "paths_of_instances",
    "register",
    "watch_nodes",
]

Rebuild = Callable[[Iterator[Any]], Any]
C = TypeVar("C", bound=type)

NODES: list[type] = []  # this package's own classes that are trees
_watchers: list[Callable[[type], None]] = []


def node(
    *,
    leaves: tuple[str, ...],
    mappings: tuple[str, ...] = (),
    static: tuple[str, ...] = (),
    key: Callable[[Any], Hashable] | None = None,
) -> Callable[[C], C]:
    """Register a class as a pytree, here and in JAX, by the names of its attributes.

    Parameters
    ----------
    leaves : tuple of str
        Attributes that are leaves or trees.
    mappings : tuple of str
        Attributes that are None or mappings. Their values, or the values of mappings inside them, are leaves or trees.
        Unlike JAX's dicts, they keep their order.
    static : tuple of str
        All other attributes.
    key : callable, optional
        Returns a value that is equal for two instances of the same structure. By default, the static attributes.
    """
    attributes = _Attributes(leaves, mappings, static, key)

    def decorate(cls: Any) -> Any:
        def _tree_flatten(self: Any) -> tuple[tuple[Any, ...], _Structure]:
            """Return the children and the structure."""
            return attributes.children(self), attributes.structure(self)

        def _tree_keys(self: Any) -> tuple[str, ...]:
            """Return the names of the children."""
            return attributes.names(self)

        def _tree_unflatten(cls: type, structure: _Structure, children: Iterable[Any]) -> Any:
            """Return an instance with other children."""
            return attributes.instance(cls, structure, children)

        cls._tree_flatten, cls._tree_keys, cls._tree_unflatten = _tree_flatten, _tree_keys, classmethod(_tree_unflatten)
        return register(cls)

    return decorate


def register(cls: C) -> C:
    """Register a class with `_tree_flatten`, `_tree_keys` and `_tree_unflatten` as a pytree, here and in JAX.

    The names begin with an underscore so that `help` does not show them between the methods for users.
    """
    NODES.append(cls)
    for watcher in _watchers:
        watcher(cls)
    return cls


def watch_nodes(watcher: Callable[[type], None]) -> None:
    """Call `watcher` with each class that is registered already, and with each later one."""
    _watchers.append(watcher)
    for cls in NODES:
        watcher(cls)


class _Structure:
    """An instance of a node without its leaves. Two structures are equal if their keys are."""

    def __init__(self, keys: tuple[Any, ...], static: tuple[Any, ...], key: Hashable) -> None:
        self.keys = keys  # of each mapping
        self.static = static
        self.key = keys, key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Structure) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return repr((*self.keys, *self.static))


class _Attributes(NamedTuple):
    """The attributes of a class that `node` registers."""

    leaves: tuple[str, ...]
    mappings: tuple[str, ...]
    static: tuple[str, ...]
    key: Callable[[Any], Hashable] | None

    def children(self, instance: Any) -> tuple[Any, ...]:
        children = [getattr(instance, name) for name in self.leaves]
        for name in self.mappings:
            for value in (getattr(instance, name) or {}).values():
                children += value.values() if isinstance(value, Mapping) else [value]
        return tuple(children)

    def names(self, instance: Any) -> tuple[str, ...]:
        names = [*self.leaves]
        for name in self.mappings:
            for key, value in (getattr(instance, name) or {}).items():
                names += [f"{name}/{key}/{inner}" for inner in value] if isinstance(value, Mapping) else [key]
        return tuple(names)

    def structure(self, instance: Any) -> _Structure:
        static = tuple(getattr(instance, name) for name in self.static)
        keys = tuple(_keys(getattr(instance, name)) for name in self.mappings)
        return _Structure(keys, static, static if self.key is None else self.key(instance))

    def instance(self, cls: type, structure: _Structure, children: Iterable[Any]) -> Any:
        """Return an instance with other children. They may be any objects: JAX passes tracers and placeholders."""
        new = iter(children)
        instance: Any = object.__new__(cls)
        values = dict(zip(self.static, structure.static, strict=True))
        values.update((name, next(new)) for name in self.leaves)
        values.update((name, _with_values(keys, new)) for name, keys in zip(self.mappings, structure.keys, strict=True))
        for name, value in values.items():
            object.__setattr__(instance, name, value)
        return instance


def _keys(mapping: Mapping[str, Any] | None) -> tuple[Any, ...] | None:
    """Return the keys of a mapping, each with the keys of its value if the value is a mapping."""
    if mapping is None:
        return None
    return tuple((key, tuple(value) if isinstance(value, Mapping) else None) for key, value in mapping.items())


def _with_values(keys: tuple[Any, ...] | None, new: Iterator[Any]) -> dict[str, Any] | None:
    """Return a mapping with these keys and the next values of `new`."""
    if keys is None:
        return None
    return {key: next(new) if inner is None else {name: next(new) for name in inner} for key, inner in keys}


class _Inner(NamedTuple):
    """A tree that is not a leaf."""

    keys: Iterable[Any]
    children: list[Any]
    make: Callable[[list[Any]], Any]  # builds the same kind of tree from other children


def flatten(tree: Any) -> tuple[list[Any], Rebuild]:
    """Return the leaves of `tree` in order, and a function that rebuilds the tree with other leaves."""
    leaves: list[Any] = []
    rebuild = _walk(tree, leaves)
    return leaves, rebuild


def flatten_with_paths(tree: Any) -> tuple[list[Any], Rebuild, list[str]]:
    """Flatten a tree. Also returns the path of each leaf: its keys, fields and indices, joined with dots.

    If the tree is itself a leaf, its path is "".
    """
    leaves: list[Any] = []
    paths: list[str] = []
    rebuild = _walk(tree, leaves, paths)
    return leaves, rebuild, paths


def paths_of_instances(tree: Any, classes: tuple[type, ...], path: str = "") -> list[str]:
    """Return the paths of the outermost nodes and leaves that are instances of `classes`."""
    if isinstance(tree, classes):
        return [path]
    inner = _taken_apart(tree)
    if inner is None:
        return []
    children = zip(inner.keys, inner.children, strict=True)
    return [at for key, child in children for at in paths_of_instances(child, classes, join_paths(path, str(key)))]


def join_paths(outer: str, inner: str) -> str:
    """Join two paths with a dot. Either may be empty."""
    return f"{outer}.{inner}" if outer and inner else outer or inner


def _walk(tree: Any, leaves: list[Any], paths: list[str] | None = None, path: str = "") -> Rebuild:
    """Append the leaves of `tree` to `leaves` and their paths to `paths`. Returns the function that rebuilds it."""
    inner = _taken_apart(tree)
    if inner is None:
        leaves.append(tree)
        if paths is not None:
            paths.append(path)
        return next
    if paths is None:
        parts = [_walk(child, leaves) for child in inner.children]
    else:
        outer = [join_paths(path, str(key)) for key in inner.keys]
        parts = [_walk(child, leaves, paths, at) for child, at in zip(inner.children, outer, strict=True)]
    make = inner.make
    return lambda new: make([part(new) for part in parts])


def _taken_apart(tree: Any) -> _Inner | None:
    """Return keys and children of `tree`, or None for a leaf."""
    if isinstance(tree, Mapping):
        keys = list(tree)
        plain = type(tree) is dict or not isinstance(tree, dict)  # torch.compile cannot trace a copy of a dict
        return _Inner(
            keys,
            [tree[key] for key in keys],
            lambda new: dict(zip(keys, new, strict=True)) if plain else _filled(copy.copy(tree), keys, new),
        )
    if isinstance(tree, tuple) and hasattr(tree, "_make"):
        return _Inner(getattr(tree, "_fields", range(len(tree))), list(tree), tree._make)
    if isinstance(tree, (list, tuple)):
        return _Inner(range(len(tree)), list(tree), type(tree))
    if hasattr(tree, "_tree_flatten") and not isinstance(tree, type):  # a class of this package
        children, static = tree._tree_flatten()
        unflatten = tree._tree_unflatten
        return _Inner(tree._tree_keys(), list(children), lambda new: unflatten(static, new))
    if hasattr(tree, "tree_flatten") and not isinstance(tree, type):  # a class that a user registered with JAX
        children, static = tree.tree_flatten()
        unflatten = tree.tree_unflatten
        return _Inner(range(len(children)), list(children), lambda new: unflatten(static, new))
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        fields = [field.name for field in dataclasses.fields(tree) if hasattr(tree, field.name)]
        values = [getattr(tree, name) for name in fields]
        return _Inner(fields, values, lambda new: _with_fields(copy.copy(tree), fields, new))
    return None


def _filled(mapping: Any, keys: list[Any], values: list[Any]) -> Any:
    """Put values into `mapping`, a copy that keeps its class and the default of a defaultdict."""
    for key, value in zip(keys, values, strict=True):  # some classes refuse `update`
        mapping[key] = value
    return mapping


def _with_fields(instance: Any, names: list[str], values: list[Any]) -> Any:
    """Set fields of `instance`, a copy, and clear its cached properties.

    dataclasses.replace would call __post_init__, which checks and computes everything again.
    """
    for name in [*getattr(instance, "__dict__", ())]:
        if isinstance(getattr(type(instance), name, None), cached_property):
            del instance.__dict__[name]
    for name, value in zip(names, values, strict=True):
        object.__setattr__(instance, name, value)
    return instance
