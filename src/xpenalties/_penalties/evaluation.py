"""From arrays to terms to a value: what every penalty does before and after its formula.

Checks, half precision, masks and weights come before it, the reduction and its metrics after it.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

from .._arrays.numerics import broadcasts, count, ratio
from .._core.checks import POSITIVE, member
from ..backends import Backend, backend_of, common_backend, in_dynamo, is_array_beside
from ..backends._blocks import Work, is_small
from .spec import Shape, Spec

__all__ = ["METRICS", "Terms", "evaluate", "metrics", "reduce"]

_REDUCTIONS = ("sum", "mean", "none")


class Terms(NamedTuple):
    """A penalty before its weights and its reduction."""

    backend: Backend
    values: Any  # masked
    kept: Any = None  # boolean, of the terms' shape; None: all
    weights: Any = None  # None: all 1
    total: Any = None  # their sum by their weights, divided by `divisor`, where it is known already
    divisor: float = 1.0


def evaluate(
    spec: Spec,
    arrays: tuple[Any, ...],
    where: Any,
    weights: Any,
    options: dict[str, Any],
    reduction: str,
    normalizer: Any,
) -> Terms:
    """The terms of a penalty, masked, and what to weight them with; where that is cheaper their sum at once."""
    functions: tuple[Any, ...] = ()
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
    backend = common_backend(spec.name, spec.arrays, arrays)
    dtype = _common_dtype(spec, backend, arrays)
    shape = arrays[0].shape
    if spec.requires is not None:
        spec.requires(arrays, options)
    kind = spec.shape_of_terms(options)
    axis = options.get("axis", spec.defaults.get("axis", -1 if kind == "rows" else None))
    axis = _axis(spec, axis, arrays[0]) if isinstance(axis, int) and (shape or kind == "rows") else 0
    if "eps" in spec.extras:
        options = {**options, "eps": max(float(backend.xp.finfo(x.dtype).eps) for x in arrays)}
    formula = partial(spec.formula, *functions) if functions else spec.formula
    rows = axis if kind == "rows" else None
    if where is None and weights is None and 0 not in shape:
        plain = dtype is None and not spec.matrices and not spec.functions
        if plain and (rows is None or in_dynamo() or is_small(shape)):
            attempt = None if kind == "elements" else backend.attempt(arrays)
            if attempt is None:
                values = backend.run(formula, arrays, options)
            else:
                values = backend.run(attempt, (formula, arrays, options), {})
            return Terms(_tracing(backend, values), values)
        divisor = _divisor(reduction, normalizer, None if rows is None else math.prod(_terms_shape(kind, shape, axis)))
        work = Work(formula, options, backend.xp, dtype, arrays, None, False, rows, spec.matrices, divisor)
        values, total = backend.evaluate(work) if not spec.functions else (work.whole(), None)
        return Terms(_tracing(backend, values), values, None, None, total, divisor or 1.0)

    terms_shape = _terms_shape(kind, shape, axis)
    backend, kept, weights = _masks(spec, backend, arrays[0], terms_shape, where, weights)
    xp = backend.xp
    if 0 in shape:
        working = (dtype or backend.dtype(x.dtype).working or x.dtype for x in arrays)
        wide = (x if x.dtype == to else xp.astype(x, to) for x, to in zip(arrays, working, strict=True))
        kinds: list[Shape] = ["whole" if i in spec.matrices else kind for i in range(len(arrays))]
        empty = [_no_terms(xp, x, kind, axis) for x, kind in zip(wide, kinds, strict=True)]
        return Terms(backend, sum(empty[1:], empty[0]), kept, weights)
    mask = _over_inputs(xp, kept, kind, axis, arrays[0].ndim)
    factors = kept if weights is None else weights
    takes_kept = "kept" in spec.extras
    divisor = _divisor(reduction, normalizer, None)
    work = Work(formula, options, xp, dtype, arrays, mask, takes_kept, rows, spec.matrices, divisor, factors)
    values, total = backend.evaluate(work) if not spec.functions else (work.whole(), None)
    backend = _tracing(backend, values)
    values = backend.xp.where(kept, values, 0.0)
    if weights is not None and weights.dtype != values.dtype:
        weights = xp.astype(weights, values.dtype)  # float16 ones would not sum, float64 ones would widen
    return Terms(backend, values, kept, weights, total, divisor or 1.0)


def _divisor(reduction: str, normalizer: Any, count: int | None) -> float | None:
    """What the sum of `count` terms is divided by, 1 where that is an array or still unknown; None: there is no sum."""
    if reduction == "none":
        return None
    if normalizer is None:
        return float(count) if reduction == "mean" and count is not None else 1.0
    return float(normalizer) if type(normalizer) in (int, float) and 0 < normalizer < math.inf else 1.0


def _check_callable(spec: Spec, functions: tuple[Any, ...]) -> None:
    for name, function in zip(spec.functions, functions, strict=True):
        if not callable(function):
            raise TypeError(
                f"{spec.name}: `{name}` must be callable, got {type(function).__qualname__}. Pass it before the arrays."
            )


def _tracing(backend: Backend, values: Any) -> Backend:
    """The backend of `values`, if an option that is traced has made them so."""
    found = backend_of(values)
    return backend if found is None or not found.traces else found


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


def _axis(spec: Spec, axis: int, x: Any) -> int:
    """`axis` counted from the front."""
    if x.ndim == 0:
        raise ValueError(f"{spec.name}: `{spec.arrays[0]}` must have at least 1 axis, got shape (). Add one.")
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(
            f"{spec.name}: `axis` must be an axis of `{spec.arrays[0]}`, got {axis} for shape {tuple(x.shape)}. "
            f"Give one in [{-x.ndim}, {x.ndim - 1}]."
        )
    return axis % x.ndim


def _terms_shape(kind: Shape, shape: Any, axis: int) -> tuple[int, ...]:
    shape = tuple(shape)
    if kind == "elements":
        return shape
    if kind == "rows":
        return shape[:axis] + shape[axis + 1 :]
    if kind == "samples":
        return shape[:1]
    return shape[:-2] if kind == "matrices" else ()


def _no_terms(xp: Any, x: Any, kind: Shape, axis: int) -> Any:
    """Zeros of the terms' shape for an `x` of size 0, or for what all terms have in common, on the graph of `x`."""
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


