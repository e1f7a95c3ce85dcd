"""A clock that a test sets forward, in place of waiting for one; and how long a test waits before it gives up."""

from __future__ import annotations

import time

__all__ = ["GRACE", "PATIENCE", "Clock"]

PATIENCE = 120.0  # seconds, far more than any of this takes on a busy machine: a deadlock has been found
GRACE = 0.02  # seconds in which what is wrong may show itself; what is right does not depend on them


class Clock:
    """`time.monotonic` and the like, which a test can set forward."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self._ahead

    def forward(self, seconds: float) -> None:
        """Let that much time pass at once."""
        self._ahead += seconds
