"""Check a configuration's data. Errors begin with the place, such as "a.toml: penalties[1].weight"."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..._core.checks import TOO_LARGE
from ..._core.shown import shorten, shown
from ..._core.suggestions import did_you_mean

__all__ = [
    "Hint",
    "Mistakes",
    "check_keys",
    "checked_name",
    "checked_scalar",
    "checked_string",
    "checked_table",
    "errors_at",
    "key_errors",
    "not_too_deep",
    "place_of_key",
]

Hint = Callable[[Any, tuple[str, ...]], str]

_SCALARS = (bool, int, float, str, type(None))


def _no_hint(key: Any, keys: tuple[str, ...]) -> str:
    return ""


@contextmanager
def errors_at(place: str) -> Iterator[None]:
    """Prefix the messages of TypeErrors and ValueErrors with the place."""
    with not_too_deep(place):
        try:
            yield
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{place}: {shorten(str(error), 2000)}") from None


@contextmanager
def not_too_deep(place: str) -> Iterator[None]:
    """Raise a ValueError that names the place if the data there is nested too deeply."""
    try:
        yield
    except RecursionError:
        raise ValueError(f"{place}: must not be nested this deeply. Use fewer levels.") from None


def place_of_key(place: str, key: Any) -> str:
    """Return the place of a key inside the table at `place`."""
    return f"{place}.{shorten(key) if isinstance(key, str) else shown(key)}"


def checked_table(place: str, value: Any) -> Mapping[str, Any]:
    """Return `value` if it is a table."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{place}: must be a table, got {shown(value)}. Write keys with values.")
    return value


def checked_string(place: str, value: Any) -> str:
    """Return `value` if it is a string."""
    if not isinstance(value, str):
        raise TypeError(f"{place}: must be a string, got {shown(value)}. Put it in quotes.")
    return value


def checked_scalar(place: str, value: Any) -> Any:
    """Return `value` if it is a finite number, a string, a boolean or None."""
    if not isinstance(value, _SCALARS):
        raise TypeError(
            f"{place}: must be a number, a string or a boolean, got {shown(value)}. Set anything else in a registered "
            "function."
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{place}: must be finite, got {value!r}. Write a finite number.")
    if isinstance(value, int) and not -TOO_LARGE < value < TOO_LARGE:  # TOML has no larger integers
        raise ValueError(f"{place}: must be below 2**63, got an integer of {value.bit_length()} bits.")
    return value


def checked_name(place: str, value: Any, kind: str, names: Iterable[str]) -> str:
    """Return `value` if it is one of `names`: all penalties, schedules or functions, as `kind` says."""
    names = tuple(names)
    if checked_string(place, value) not in names:
        listed = f"The names are {', '.join(names)}" if names else "None is registered"
        hint = did_you_mean(value, names) or f" Register your own {kind} first, with `register`."
        raise ValueError(f"{place}: no {kind} is named {shown(value)}. {listed}.{hint}")
    return value


def check_keys(
    place: str, table: Mapping[str, Any], keys: Iterable[str], *required: str, hint: Hint = _no_hint
) -> None:
    """Raise if `table` has a key other than `keys`, or lacks a required one."""
    errors = key_errors(place, table, keys, *required, hint=hint)
    if errors:
        raise errors[0]


def key_errors(
    place: str, table: Mapping[str, Any], keys: Iterable[str], *required: str, hint: Hint = _no_hint
) -> list[Exception]:
    """Return an error for each key of `table` that is not one of `keys`, and for each required key that it lacks.

    `hint` takes an unknown key and the valid ones. It returns where the key belongs, or an empty string.
    """
    keys = tuple(keys)
    listed = ", ".join(keys) or "none"
    unknown: list[Exception] = [
        ValueError(
            f"{place}: unknown key {shown(key)}. The keys are {listed}.{hint(key, keys) or did_you_mean(key, keys)}"
        )
        for key in table
        if key not in keys
    ]
    return unknown + [ValueError(f"{place}: `{key}` is missing. Add it.") for key in required if key not in table]


class Mistakes:
    """The errors of a configuration in the order of its keys, so that all of them can be reported at once."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Add the TypeError or ValueError that the block raises."""
        try:
            yield
        except (TypeError, ValueError) as error:
            self.add([error])

    def add(self, errors: Iterable[Exception]) -> None:
        """Add errors, each message once."""
        said = {str(error) for error in self.errors}
        for error in errors:
            if str(error) not in said:
                said.add(str(error))
                self.errors.append(error)
