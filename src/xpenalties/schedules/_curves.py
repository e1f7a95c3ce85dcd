"""The formulas of the schedules, for steps that are numbers or arrays."""

from __future__ import annotations

import math
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
    Positive,
    PositiveInteger,
    check_argument,
    integer,
)
from ._definition import At, Schedule, schedule

Value = NonNegative | Callable[[Any], Any]
Pieces = Mapping[int, Value] | Iterable[tuple[NonNegativeInteger, Value]]

__all__ = ["Schedule", "constant", "linear", "warmup", "exponential", "cosine", "cyclic", "piecewise"]


@schedule()
def constant(at: At, value: NonNegative) -> Any:
    """Return the same value at every step.

    Parameters
    ----------
    value : float
        >= 0, like all values of schedules.

    Returns
    -------
    Schedule

    Examples
    --------
    >>> schedules.constant(0.1)(1000)
    0.1
    """
    return at.value(value, at.step)


@schedule()
def linear(
    at: At, start: NonNegative, end: NonNegative, *, steps: PositiveInteger, begin: NonNegativeInteger = 0
) -> Any:
    """Go from one value to another in a straight line.

    Parameters
    ----------
    start, end : float
        The values up to step `begin`, and from step ``begin + steps`` on; >= 0.
    steps : int
        Number of steps between the two values, >= 1.
    begin : int, default 0
        First step of the change, >= 0.

    Returns
    -------
    Schedule

    Examples
    --------
    >>> weight = schedules.linear(0.0, 0.1, steps=1000)
    >>> weight(0), weight(500), weight(2000)
    (0.0, 0.05, 0.1)
    """
    return at.interpolate(start, end, at.progress(begin, steps))


def _value(caller: str, name: str, value: Any) -> Any:
    """Return a number >= 0 as a float, and a schedule as it is."""
    if callable(value) and not isinstance(value, Real):
        return value
    return check_argument(caller, NON_NEGATIVE, name, value)


