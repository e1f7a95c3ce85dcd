"""Check a configuration's data. Errors begin with the place, such as "a.toml: penalties[1].weight"."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..._core.checks import did_you_mean

__all__ = ["check_keys", "checked_name", "checked_scalar", "checked_string", "checked_table", "errors_at"]

_SCALARS = (bool, int, float, str, type(None))


@contextmanager
def errors_at(place: str) -> Iterator[None]:
    """Prefix the messages of TypeErrors and ValueErrors with the place."""
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{place}: {error}") from None


def checked_table(place: str, value: Any) -> Mapping[str, Any]:
    """Return `value` if it is a table."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{place}: must be a table, got {value!r}. Write keys with values.")
    return value


def checked_string(place: str, value: Any) -> str:
    """Return `value` if it is a string."""
    if not isinstance(value, str):
        raise TypeError(f"{place}: must be a string, got {value!r}. Put it in quotes.")
    return value


def checked_scalar(place: str, value: Any) -> Any:
    """Return `value` if it is a finite number, a string, a boolean or None."""
    if not isinstance(value, _SCALARS):
        raise TypeError(
            f"{place}: must be a number, a string or a boolean, got {value!r}. Set anything else in a registered "
            "function."
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{place}: must be finite, got {value!r}. Write a finite number.")
    return value


def checked_name(place: str, value: Any, kind: str, names: Iterable[str]) -> str:
    """Return `value` if it is one of `names`: all penalties, schedules or functions, as `kind` says."""
    names = tuple(names)
    if checked_string(place, value) not in names:
        listed = f"there are {', '.join(names)}" if names else "none is registered"
        hint = did_you_mean(value, names) or f" Register your own {kind} first, with `register`."
        raise ValueError(f"{place}: no {kind} is named {value!r}, {listed}.{hint}")
    return value


def check_keys(place: str, table: Mapping[str, Any], keys: Iterable[str], *required: str) -> None:
    """Raise if `table` has a key other than `keys`, or lacks a required one."""
    keys = tuple(keys)
    for key in table:
        if key not in keys:
            listed = ", ".join(keys) or "none"
            raise ValueError(f"{place}: unknown key {key!r}, the keys are {listed}.{did_you_mean(key, keys)}")
    for key in required:
        if key not in table:
            raise ValueError(f"{place}: `{key}` is missing. Add it.")
