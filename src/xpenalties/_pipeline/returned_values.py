"""Check what a callable returned. Make its value a 0-d float array of the inputs' framework, and detach its metrics."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any

from .._core.shown import shown
from ..backends import array_beside, backend_of, common_backend, flatten_of, is_array, is_array_beside
from .penalty import RESERVED, Penalty

__all__ = ["as_metric", "as_scalar", "factor_for", "label_of", "unpack", "zero_like"]


def label_of(penalty: Penalty) -> str:
    """Return what errors call a penalty. Only the base loss has a reserved name."""
    return "base loss" if penalty.name in RESERVED else f"penalty {shown(penalty.name)}"


def unpack(penalty: Penalty, out: Any) -> tuple[Any, Mapping[str, Any]]:
    """Split what a callable returned into value and metrics."""
    if not isinstance(out, tuple):
        return out, {}
    if len(out) != 2 or not isinstance(out[1], Mapping):
        got = ", ".join(type(part).__qualname__ for part in out)
        raise TypeError(f"{label_of(penalty)}: must return a value or (value, dict), got ({got}).")
    return out


def as_scalar(penalty: Penalty, value: Any, inputs: tuple[Any, ...]) -> Any:
    """Return `value` as a 0-d real array of at least float32. A number becomes an array like the inputs."""
    if isinstance(value, Real) and not isinstance(value, bool):
        array = _an_array(inputs)
        if array is None and not is_array(value):
            raise _no_array(label_of(penalty))
        if array is not None and not is_array_beside(value, array):
            value = _zero(array) + float(value)
    backend = backend_of(value)
    if backend is None:
        got = type(value).__qualname__
        if inspect.isawaitable(value):
            if inspect.iscoroutine(value):
                value.close()
            raise TypeError(f"{label_of(penalty)}: must return a value, got an awaitable {got}. Use `compute_async`.")
        raise TypeError(f"{label_of(penalty)}: must return a 0-d array, got {got}. Return one.")
    if tuple(value.shape) != ():
        raise ValueError(
            f"{label_of(penalty)}: must return a scalar, got shape {tuple(value.shape)}. Reduce it with sum or mean."
        )
    kind, working = backend.dtype(value.dtype)[:2]
    if kind in ("complex", "bool"):
        raise TypeError(f"{label_of(penalty)}: must return a real value, got {value.dtype}. Take its abs.")
    if kind == "other":  # integers, such as a count
        array = _an_array(inputs)
        working = _zero(value if array is None else array).dtype
    value = value if working is None else backend.xp.astype(value, working)
    return backend.finished(value) if backend.cut else value


def factor_for(penalty: Penalty, weight: Any, value: Any) -> Any:
    """Cast an array weight to the dtype of `value`, because a wider dtype would widen the total."""
    if type(weight) is float or not is_array(weight):
        return weight
    weight = array_beside(weight, value)
    backend = common_backend(label_of(penalty), ("value", "weight"), (value, weight))
    weight = backend.finished(weight) if backend.cut else weight
    return weight if weight.dtype == value.dtype else backend.xp.astype(weight, value.dtype)


def as_metric(penalty: Penalty, name: str, metric: Any) -> Any:
    """Return a metric for the report: a float, or a detached 0-d array."""
    if isinstance(metric, Real):
        return float(metric)
    if not is_array(metric) or tuple(metric.shape) != ():
        got = f"shape {tuple(metric.shape)}" if is_array(metric) else type(metric).__qualname__
        raise TypeError(f"{label_of(penalty)}: metric {name!r} must be a number or a 0-d array, got {got}.")
    backend = backend_of(metric)
    assert backend is not None
    if backend.dtype(metric.dtype).kind == "complex":
        raise TypeError(f"{label_of(penalty)}: metric {name!r} must be real, got {metric.dtype}. Take its abs.")
    metric = backend.autodiff.stop_gradient(metric)
    return backend.finished(metric) if backend.cut else metric


def zero_like(name: str, inputs: tuple[Any, ...], selectors: Iterable[Callable[..., Any]]) -> Any:
    """Return a floating-point 0 on the inputs' device. If the inputs are objects, `selectors` find an array in them."""
    array = _an_array(inputs)
    for select in selectors:
        if array is None:
            array = _an_array(select(*inputs))
    if array is None:
        raise _no_array(name)
    return _zero(array)


def _an_array(inputs: Any) -> Any:
    return next((leaf for leaf in flatten_of(inputs)[0] if is_array(leaf)), None)


def _no_array(name: str) -> TypeError:
    return TypeError(f"{name}: the inputs must hold an array, which sets framework and device, got none. Pass one.")


def _zero(array: Any) -> Any:
    backend = backend_of(array)
    assert backend is not None
    kind, working = backend.dtype(array.dtype)[:2]
    return backend.zero(array, array.dtype if kind == "real" and working is None else backend.xp.float32)
