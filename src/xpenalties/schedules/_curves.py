"""Schedules: weights that change over a training run.

A schedule is any pure callable of the step, so those of Optax are schedules too. These take Python numbers, which give
floats, and 0-d arrays of any framework, traced ones too, which give 0-d arrays of its default floating dtype. All are
constant before their first step and after their last. Steps count from 0::

    Penalty("kl_divergence", weight=warmup(0.1, steps=1000))
"""

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
    integer,
    named,
)
from ._definition import At, Schedule, schedule

Value = NonNegative | Callable[[Any], Any]
Pieces = Mapping[int, Value] | Iterable[tuple[NonNegativeInteger, Value]]

__all__ = ["Schedule", "constant", "linear", "warmup", "exponential", "cosine", "cyclic", "piecewise"]


@schedule()
def constant(at: At, value: NonNegative) -> Any:
    """The same value at each step.

    Parameters
    ----------
    value : float
        >= 0, as all values of schedules.

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
    """From one value to another in a straight line.

    Parameters
    ----------
    start, end : float
        The values up to step `begin`, and from step ``begin + steps`` on; >= 0.
    steps : int
        How long it takes, >= 1.
    begin : int, default 0
        The step that it begins at, >= 0.

    Returns
    -------
    Schedule

    Examples
    --------
    >>> weight = schedules.linear(0.0, 0.1, steps=1000)
    >>> weight(0), weight(500), weight(2000)
    (0.0, 0.05, 0.1)
    """
    return at.between(start, end, at.share(begin, steps))


def _value(caller: str, name: str, value: Any) -> Any:
    """A number >= 0 as a float; a schedule as it is."""
    if callable(value) and not isinstance(value, Real):
        return value
    return named(caller, NON_NEGATIVE, name, value)


def _prepare_warmup(given: Mapping[str, Any]) -> dict[str, Any]:
    return {**given, "after": _value("warmup", "after", given["after"])}


@schedule(prepare=_prepare_warmup)
def warmup(at: At, after: Value, *, steps: PositiveInteger, start: NonNegative = 0.0) -> Any:
    """In a straight line up to another schedule, which then begins.

    Parameters
    ----------
    after : float or callable
        What comes after: a number >= 0, or a schedule, whose step 0 is step `steps`.
    steps : int
        How long the line is, >= 1.
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
    ramp = at.between(start, at.value(after, at.step * 0), at.share(0, steps))
    return at.xp.where(at.step < steps, ramp, at.value(after, at.since(steps)))


def _prepare_exponential(given: Mapping[str, Any]) -> dict[str, Any]:
    start, rate, end = given["start"], given["rate"], given["end"]
    if rate > 1 and end is None:
        raise ValueError(f"exponential: `rate` must be in (0, 1] without an `end`, got {rate!r}. Pass `end`.")
    if end is not None and ((end > start) if rate <= 1 else (end < start or start == 0)):
        raise ValueError(
            f"exponential: `end` must be reached from `start`, got {end!r} from {start!r} at `rate` {rate!r}. A rate "
            "above 1 grows, one below 1 decays."
        )
    return dict(given)


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
    """Multiplied by a rate every so many steps.

    ``start * rate ** ((step - begin) / steps)``.

    Parameters
    ----------
    start : float
        The value up to step `begin`, >= 0.
    rate : float
        The factor, > 0; above 1 only with an `end`.
    steps : int, default 1
        The steps that one factor takes, >= 1.
    begin : int, default 0
        The step that it begins at, >= 0.
    staircase : bool, default False
        Whether the factor comes at once, at the end of its steps.
    end : float, optional
        Where to stop, >= 0.

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
    factors = at.number(since // steps) if staircase else at.number(since) / steps
    most = math.inf if end is None or rate == 1 else _factors(start, end, rate)
    if end is None or most == math.inf:
        return start * at.power(rate, factors)
    within = start * at.power(rate, at.xp.where(factors < most, factors, most))  # which does not overflow
    return at.xp.where(factors < most, within, end)


def _factors(start: float, end: float, rate: float) -> float:
    """How many factors lead from `start` to `end`."""
    if start == 0 or end == 0:
        return math.inf
    return (math.log(end) - math.log(start)) / math.log(rate)  # a quotient may be 0


@schedule()
def cosine(
    at: At, start: NonNegative, end: NonNegative = 0.0, *, steps: PositiveInteger, begin: NonNegativeInteger = 0
) -> Any:
    """From one value to another along half a cosine, flat at both ends.

    Parameters
    ----------
    start : float
        The value up to step `begin`, >= 0.
    end : float, default 0.0
        The value from step ``begin + steps`` on, >= 0.
    steps : int
        How long it takes, >= 1.
    begin : int, default 0
        The step that it begins at, >= 0.

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
    return at.between(start, end, _flat(at, at.share(begin, steps)))


