"""A report as a table: text of at most 100 columns, or HTML for light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from .._core.terminal_text import padded, printable, shortened, width_of, wrapped

__all__ = ["as_html", "as_text"]

_WIDEST = 100  # columns
_LONGEST = 40  # columns of a name, at most
_NORMS = ("grad_norm", "grad_norm_weighted")
_COLUMNS = ("value", "weight", "contribution", *_NORMS)

# Text and lines have the page's color, bars a color of medium lightness: legible on white and on black.
_TABLE = "border-collapse:collapse;color:inherit;text-align:right;font-variant-numeric:tabular-nums"
_HEAD = "background:none;border-bottom:1px solid currentColor"
_ROW = "background:none;color:inherit"
_NAME = "text-align:left;font-weight:normal;min-width:6em;max-width:24em;overflow-wrap:anywhere"
_TRACK = "position:relative;width:8em;height:0.8em"
_BAR = "position:absolute;top:0;bottom:0"
_ZERO = "width:0;border-left:1px solid currentColor"
_POSITIVE, _NEGATIVE = "background:rgba(42,127,196,0.8)", "background:rgba(213,94,0,0.8)"

_Errors = Iterable[tuple[str, str]]  # names of penalties, and why they have no numbers


def as_text(report: Mapping[str, Any], errors: _Errors, wrt: str | None) -> str:
    """Format what `Report.to_dict` returns as text. Names are shortened to fit. `wrt` is that of the report."""
    columns, rows = _columns_and_rows(report, wrt)
    widths = [max(map(len, cells)) for cells in zip(columns, *(cells for _, cells in rows), strict=True)]
    numbers = sum(widths) + 2 * len(widths)
    names = [shortened(printable(name), min(_WIDEST - numbers, _LONGEST)) for name, _ in rows]
    first = max(map(width_of, ["penalty", *names]))
    lines = []
    for name, cells in zip(["penalty", *names], [columns, *(cells for _, cells in rows)], strict=True):
        right = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        lines.append("  ".join([padded(name, first), *right]).rstrip())
    lines.insert(1, "-" * (first + numbers))
    for name, error in errors:
        lines += wrapped(printable(f"{name}: {error}"), _WIDEST, indent="  ")
    return "\n".join(lines)


def as_html(report: Mapping[str, Any], errors: _Errors, wrt: str | None) -> str:
    """Format what `Report.to_dict` returns as HTML, with a bar for each contribution, without scripts or links."""
    columns, rows = _columns_and_rows(report, wrt)
    place = columns.index("contribution") + 1
    bars = _bars([penalty["contribution"] for penalty in report["regularizers"].values()])
    bars = [""] * (report["base_loss"] is not None) + bars + [""]  # none for the base loss and the total
    head = [f'<th scope="col" style="{_HEAD}">{escape(column)}</th>' for column in columns]
    head.insert(place, f'<td aria-hidden="true" style="{_HEAD}"></td>')
    body = ""
    for (name, cells), bar in zip(rows, bars, strict=True):
        numbers = [f"<td>{cell}</td>" for cell in cells]
        numbers.insert(place, f'<td aria-hidden="true">{bar}</td>')
        body += f'<tr style="{_ROW}"><th scope="row" style="{_NAME}">{escape(name)}</th>{"".join(numbers)}</tr>'
    corner = f'<th scope="col" style="text-align:left;{_HEAD}">penalty</th>'
    header = f'<tr style="{_ROW}">{corner}{"".join(head)}</tr>'
    notes = "".join(f"<p>{escape(name)}: {escape(error)}</p>" for name, error in errors)
    table = f'<table cellpadding="4" style="{_TABLE}"><thead>{header}</thead><tbody>{body}</tbody></table>'
    return f'<div style="overflow-x:auto">{table}</div>{notes}'


def _columns_and_rows(report: Mapping[str, Any], wrt: str | None) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return the names of the columns, and the name and the cells of each row.

    Rows are pairs, not a dict: a penalty may be named "total".
    """
    base = [] if report["base_loss"] is None else [("base loss", report["base_loss"])]
    total = {"contribution": report["loss_total"], "grad_norm_weighted": report["total_grad_norm"]}
    rows = [*base, *report["regularizers"].items(), ("total", total)]
    has_norms = wrt is not None
    shown = [c for c in _COLUMNS if c not in _NORMS or has_norms or any(row.get(c) is not None for _, row in rows)]
    header = {"grad_norm": "grad norm" if wrt is None else f"grad norm ({printable(wrt)})"}
    columns = [header.get(c, c.replace("_", " ")) for c in shown]
    return columns, [
        (name, [_cell(row.get(c), "-" if c in _NORMS and c in row else "") for c in shown]) for name, row in rows
    ]


def _cell(value: float | None, missing: str) -> str:
    return missing if value is None else f"{value:z.6g}"


def _bars(values: list[float | None]) -> list[str]:
    """Draw a bar for each finite value, left of zero if it is negative. The largest magnitude fills the space."""
    finite = [0.0 if value is None or not math.isfinite(value) else value for value in values]
    largest = max(map(abs, finite), default=0.0)
    zero, room = (50, 50) if min(finite, default=0.0) < 0 else (0, 100)
    bars = []
    for value in finite:
        share = abs(value) / largest * room if largest > 0 else 0.0
        start, color = (zero, _POSITIVE) if value > 0 else (zero - share, _NEGATIVE)
        bar = f'<div style="{_BAR};left:{start:.4g}%;width:{share:.4g}%;{color}"></div>' if value else ""
        bars.append(f'<div style="{_TRACK}">{bar}<div style="{_BAR};left:{zero}%;{_ZERO}"></div></div>')
    return bars
