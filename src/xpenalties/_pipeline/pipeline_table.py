"""A pipeline as a table with one row for each penalty: text of at most 100 columns, or HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .._core.registry import name_of
from .._core.shown import function_name, shorten, shown, shown_function
from .._core.terminal_text import printable, table
from .._penalties.spec import spec_of
from ..trees._over_tree import OverTree
from .penalty import Penalty

__all__ = ["as_html", "as_text", "title_of"]

_COLUMNS = ("name", "penalty", "weight", "inputs", "options")
_LONGEST = 60  # characters of the value of one option
_SETTINGS = {"every": 1, "enabled": True, "differentiable": True, "timeout": None, "on_error": None}

_TABLE = "border-collapse:collapse;color:inherit;text-align:left"
_HEAD = "text-align:left;background:none;border-bottom:1px solid currentColor"
_ROW = "background:none;color:inherit"
_CELL = "text-align:left;font-weight:normal;max-width:24em;overflow-wrap:anywhere"


def title_of(name: str) -> str:
    """Return the title of a pipeline's table."""
    return f"Pipeline {shown(name)}"


def as_text(title: str, penalties: Iterable[Penalty]) -> str:
    """Format penalties as text, under a title."""
    rows = _rows(penalties)
    return f"{printable(title)}\n\n{table(rows)}" if len(rows) > 1 else f"{printable(title)} without penalties"


def as_html(title: str, penalties: Iterable[Penalty]) -> str:
    """Format penalties as HTML, without scripts or links."""
    from html import escape

    head, *rows = _rows(penalties)
    header = "".join(f'<th scope="col" style="{_HEAD}">{name}</th>' for name in head)
    body = ""
    for name, *cells in rows:
        row = "".join(f'<td style="{_CELL}">{escape(cell)}</td>' for cell in cells)
        body += f'<tr style="{_ROW}"><th scope="row" style="{_CELL}">{escape(name)}</th>{row}</tr>'
    made = f'<table cellpadding="4" style="{_TABLE}"><thead><tr style="{_ROW}">{header}</tr></thead>'
    return f'<div style="overflow-x:auto"><p>{escape(title)}</p>{made}<tbody>{body}</tbody></table></div>'


def _rows(penalties: Iterable[Penalty]) -> list[tuple[str, ...]]:
    """Return the header and a row for each penalty. Without the column `penalty` if it would repeat the names."""
    rows: list[tuple[str, ...]] = [_COLUMNS]
    rows += [(p.name, _function(p.fn), _weight(p.weight), _inputs(p.inputs), _options(p)) for p in penalties]
    repeats = all(name == function for name, function, *_ in rows[1:])
    return [(name, *others) for name, _, *others in rows] if repeats else rows


def _function(fn: Any) -> str:
    if isinstance(fn, OverTree):
        return f"{_function(fn.fn)} over a tree"
    spec = spec_of(fn)
    return spec.name if spec else name_of(fn) or function_name(fn) or shown_function(fn)


def _weight(weight: Any) -> str:
    if callable(weight):
        return shown_function(weight)
    return f"{weight:.6g}" if isinstance(weight, (int, float)) else shown(weight)


def _inputs(inputs: Any) -> str:
    if inputs is None:
        return "all"
    if isinstance(inputs, str):
        return inputs
    if isinstance(inputs, Mapping):
        return ", ".join(f"{parameter}={_inputs(source)}" for parameter, source in inputs.items())
    return ", ".join(inputs) if isinstance(inputs, tuple) else shown_function(inputs)


def _options(penalty: Penalty) -> str:
    """Return patterns, options and all settings that are not the defaults, as in a call."""
    values = dict(penalty.options)
    if isinstance(penalty.fn, OverTree):
        values = {**penalty.fn.patterns.arguments(), **dict(penalty.fn.options), **values}
    for name, default in _SETTINGS.items():
        if getattr(penalty, name) != default:
            values[name] = getattr(penalty, name)
    return ", ".join(f"{name}={shorten(_value(value), _LONGEST)}" for name, value in values.items())


def _value(value: Any) -> str:
    return shown_function(value) if callable(value) else shown(value)
