"""Text in columns for a terminal, whatever the characters of a penalty's name.

The standard library pads by characters. A Chinese, Japanese or Korean character takes two columns, so the few lines
here that count columns keep tables straight, without a dependency such as rich.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from textwrap import wrap
from unicodedata import category, east_asian_width

__all__ = ["padded", "printable", "shortened", "width_of", "wrapped"]


def printable(text: str) -> str:
    """Put text on one line, without control characters, which a terminal would act on."""
    return "".join(c for c in " ".join(text.split()) if not category(c).startswith("C"))


def width_of(text: str) -> int:
    """Count columns of a terminal: two for a wide character, none for a combining mark."""
    return sum(map(_columns, text))


def _columns(character: str) -> int:
    return 0 if category(character) in ("Mn", "Me") else 1 + (east_asian_width(character) in ("W", "F"))


def padded(text: str, width: int) -> str:
    """Add spaces up to a width."""
    return text + " " * (width - width_of(text))


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Break text into lines of at most a width, with all but the first indented. Empty text has no lines."""
    return wrap(text, width if width_of(text) == len(text) else width // 2, subsequent_indent=indent)


def shortened(text: str, width: int) -> str:
    """Keep the start and the end of a text that is wider than `width`."""
    if width_of(text) <= width:
        return text
    end = (width - 1) // 2
    return f"{_start(text, width - 1 - end)}…{_start(text[::-1], end)[::-1]}"


def _start(text: str, width: int) -> str:
    return text[: bisect_right(list(accumulate(map(_columns, text))), width)]
