"""Make schedules of formulas: check arguments when a schedule is made, and take numbers or arrays as steps.

Each formula is written once, for an `At`, which has the few functions that differ between Python floats and arrays.
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

from .._arrays.numerics import at_least_float32
from .._arrays.scalars import PythonNamespace
from .._core.checks import TOO_LARGE, check_argument, checks_of, integer
from .._core.hash_key import HasStaticKey
from .._core.registry import SCHEDULES
from .._core.shown import shown
from .._core.suggestions import did_you_mean
from ..backends import backend_of

__all__ = ["At", "Schedule", "schedule"]

P = ParamSpec("P")
Prepare = Callable[[Mapping[str, Any]], dict[str, Any]]  # checks arguments together, and may change them

_STEP = integer()
_FORMULAS: dict[str, Callable[..., Any]] = {}  # by name, so that schedules can be pickled


class At:
    """A step, and functions to compute with it."""

    def __init__(self, step: Any, xp: Any, dtype: Any, largest: float) -> None:
        self.step = step
        self.xp = xp
        self.dtype = dtype  # of floating-point arrays; None if they are Python floats
        self.largest = largest  # the largest integer that the step's dtype holds; infinity for floating point

    @classmethod
    def of(cls, name: str, step: Any) -> At:
        """Check the step of the schedule `name`."""
        if isinstance(step, Real) and not isinstance(step, bool):
            step = _python_number(step)
            if isinstance(step, int) and not -TOO_LARGE < step < TOO_LARGE:  # inline: torch.compile traces it
                check_argument(name, _STEP, "step", step)
            if not -math.inf < step < math.inf:
                raise ValueError(f"{name}: `step` must be finite, got {shown(step)}. Pass the number of steps so far.")
            return cls(step, PythonNamespace, None, math.inf)
        backend = backend_of(step)
        if backend is None or backend.dtype(step.dtype).kind in ("bool", "complex"):
            got = type(step).__qualname__ if backend is None else step.dtype
            raise TypeError(f"{name}: `step` must be a number or a 0-d array, got {got}. Count steps in integers.")
        if tuple(step.shape) != ():
            raise ValueError(f"{name}: `step` must be 0-d, got shape {tuple(step.shape)}. Index it.")
        dtype = backend.default_float()
        dtype = backend.dtype(dtype).working or dtype  # at least float32
        if backend.dtype(step.dtype).kind == "real":
            return cls(at_least_float32(step), backend.xp, dtype, math.inf)
        step = backend.signed(step)
        return cls(step, backend.xp, dtype, backend.xp.iinfo(step.dtype).max)

    def reaches(self, count: int) -> bool:
        """Return False if the step's dtype cannot hold `count`, so the step is always before it."""
        return count <= self.largest

    def number(self, count: int) -> Any:
        """Return `count` as an operand for arithmetic with the step."""
        if self.dtype is None or count < 2**31:
            return count
        # JAX accepts no larger Python integers, for any dtype of the step
        return self.xp.full_like(self.step, float(count) if self.largest == math.inf else count)

    def is_before(self, count: int) -> Any:
        """Return whether the step is before `count`. Call it only if `reaches(count)`."""
        return self.step < self.number(count)

    def since(self, begin: int) -> Any:
        """Count the steps since `begin`, 0 before it. The count is an integer if the step is one."""
        if not self.reaches(begin):
            return self.step * 0
        return self.xp.where(self.is_before(begin), 0, self.step - self.number(begin))

    def divided(self, count: Any, by: int) -> tuple[Any, Any]:
        """Divide a count of steps. Returns the whole quotient and the remainder."""
        if not self.reaches(by):
            return count * 0, count
        return count // self.number(by), count % self.number(by)

    def as_float(self, value: Any) -> Any:
        """Convert a count of steps to floating point."""
        return float(value) if self.dtype is None else self.xp.astype(value, self.dtype)

    def progress(self, begin: int, steps: int) -> Any:
        """Return which share of `steps` has passed since `begin`, in [0, 1]."""
        passed = self.since(begin)
        share = self.as_float(passed) / float(steps)
        # in compiled code, n / n may not be 1
        return self.xp.where(passed >= self.number(steps), 1.0, share) if self.reaches(steps) else share

    def interpolate(self, start: Any, end: Any, progress: Any) -> Any:
        """Interpolate from `start` to `end`. Exact at 0 and 1."""
        progress = self.xp.where(progress > 1, 1.0, progress)  # rounding may exceed 1
        return (1 - progress) * start + progress * end

    def half_cosine(self, progress: Any) -> Any:
        """Map [0, 1] to [0, 1] along half a cosine."""
        return 0.5 - 0.5 * self.xp.cos(math.pi * progress)

    def power(self, base: float, exponent: Any) -> Any:
        """Return `base ** exponent`. The log is a Python float: in float32, a base near 1 would round to 1."""
        return base**exponent if self.dtype is None else self.xp.exp(exponent * math.log(base))

    def value(self, value: Any, step: Any) -> Any:
        """Return `value` as formulas need it: a float or an array. A schedule is evaluated at `step`."""
        result = value(step) if callable(value) else value
        if not isinstance(result, Real):
            return result
        return float(result) if self.dtype is None else self.xp.full_like(self.step, float(result), dtype=self.dtype)


def _python_number(number: Any) -> Any:
    """Convert to a Python number: NumPy's integers overflow and wrap around."""
    if type(number) in (int, float):
        return number
    return operator.index(number) if isinstance(number, Integral) else float(number)


@dataclass(frozen=True, repr=False)
class Schedule(HasStaticKey):
    """A function of the step, made by `xpenalties.schedules`. Schedules with the same arguments are equal."""

    name: str
    arguments: tuple[tuple[str, Any], ...]

    def __call__(self, step: Any) -> Any:
        """Return the value at `step`: a float for a number, a 0-d array for a 0-d array."""
        return _FORMULAS[self.name](At.of(self.name, step), **dict(self.arguments))

    def _static_key(self) -> tuple[Any, ...]:
        """Return a key that is equal for schedules with the same values."""
        return self.name, self.arguments

    def __hash__(self) -> int:
        # before PyTorch 2.13, torch.compile hashes a schedule made in a traced function before it has its fields
        return hash((getattr(self, "name", None), getattr(self, "arguments", None)))

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in self.arguments)})"


def schedule(*, prepare: Prepare | None = None) -> Callable[[Callable[Concatenate[At, P], Any]], Callable[P, Schedule]]:
    """Turn a formula into a public schedule. Annotations, then `prepare`, check its arguments."""

    def decorate(formula: Callable[Concatenate[At, P], Any]) -> Callable[P, Schedule]:
        name = formula.__name__
        _, *parameters = inspect.signature(formula).parameters.values()
        signature = inspect.Signature(parameters, return_annotation="Schedule")
        checks = checks_of(formula, [p.name for p in parameters])

        @wraps(formula)
        def make(*args: P.args, **kwargs: P.kwargs) -> Schedule:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError as error:
                hint = next(filter(None, (did_you_mean(key, checks) for key in kwargs if key not in checks)), "")
                raise TypeError(f"{name}: {error}. The arguments are {', '.join(checks)}.{hint}") from None
            bound.apply_defaults()
            arguments = {key: check_argument(name, checks[key], key, value) for key, value in bound.arguments.items()}
            return Schedule(name, tuple((prepare(arguments) if prepare else arguments).items()))

        make.__signature__ = signature  # type: ignore[attr-defined]
        _FORMULAS[name] = formula
        SCHEDULES[name] = make
        return make

    return decorate
