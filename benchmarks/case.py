"""A penalty beside the obvious formula for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import xpenalties as xp

__all__ = ["Case"]


@dataclass(frozen=True)
class Case:
    """A penalty with options, the obvious formula for the same value, and the kinds of arrays that both take."""

    name: str
    kinds: tuple[str, ...]
    by_hand: Callable[..., Any]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        options = ", ".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.name}({options})" if options else self.name

    @property
    def penalty(self) -> Callable[..., Any]:
        function, options = getattr(xp, self.name), self.options
        return (lambda *arrays: function(*arrays, **options)) if options else function
