"""Lay out text in the columns of a terminal, for names with any characters.

The standard library pads by characters, but a Chinese, Japanese or Korean character takes two columns. The functions
here count columns, so tables stay aligned without a dependency such as rich.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, zip_longest
from unicodedata import category, east_asian_width

__all__ = ["padded", "printable", "shortened", "table", "width_of", "wrapped"]

_WIDEST = 100  # columns of a table


def printable(text: str) -> str:
    """Put text on one line and remove control characters, which a terminal would act on."""
    return "".join(c for c in " ".join(text.split()) if not category(c).startswith("C"))


def width_of(text: str) -> int:
    """Count the terminal columns of a text: two for a wide character, none for a combining mark."""
    return sum(map(_columns, text))


def _columns(character: str) -> int:
    return 0 if category(character) in ("Mn", "Me") else 1 + (east_asian_width(character) in ("W", "F"))


def padded(text: str, width: int) -> str:
    """Pad text with spaces to `width` columns."""
    return text + " " * (width - width_of(text))


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Break text into lines of at most `width` columns, and indent all but the first. Empty text has no lines."""
    from textwrap import wrap

    return wrap(text, width if width_of(text) == len(text) else width // 2, subsequent_indent=indent)


def shortened(text: str, width: int) -> str:
    """Shorten a text to `width` columns by cutting its middle."""
    if width_of(text) <= width:
        return text
    end = (width - 1) // 2
    return f"{_start(text, width - 1 - end)}…{_start(text[::-1], end)[::-1]}"


def _start(text: str, width: int) -> str:
    return text[: bisect_right(list(accumulate(map(_columns, text))), width)]


def table(rows: Sequence[Sequence[str]]) -> str:
    """Align rows in columns, with a line under the first row. In a wide table, the widest cells are wrapped."""
    lines = [[printable(cell) for cell in row] for row in rows]
    widths = _fitted([max(map(width_of, column)) for column in zip(*lines, strict=True)])
    cells = [[wrapped(cell, width) or [""] for cell, width in zip(row, widths, strict=True)] for row in lines]
    widths = [max(width_of(line) for cell in column for line in cell) for column in zip(*cells, strict=True)]
    result = [
        "  ".join(padded(part, width) for part, width in zip(parts, widths, strict=True)).rstrip()
        for row in cells
        for parts in zip_longest(*row, fillvalue="")
    ]
    result.insert(1, "-" * (sum(widths) + 2 * len(widths) - 2))
    return "\n".join(result)


def _fitted(widths: list[int]) -> list[int]:
    """Narrow the widest columns until the table fits."""
    widths = [min(width, _WIDEST) for width in widths]
    while sum(widths) + 2 * len(widths) - 2 > _WIDEST:
        widths[widths.index(max(widths))] -= 1
    return widths
