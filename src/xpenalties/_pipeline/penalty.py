"""The class `Penalty`: a function, its inputs, its options and its weight, checked when it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import Any, Literal

from .._arrays.scalars import check_weight
from .._core.checks import Positive, PositiveInteger, check_argument, checks_of, one_of
from .._core.registry import RESERVED
from .._core.shown import function_name, listed, shown, shown_function
from .._core.suggestions import did_you_mean
from .._penalties.lookup import check_call_options, resolve_penalty
from .._penalties.spec import spec_of
from ..backends import backend_of
from ..schedules._definition import At

__all__ = ["ON_ERROR", "RESERVED", "Penalty"]

Inputs = None | str | tuple[str, ...] | Callable[..., Any]

ON_ERROR = one_of(("raise", "drop"))


@dataclass(frozen=True, eq=False, repr=False)
class Penalty:
    """A penalty in a pipeline: a function, its inputs, its options and its weight.

    Parameters
    ----------
    fn : str or callable
        The name of a built-in penalty, a name given by `register`, or a callable that returns a scalar or
        ``(scalar, metrics)``.
    name : str, optional
        Default: the name passed as `fn`, or the name of the function.
    weight : number, 0-d array or callable, default 1.0
        Finite and >= 0. An array may be learned. A callable is a schedule, called with the step.
    inputs : None, str, tuple of str or callable
        None: all arguments of the pipeline. Names: keys of the mapping that is the pipeline's only argument. A
        callable: takes the arguments of the pipeline, and returns an array or a tuple of arrays.
    options : mapping
        Keyword arguments of `fn`.
    differentiable : bool, default True
        Whether gradients flow through this penalty. Its value counts in the total either way.
    enabled : bool, default True
        Whether the penalty is evaluated at all.
    every : int, default 1
        Evaluate only on every `every`-th step, with the weight multiplied by `every`. On other steps the penalty is
        skipped and absent from the report. If JAX traces the step, a skipped penalty is reported with zeros. If
        torch.compile traces the step as a tensor, the penalty is always computed, and masked on the other steps.
    timeout : float, optional
        Time limit in seconds on a thread or an event loop. Default: the `timeout` of the computation.
    on_error : {"raise", "drop"}, optional
        "drop": if the penalty fails or times out, it contributes 0, with a RuntimeWarning and the reason in the report.
        Default: the `on_error` of the computation. Inside jax.jit and torch.compile, errors are always raised.

    Raises
    ------
    TypeError
        If an argument has the wrong type, or `fn` does not have an option.
    ValueError
        If the penalty is unknown, the weight is negative, NaN or infinite, or an argument or option has a wrong value.
    """

    fn: str | Callable[..., Any]
    _: KW_ONLY
    name: str = ""
    weight: Any = 1.0
    inputs: Inputs = None
    options: Mapping[str, Any] = field(default_factory=dict)
    differentiable: bool = True
    enabled: bool = True
    every: PositiveInteger = 1
    timeout: Positive | None = None
    on_error: Literal["raise", "drop"] | None = None

    def __post_init__(self) -> None:
        name: Any = self.name
        if isinstance(self.fn, str):
            name = name or self.fn
        fn = resolve_penalty(self.fn)
        object.__setattr__(self, "fn", fn)
        for flag in ("differentiable", "enabled"):
            if not isinstance(getattr(self, flag), bool):
                raise TypeError(
                    f"Penalty: `{flag}` must be True or False, got {shown(getattr(self, flag))}. Pass a bool."
                )
        for option, check in _CHECKS.items():
            object.__setattr__(self, option, check_argument("Penalty", check, option, getattr(self, option)))
        name = name or function_name(self.fn) or "<unnamed>"
        if not isinstance(name, str) or name.startswith("<") or name in RESERVED:
            raise ValueError(
                f"Penalty: `name` must be a string other than a report's own names, got {shown(name)}. Give one."
            )
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "weight", check_weight(f"penalty {shown(name)}", self.weight))
        if not (self.inputs is None or isinstance(self.inputs, str) or callable(self.inputs)):
            if not isinstance(self.inputs, Iterable) or not all(isinstance(key, str) for key in self.inputs):
                raise TypeError(
                    f"penalty {shown(name)}: `inputs` must be names or a callable, got {shown(self.inputs)}. "
                    "Pass strings."
                )
            object.__setattr__(self, "inputs", tuple(self.inputs))
        object.__setattr__(self, "options", check_call_options(name, fn, self.inputs, self.options))

    def __repr__(self) -> str:
        """Return the call that makes this penalty, without default arguments."""
        spec = spec_of(self.fn)
        arguments = [repr(spec.name) if spec else shown_function(self.fn)]
        for parameter in fields(self)[1:]:
            value = getattr(self, parameter.name)
            default: Any = {"name": function_name(self.fn), "options": {}}.get(parameter.name, parameter.default)
            if value is not default and not (isinstance(value, (str, bool, float, dict)) and value == default):
                arguments.append(f"{parameter.name}={shown_function(value) if callable(value) else repr(value)}")
        return f"Penalty({', '.join(arguments)})"

    def weight_at(self, step: Any) -> Any:
        """Return the weight. A schedule is evaluated at `step`."""
        if not callable(self.weight):
            return self.weight
        if step is None:
            raise ValueError(f"penalty {shown(self.name)}: its weight is a schedule, got no step. Pass `step=`.")
        return check_weight(f"penalty {self.name!r}", self.weight(step))

    def is_due(self, step: Any) -> Any:
        """Return whether the penalty counts at `step`: a bool, or an array if the step is traced."""
        if self.every == 1:
            return True
        if step is None:
            raise ValueError(
                f"penalty {shown(self.name)}: it counts once in {self.every} steps, got no step. Pass `step=`."
            )
        backend = backend_of(step)
        if backend is None or self.every < 2**31:
            due = step % self.every == 0
        else:  # the step's dtype may not hold `every`
            at = At.of(f"penalty {self.name!r}", step)
            due = at.divided(at.step, self.every)[1] == 0
        if backend is not None and backend.tracing.is_tracing(step):
            return due
        return True if due else False  # noqa: SIM210 - torch.compile leaves bool() of a symbol undecided

    def arguments(self, given: tuple[Any, ...]) -> tuple[Any, ...]:
        """Pick the arguments of `fn` from `given`, the arguments of the pipeline."""
        if self.inputs is None:
            return given
        if callable(self.inputs):
            out = self.inputs(*given)
            return out if isinstance(out, tuple) else (out,)
        if len(given) != 1 or not isinstance(given[0], Mapping):
            kinds = ", ".join(type(argument).__qualname__ for argument in given)
            raise TypeError(
                f"penalty {shown(self.name)}: named `inputs` need one mapping, got {kinds}. Pass a dict of arrays."
            )
        names = (self.inputs,) if isinstance(self.inputs, str) else self.inputs
        for name in names:
            if name not in given[0]:
                raise ValueError(
                    f"penalty {shown(self.name)}: the inputs must have {shown(name)}, got {listed(given[0])}."
                    + did_you_mean(name, given[0])
                )
        return tuple([given[0][name] for name in names])


_CHECKS = checks_of(Penalty, ["every", "timeout", "on_error"])
