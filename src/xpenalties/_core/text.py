"""Text in columns, for a terminal: names of any characters, wide ones and those that it would act on."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from textwrap import wrap
from unicodedata import category, east_asian_width

__all__ = ["padded", "printable", "shortened", "width_of", "wrapped"]


def printable(text: str) -> str:
    """On one line, and without what a terminal would act on."""
    return "".join(c for c in " ".join(text.split()) if not category(c).startswith("C"))


def width_of(text: str) -> int:
    """Columns of a terminal: two for a wide character, none for a mark on another."""
    return sum(map(_columns, text))


def _columns(character: str) -> int:
    return 0 if category(character) in ("Mn", "Me") else 1 + (east_asian_width(character) in ("W", "F"))


def padded(text: str, width: int) -> str:
    """With spaces after it, up to a width."""
    return text + " " * (width - width_of(text))


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Lines of a width at most, those after the first indented; none of an empty text."""
    return wrap(text, width if width_of(text) == len(text) else width // 2, subsequent_indent=indent)


def shortened(text: str, width: int) -> str:
    """Its start and end, where there is no room for all of it."""
    if width_of(text) <= width:
        return text
    end = (width - 1) // 2
    return f"{_start(text, width - 1 - end)}…{_start(text[::-1], end)[::-1]}"


def _start(text: str, width: int) -> str:
    return text[: bisect_right(list(accumulate(map(_columns, text))), width)]