def reduce(spec: Spec, terms: Terms, reduction: str, normalizer: Any) -> tuple[Any, Any]:
    """The value of a penalty, and the sum of its terms by their weights, or for "none" the terms."""
    backend, values, kept, weights, total, divisor = terms
    xp = backend.xp
    if reduction not in _REDUCTIONS:
        spec.check("reduction", reduction, member(_REDUCTIONS))
    if total is None or divisor != 1:
        value = total
        if weights is not None:
            values = values * weights
        total = values if reduction == "none" else xp.sum(values)
        if value is not None:
            return value, total
    if normalizer is not None:
        return _divide(spec, total, normalizer), total
    if reduction != "mean":
        return total, total
    if kept is None:
        return total / max(_size(values), 1), total
    return ratio(total, count(kept, values.dtype) if weights is None else xp.sum(weights)), total


def _size(x: Any) -> int:
    size = 1
    for length in x.shape:
        size *= length
    return size


def _divide(spec: Spec, total: Any, normalizer: Any) -> Any:
    if not is_array_beside(normalizer, total):
        return total / spec.check("normalizer", normalizer, POSITIVE)
    backend = common_backend(spec.name, (spec.arrays[0], "normalizer"), (total, normalizer))
    kind = backend.dtype(normalizer.dtype).kind
    if kind in ("complex", "bool"):
        raise TypeError(f"{spec.name}: `normalizer` must be real, got {normalizer.dtype}. Pass a count.")
    if tuple(normalizer.shape) != ():
        raise ValueError(
            f"{spec.name}: `normalizer` must be a number or a 0-d array, got shape {tuple(normalizer.shape)}. "
            "For a factor per term use `weights`."
        )
    if normalizer.dtype != total.dtype:
        normalizer = backend.xp.astype(normalizer, total.dtype)
    return ratio(total, normalizer)


METRICS = ("sum", "mean", "min", "max")


def metrics(terms: Terms, total: Any) -> tuple[Any, Any, Any, Any]:
    """Sum (`total`) and mean of the terms, by their weights, and min and max of those kept; constants.

    NaN where there is none to take a mean or an end of.
    """
    xp = terms.backend.xp
    stop = terms.backend.stop_gradient
    inf, nan = math.inf, math.nan
    values = stop(terms.values)
    kept, weights = terms.kept, None if terms.weights is None else stop(terms.weights)
    total = stop(total)
    size = _size(values)
    if size == 0:
        return total, total * nan, total * nan, total * nan
    if kept is None:
        return total, total / size, *terms.backend.extrema(values)
    share = count(kept, values.dtype) if weights is None else xp.sum(weights)
    some = share > 0
    return (
        total,
        xp.where(some, total / xp.where(some, share, 1.0), nan),
        xp.where(some, xp.min(xp.where(kept, values, inf)), nan),
        xp.where(some, xp.max(xp.where(kept, values, -inf)), nan),
    )
