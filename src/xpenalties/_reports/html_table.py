"""A report as an HTML table with bars, for light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from .table import aligned, columns_and_rows

__all__ = ["as_html"]

# Text and lines have the page's color, bars a color of medium lightness: legible on white and on black.
_TABLE = "border-collapse:collapse;color:inherit;text-align:right;font-variant-numeric:tabular-nums"
_HEAD = "background:none;border-bottom:1px solid currentColor"
_ROW = "background:none;color:inherit"
_NAME = "text-align:left;font-weight:normal;min-width:6em;max-width:24em;overflow-wrap:anywhere"
_NUMBER = "white-space:pre"  # keeps the spaces that align the points
_TRACK = "position:relative;width:8em;height:0.8em"
_BAR = "position:absolute;top:0;bottom:0"
_ZERO = "width:0;border-left:1px solid currentColor"
_POSITIVE, _NEGATIVE = "background:rgba(42,127,196,0.8)", "background:rgba(213,94,0,0.8)"


def as_html(report: Mapping[str, Any], errors: Iterable[tuple[str, str]], wrt: str | None) -> str:
    """Format what `Report.to_dict` returns as HTML, with a bar for each contribution, without scripts or links.

    The bars are next to the names, so that a narrow screen shows them and scrolls the numbers.
    """
    columns, rows = columns_and_rows(report, wrt)
    cells = zip(*(map(_spaced, aligned(column)) for column in zip(*(c for _, c in rows), strict=True)), strict=True)
    base = report["base_loss"]
    values = [] if base is None else [base["value"]]
    values += [penalty["contribution"] for penalty in report["regularizers"].values()]
    bars = [*_bars(values), ""]  # none for the total
    head = [f'<th scope="col" style="{_HEAD}">{escape(column)}</th>' for column in columns]
    corner = f'<th scope="col" style="text-align:left;{_HEAD}">penalty</th><td aria-hidden="true" style="{_HEAD}"></td>'
    body = ""
    for (name, _), row, bar in zip(rows, cells, bars, strict=True):
        numbers = "".join(f'<td style="{_NUMBER}">{cell}</td>' for cell in row)
        label = f'<th scope="row" style="{_NAME}">{escape(name)}</th><td aria-hidden="true">{bar}</td>'
        body += f'<tr style="{_ROW}">{label}{numbers}</tr>'
    header = f'<tr style="{_ROW}">{corner}{"".join(head)}</tr>'
    notes = "".join(f"<p>{escape(name)}: {escape(error)}</p>" for name, error in errors)
    table = f'<table cellpadding="4" style="{_TABLE}"><thead>{header}</thead><tbody>{body}</tbody></table>'
    return f'<div style="overflow-x:auto">{table}</div>{notes}'


def _spaced(cell: str) -> str:
    """Replace the spaces at the end by spaces that are as wide as the point and the digits in other rows."""
    text = cell.rstrip(" ")
    missing = len(cell) - len(text)
    point = "\u2008" if missing and "." not in text else ""
    return text + point + "\u2007" * (missing - len(point))


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