def _prepare_warmup(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {**arguments, "after": _value("warmup", "after", arguments["after"])}


@schedule(prepare=_prepare_warmup)
def warmup(at: At, after: Value, *, steps: PositiveInteger, start: NonNegative = 0.0) -> Any:
    """Go up in a straight line to a number or to another schedule, which then begins.

    Parameters
    ----------
    after : float or callable
        The number >= 0, or the schedule, after the line. The schedule's step 0 is step `steps`.
    steps : int
        Number of steps in the line, >= 1.
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
    return at.xp.where(at.step < steps, ramp, at.value(after, at.since(steps)))


def _prepare_exponential(arguments: Mapping[str, Any]) -> dict[str, Any]:
    start, rate, end = arguments["start"], arguments["rate"], arguments["end"]
    if rate > 1 and end is None:
        raise ValueError(f"exponential: `rate` must be in (0, 1] without an `end`, got {rate!r}. Pass `end`.")
    if end is not None and ((end > start) if rate <= 1 else (end < start or start == 0)):
        raise ValueError(
            f"exponential: `end` must be reached from `start`, got {end!r} from {start!r} at `rate` {rate!r}. A rate "
            "above 1 grows, one below 1 decays."
        )
    return dict(arguments)


@schedule(prepare=_prepare_exponential)
def exponential(
    at: At,
    start: NonNegative,
    *,
    rate: Positive,
    steps: PositiveInteger = 1,
    begin: NonNegativeInteger = 0,
    staircase: bool = False,
    end: NonNegative | None = None,
) -> Any:
    """Multiply the value by `rate` every `steps` steps.

    ``start * rate ** ((step - begin) / steps)``.

    Parameters
    ----------
    start : float
        The value up to step `begin`, >= 0.
    rate : float
        The factor, > 0. Above 1, `end` is required.
    steps : int, default 1
        Number of steps for one factor, >= 1.
    begin : int, default 0
        First step of the change, >= 0.
    staircase : bool, default False
        Change only every `steps` steps, by a whole factor, instead of a little at each step.
    end : float, optional
        The value to stop at, >= 0.

    Returns
    -------
    Schedule

    Examples
    --------
    >>> weight = schedules.exponential(0.8, rate=0.5, steps=100, end=0.3)
    >>> weight(0), weight(100), weight(200)
    (0.8, 0.4, 0.3)
    """
    since = at.since(begin)
    factors = at.as_float(since // steps) if staircase else at.as_float(since) / steps
    limit = math.inf if end is None or rate == 1 else _factors_between(start, end, rate)
    if end is None or limit == math.inf:
        return start * at.power(rate, factors)
    value = start * at.power(rate, at.xp.where(factors < limit, factors, limit))  # cannot overflow
    return at.xp.where(factors < limit, value, end)


def _factors_between(start: float, end: float, rate: float) -> float:
    """Return how many factors of `rate` lead from `start` to `end`."""
    if start == 0 or end == 0:
        return math.inf
    return (math.log(end) - math.log(start)) / math.log(rate)  # the quotient end / start may underflow to 0


@schedule()
def cosine(
    at: At, start: NonNegative, end: NonNegative = 0.0, *, steps: PositiveInteger, begin: NonNegativeInteger = 0
) -> Any:
    """Go from one value to another along half a cosine, flat at both ends.

    Parameters
    ----------
    start : float
        The value up to step `begin`, >= 0.
    end : float, default 0.0
        The value from step ``begin + steps`` on, >= 0.
    steps : int
        Number of steps between the two values, >= 1.
    begin : int, default 0
        First step of the change, >= 0.

    Returns
    -------
    Schedule

    References
    ----------
    .. [1] Loshchilov & Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017.

    Examples
    --------
    >>> weight = schedules.cosine(0.1, steps=1000)
    >>> weight(0), weight(500), weight(1000)
    (0.1, 0.05, 0.0)
    """
    return at.interpolate(start, end, _half_cosine(at, at.progress(begin, steps)))


def _half_cosine(at: At, progress: Any) -> Any:
    """Map [0, 1] to [0, 1] along half a cosine."""
    return 0.5 - 0.5 * at.xp.cos(math.pi * progress)


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
    """Go from a low value to a high one in every period.

    Parameters
    ----------
    low, high : float
        The values at the start of a period and after its rise, >= 0.
    period : int
        Number of steps in a period, >= 1.
    rise : float, default 0.5
        Share of the period in which the value goes from `low` to `high`, in (0, 1].
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
    phase = at.as_float(at.since(begin) % period) / period
    after_rise = 1.0 if then == "hold" or rise == 1 else (1 - phase) / (1 - rise)
    height = at.xp.where(phase < rise, phase / rise, after_rise)
    return at.interpolate(low, high, height if shape == "linear" else _half_cosine(at, height))


def _prepare_piecewise(arguments: Mapping[str, Any]) -> dict[str, Any]:
    pieces = arguments["pieces"]
    if not isinstance(pieces, (Mapping, Iterable)) or isinstance(pieces, str):
        raise TypeError(f"piecewise: `pieces` must map steps to values, got {pieces!r}. Pass a dict.")
    pairs = list(pieces.items() if isinstance(pieces, Mapping) else pieces)
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(f"piecewise: `pieces` must be pairs of step and value, got {pair!r}. Pass a dict.")
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
        Steps, and what applies from each of them on: a number >= 0, or a schedule, whose step 0 is that step. The first
        step must be 0.
    interpolate : bool, default False
        Go from number to number in straight lines. After the last step, the last number applies.

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
            value = at.xp.where(at.step < begin, value, at.interpolate(before, after, at.progress(begin, end - begin)))
        return value
    for begin, piece in pairs[1:]:
        value = at.xp.where(at.step < begin, value, at.value(piece, at.since(begin)))
    return value
