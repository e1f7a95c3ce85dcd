"""Detect arrays and code that are traced into a program to run later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Tracing"]


class Tracing:
    """The tracers and the compiler of a framework. The default has neither."""

    def __init__(self, xp: Any) -> None:
        self.xp = xp

    def is_tracing(self, x: Any) -> bool:
        """Return True if `x` belongs to a program that is being traced, to run later."""
        return False

    def has_value(self, x: Any) -> bool:
        """Return True if `x` has a value that can be stored. A tracer of a function transform has none."""
        return True

    def in_trace(self) -> bool:
        """Return True if computations are being traced now, even those on arrays with values."""
        return False

    def compiles(self) -> bool:
        """Return True if the framework can compile, here and now."""
        return False

    def raise_unless(self, valid: Any, message: str, error: Callable[[], Exception]) -> None:
        """Raise the error that `error()` makes unless `valid`, a boolean 0-d array, is true.

        If it is being traced, the error is raised when the program runs, and only has the `message`.
        """
        if not bool(valid):
            raise error()

    def when(self, due: Any, compute: Callable[[], list[Any]]) -> list[Any]:
        """Return the arrays of `compute` if `due`, a traced boolean, is true; otherwise zeros."""
        return [self.xp.where(due, x, self.xp.zeros_like(x)) for x in compute()]
