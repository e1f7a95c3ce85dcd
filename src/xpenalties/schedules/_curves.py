"""Schedules that follow one curve, for steps that are numbers or arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .._core.checks import NonNegative, NonNegativeInteger, Positive, PositiveInteger
from ._definition import At, schedule

__all__ = ["constant", "cosine", "exponential", "inverse_time", "linear", "polynomial"]


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
    """Go linearly from one value to another.

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


@schedule()
def polynomial(
    at: At,
    start: NonNegative,
    end: NonNegative = 0.0,
    *,
    power: Positive,
    steps: PositiveInteger,
    begin: NonNegativeInteger = 0,
) -> Any:
    """Go from one value to another along a power of the remaining fraction of steps.

    ``end + (start - end) * (1 - done) ** power``, with ``done`` the fraction of `steps` that have passed.

    Parameters
    ----------
    start : float
        The value up to step `begin`, >= 0.
    end : float, default 0.0
        The value from step ``begin + steps`` on, >= 0.
    power : float
        The exponent, > 0. Above 1, the value changes fast at first. Below 1, it changes fast at the end.
    steps : int
        Number of steps between the two values, >= 1.
    begin : int, default 0
        First step of the change, >= 0.

    Returns
    -------
    Schedule

    Examples
    --------
    >>> weight = schedules.polynomial(0.8, power=2, steps=1000)
    >>> weight(0), weight(500), weight(1000)
    (0.8, 0.2, 0.0)
    """
    return at.interpolate(end, start, (1 - at.progress(begin, steps)) ** power)


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
    factors = at.as_float(at.divided(since, steps)[0]) if staircase else at.as_float(since) / float(steps)
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
def inverse_time(
    at: At,
    start: NonNegative,
    *,
    rate: Positive = 1.0,
    power: Positive = 1.0,
    steps: PositiveInteger = 1,
    begin: NonNegativeInteger = 0,
    staircase: bool = False,
) -> Any:
    """Divide the first value by a power of the time, without an end.

    ``start / (1 + rate * (step - begin) / steps) ** power``.

    Parameters
    ----------
    start : float
        The value up to step `begin`, >= 0.
    rate : float, default 1.0
        How much the divisor grows in `steps` steps if `power` is 1, > 0.
    power : float, default 1.0
        The exponent, > 0. 0.5 is the inverse square root.
    steps : int, default 1
        The unit of time, a number of steps >= 1.
    begin : int, default 0
        First step of the change, >= 0.
    staircase : bool, default False
        Change only every `steps` steps, instead of a little at each step.

    Returns
    -------
    Schedule

    Examples
    --------
    >>> weight = schedules.inverse_time(0.8, rate=0.5, steps=100)
    >>> weight(0), weight(200), weight(600)
    (0.8, 0.4, 0.2)
    """
    since = at.since(begin)
    time = at.as_float(at.divided(since, steps)[0]) if staircase else at.as_float(since) / float(steps)
    return start * (1 + rate * time) ** -power


@schedule()
def cosine(
    at: At,
    start: NonNegative,
    end: NonNegative = 0.0,
    *,
    steps: PositiveInteger,
    begin: NonNegativeInteger = 0,
    exponent: Positive = 1.0,
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
    exponent : float, default 1.0
        The cosine, which falls from 1 to 0, is raised to this power, > 0. Above 1, the value is near `end` for longer.

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
    risen = at.half_cosine(at.progress(begin, steps))
    if exponent == 1:
        return at.interpolate(start, end, risen)
    return at.interpolate(end, start, at.xp.where(risen < 1, 1 - risen, 0.0) ** exponent)  # rounding may exceed 1