def _flat(at: At, share: Any) -> Any:
    """From 0 to 1 along half a cosine."""
    return 0.5 - 0.5 * at.xp.cos(math.pi * share)


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
    """From a low value to a high one, again and again.

    Parameters
    ----------
    low, high : float
        The values in the beginning of a period, and after its rise; >= 0.
    period : int
        How many steps a period has, >= 1.
    rise : float, default 0.5
        The share of a period that the way from `low` to `high` takes, in (0, 1].
    then : {"fall", "hold"}, default "fall"
        Go back to `low`, in what is left of the period, or stay at `high` until the next one begins.
    shape : {"linear", "cosine"}, default "linear"
        A straight line, or half a cosine, flat at both ends.
    begin : int, default 0
        The step of the first period, >= 0.

    Returns
    -------
    Schedule

    Notes
    -----
    With ``then="hold"`` the cyclical annealing of [1]_, with "fall" the triangles of [2]_.

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
    phase = at.number(at.since(begin) % period) / period
    after = 1.0 if then == "hold" or rise == 1 else (1 - phase) / (1 - rise)
    share = at.xp.where(phase < rise, phase / rise, after)
    return at.between(low, high, share if shape == "linear" else _flat(at, share))


def _prepare_piecewise(given: Mapping[str, Any]) -> dict[str, Any]:
    pieces = given["pieces"]
    if not isinstance(pieces, (Mapping, Iterable)) or isinstance(pieces, str):
        raise TypeError(f"piecewise: `pieces` must map steps to values, got {pieces!r}. Pass a dict.")
    pairs = list(pieces.items() if isinstance(pieces, Mapping) else pieces)
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(f"piecewise: `pieces` must be pairs of step and value, got {pair!r}. Pass a dict.")
        if given["interpolate"] and callable(pair[1]):
            raise TypeError(
                f"piecewise: `pieces` must be numbers to interpolate, got a schedule at step {pair[0]}. Leave out "
                "`interpolate`."
            )
    steps = [named("piecewise", integer(AtLeast(0)), "pieces", step) for step, _ in pairs]
    if not steps or steps[0] != 0 or any(a >= b for a, b in pairwise(steps)):
        raise ValueError(f"piecewise: `pieces` must begin at step 0 and go up, got steps {steps}. Sort them.")
    return {
        **given,
        "pieces": tuple(
            (step, _value("piecewise", "pieces", value)) for step, (_, value) in zip(steps, pairs, strict=True)
        ),
    }


@schedule(prepare=_prepare_piecewise)
def piecewise(at: At, pieces: Pieces, *, interpolate: bool = False) -> Any:
    """One value, or schedule, after the other.

    Parameters
    ----------
    pieces : mapping of int to float or callable, or pairs of them
        What holds from which step on: numbers >= 0, or schedules, whose step 0 is that step. The first step is 0.
    interpolate : bool, default False
        Whether to go from number to number in straight lines. The last one stays.

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
    pairs: Any = pieces  # as `_prepare_piecewise` left them
    value = at.value(pairs[0][1], at.since(0))
    if interpolate:
        for (begin, before), (end, after) in pairwise(pairs):
            value = at.xp.where(at.step < begin, value, at.between(before, after, at.share(begin, end - begin)))
        return value
    for begin, piece in pairs[1:]:
        value = at.xp.where(at.step < begin, value, at.value(piece, at.since(begin)))
    return value
