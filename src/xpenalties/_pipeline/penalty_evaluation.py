"""Evaluate one penalty of a pipeline: its value, metrics, contribution and, if tracked, its gradient."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from .._arrays.numerics import stop_gradient
from .._core.shown import shown
from .._penalties.decorator import value_and_metrics
from .._penalties.spec import spec_of
from ..backends import Backend, backend_of, flatten_of, in_dynamo, is_array
from ..backends._over import ACTIVE
from .part_gradients import PartGradients, layouts_if_parts
from .penalty import RESERVED, Penalty
from .returned_values import as_metric, as_scalar, factor_for, unpack
from .tracked_arrays import TrackedGraph, TrackedInputs

__all__ = ["EvaluationContext", "PenaltyResult", "constant", "evaluate", "evaluate_async", "is_traced"]

Metrics = Mapping[str, Any]
Arguments = tuple[tuple[Any, ...], dict[str, Any]]  # by position, and by keyword
#: Calls a function, on this thread or another, and awaits the result.
CallAndAwait = Callable[[Callable[[], Any]], Awaitable[Any]]


class EvaluationContext(NamedTuple):
    """The parts of a computation that all of its penalties share."""

    pipeline: str  # its name
    inputs: tuple[Any, ...]
    step: Any
    with_metrics: bool
    tracked: TrackedInputs | TrackedGraph | None = None


class PenaltyResult(NamedTuple):
    """The result of one penalty, for the total and the report."""

    value: Any  # differentiable, like the contribution
    contribution: Any
    weight: Any
    factor: Any  # the weight in the dtype of the value
    metrics: Metrics
    gradient: list[Any] | None = None
    error: str | None = None  # why there is no gradient
    parts: PartGradients | None = None  # inside `over`: how the arrays of the gradient are cut


_NOTHING: AbstractContextManager[None] = nullcontext()


class _NoGradientError(Exception):
    """Says why a penalty has no gradient."""


def evaluate(context: EvaluationContext, penalty: Penalty, due: Any) -> PenaltyResult:
    """Evaluate one penalty. `due` is True, or a traced boolean: whether the penalty counts at this step."""
    weight: Any = "a schedule"
    gradient = error = parts = None
    try:
        weight = _weight(penalty, context.step)
        if context.tracked is None or not penalty.differentiable:
            value, metrics = _value_and_metrics(context, penalty, context.inputs, due)
        elif isinstance(context.tracked, TrackedGraph):
            with layouts_if_parts() if ACTIVE.any else _NOTHING as layouts:
                value, metrics = _value_and_metrics(context, penalty, context.inputs, due)
            parts = None if layouts is None else PartGradients(layouts, context.tracked.arrays)
            try:
                gradient = _gradient_through_graph(context.tracked, value)
            except _NoGradientError as failure:
                error = str(failure)
        else:
            try:
                value, metrics, gradient, parts = _differentiate(context, context.tracked, penalty, due)
            except _NoGradientError as failure:
                error = str(failure)
                value, metrics = _value_and_metrics(context, penalty, context.inputs, due)
        if parts is not None and gradient is not None and not parts.are_known(gradient):
            gradient, error = None, "no gradient norm: inside `over`, a penalty must get arrays of wrt unchanged"
        return _weigh(penalty, weight, value, metrics, due, gradient, error, parts)
    except Exception as raised:
        _add_note(context, penalty, weight, raised)
        raise


async def evaluate_async(context: EvaluationContext, penalty: Penalty, call_and_await: CallAndAwait) -> PenaltyResult:
    """Evaluate one penalty, which may be a coroutine, on an event loop. Nothing is traced or tracked there."""
    weight: Any = "a schedule"
    arguments: Arguments = (), {}
    inputs: tuple[Any, ...] = ()

    def call() -> Any:
        nonlocal arguments, inputs
        inputs = context.inputs if penalty.differentiable else _constants(context.inputs)
        arguments = penalty.arguments(inputs)
        returned = _call(penalty, arguments, with_metrics=context.with_metrics)
        return _ready(returned) if is_array(returned) else returned  # dask's arrays are awaitable, but they are values

    try:
        weight = _weight(penalty, context.step)
        returned = await call_and_await(call)
        value, metrics = _checked(context, penalty, returned, (arguments, inputs))
        return _weigh(penalty, weight, value, metrics, True)
    except Exception as raised:
        _add_note(context, penalty, weight, raised)
        raise


async def _ready(value: Any) -> Any:
    return value


def _weight(penalty: Penalty, step: Any) -> Any:
    weight = penalty.weight_at(step)
    return weight if penalty.every == 1 else weight * penalty.every


def _value_and_metrics(
    context: EvaluationContext, penalty: Penalty, inputs: tuple[Any, ...], due: Any
) -> tuple[Any, Metrics]:
    """Call a penalty with its arguments, and check the result. If `due` is a traced False, all of it is 0."""
    if not penalty.differentiable:
        inputs = _constants(inputs)
    arguments = penalty.arguments(inputs)
    backend = None if due is True else backend_of(due)
    if backend is None:
        returned = _call(penalty, arguments, with_metrics=context.with_metrics)
        return _checked(context, penalty, returned, (arguments, inputs))

    metrics: Metrics = {}
    names: list[str] = []

    def compute() -> list[Any]:
        nonlocal metrics, names
        returned = _call(penalty, arguments, with_metrics=context.with_metrics)
        value, metrics = _checked(context, penalty, returned, (arguments, inputs))
        names = _traced_names(penalty, metrics, backend)
        return [value, *(metrics[name] for name in names)]

    value, *arrays = backend.tracing.when(due, compute)
    return value, {**metrics, **dict(zip(names, arrays, strict=True))}


def _call(penalty: Penalty, arguments: Arguments, *, with_metrics: bool) -> Any:
    """Call a penalty. A built-in one also returns its metrics, if they are requested."""
    assert callable(penalty.fn)
    by_position, by_keyword = arguments
    options = {**penalty.options, **by_keyword}
    if with_metrics and spec_of(penalty.fn) is not None:
        return value_and_metrics(penalty.fn, by_position, options)
    return penalty.fn(*by_position, **options)


def _checked(
    context: EvaluationContext, penalty: Penalty, returned: Any, inputs: tuple[Any, ...]
) -> tuple[Any, Metrics]:
    """Split what a penalty returned into value and metrics. Check them unless the penalty is built in."""
    if spec_of(penalty.fn) is not None:
        value, metrics = returned if context.with_metrics else (returned, {})
        return value if penalty.differentiable else stop_gradient(value), metrics
    value, metrics = unpack(penalty, returned)
    value = as_scalar(penalty, value, inputs)
    if not penalty.differentiable:
        value = stop_gradient(value)
    return value, {name: as_metric(penalty, name, metrics[name]) for name in metrics} if context.with_metrics else {}


def _differentiate(
    context: EvaluationContext, tracked: TrackedInputs, penalty: Penalty, due: Any
) -> tuple[Any, Metrics, list[Any], PartGradients | None]:
    """Return value, metrics and gradient of a penalty, from one forward and one backward pass."""
    backend = tracked.backend
    metrics: Metrics = {}
    names: list[str] = []
    parts = None

    def of_arrays(arrays: list[Any]) -> tuple[Any, list[Any]]:
        nonlocal metrics, names, parts
        with layouts_if_parts() if ACTIVE.any else _NOTHING as layouts:
            value, metrics = _value_and_metrics(context, penalty, tracked.inputs_with(arrays), due)
        parts = None if layouts is None else PartGradients(layouts, arrays)
        names = _traced_names(penalty, metrics, backend)
        return value, [metrics[name] for name in names]

    try:
        value, arrays, pull = backend.autodiff.vjp(of_arrays, tracked.traced, again=False)
        gradient = tracked.gradient(value, pull if tracked.back is None else tracked.pulled_back(pull))
    except Exception as error:
        if in_dynamo():  # pragma: no cover - Dynamo's trace, which no coverage sees
            raise
        raise _NoGradientError(_first_line(error)) from error
    return value, {**metrics, **dict(zip(names, arrays, strict=True))}, gradient, parts


def _gradient_through_graph(tracked: TrackedGraph, value: Any) -> list[Any]:
    try:
        return tracked.gradient_of(value)
    except Exception as error:
        raise _NoGradientError(_first_line(error)) from error


def _first_line(error: Exception) -> str:
    return f"no gradient: {type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _traced_names(penalty: Penalty, metrics: Metrics, backend: Backend) -> list[str]:
    """Return the names of the metrics that `backend` traces. A callable may also return those of another library."""
    if spec_of(penalty.fn) is not None:
        return list(metrics)
    backends = {name: backend_of(metric) for name, metric in metrics.items()}
    return [name for name, other in backends.items() if other is not None and other.library == backend.library]


def _weigh(
    penalty: Penalty,
    weight: Any,
    value: Any,
    metrics: Metrics,
    due: Any,
    gradient: list[Any] | None = None,
    error: str | None = None,
    parts: PartGradients | None = None,
) -> PenaltyResult:
    """Multiply a value by its weight, and by 0 if `due` is false."""
    factor = factor_for(penalty, weight, value)
    backend = None if due is True else backend_of(due)
    if backend is not None:  # not `where`: of two numbers, it returns PyTorch's default dtype
        factor = weight = factor * backend.xp.astype(due, value.dtype)
    return PenaltyResult(value, factor * value, weight, factor, metrics, gradient, error, parts)


def _add_note(context: EvaluationContext, penalty: Penalty, weight: Any, error: Exception) -> None:
    """Add a note to `error`: the penalty that raised it, its weight, and the shapes of the inputs."""
    if in_dynamo():  # pragma: no cover - Dynamo's trace, which no coverage sees
        return
    shapes = ", ".join(map(_described, context.inputs)) or "none"
    if penalty.name in RESERVED:
        error.add_note(f"In the base loss of {shown(context.pipeline)}, inputs {shapes}.")
    else:
        note = f"In penalty {shown(penalty.name)} of {shown(context.pipeline)}, weight {weight}, inputs {shapes}."
        error.add_note(note)


def constant(x: Any) -> Any:
    """Detach an array from the graph. Return anything else unchanged."""
    backend = backend_of(x)
    return x if backend is None else backend.autodiff.stop_gradient(x)


def _constants(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Detach the inputs, for a penalty that may use operations without a derivative."""
    leaves, rebuild = flatten_of(inputs)
    constants: tuple[Any, ...] = rebuild(map(constant, leaves))
    return constants


def is_traced(tree: Any) -> bool:
    """Return whether this code is being traced, for example by jax.jit."""
    if in_dynamo():  # pragma: no cover - Dynamo's trace, which no coverage sees
        return True
    arrays = [(leaf, backend) for leaf in flatten_of(tree)[0] if (backend := backend_of(leaf)) is not None]
    if any(backend.tracing.is_tracing(leaf) for leaf, backend in arrays):
        return True
    return any(backend.tracing.in_trace() for backend in {backend for _, backend in arrays})


def _described(x: Any) -> str:
    if isinstance(x, Mapping):
        return "{" + ", ".join(f"{name}: {_described(value)}" for name, value in x.items()) + "}"
    return f"{type(x).__qualname__}{tuple(x.shape)}" if is_array(x) else type(x).__qualname__
