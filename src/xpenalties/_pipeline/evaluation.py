"""One penalty of a pipeline evaluated: inputs, value, weight, contribution, and its gradient where it is tracked."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Mapping
from typing import Any, NamedTuple

from .._arrays.numerics import stop_gradient
from .._core.concurrency import Closing
from ..backends import Backend, backend_of, flatten_of, in_dynamo, is_array
from .gradient_tracking import Tracked
from .penalty import Penalty
from .results import call, metric_of, scalar, unpacked, weight_for

__all__ = ["Job", "Part", "constant", "evaluate", "is_traced"]

Figures = tuple[Any, dict[str, Any]]  # value and metrics


class Job(NamedTuple):
    """What all penalties of a computation have in common."""

    name: str  # of the pipeline
    inputs: tuple[Any, ...]
    step: Any
    reported: bool  # metrics are asked for
    tracked: Tracked | None = None
    asynchronous: bool = False  # what can be awaited will be; then nothing is tracked


class Part(NamedTuple):
    """A penalty's part in a total."""

    value: Any  # with what it depends on, as the contribution
    contribution: Any
    weight: Any
    factor: Any  # the weight in the dtype of the value
    metrics: Mapping[str, Any]
    gradient: list[Any] | None = None
    error: str | None = None  # why there is no gradient


class _NoGradientError(Exception):
    """Why a penalty has no gradient."""


def evaluate(job: Job, penalty: Penalty, due: Any) -> Part | Awaitable[Part]:
    """The part of a penalty that is due, see `Penalty.is_due`; where that takes an event loop, what to await for it."""
    weight: Any = "a schedule"
    error = None
    try:
        weight = penalty.weight_at(job.step)
        if penalty.every > 1:
            weight = weight * penalty.every
        if job.tracked is not None and penalty.differentiable:
            try:
                return _tracked(job, job.tracked, penalty, weight, due)
            except _NoGradientError as failed:
                error = str(failed)
        found = _figures(job, penalty, job.inputs, due)
        if isinstance(found, tuple):
            return _part(penalty, found, weight, due, error=error)
        return Closing(_later(job, penalty, found, weight), found)
    except Exception as raised:
        _note(job, penalty, weight, raised)
        raise


async def _later(job: Job, penalty: Penalty, found: Awaitable[Figures], weight: Any) -> Part:
    try:
        return _part(penalty, await found, weight, True)  # nothing is tracked or traced on an event loop
    except Exception as raised:
        _note(job, penalty, weight, raised)
        raise


def _figures(job: Job, penalty: Penalty, inputs: tuple[Any, ...], due: Any) -> Figures | Awaitable[Figures]:
    """Value and metrics of `penalty`, which has to count now unless `due`, traced, says otherwise."""
    if not penalty.differentiable:  # its inputs too: such a callable may do what has no derivative
        inputs = _constants(inputs)
    arguments = penalty.arguments(inputs)
    given = (arguments, inputs)
    backend = None if due is True else backend_of(due)
    if backend is None:
        out = call(penalty, arguments, with_metrics=job.reported)
        if job.asynchronous and inspect.isawaitable(out) and not is_array(out):  # dask's arrays are both
            return Closing(_awaited(job, penalty, out, given), out)
        return _checked(job, penalty, out, given)

    metrics: dict[str, Any] = {}

    def compute() -> list[Any]:
        nonlocal metrics
        value, metrics = _checked(job, penalty, call(penalty, arguments, with_metrics=job.reported), given)
        return [value, *_arrays_of(metrics, backend).values()]

    value, *arrays = backend.tracing.when(due, compute)
    return value, metrics | dict(zip(_arrays_of(metrics, backend), arrays, strict=True))


async def _awaited(job: Job, penalty: Penalty, out: Awaitable[Any], given: tuple[Any, ...]) -> Figures:
    return _checked(job, penalty, await out, given)


def _checked(job: Job, penalty: Penalty, out: Any, given: tuple[Any, ...]) -> Figures:
    value, metrics = unpacked(penalty, out)
    value = scalar(penalty, value, given)
    if not penalty.differentiable:
        value = stop_gradient(value)
    return value, {name: metric_of(penalty, name, metrics[name]) for name in metrics} if job.reported else {}


def _part(penalty: Penalty, found: Figures, weight: Any, due: Any, **more: Any) -> Part:
    value, metrics = found
    factor = weight_for(penalty, weight, value)
    backend = None if due is True else backend_of(due)
    if backend is not None:  # by a product: `where` makes an array of PyTorch's default dtype of two numbers
        factor = weight = factor * backend.xp.astype(due, value.dtype)
    return Part(value, factor * value, weight, factor, metrics, **more)


def _tracked(job: Job, tracked: Tracked, penalty: Penalty, weight: Any, due: Any) -> Part:
    """The part with its gradient. Where that cannot be had, the penalty has yet to be evaluated."""
    metrics: dict[str, Any] = {}

    def of_leaves(leaves: list[Any]) -> tuple[Any, list[Any]]:
        nonlocal metrics
        found = _figures(job, penalty, tracked.inputs_with(leaves), due)
        assert isinstance(found, tuple)  # nothing is tracked on an event loop
        value, metrics = found
        return value, list(_arrays_of(metrics, backend).values())

    backend = tracked.backend
    try:
        value, arrays, pull = backend.autodiff.vjp(of_leaves, tracked.arrays, again=False)
        gradient = pull(backend.xp.ones_like(value))
    except Exception as error:
        if in_dynamo():  # pragma: no cover - Dynamo's trace, which no coverage sees
            raise
        raise _NoGradientError(f"no gradient: {type(error).__name__}: {str(error).partition(chr(10))[0]}") from error
    metrics |= dict(zip(_arrays_of(metrics, backend), arrays, strict=True))
    return _part(penalty, (value, metrics), weight, due, gradient=gradient)


def _arrays_of(metrics: dict[str, Any], backend: Backend) -> dict[str, Any]:
    """The metrics that `backend` traces: a callable may have others, NumPy's for example."""
    found = ((name, metric, backend_of(metric)) for name, metric in metrics.items())
    return {name: metric for name, metric, own in found if own is not None and own.library == backend.library}


def _note(job: Job, penalty: Penalty, weight: Any, error: Exception) -> None:
    """Add to `error` where it comes from."""
    if in_dynamo():  # pragma: no cover - Dynamo's trace, which no coverage sees
        return
    shapes = ", ".join(map(_described, job.inputs)) or "none"
    error.add_note(f"In penalty {penalty.name!r} of {job.name!r}, weight {weight}, inputs {shapes}.")


def constant(x: Any) -> Any:
    """`x` without what it depends on."""
    return stop_gradient(x) if is_array(x) else x


def _constants(inputs: tuple[Any, ...]) -> Any:
    leaves, rebuild = flatten_of(inputs)
    return rebuild(map(constant, leaves))


def is_traced(nest: Any) -> bool:
    """Whether this is a program that is being traced, to run later."""
    if in_dynamo():  # pragma: no cover - Dynamo's trace, which no coverage sees
        return True
    found = [(leaf, backend) for leaf in flatten_of(nest)[0] if (backend := backend_of(leaf)) is not None]
    if any(backend.tracing.is_tracing(leaf) for leaf, backend in found):
        return True
    return any(backend.tracing.in_trace() for backend in {backend for _, backend in found})


def _described(x: Any) -> str:
    if isinstance(x, Mapping):
        return "{" + ", ".join(f"{name}: {_described(value)}" for name, value in x.items()) + "}"
    return f"{type(x).__qualname__}{tuple(x.shape)}" if is_array(x) else type(x).__qualname__
