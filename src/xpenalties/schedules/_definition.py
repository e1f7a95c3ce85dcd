"""What schedules have in common: checks when they are made, and steps that are numbers or arrays of any framework.

A schedule's formula is written once, for `At`, which has the few functions that Python's floats and arrays differ in.
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from numbers import Integral, Real
from typing import Any, Concatenate, ParamSpec

from .._arrays.scalars import Python
from .._core.checks import checks_of, named, nearest
from .._core.registry import MAKERS
from .._core.static_key import HasStaticKey
from ..backends import backend_of

__all__ = ["At", "Schedule", "schedule"]

P = ParamSpec("P")
Prepare = Callable[[Mapping[str, Any]], dict[str, Any]]

_FORMULAS: dict[str, Callable[..., Any]] = {}  # by name, so that schedules can be pickled


class At:
    """A step, and the functions to compute with it."""

    def __init__(self, step: Any, xp: Any, dtype: Any) -> None:
        self.step = step
        self.xp = xp
        self.dtype = dtype  # of floats; None for Python's

    @classmethod
    def of(cls, name: str, step: Any) -> At:
        """`step` as schedule `name` was given it."""
        if isinstance(step, Real) and not isinstance(step, bool):
            step = _plain(step)
            if not -math.inf < step < math.inf:
                raise ValueError(f"{name}: `step` must be finite, got {step!r}. Pass the number of steps so far.")
            return cls(step, Python, None)
        backend = backend_of(step)
        if backend is None or backend.dtype(step.dtype).kind in ("bool", "complex"):
            got = type(step).__qualname__ if backend is None else step.dtype
            raise TypeError(f"{name}: `step` must be a number or a 0-d array, got {got}. Count steps in integers.")
        if tuple(step.shape) != ():
            raise ValueError(f"{name}: `step` must be 0-d, got shape {tuple(step.shape)}. Index it.")
        if backend.dtype(step.dtype).kind == "other":
            step = backend.signed(step)
        return cls(step, backend.xp, backend.default_float())

    def since(self, begin: int) -> Any:
        """The steps from `begin` on, as the step itself is given; 0 before."""
        return self.xp.where(self.step < begin, 0, self.step - begin)

    def number(self, value: Any) -> Any:
        """What has been counted, as a float."""
        return float(value) if self.dtype is None else self.xp.astype(value, self.dtype)

    def share(self, begin: int, steps: int) -> Any:
        """How much of `steps`, from `begin` on, has passed, in [0, 1]."""
        passed = self.since(begin)
        return self.xp.where(passed >= steps, 1.0, self.number(passed) / steps)  # a compiler's quotient may not be 1

    def between(self, start: Any, end: Any, share: Any) -> Any:
        """From `start` to `end`, exactly there at shares of 0 and 1."""
        share = self.xp.where(share > 1, 1.0, share)  # rounded up
        return (1 - share) * start + share * end

    def power(self, base: float, exponent: Any) -> Any:
        """`base ** exponent`; a base near 1 would be 1 in float32."""
        return base**exponent if self.dtype is None else self.xp.exp(exponent * math.log(base))

    def value(self, value: Any, step: Any) -> Any:
        """A number, or a schedule's value at `step`, as what a formula returns."""
        found = value(step) if callable(value) else value
        if not isinstance(found, Real):
            return found
        return float(found) if self.dtype is None else self.xp.full_like(self.step, float(found), dtype=self.dtype)


def _plain(number: Any) -> Any:
    """A number as Python's: NumPy's overflow, and wrap around."""
    if type(number) in (int, float):
        return number
    return operator.index(number) if isinstance(number, Integral) else float(number)


@dataclass(frozen=True, repr=False)
class Schedule(HasStaticKey):
    """A function of the step, as `xpenalties.schedules` makes them; two of the same arguments are equal."""

    name: str
    arguments: tuple[tuple[str, Any], ...]

    def __call__(self, step: Any) -> Any:
        """The value at `step`: a float for a number, a 0-d array for a 0-d array."""
        return _FORMULAS[self.name](At.of(self.name, step), **dict(self.arguments))

    def static_key(self) -> tuple[Any, ...]:
        """What two that compute the same have in common."""
        return self.name, self.arguments

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in self.arguments)})"


def schedule(*, prepare: Prepare | None = None) -> Callable[[Callable[Concatenate[At, P], Any]], Callable[P, Schedule]]:
    """Make a public schedule of a formula: its arguments are checked as its annotations say, then by `prepare`."""

    def decorate(formula: Callable[Concatenate[At, P], Any]) -> Callable[P, Schedule]:
        name = formula.__name__
        _, *own = inspect.signature(formula).parameters.values()
        signature = inspect.Signature(own, return_annotation="Schedule")
        checks = checks_of(formula, [p.name for p in own])

        @wraps(formula)
        def make(*args: P.args, **kwargs: P.kwargs) -> Schedule:
            try:
                given = signature.bind(*args, **kwargs)
            except TypeError as error:
                hint = next(filter(None, (nearest(key, checks) for key in kwargs if key not in checks)), "")
                raise TypeError(f"{name}: {error}, of {', '.join(checks)}.{hint}") from None
            given.apply_defaults()
            checked = {key: named(name, checks[key], key, value) for key, value in given.arguments.items()}
            return Schedule(name, tuple((prepare(checked) if prepare else checked).items()))

        make.__signature__ = signature  # type: ignore[attr-defined]
        _FORMULAS[name] = formula
        MAKERS[name] = make
        return make

    return decorate
