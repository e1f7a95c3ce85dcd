"""Compile functions with jax.jit. Arrays and weights are traced; all other arguments are a part of the program."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from typing import Any

import jax
from jax import jit

from .._pipeline.pipeline import Pipeline
from .._pipeline.regularized_loss import RegularizedLoss

__all__ = ["compiled"]


@dataclass(frozen=True)
class Fixed:
    """An argument that is a part of the program. To JAX, it is a node without leaves."""

    kind: type  # compared too, because 1 == True
    value: Any


@dataclass(frozen=True)
class Fields:
    """The fields of a dataclass that is not a pytree to JAX, as a node."""

    kind: type
    values: dict[str, Any]


jax.tree_util.register_pytree_node(Fixed, lambda fixed: ((), fixed), lambda fixed, _: fixed)
jax.tree_util.register_pytree_node(
    Fields, lambda node: ((node.values,), node.kind), lambda kind, children: Fields(kind, *children)
)


def compiled(name: str, fn: Callable[..., Any], options: Mapping[str, Any]) -> Callable[..., Any]:
    """Compile `fn`."""

    @wraps(fn)
    def program(*args: Any, **kwargs: Any) -> Any:
        return fn(*_unpacked(args), **_unpacked(kwargs))

    run = jit(program, **options)

    def call(*args: Any, **kwargs: Any) -> Any:
        packed = [_packed(x, name, fn, place) for place, x in enumerate(args)]
        return run(*packed, **{key: _packed(x, name, fn, key) for key, x in kwargs.items()})

    return call


def _packed(tree: Any, name: str, fn: Callable[..., Any], place: int | str) -> Any:
    """Convert an argument of `fn` to a pytree for jax.jit, with its static parts as nodes."""

    def pack(x: Any) -> Any:
        if isinstance(x, jax.Array | Pipeline | RegularizedLoss):
            return x
        if is_dataclass(x) and not isinstance(x, type):
            return Fields(type(x), {field.name: pack_tree(getattr(x, field.name)) for field in fields(x)})
        try:
            hash(x)
        except TypeError:
            raise TypeError(
                f"{name}: `{_argument(fn, place)}` must hold arrays and hashable values to be compiled, got "
                f"{type(x).__qualname__}. Pass something immutable, or a pytree that JAX knows."
            ) from None
        return Fixed(type(x), x)

    def pack_tree(tree: Any) -> Any:
        return jax.tree.map(pack, tree, is_leaf=lambda x: isinstance(x, Pipeline | RegularizedLoss))

    return pack_tree(tree)


def _unpacked(tree: Any) -> Any:
    """Undo `_packed`."""

    def unpack(x: Any) -> Any:
        if isinstance(x, Fixed):
            return x.value
        if isinstance(x, Fields):
            instance: Any = object.__new__(x.kind)
            for name, value in _unpacked(x.values).items():
                object.__setattr__(instance, name, value)
            return instance
        return x

    return jax.tree.map(unpack, tree, is_leaf=lambda x: isinstance(x, Fixed | Fields | Pipeline | RegularizedLoss))


def _argument(fn: Callable[..., Any], place: int | str) -> str:
    """Return the name of an argument of `fn`."""
    if isinstance(place, str):
        return place
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):  # builtins without a signature
        parameters = {}.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return names[place] if place < len(names) else f"argument {place}"
