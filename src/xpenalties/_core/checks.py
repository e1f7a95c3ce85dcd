"""Checks of the options that penalties take, read from the annotations of their signatures.

`Literal[...]` is one of the names, `bool` a bool, `int` an integer, `float` a finite number,
`Annotated[float, Interval(low, high)]` a number in that range, `Annotated[int, AtLeast(low)]` an integer from there on;
`... | None` also None. An annotation that says nothing more than `Any` leaves the check to the function. Only Python
values are looked at, never an array's.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from .dynamo import in_dynamo

__all__ = [
    "FINITE",
    "NON_NEGATIVE",
    "POSITIVE",
    "POSITIVE_INTEGER",
    "AtLeast",
    "Interval",
    "NonNegative",
    "NonNegativeInteger",
    "Positive",
    "PositiveInteger",
    "UnitInterval",
    "checks_of",
    "integer",
    "member",
    "named",
    "nearest",
    "number",
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


@dataclass(frozen=True)
class AtLeast:
    """The integers from `low` on."""

    low: int


UnitInterval = Annotated[float, Interval(0, 1)]
NonNegative = Annotated[float, Interval(0, math.inf)]
Positive = Annotated[float, Interval(0, math.inf, low_open=True)]
PositiveInteger = Annotated[int, AtLeast(1)]
NonNegativeInteger = Annotated[int, AtLeast(0)]


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
            value = _float(value)
        if value not in interval:
            raise ValueError(f"`{name}` must be in {interval}, got {value!r}.")
        return value

    return check


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of more digits than a float has
        return math.inf if value > 0 else -math.inf


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


def integer(least: AtLeast | None = None) -> Check:
    """A check for a Python integer, not below `least`."""

    def check(name: str, value: Any) -> int:
        try:
            if isinstance(value, bool):
                raise TypeError
            found = operator.index(value)
        except TypeError:
            raise TypeError(f"`{name}` must be an integer, got {value!r}. Pass a Python int.") from None
        if least is not None and found < least.low:
            raise ValueError(f"`{name}` must be {least.low} at least, got {found}.")
        return found

    return check


FINITE = number(Interval(-math.inf, math.inf))
POSITIVE = number(Interval(0, math.inf, low_open=True))
NON_NEGATIVE = number(Interval(0, math.inf))
POSITIVE_INTEGER = integer(AtLeast(1))


def checks_of(function: Callable[..., Any], names: Iterable[str]) -> dict[str, Check]:
    """A check for each of the arguments `names` of `function`; it returns the value to use."""
    hints = get_type_hints(function, include_extras=True)
    return {name: _check_of(hints[name]) for name in names}


def _check_of(hint: Any) -> Check:
    if get_origin(hint) in (Union, UnionType) and NoneType in get_args(hint):
        inner = _check_of(Union[tuple(arg for arg in get_args(hint) if arg is not NoneType)])  # noqa: UP007
        return lambda name, value: None if value is None else inner(name, value)
    if get_origin(hint) is Literal:
        return member(get_args(hint))
    if get_origin(hint) is Annotated:
        (domain,) = hint.__metadata__
        return integer(domain) if isinstance(domain, AtLeast) else number(domain)
    if hint is float:
        return FINITE
    if hint is bool:
        return _boolean
    if hint is int:
        return integer()
    return lambda name, value: value


def _boolean(name: str, value: Any) -> Any:
    if not isinstance(value, bool):
        raise TypeError(f"`{name}` must be True or False, got {value!r}. Pass a Python bool.")
    return value
