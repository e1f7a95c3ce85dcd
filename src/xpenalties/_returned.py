"""What a penalty of a pipeline returns: called, checked, and made a 0-d float array of the inputs' framework."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from numbers import Real
from typing import Any

from ._nests import flatten
from ._penalty import value_and_metrics
from ._spec import spec_of
from ._weighted import Penalty
from .backends import backend_of, common_backend, is_array

__all__ = ["call", "metric_of", "scalar", "weight_for", "zero_like"]


def call(penalty: Penalty, arguments: tuple[Any, ...], *, with_metrics: bool) -> tuple[Any, Mapping[str, Any]]:
    """Value and metrics, which a penalty of this package computes only where they are asked for."""
    fn = penalty.fn
    assert callable(fn)
    if with_metrics and spec_of(fn) is not None:
        value, metrics = value_and_metrics(fn, arguments, dict(penalty.options))
        return value, metrics
    out = fn(*arguments, **penalty.options)
    if isinstance(out, tuple):
        if len(out) != 2 or not isinstance(out[1], Mapping):
            raise TypeError(
                f"penalty {penalty.name!r}: must return a value or (value, dict), got a tuple of {len(out)}."
            )
        return out
    return out, {}


def scalar(penalty: Penalty, value: Any, inputs: tuple[Any, ...]) -> Any:
    """`value` as a 0-d real array, float32 at least."""
    if isinstance(value, Real) and not isinstance(value, bool) and spec_of(penalty.fn) is None:
        zero = zero_like(penalty.name, inputs)
        if backend_of(value) is not backend_of(zero):  # a number, or NumPy's scalar beside another framework's arrays
            value = zero + float(value)
    backend = backend_of(value)
    if backend is None:
        got = type(value).__qualname__
        if inspect.isawaitable(value):
            if inspect.iscoroutine(value):
                value.close()
            raise TypeError(f"penalty {penalty.name!r}: must return a value, got an awaitable {got}. Await it first.")
        raise TypeError(f"penalty {penalty.name!r}: must return a 0-d array, got {got}. Return one.")
    if tuple(value.shape) != ():
        raise ValueError(
            f"penalty {penalty.name!r}: must return a scalar, got shape {tuple(value.shape)}. "
            "Reduce it with sum or mean."
        )
    kind, working = backend.dtype(value.dtype)
    if kind in ("complex", "bool"):
        raise TypeError(f"penalty {penalty.name!r}: must return a real value, got {value.dtype}. Take its size.")
    if kind == "other":  # a count
        working = zero_like(penalty.name, inputs).dtype
    return value if working is None else backend.xp.astype(value, working)


def weight_for(penalty: Penalty, weight: Any, value: Any) -> Any:
    """What to multiply `value` with: an array of the same dtype, for a wider one would widen the total."""
    if not is_array(weight):
        return weight
    backend = common_backend(f"penalty {penalty.name!r}", ("value", "weight"), (value, weight))
    return weight if weight.dtype == value.dtype else backend.xp.astype(weight, value.dtype)


def metric_of(penalty: Penalty, name: str, metric: Any) -> Any:
    """A figure for the report, as a constant."""
    if isinstance(metric, Real):
        return float(metric)
    if not is_array(metric) or tuple(metric.shape) != ():
        got = f"shape {tuple(metric.shape)}" if is_array(metric) else type(metric).__qualname__
        raise TypeError(f"penalty {penalty.name!r}: metric {name!r} must be a number or a 0-d array, got {got}.")
    backend = backend_of(metric)
    assert backend is not None
    if backend.dtype(metric.dtype).kind == "complex":
        raise TypeError(f"penalty {penalty.name!r}: metric {name!r} must be real, got {metric.dtype}. Take its size.")
    return backend.stop_gradient(metric)


def zero_like(name: str, inputs: tuple[Any, ...]) -> Any:
    """A float 0 of the namespace and device of the inputs."""
    for leaf in flatten(inputs)[0]:
        backend = backend_of(leaf)
        if backend is not None:
            xp = backend.xp
            dtype = leaf.dtype if backend.dtype(leaf.dtype) == ("real", None) else xp.float32
            return xp.sum(xp.zeros_like(xp.reshape(leaf, (-1,))[:0], dtype=dtype))
    raise TypeError(f"{name}: the inputs must hold an array, got none. Pass at least one.")
