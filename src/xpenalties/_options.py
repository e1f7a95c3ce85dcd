"""Checks of the options that penalties take, read from the annotations of their signatures.

`Literal[...]` is one of the names, `bool` a bool, `int` an integer, `float` a finite number, and
`Annotated[float, Interval(low, high)]` a number in that range; `... | None` also None. An annotation that says nothing
more than `Any` leaves the check to the function. Only Python values are looked at, never an array's.
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from .backends import in_dynamo

__all__ = [
    "POSITIVE",
    "Interval",
    "NonNegative",
    "Positive",
    "UnitInterval",
    "checks_of",
    "member",
    "named",
    "nearest",
    "number",
    "positive_integer",
]

Check = Callable[[str, Any], Any]


@dataclass(frozen=True)
class Interval:
    """The real numbers from `low` to `high`; an infinite end is open."""

    low: float
    high: float
    low_open: bool = False

    def __str__(self) -> str:
        left = "(" if self.low_open or math.isinf(self.low) else "["
        return f"{left}{self.low:g}, {self.high:g}{')' if math.isinf(self.high) else ']'}"

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        return above and value <= self.high and -math.inf < value < math.inf


UnitInterval = Annotated[float, Interval(0, 1)]
NonNegative = Annotated[float, Interval(0, math.inf)]
Positive = Annotated[float, Interval(0, math.inf, low_open=True)]


def nearest(given: object, valid: Iterable[object]) -> str:
    """` Did you mean ...?`, or nothing where no name is near."""
    if in_dynamo():  # pragma: no cover - Dynamo's trace, which no coverage sees: test_compiled has its errors
        return ""
    names = [str(name) for name in valid]
    beginnings = [name for name in names if given and name.startswith(str(given))]
    close = beginnings or get_close_matches(str(given), names, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def number(interval: Interval) -> Check:
    """A check for a number in `interval`, which it makes a Python float: NumPy's scalars would widen what they meet."""

    def check(name: str, value: Any) -> float:
        if type(value) is not float:
            if isinstance(value, bool) or not isinstance(value, Real):
                got = type(value).__qualname__
                raise TypeError(f"`{name}` must be a number in {interval}, got {got}. Pass a Python float.")
            value = float(value)
        if value not in interval:
            raise ValueError(f"`{name}` must be in {interval}, got {value!r}.")
        return value

    return check


def member(valid: tuple[str, ...]) -> Check:
    """A check for one of the names `valid`."""

    def check(name: str, value: Any) -> Any:
        if isinstance(value, str) and value in valid:
            return value
        kind, hint = (ValueError, nearest(value, valid)) if isinstance(value, str) else (TypeError, "")
        raise kind(f"`{name}` must be one of {', '.join(map(repr, valid))}, got {value!r}.{hint}")

    return check


def named(caller: str, check: Check, name: str, value: Any) -> Any:
    """`value` as `check` returns it; its errors name `caller`."""
    try:
        return check(name, value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{caller}: {error}") from None


def positive_integer(caller: str, name: str, value: Any) -> int:
    """`value`, checked to be a Python integer of 1 at least."""
    found: int = named(caller, _integer, name, value)
    if found < 1:
        raise ValueError(f"{caller}: `{name}` must be 1 at least, got {found}.")
    return found


POSITIVE = number(Interval(0, math.inf, low_open=True))


def checks_of(function: Callable[..., Any]) -> dict[str, Check]:
    """A check for each keyword-only option of `function`, by name; it returns the value to use."""
    hints = get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    return {p.name: _check_of(hints[p.name]) for p in parameters if p.kind is p.KEYWORD_ONLY}


def _check_of(hint: Any) -> Check:
    if get_origin(hint) in (Union, UnionType) and NoneType in get_args(hint):
        inner = _check_of(Union[tuple(arg for arg in get_args(hint) if arg is not NoneType)])  # noqa: UP007
        return lambda name, value: None if value is None else inner(name, value)
    if get_origin(hint) is Literal:
        return member(get_args(hint))
    if get_origin(hint) is Annotated:
        return number(hint.__metadata__[0])
    if hint is float:
        return number(Interval(-math.inf, math.inf))
    if hint is bool:
        return _boolean
    if hint is int:
        return _integer
    return lambda name, value: value


def _boolean(name: str, value: Any) -> Any:
    if not isinstance(value, bool):
        raise TypeError(f"`{name}` must be True or False, got {value!r}. Pass a Python bool.")
    return value


def _integer(name: str, value: Any) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"`{name}` must be an integer, got {value!r}. Pass a Python int.") from None
