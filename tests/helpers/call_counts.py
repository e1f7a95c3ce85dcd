"""Count the Python functions of the package that a call enters."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import xpenalties

__all__ = ["calls_of"]

PACKAGE = str(Path(xpenalties.__file__).parent)


def calls_of(compute: Callable[[], object]) -> list[str]:
    """Return the names of the package's functions that a second call enters, in order."""
    compute()  # the first call fills caches
    names: list[str] = []

    def record(frame: FrameType, event: str, arg: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            names.append(frame.f_code.co_qualname)

    before = sys.getprofile()
    sys.setprofile(record)
    try:
        compute()
    finally:
        sys.setprofile(before)
    return names
