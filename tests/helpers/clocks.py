"""A clock that a test can set forward instead of waiting, and how long a test waits before it gives up."""

from __future__ import annotations

import time

__all__ = ["GRACE", "PATIENCE", "Clock"]

PATIENCE = 120.0  # seconds; far more than needed on a busy machine, so it is a deadlock
GRACE = 0.02  # seconds in which an error can show up; correct code does not need them


class Clock:
    """`time.monotonic` and the like, which a test can set forward."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self._ahead

    def forward(self, seconds: float) -> None:
        """Move the clock forward."""
        self._ahead += seconds
