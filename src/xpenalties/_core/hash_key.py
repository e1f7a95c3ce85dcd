"""Hash keys of callables and options: equal keys mean the same function, so that equal callables share a program."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from operator import attrgetter
from typing import Any

__all__ = ["HasStaticKey", "hashable"]


class HasStaticKey(ABC):
    """A callable of this package. Two callables with equal static keys compute the same function."""

    @abstractmethod
    def _static_key(self) -> tuple[Any, ...]:
        """Return a hashable key that is equal for callables that compute the same function."""


def hashable(value: Any) -> Any:
    """Return a hash key: by value for strings, numbers, tuples, mappings and functions; by identity for the rest."""
    if isinstance(value, (str, int, float)):
        return type(value), value  # with the type, because 1 == True
    if isinstance(value, tuple):
        return type(value), *map(hashable, value)
    if type(value) is dict:
        return dict, *((hashable(key), hashable(value[key])) for key in sorted(value, key=str))
    if isinstance(value, HasStaticKey):  # a schedule, a penalty over trees, or a pipeline in another
        return type(value), *map(hashable, value._static_key())
    if isinstance(value, attrgetter):
        return value.__reduce__()  # its class and names
    by_value = inspect.isroutine(value) or isinstance(value, type)  # of other objects, == may compare arrays
    return value if by_value else id(value)
