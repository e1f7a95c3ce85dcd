"""Warnings that point at the code of the user who called this package."""

from __future__ import annotations

import sys

__all__ = ["callers_level"]


def callers_level() -> int:
    """Return the `stacklevel` at which the caller's warning names the first function outside this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("xpenalties."):
        level, frame = level + 1, frame.f_back
    return level
