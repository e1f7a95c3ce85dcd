"""Evaluate one penalty: check the call, prepare its arrays, evaluate the terms, reduce them.

This is what all penalties share: half precision, `where`, `weights`, `normalizer`, the reduction and its metrics. How
the terms are computed (at once, without guards first, in blocks, as a compiled program) is for the arrays' backend to
decide.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from types import NoneType
from typing import Any, NamedTuple

from .._arrays.interchange import lender_of, on_loan
from .._arrays.numerics import broadcasts, count, ratio
from .._core.checks import POSITIVE, member
from ..backends import Backend, backend_of, common_backend, is_array_beside
from ..backends._blocks import BLOCK_SIZE
from ..backends._work import Work
from .spec import Shape, Spec

__all__ = ["METRICS", "Call", "evaluate"]

METRICS = ("sum", "mean", "min", "max")
_REDUCTIONS = ("sum", "mean", "none")
_PLAIN = (bool, int, float, str, NoneType)  # types of options that are no arrays


class Call(NamedTuple):
    """One call of a penalty. `check` takes its functions, which come first, out of its arrays."""

    spec: Spec
    arrays: tuple[Any, ...]
    reduction: str
    where: Any
    weights: Any
    normalizer: Any  # checked: a Python float or an array
    options: Mapping[str, Any]
    with_metrics: bool = False
    functions: tuple[Any, ...] = ()


class Terms(NamedTuple):
    """The terms of a penalty before weights and reduction."""

    backend: Backend
    values: Any  # masked terms are 0
    mask: Any = None
    weights: Any = None
    total: Any = None  # their weighted sum divided by `divisor`, if the backend computed it on the way
    divisor: float = 1.0


def evaluate(call: Call) -> Any:
    """Evaluate one penalty. Returns its value, or with metrics a pair of value and `METRICS`."""
    call, backend = check(call)
    if call.functions:
        return _with_autodiff(call, backend)
    return _value(call, backend) if backend.evaluation.program is None else _in_program(call, backend)


def check(call: Call) -> tuple[Call, Backend]:
    """Check everything but shapes, dtypes, `where` and `weights`, before anything is computed.

    Returns the call with functions apart from arrays and with checked options, and the arrays' backend.
    """
    spec, arrays, reduction, where, weights, normalizer, options, with_metrics, functions = call
    if spec.functions:
        functions, arrays = arrays[: len(spec.functions)], arrays[len(spec.functions) :]
    if len(arrays) != len(spec.arrays):
        raise TypeError(
            f"{spec.name}: takes {''.join(f'`{name}` and ' for name in spec.functions)}{len(spec.arrays)} "
            f"array{'s' * (len(spec.arrays) > 1)} ({', '.join(spec.arrays)}), "
            f"got {len(arrays)} by position. Pass arrays by position, options by keyword."
        )
    if functions:
        _check_callable(spec, functions)
    if options:
        options = spec.check_options(options)
    if reduction not in _REDUCTIONS:
        spec.check("reduction", reduction, member(_REDUCTIONS))
    backend = common_backend(spec.name, spec.arrays, arrays)
    if normalizer is not None:
        normalizer = _checked_normalizer(spec, arrays[0], normalizer)
    if functions or options or normalizer is not None:
        call = Call(spec, arrays, reduction, where, weights, normalizer, options, with_metrics, functions)
    return call, backend


def _checked_normalizer(spec: Spec, first: Any, normalizer: Any) -> Any:
    """A number as a Python float > 0, or a real 0-d array."""
    if not is_array_beside(normalizer, first):
        return spec.check("normalizer", normalizer, POSITIVE)
    backend = common_backend(spec.name, (spec.arrays[0], "normalizer"), (first, normalizer))
    if backend.dtype(normalizer.dtype).kind in ("complex", "bool"):
        raise TypeError(f"{spec.name}: `normalizer` must be real, got {normalizer.dtype}. Pass a count.")
    if tuple(normalizer.shape) != ():
        raise ValueError(
            f"{spec.name}: `normalizer` must be a number or a 0-d array, got shape {tuple(normalizer.shape)}. "
            "For a factor per term use `weights`."
        )
    return normalizer


def _with_autodiff(call: Call, owner: Backend) -> Any:
    """Evaluate a penalty that differentiates; in another framework if the arrays' own cannot."""
    lender = lender_of(call.spec.name, owner)
    if lender is owner:
        return _value(call, owner)

    def borrowed(
        arrays: tuple[Any, ...],
        where: Any,
        weights: Any,
        normalizer: Any,
        options: Mapping[str, Any],
        functions: tuple[Any, ...],
    ) -> Any:
        spec, _, reduction, *_ = call
        return _value(
            Call(spec, arrays, reduction, where, weights, normalizer, options, call.with_metrics, functions), lender
        )

    args = call.arrays, call.where, call.weights, call.normalizer, call.options, call.functions
    return on_loan(call.spec.name, owner, lender, borrowed, args, {})


