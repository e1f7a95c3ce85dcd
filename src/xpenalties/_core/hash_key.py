"""Base class of callables that are compared by value, so that equal ones share a compiled program."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

__all__ = ["HasStaticKey"]


class HasStaticKey(ABC):
    """A callable of this package. Two callables with equal static keys compute the same function."""

    @abstractmethod
    def static_key(self) -> tuple[Any, ...]:
        """Return a hashable key that is equal for callables that compute the same function."""
