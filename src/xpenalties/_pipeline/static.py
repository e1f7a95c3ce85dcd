"""The static part of a pipeline, which is all but the weights, compared by value if that is safe.

JAX recompiles a function if the static part of a pytree among its arguments has changed.
"""

from __future__ import annotations

import inspect
from operator import attrgetter
from typing import Any

from .._core.static_key import HasStaticKey
from .penalty import Penalty

__all__ = ["Static", "hashable"]


class Static:
    """A pipeline without its weights. Two are equal if a function that is compiled for one can serve the other."""

    def __init__(self, penalties: tuple[Penalty, ...], name: str) -> None:
        self.penalties = penalties
        self.name = name
        self.key = (name, *map(_static_key, penalties))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"{self.name}: {list(self.penalties)!r}"


def _static_key(penalty: Penalty) -> tuple[Any, ...]:
    schedule = penalty.weight if callable(penalty.weight) else None
    options = tuple((name, hashable(value)) for name, value in sorted(penalty.options.items()))
    callables = (hashable(penalty.fn), hashable(schedule), hashable(penalty.inputs))
    flags = (penalty.differentiable, penalty.enabled, penalty.every, penalty.timeout, penalty.on_error)
    return *callables, penalty.name, options, *flags


def hashable(value: Any) -> Any:
    """Return a hash key: by value for strings, numbers, tuples and functions; by identity for all other objects."""
    if isinstance(value, (str, int, float)):
        return type(value), value  # with the type, because 1 == True
    if isinstance(value, tuple):
        return type(value), *map(hashable, value)
    if isinstance(value, HasStaticKey):  # a schedule, or a penalty over trees
        return type(value), *map(hashable, value.static_key())
    if isinstance(value, attrgetter):
        return value.__reduce__()  # its class and names
    by_value = inspect.isroutine(value) or isinstance(value, type)  # of other objects, == may compare arrays
    return value if by_value else id(value)