def _in_program(call: Call, backend: Backend) -> Any:
    """Evaluate a call as one compiled program for each penalty, options and shapes.

    A normalizer is traced, for it changes from batch to batch. Calls that cannot be traced are evaluated without a
    program, so that their errors speak of the arguments and not of tracers.
    """
    spec, arrays, reduction, where, weights, normalizer, options, with_metrics, _ = call
    for x in (*arrays, where, weights):
        if x is not None and backend_of(x) is not backend:
            return _value(call, backend)
    traced = {name: value for name, value in options.items() if backend_of(value) is backend}
    static = tuple((name, type(value), value) for name, value in options.items() if name not in traced)
    elements = BLOCK_SIZE.get() if spec.matrices else None  # nothing else is cut in blocks in a program
    key = spec, reduction, with_metrics, backend, static, elements
    try:
        hash(key)
        assert backend.evaluation.program is not None
        return backend.evaluation.program(_of_key, key, (arrays, where, weights, normalizer, traced))
    except (TypeError, ValueError):
        return _value(call, backend)


def _of_key(key: Any, traced: Any) -> Any:
    spec, reduction, with_metrics, backend, static, _ = key
    arrays, where, weights, normalizer, options = traced
    options = {**{name: value for name, _, value in static}, **options}
    return _value(Call(spec, arrays, reduction, where, weights, normalizer, options, with_metrics), backend)


def _value(call: Call, backend: Backend) -> Any:
    """Evaluate a call that has been checked."""
    backend, work, mask, weights = prepare(call, backend)
    empty = 0 in call.arrays[0].shape
    terms = _no_terms(backend, work, mask, weights) if empty else _terms(call, backend, work, mask, weights)
    value, total = reduce(call, terms)
    return (value, metrics(terms, total)) if call.with_metrics else value


def prepare(call: Call, backend: Backend) -> tuple[Backend, Work, Any, Any]:
    """Check the arrays, and find the dtype to compute in, the axis, the mask and the weights.

    Returns the backend (another one if `where` or `weights` are traced), what to evaluate, and mask and weights of the
    terms' shape: None for no mask, and for weights of 1.
    """
    spec, arrays, _, where, weights, _, options, _, functions = call
    dtype = _common_dtype(spec, backend, arrays)
    if spec.requires is not None:
        spec.requires(arrays, options)
    kind = spec.terms if isinstance(spec.terms, str) else spec.shape_of_terms(options)
    shape = arrays[0].shape
    axis = options.get("axis", spec.defaults.get("axis", -1 if kind == "rows" else None))
    if isinstance(axis, int) and (shape or kind == "rows"):
        if not -len(shape) <= axis < len(shape):
            raise _no_axis(spec, axis, shape)
        axis %= len(shape)
    else:
        axis = 0
    if "eps" in spec.extras:
        options = {**options, "eps": max(float(backend.xp.finfo(x.dtype).eps) for x in arrays)}
    mask = over_inputs = None
    if where is not None or weights is not None:
        backend, mask, weights = _masks(spec, backend, arrays[0], _terms_shape(kind, shape, axis), where, weights)
        over_inputs = _over_inputs(backend.xp, mask, kind, axis, len(shape))
    work = Work(
        partial(spec.formula, *functions) if functions else spec.formula,
        options,
        backend.xp,
        dtype,
        arrays,
        over_inputs,
        "kept" in spec.extras,
        axis if kind == "rows" else None,
        spec.matrices,
        _divisor(call, kind, shape, axis),
        mask if weights is None else weights,
        kind,
    )
    return backend, work, mask, weights


