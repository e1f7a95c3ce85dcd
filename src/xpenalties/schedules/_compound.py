"""Schedules made of several parts: warmup, periods, and one schedule after another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from numbers import Real
from typing import Annotated, Any, Literal

from .._core.checks import (
    NON_NEGATIVE,
    AtLeast,
    Interval,
    NonNegative,
    NonNegativeInteger,
    PositiveInteger,
    check_argument,
    integer,
)
from .._core.shown import shown
from ._definition import At, schedule

__all__ = ["cyclic", "piecewise", "warmup"]

Value = NonNegative | Callable[[Any], Any]
Pieces = Mapping[int, Value] | Iterable[tuple[NonNegativeInteger, Value]]


def _value(caller: str, name: str, value: Any) -> Any:
    """Return a number >= 0 as a float, and a schedule as it is."""
    if callable(value) and not isinstance(value, Real):
        return value
    return check_argument(caller, NON_NEGATIVE, name, value)


def _prepare_warmup(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {**arguments, "after": _value("warmup", "after", arguments["after"])}


@schedule(prepare=_prepare_warmup)
def warmup(at: At, after: Value, *, steps: PositiveInteger, start: NonNegative = 0.0) -> Any:
    """Rise linearly to a number or to another schedule, which then begins.

    Parameters
    ----------
    after : float or callable
        The number >= 0, or the schedule, that follows. The schedule's step 0 is step `steps`.
    steps : int
        Number of steps of the rise, >= 1.
    start : float, default 0.0
        The value at step 0, >= 0.

    Returns
    -------
    Schedule

    Examples
    --------
    >>> weight = schedules.warmup(schedules.exponential(0.1, rate=0.5, steps=10), steps=100)
    >>> weight(50), weight(100), weight(110)
    (0.05, 0.1, 0.05)
    """
    ramp = at.interpolate(start, at.value(after, at.step * 0), at.progress(0, steps))
    return at.xp.where(at.is_before(steps), ramp, at.value(after, at.since(steps))) if at.reaches(steps) else ramp


@schedule()
def cyclic(
    at: At,
    low: NonNegative,
    high: NonNegative,
    *,
    period: PositiveInteger,
    rise: Annotated[float, Interval(0, 1, low_open=True)] = 0.5,
    then: Literal["fall", "hold"] = "fall",
    shape: Literal["linear", "cosine"] = "linear",
    begin: NonNegativeInteger = 0,
) -> Any:
    """Rise from a low value to a high one in every period.

    Parameters
    ----------
    low, high : float
        The values at the start of a period and after its rise, >= 0.
    period : int
        Number of steps in a period, >= 1.
    rise : float, default 0.5
        Fraction of the period in which the value rises from `low` to `high`, in (0, 1].
    then : {"fall", "hold"}, default "fall"
        After the rise, fall back to `low` until the end of the period, or hold `high`.
    shape : {"linear", "cosine"}, default "linear"
        A straight line, or half a cosine that is flat at both ends.
    begin : int, default 0
        First step of the first period, >= 0.

    Returns
    -------
    Schedule

    Notes
    -----
    ``then="hold"`` is the cyclical annealing of [1]_, "fall" the triangles of [2]_.

    References
    ----------
    .. [1] Fu et al., "Cyclical annealing schedule: a simple approach to mitigating KL vanishing", NAACL 2019.
    .. [2] Smith, "Cyclical learning rates for training neural networks", WACV 2017.

    Examples
    --------
    >>> weight = schedules.cyclic(0.0, 1.0, period=100, then="hold")
    >>> weight(25), weight(75), weight(100)
    (0.5, 1.0, 0.0)
    """
    phase = at.as_float(at.divided(at.since(begin), period)[1]) / float(period)
    after_rise = 1.0 if then == "hold" or rise == 1 else (1 - phase) / (1 - rise)
    height = at.xp.where(phase < rise, phase / rise, after_rise)
    return at.interpolate(low, high, height if shape == "linear" else at.half_cosine(height))


def _prepare_piecewise(arguments: Mapping[str, Any]) -> dict[str, Any]:
    pieces = arguments["pieces"]
    if not isinstance(pieces, (Mapping, Iterable)) or isinstance(pieces, str):
        raise TypeError(f"piecewise: `pieces` must map steps to values, got {shown(pieces)}. Pass a dict.")
    pairs = list(pieces.items() if isinstance(pieces, Mapping) else pieces)
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(f"piecewise: `pieces` must be pairs of step and value, got {shown(pair)}. Pass a dict.")
        if arguments["interpolate"] and callable(pair[1]):
            raise TypeError(
                f"piecewise: `pieces` must be numbers to interpolate, got a schedule at step {pair[0]}. Leave out "
                "`interpolate`."
            )
    steps = [check_argument("piecewise", integer(AtLeast(0)), "pieces", step) for step, _ in pairs]
    if not steps or steps[0] != 0 or any(a >= b for a, b in pairwise(steps)):
        raise ValueError(f"piecewise: `pieces` must begin at step 0 and go up, got steps {steps}. Sort them.")
    values = [_value("piecewise", "pieces", value) for _, value in pairs]
    return {**arguments, "pieces": tuple(zip(steps, values, strict=True))}


@schedule(prepare=_prepare_piecewise)
def piecewise(at: At, pieces: Pieces, *, interpolate: bool = False) -> Any:
    """Use one value or schedule after another.

    Parameters
    ----------
    pieces : mapping of int to float or callable, or pairs of them
        Steps, and what applies from each step on: a number >= 0, or a schedule, whose step 0 is that step. The first
        step must be 0.
    interpolate : bool, default False
        Interpolate linearly between the numbers. After the last step, the last number applies.

    Returns
    -------
    Schedule

    Examples
    --------
    >>> weight = schedules.piecewise({0: 0.0, 100: schedules.linear(0.0, 0.1, steps=100), 500: 0.2})
    >>> weight(99), weight(150), weight(500)
    (0.0, 0.05, 0.2)
    >>> schedules.piecewise({0: 0.0, 100: 0.1}, interpolate=True)(50)
    0.05
    """
    pairs: Any = pieces  # pairs of step and value, from `_prepare_piecewise`
    value = at.value(pairs[0][1], at.since(0))
    if interpolate:
        for (begin, before), (end, after) in pairwise(pairs):
            if at.reaches(begin):
                line = at.interpolate(before, after, at.progress(begin, end - begin))
                value = at.xp.where(at.is_before(begin), value, line)
        return value
    for begin, piece in pairs[1:]:
        if at.reaches(begin):
            value = at.xp.where(at.is_before(begin), value, at.value(piece, at.since(begin)))
    return value
