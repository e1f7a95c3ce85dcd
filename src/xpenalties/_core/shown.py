"""Show a user's value in a message or a repr, even if it is too large to print, or if its `repr` fails."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from inspect import isroutine
from typing import Any

from .dynamo import in_dynamo

__all__ = ["LONGEST", "function_name", "listed", "shorten", "shown", "shown_function"]

LONGEST = 200  # characters


def shown(value: object) -> str:
    """Return the repr of a value, shortened if it is long."""
    if in_dynamo():  # pragma: no cover - coverage cannot see what Dynamo traces
        return f"{value!r}"
    try:
        return shorten(repr(value))
    except Exception:  # noqa: BLE001 - too many digits, too deeply nested, or an error in a user's own __repr__
        if isinstance(value, int):
            return f"an integer of {value.bit_length()} bits"
        return f"{type(value).__qualname__} that cannot be printed"


def function_name(fn: Any) -> str:
    """Return the name of a function, also of the one inside a functools.partial, or "" if it has none."""
    while isinstance(fn, partial):
        fn = fn.func
    name = getattr(fn, "__name__", "")
    return name if isinstance(name, str) else ""


def shown_function(fn: Any) -> str:
    """Return the name of a plain function or class, as in the source, or the repr of any other callable, on one line.

    If the repr has a blank line, such as a pipeline's table, return what is above that line.
    """
    if isinstance(fn, partial):
        arguments = [
            shown_function(fn.func),
            *map(shown, fn.args),
            *(f"{k}={shown(v)}" for k, v in fn.keywords.items()),
        ]
        return f"partial({', '.join(arguments)})"
    if isroutine(fn) or isinstance(fn, type):
        return function_name(fn)
    title, blank_line, _ = shown(fn).partition("\n\n")
    return title if blank_line else " ".join(title.split())


def listed(values: Iterable[object]) -> str:
    """Return the reprs of several values, such as the keys of a user's dict, or "none"."""
    return shorten(", ".join(map(shown, values)), 3 * LONGEST) or "none"


def shorten(text: str, longest: int = LONGEST) -> str:
    """Shorten a long text by cutting its middle."""
    return text if len(text) <= longest else f"{text[: longest // 2]} ... {text[-longest // 4 :]}"