def _divisor(call: Call, kind: Shape, shape: Any, axis: int) -> float | None:
    """Return the divisor of the sum if it is known before evaluation, else 1. None for reduction "none"."""
    reduction, normalizer = call.reduction, call.normalizer
    if reduction == "none":
        return None
    if type(normalizer) is float:
        return normalizer
    known = reduction == "mean" and normalizer is None and call.where is None and call.weights is None
    return float(math.prod(shape) // shape[axis] or 1) if known and kind == "rows" and shape[axis] else 1.0


def _terms(call: Call, backend: Backend, work: Work, mask: Any, weights: Any) -> Terms:
    """Evaluate the penalty's terms. Masked terms are 0."""
    if call.functions:  # they run as the user wrote them
        values, total = work.whole(), None
        backend = _tracing(backend, values)
    else:
        values, total = backend.evaluation.evaluate(work)
        for option in call.options.values():
            if type(option) not in _PLAIN:
                backend = _tracing(backend, values)
    if mask is not None:
        values = backend.xp.where(mask, values, 0.0)
    if weights is not None and weights.dtype != values.dtype:
        weights = work.xp.astype(weights, values.dtype)  # float16 ones would not sum, float64 ones would widen
    return Terms(backend, values, mask, weights, total, work.divisor or 1.0)


def _check_callable(spec: Spec, functions: tuple[Any, ...]) -> None:
    for name, function in zip(spec.functions, functions, strict=True):
        if not callable(function):
            raise TypeError(
                f"{spec.name}: `{name}` must be callable, got {type(function).__qualname__}. Pass it before the arrays."
            )


def _tracing(backend: Backend, values: Any) -> Backend:
    """The backend of `values` if a function, or an option that is an array, has made them traced."""
    actual = backend_of(values)
    return backend if actual is None or not actual.traces else actual


def _common_dtype(spec: Spec, backend: Backend, arrays: tuple[Any, ...]) -> Any:
    """The dtype to compute in, float32 at least unless a function takes them, or None: that of all arrays.

    Shapes must be the same.
    """
    first = arrays[0]
    first_dtype = first.dtype
    kind, working, _ = backend.dtype(first_dtype)
    if kind != "real":
        _check_kind(spec, spec.arrays[0], first, kind)
    differ = working is not None and not spec.functions
    for i in range(1, len(arrays)):
        x = arrays[i]
        if x.dtype != first_dtype:
            _check_kind(spec, spec.arrays[i], x, backend.dtype(x.dtype).kind)
            differ = True
        if x.shape != first.shape and not spec.matrices:
            listed = " and ".join(f"`{n}`" for n in spec.arrays)
            got = " and ".join(str(tuple(y.shape)) for y in arrays)
            raise ValueError(f"{spec.name}: {listed} must have the same shape, got {got}. Broadcast them explicitly.")
    if not differ or spec.matrices:  # a linear map computes in its own dtype, and the formula widens what comes out
        return None
    return backend.xp.result_type(
        *[x.dtype if spec.functions else backend.dtype(x.dtype).working or x.dtype for x in arrays]
    )


def _check_kind(spec: Spec, name: str, x: Any, kind: str) -> None:
    if kind != "real" and not (kind == "complex" and spec.complex):
        wanted = "real or complex floating point" if spec.complex else "real floating point"
        hint = "Take its real part or size" if kind == "complex" else "Cast it first, for example to float32"
        raise TypeError(f"{spec.name}: `{name}` must be {wanted}, got {x.dtype}. {hint}.")


def _no_axis(spec: Spec, axis: int, shape: Any) -> ValueError:
    if not shape:
        return ValueError(f"{spec.name}: `{spec.arrays[0]}` must have at least 1 axis, got shape (). Add one.")
    return ValueError(
        f"{spec.name}: `axis` must be an axis of `{spec.arrays[0]}`, got {axis} for shape {tuple(shape)}. "
        f"Give one in [{-len(shape)}, {len(shape) - 1}]."
    )


def _terms_shape(kind: Shape, shape: Any, axis: int) -> tuple[int, ...]:
    shape = tuple(shape)
    if kind == "elements":
        return shape
    if kind == "rows":
        return shape[:axis] + shape[axis + 1 :]
    if kind == "samples":
        return shape[:1]
    return shape[:-2] if kind == "matrices" else ()


def _no_terms(backend: Backend, work: Work, mask: Any, weights: Any) -> Terms:
    """Return zeros for arrays of size 0, on the graph of all of them. The formula is not called."""
    xp = backend.xp
    zeros: Any = 0.0
    for i, x in enumerate(work.arrays):
        dtype = work.dtype or backend.dtype(x.dtype).working or x.dtype
        wide = x if x.dtype == dtype else xp.astype(x, dtype)
        zeros = zeros + _summed_over_inputs(xp, wide, "whole" if i in work.matrices else work.kind, work.axis)
    return Terms(backend, zeros, mask, weights)


def _summed_over_inputs(xp: Any, x: Any, kind: str, axis: int | None) -> Any:
    """Sum an array of size 0, or one that all terms share, to zeros of the terms' shape."""
    x = xp.abs(x)  # real
    if kind == "whole":
        return xp.sum(xp.reshape(x, (-1,))[:0])
    if kind == "elements":
        return x
    if kind == "rows":
        return xp.sum(x, axis=axis)
    if kind == "samples":
        return xp.sum(xp.reshape(x, (x.shape[0], math.prod(x.shape[1:]))), axis=1)
    return xp.sum(x, axis=(-2, -1))


def _masks(
    spec: Spec, backend: Backend, first: Any, shape: tuple[int, ...], where: Any, weights: Any
) -> tuple[Backend, Any, Any]:
    """Which terms are kept, and their weights (0 where they are not), both checked and of the terms' shape."""
    for name, x in (("where", where), ("weights", weights)):
        if x is None:
            continue
        other = common_backend(spec.name, (spec.arrays[0], name), (first, x))
        backend = other if other.traces else backend
        kind = other.dtype(x.dtype).kind
        if name == "where" and kind != "bool":
            raise TypeError(
                f"{spec.name}: `where` must be a boolean array, got {x.dtype}. Compare it, or use `weights`."
            )
        if name == "weights" and kind != "real":
            raise TypeError(
                f"{spec.name}: `weights` must be real floating point, got {x.dtype}. For a mask use `where`."
            )
        if not broadcasts(tuple(x.shape), shape):
            raise ValueError(
                f"{spec.name}: `{name}` must broadcast to the terms' shape {shape}, got {tuple(x.shape)}. "
                "There is one term per element, row, matrix or sample; see reduction='none'."
            )
    xp = backend.xp
    if weights is not None:
        kept = weights != 0 if where is None else where & (weights != 0)
        weights = xp.broadcast_to(xp.where(kept, weights, 0.0), shape)
    else:
        kept = where
    return backend, None if kept is None else xp.broadcast_to(kept, shape), weights


def _over_inputs(xp: Any, kept: Any, kind: Shape, axis: int, ndim: int) -> Any:
    """The terms' mask as one that broadcasts against the inputs."""
    if kind == "rows":
        return xp.expand_dims(kept, axis=axis)
    if kind == "matrices":
        return xp.expand_dims(xp.expand_dims(kept, axis=ndim - 2), axis=ndim - 1)
    return xp.reshape(kept, (kept.shape[0],) + (1,) * (ndim - 1)) if kind == "samples" else kept


def reduce(call: Call, terms: Terms) -> tuple[Any, Any]:
    """Reduce the terms. Returns the value and the weighted sum, or for "none" the weighted terms."""
    backend, values, mask, weights, fused, divisor = terms
    xp = backend.xp
    if fused is not None and (divisor != 1 and not call.with_metrics):
        return fused, None
    if fused is not None and divisor == 1:
        total = fused
    else:
        if weights is not None:
            values = values * weights
        total = values if call.reduction == "none" else xp.sum(values)
        if fused is not None:
            return fused, total
    if call.normalizer is not None:
        return _divide(call, total), total
    if call.reduction != "mean":
        return total, total
    if mask is None:
        return total / max(math.prod(values.shape), 1), total
    return ratio(total, count(mask, values.dtype) if weights is None else xp.sum(weights)), total


def _divide(call: Call, total: Any) -> Any:
    """Divide by the normalizer. 0 / 0 is 0 for an array."""
    normalizer = call.normalizer
    if type(normalizer) is float:
        return total / normalizer
    backend = common_backend(call.spec.name, (call.spec.arrays[0], "normalizer"), (total, normalizer))
    if normalizer.dtype != total.dtype:
        normalizer = backend.xp.astype(normalizer, total.dtype)
    return ratio(total, normalizer)


def metrics(terms: Terms, total: Any) -> tuple[Any, Any, Any, Any]:
    """Return sum (`total`), mean, min and max of the weighted terms that are not masked, as constants.

    Mean, min and max are NaN if there are no such terms.
    """
    xp = terms.backend.xp
    stop = terms.backend.autodiff.stop_gradient
    inf, nan = math.inf, math.nan
    values = stop(terms.values)
    mask, weights = terms.mask, None if terms.weights is None else stop(terms.weights)
    total = stop(total)
    size = math.prod(values.shape)
    if size == 0:
        return total, total * nan, total * nan, total * nan
    if mask is None:
        return total, total / size, *terms.backend.extrema(values)
    share = count(mask, values.dtype) if weights is None else xp.sum(weights)
    any_left = share > 0
    return (
        total,
        xp.where(any_left, total / xp.where(any_left, share, 1.0), nan),
        xp.where(any_left, xp.min(xp.where(mask, values, inf)), nan),
        xp.where(any_left, xp.max(xp.where(mask, values, -inf)), nan),
    )
