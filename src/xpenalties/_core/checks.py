"""Make checks of Python values from annotations.

`Literal[...]` accepts one of its names, `bool` a bool, `int` an integer, `float` a finite number. `Annotated[float,
Interval(low, high)]` accepts a number in the interval, `Annotated[int, AtLeast(low)]` an integer >= `low`, `AxisOrAxes`
an integer or a tuple of integers. `... | None` also accepts None. Any other annotation, such as `Any`, accepts
everything. No check reads the values of an array.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from .shown import shown
from .suggestions import did_you_mean

__all__ = [
    "FINITE",
    "NON_NEGATIVE",
    "POSITIVE",
    "POSITIVE_INTEGER",
    "TOO_LARGE",
    "AtLeast",
    "Axes",
    "AxisOrAxes",
    "Check",
    "Interval",
    "NonNegative",
    "NonNegativeInteger",
    "Positive",
    "PositiveInteger",
    "UnitInterval",
    "checks_of",
    "integer",
    "one_of",
    "check_argument",
    "number_in",
]

TOO_LARGE = 2**63  # the smallest integer that int64 cannot hold

Check = Callable[[str, Any], Any]  # takes the argument's name and value, returns the value to use


@dataclass(frozen=True)
class Interval:
    """Real numbers from `low` to `high`, both included. `low_open` excludes `low`; infinity is always excluded."""

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
    """Integers >= `low`."""

    low: int


class Axes:
    """An axis, or several: an integer, or a tuple of at least one."""


UnitInterval = Annotated[float, Interval(0, 1)]
NonNegative = Annotated[float, Interval(0, math.inf)]
Positive = Annotated[float, Interval(0, math.inf, low_open=True)]
PositiveInteger = Annotated[int, AtLeast(1)]
NonNegativeInteger = Annotated[int, AtLeast(0)]
AxisOrAxes = Annotated[int | tuple[int, ...], Axes()]


def number_in(interval: Interval) -> Check:
    """Make a check for a number in `interval`. It returns a Python float; a NumPy scalar would widen other dtypes."""

    def check(name: str, value: Any) -> float:
        if type(value) is not float:
            if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
                value = value.item()
            if isinstance(value, bool) or not isinstance(value, Real):
                got = type(value).__qualname__
                raise TypeError(f"`{name}` must be a number in {interval}, got {got}. Pass a Python float.")
            value = _float(value)
        if value not in interval:
            raise ValueError(f"`{name}` must be in {interval}, got {shown(value)}.")
        return value

    return check


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer too large for a float
        return math.inf if value > 0 else -math.inf


def one_of(valid: tuple[str, ...]) -> Check:
    """Make a check that a value is one of the names in `valid`."""

    def check(name: str, value: Any) -> Any:
        if isinstance(value, str) and value in valid:
            return value
        kind, hint = (ValueError, did_you_mean(value, valid)) if isinstance(value, str) else (TypeError, "")
        raise kind(f"`{name}` must be one of {', '.join(map(repr, valid))}, got {shown(value)}.{hint}")

    return check


def check_argument(caller: str, check: Check, name: str, value: Any) -> Any:
    """Check the value of one argument. Errors begin with `caller`."""
    try:
        return check(name, value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{caller}: {error}") from None


def integer(least: AtLeast | None = None) -> Check:
    """Make a check for an integer, with an optional lower bound. The check returns a Python int."""

    def check(name: str, value: Any) -> int:
        try:
            if isinstance(value, bool):
                raise TypeError
            number = operator.index(value)
        except TypeError:
            raise TypeError(f"`{name}` must be an integer, got {shown(value)}. Pass a Python int.") from None
        if not -TOO_LARGE < number < TOO_LARGE:  # the message gives bits: Python refuses to print thousands of digits
            raise ValueError(f"`{name}` must be below 2**63, got an integer of {number.bit_length()} bits.")
        if least is not None and number < least.low:
            raise ValueError(f"`{name}` must be at least {least.low}, got {number}.")
        return number

    return check


FINITE = number_in(Interval(-math.inf, math.inf))
POSITIVE = number_in(Interval(0, math.inf, low_open=True))
NON_NEGATIVE = number_in(Interval(0, math.inf))
_INTEGER = integer()
POSITIVE_INTEGER = integer(AtLeast(1))


def checks_of(function: Callable[..., Any], names: Iterable[str]) -> dict[str, Check]:
    """Make a check for each argument in `names`, from its annotation in `function`."""
    hints = get_type_hints(function, include_extras=True)
    return {name: _check_of(hints[name]) for name in names}


def _check_of(hint: Any) -> Check:
    if get_origin(hint) in (Union, UnionType) and NoneType in get_args(hint):
        inner = _check_of(Union[tuple(arg for arg in get_args(hint) if arg is not NoneType)])  # noqa: UP007
        return lambda name, value: None if value is None else inner(name, value)
    if get_origin(hint) is Literal:
        return one_of(get_args(hint))
    if get_origin(hint) is Annotated:
        (domain,) = hint.__metadata__
        if isinstance(domain, Axes):
            return _axes
        return integer(domain) if isinstance(domain, AtLeast) else number_in(domain)
    if hint is float:
        return FINITE
    if hint is bool:
        return _boolean
    if hint is int:
        return integer()
    return lambda name, value: value


def _axes(name: str, value: Any) -> int | tuple[int, ...]:
    if not isinstance(value, (tuple, list)):
        return _INTEGER(name, value)
    if not value:
        raise ValueError(f"`{name}` must have an axis, got none. Name one.")
    return tuple(_INTEGER(name, axis) for axis in value)


def _boolean(name: str, value: Any) -> Any:
    if not isinstance(value, bool):
        raise TypeError(f"`{name}` must be True or False, got {shown(value)}. Pass a Python bool.")
    return value
