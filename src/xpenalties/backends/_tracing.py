"""Programs that are traced to run later: what a backend can tell of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Tracing"]


class Tracing:
    """Traces and compilers of a framework. The default has none."""

    def __init__(self, xp: Any) -> None:
        self.xp = xp

    def is_tracing(self, x: Any) -> bool:
        """Return whether `x` belongs to a program that is being traced, to run later."""
        return False

    def has_value(self, x: Any) -> bool:
        """Return whether `x` has a value that can be kept for later. A tracer of a function transform has none."""
        return True

    def in_trace(self) -> bool:
        """Return whether what is computed now is being traced, even from arrays with values."""
        return False

    def compiles(self) -> bool:
        """Return whether there is something to compile with, here and now."""
        return False

    def when(self, due: Any, compute: Callable[[], list[Any]]) -> list[Any]:
        """Return the arrays that `compute` returns if `due`, a traced boolean, is true, and else zeros."""
        return [self.xp.where(due, x, self.xp.zeros_like(x)) for x in compute()]
