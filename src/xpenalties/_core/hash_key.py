"""The base class of this package's callables that are compared by value when a compiled program is looked up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

__all__ = ["HasStaticKey"]


class HasStaticKey(ABC):
    """A callable of this package: two with equal static keys compute the same."""

    @abstractmethod
    def static_key(self) -> tuple[Any, ...]:
        """Return what two callables that compute the same have in common."""
