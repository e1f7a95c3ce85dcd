"""The class `Penalty`: a function, its inputs, its options and its weight, checked when it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import Any, ClassVar, Literal, Never

from .._arrays.scalars import check_weight
from .._core.checks import Positive, PositiveInteger, check_argument, checks_of, one_of
from .._core.hash_key import hashable
from .._core.hidden_parameters import hide_parameters
from .._core.registry import RESERVED
from .._core.shown import function_name, shown, shown_function
from .._penalties.lookup import check_call_options, resolve_penalty
from .._penalties.parameters import Parameters, check_parameters
from .._penalties.spec import spec_of
from ..backends import backend_of
from ..schedules._definition import At
from ..trees._over_tree import OverTree, name_inside
from .penalty_inputs import Inputs, check_count, checked_inputs, input_of
from .penalty_options import check_options_of_tree, check_positional, over_tree_with, with_keywords

__all__ = ["ON_ERROR", "RESERVED", "Penalty"]

ON_ERROR = one_of(("raise", "drop"))
_NO_OPTIONS: Mapping[str, Any] = {}


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Penalty:
    """A penalty in a pipeline: a function, its inputs, its options and its weight.

    Parameters
    ----------
    fn : str or callable
        The name of a built-in penalty, a name given by `register`, or a callable that returns a scalar or
        ``(scalar, metrics)``.
    name : str, optional
        Default: the name passed as `fn`, or the name of the function. A penalty over a tree has the same default.
    weight : number, 0-d array or callable, default 1.0
        Finite and >= 0. An array may be learned. A callable is a schedule, called with the step.
    inputs : None, str, tuple of str, mapping or callable
        None: all arguments of the pipeline. Names: keys of the mapping that is the pipeline's only argument. A
        callable: takes the arguments of the pipeline, and returns an array or a tuple of arrays. A mapping: its keys
        are parameters of `fn`, and its values are names or callables, as in ``{"x": "hidden", "where": "mask"}``.
    options : mapping
        Options of `fn`, the same in each call. You can also pass them as keywords.
    tree : mapping, optional
        Make it a penalty over a tree, as `trees.over_tree` does, with its arguments `match` and `exclude`. An empty
        mapping selects all leaves. Penalties made by `over_tree` need no `tree`.
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
    **keywords
        Options of `fn`: ``temperature=2.0`` instead of ``options={"temperature": 2.0}``. Use `options` for an option
        that has the name of a parameter above, and for a function that takes any keyword.

    Raises
    ------
    TypeError
        If an argument has the wrong type, or `fn` lacks an option that you pass or a parameter that `inputs` names.
    ValueError
        If the penalty is unknown, if the weight is negative, NaN or infinite, or if an argument or option has a wrong
        value.

    Notes
    -----
    Two penalties are equal if all their arguments are. Numbers, names, functions, schedules and nested pipelines are
    compared by value, arrays and other objects by identity.

    Examples
    --------
    >>> inputs = {"log_p": "teacher", "log_q": "student", "where": "mask"}
    >>> distill = Penalty("kl_divergence", weight=0.5, inputs=inputs, from_logits=True)
    >>> decay = Penalty("l2", weight=0.1, inputs="params", tree={"match": "kernel$"})
    >>> batch = {
    ...     "teacher": np.asarray([[1.0, 0.0], [np.nan, np.nan]]),
    ...     "student": np.asarray([[0.0, 1.0], [0.0, 0.0]]),
    ...     "mask": np.asarray([True, False]),
    ...     "params": {"kernel": np.ones((2, 3)), "bias": np.ones(3)},
    ... }
    >>> round(float(Pipeline([distill, decay])(batch)), 6)
    0.831059
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
    _parameters: ClassVar[Parameters | None] = None  # of `fn`; set on an instance whose `inputs` are a mapping

    def __init__(
        self,
        fn: str | Callable[..., Any],
        *positional: Never,
        name: str = "",
        weight: Any = 1.0,
        inputs: Inputs = None,
        options: Mapping[str, Any] = _NO_OPTIONS,
        tree: Mapping[str, Any] | None = None,
        differentiable: bool = True,
        enabled: bool = True,
        every: int = 1,
        timeout: float | None = None,
        on_error: Literal["raise", "drop"] | None = None,
        **keywords: Any,
    ) -> None:
        check_positional(positional)
        default = fn if isinstance(fn, str) else ""
        function = resolve_penalty(fn)
        options = with_keywords(function, options, keywords, _ARGUMENTS)
        if tree is not None:
            function, options = over_tree_with(function, tree, options), {}
        values = {
            "fn": function,
            "differentiable": _flag("differentiable", differentiable),
            "enabled": _flag("enabled", enabled),
            "every": every,
            "timeout": timeout,
            "on_error": on_error,
        }
        for option, check in _CHECKS.items():
            values[option] = check_argument("Penalty", check, option, values[option])
        name = name or default or _default_name(function) or "<unnamed>"
        if not isinstance(name, str) or name.startswith("<") or name in RESERVED:
            raise ValueError(
                f"Penalty: `name` must be a string that does not begin with < and is not one of {', '.join(RESERVED)}, "
                f"got {shown(name)}. Pass another as `name=`."
            )
        values["name"] = name
        values["weight"] = check_weight(f"penalty {shown(name)}", weight)
        values["inputs"] = inputs = checked_inputs(name, inputs)
        check_options_of_tree(name, function, options)
        values["options"] = options = check_call_options(name, function, inputs, options)
        if isinstance(inputs, dict):
            values["_parameters"] = parameters = check_parameters(name, function, inputs, options)
            values["inputs"] = parameters.in_order(inputs)
        for key, value in values.items():
            object.__setattr__(self, key, value)

    def __repr__(self) -> str:
        """Return the call that makes this penalty, without default arguments."""
        spec = spec_of(self.fn)
        arguments = [repr(spec.name) if spec else shown_function(self.fn)]
        for parameter in fields(self)[1:]:
            value = getattr(self, parameter.name)
            default: Any = {"name": _default_name(self.fn), "options": {}}.get(parameter.name, parameter.default)
            if value is not default and not (isinstance(value, (str, bool, float, dict)) and value == default):
                arguments.append(f"{parameter.name}={shown_function(value) if callable(value) else repr(value)}")
        return f"Penalty({', '.join(arguments)})"

    def weight_at(self, step: Any) -> Any:
        """Return the weight. A schedule is evaluated at `step`."""
        if not callable(self.weight):
            return self.weight
        if step is None:
            raise ValueError(
                f"penalty {shown(self.name)}: `step` must be given for a schedule, got None. Pass `step=`."
            )
        return check_weight(f"penalty {self.name!r}", self.weight(step))

    def is_due(self, step: Any) -> Any:
        """Return whether the penalty counts at `step`: a bool, or an array if the step is traced."""
        if self.every == 1:
            return True
        if step is None:
            raise ValueError(
                f"penalty {shown(self.name)}: `step` must be given for every={self.every}, got None. Pass `step=`."
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

    def arguments(self, given: tuple[Any, ...]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Pick the inputs of `fn` from `given`, the arguments of the pipeline: by position, and by keyword."""
        inputs = self.inputs
        if inputs is None:
            check_count(self.name, self.fn, given)
            return given, {}
        if isinstance(inputs, Mapping):
            assert self._parameters is not None
            named = {parameter: input_of(self.name, source, given) for parameter, source in inputs.items()}
            return self._parameters.split(named)
        if callable(inputs):
            out = inputs(*given)
            return out if isinstance(out, tuple) else (out,), {}
        names = (inputs,) if isinstance(inputs, str) else inputs
        return tuple([input_of(self.name, name, given) for name in names]), {}

    def _static_key(self) -> tuple[Any, ...]:
        """Return a hashable key of everything except a weight that is not a schedule."""
        schedule = self.weight if callable(self.weight) else None
        parts = (self.fn, schedule, self.inputs, self.name, self.options, self.timeout)
        return *map(hashable, parts), self.differentiable, self.enabled, self.every, self.on_error

    def __eq__(self, other: object) -> bool:
        """Compare all arguments: arrays and objects by identity, anything else by value."""
        if not isinstance(other, Penalty):
            return NotImplemented
        return self is other or self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        return hashable(self.weight), self._static_key()


def _default_name(fn: Any) -> str:
    """Return the name of a penalty's function, or an empty string if it has none."""
    return name_inside(fn) if isinstance(fn, OverTree) else function_name(fn)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"Penalty: `{name}` must be True or False, got {shown(value)}. Pass a bool.")
    return value


hide_parameters(Penalty.__init__, "positional")
_CHECKS = checks_of(Penalty, ["every", "timeout", "on_error"])
_ARGUMENTS = (*(argument.name for argument in fields(Penalty)), "tree")
