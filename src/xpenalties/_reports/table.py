"""A report as a table: text of at most 100 columns. `html_table` has the same rows in HTML."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .._core.terminal_text import padded, printable, shortened, width_of, wrapped

__all__ = ["aligned", "as_text", "columns_and_rows", "shares"]

_WIDEST = 100  # columns
_LONGEST = 40  # columns of a name, at most
_LEAST_NAME = 12  # columns for names that a header must leave
_NORMS = ("grad_norm", "grad_norm_weighted")
_ALWAYS = ("value", "weight", "contribution", "share")

_Errors = Iterable[tuple[str, str]]  # names of penalties, and why they have no numbers
_Cells = list[str | None]


def as_text(report: Mapping[str, Any], errors: _Errors, wrt: str | None) -> str:
    """Format what `Report.to_dict` returns as text. Names are shortened to fit.

    `wrt` is that of the report. It is part of a header or, if there is no room for it, below the table.
    """
    columns, rows = columns_and_rows(report, wrt)
    cells = [aligned(column) for column in zip(*(cells for _, cells in rows), strict=True)]
    widths = _widths(columns, cells)
    fits = sum(widths) + 2 * len(widths) + _LEAST_NAME <= _WIDEST
    if not fits:
        columns = [column.partition(" (")[0] for column in columns]
        widths = _widths(columns, cells)
    numbers = sum(widths) + 2 * len(widths)
    names = [shortened(printable(name), min(_WIDEST - numbers, _LONGEST)) for name, _ in rows]
    first = max(map(width_of, ["penalty", *names]))
    lines = []
    for name, row in zip(["penalty", *names], [columns, *zip(*cells, strict=True)], strict=True):
        right = [" " * (width - width_of(cell)) + cell for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([padded(name, first), *right]).rstrip())
    lines.insert(1, "-" * (first + numbers))
    if not fits and wrt is not None:
        lines += wrapped(printable(f"grad norm: with respect to {wrt}"), _WIDEST, indent="  ")
    for name, error in errors:
        lines += wrapped(printable(f"{name}: {error}"), _WIDEST, indent="  ")
    return "\n".join(lines)


def _widths(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(width_of, [name, *column])) for name, column in zip(columns, cells, strict=True)]


def columns_and_rows(report: Mapping[str, Any], wrt: str | None) -> tuple[list[str], list[tuple[str, _Cells]]]:
    """Return the names of the columns, and the name and the cells of each row.

    A missing number is None, and a missing norm "-". The base loss has the weight 1. Rows are pairs, not a dict: a
    penalty may be named "total".
    """
    base = report["base_loss"]
    rows: list[tuple[str, Mapping[str, Any]]] = []
    if base is not None:
        of_base = {"weight": 1.0, "contribution": base["value"], "grad_norm_weighted": base["grad_norm"]}
        rows.append(("base loss", {**base, **of_base}))
    rows += report["regularizers"].items()
    parts = shares([row["contribution"] for _, row in rows])
    rows = [(name, {**row, "share": part}) for (name, row), part in zip(rows, parts, strict=True)]
    rows.append(("total", {"contribution": report["loss_total"], "grad_norm_weighted": report["total_grad_norm"]}))
    optional = _NORMS if wrt is not None else [c for c in _NORMS if any(row.get(c) is not None for _, row in rows)]
    shown = (*_ALWAYS, *optional)
    header = {"grad_norm": "grad norm" if wrt is None else f"grad norm ({printable(wrt)})"}
    columns = [header.get(c, c.replace("_", " ")) for c in shown]
    return columns, [(name, [_cell(c, row[c]) if c in row else None for c in shown]) for name, row in rows]


def shares(contributions: Sequence[float | None]) -> list[float | None]:
    """Return each contribution divided by the sum of their magnitudes. All are 0 if that sum is 0."""
    largest = max((abs(x) for x in contributions if x is not None), default=0.0)
    if not largest:
        largest = 1.0
    scaled = [None if x is None else x / largest for x in contributions]  # the sum of two may overflow
    total = sum(abs(x) for x in scaled if x is not None) or 1.0
    return [None if x is None else x / total for x in scaled]


def _cell(column: str, value: float | None) -> str | None:
    """Format a number with 4 significant digits, or with all of its digits before the point up to a million."""
    if value is None:
        return "-" if column in _NORMS else None
    if column == "share":
        return f"{100 * value:z.1f} %" if math.isfinite(value) else "nan"
    return f"{value:z.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:z.4g}"


def aligned(cells: Iterable[str | None]) -> list[str]:
    """Pad cells on the right, so that their points line up if the cells are right-aligned."""
    texts = [cell or "" for cell in cells]
    after = [len(text) - len(text.partition(".")[0]) for text in texts]
    return [text and text + " " * (max(after) - own) for text, own in zip(texts, after, strict=True)]
