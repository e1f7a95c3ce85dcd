"""Turn a checked call into the work for a backend: find its dtype, axis, mask and weights."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

from ..backends import Backend
from ..backends._work import Work
from .arguments import Call
from .dtypes import working_dtype
from .masks import mask_over_inputs, masks
from .spec import Shape, Spec

__all__ = ["Prepared", "axis_error", "prepare"]


class Prepared(NamedTuple):
    """A call that is ready to be evaluated."""

    backend: Backend  # the tracer's if `where` or `weights` are traced
    work: Work
    mask: Any = None  # of the terms, or of the samples of a statistic; None without `where` and `weights`
    weights: Any = None  # the same; None without `weights`
    axis: int | None = None  # axis along which a row lies, None if there are no rows
    is_statistic: bool = False


def prepare(call: Call, backend: Backend) -> Prepared:
    """Check the arrays, and find the dtype to compute in, the axis, the mask and the weights."""
    spec, arrays, _, where, weights, _, options, _, functions = call
    try:
        dtype = working_dtype(spec, backend, arrays)
        shape = arrays[0].shape
    except RuntimeError as error:
        raise TypeError(
            f"{spec.name}: `{spec.arrays[0]}` must have a shape, got one of PyTorch's nested tensors of the layout "
            f"torch.strided ({error}). Make it with layout=torch.jagged, or pad it and pass `where`."
        ) from error
    if spec.check_arrays is not None:
        spec.check_arrays(arrays, options)
    samples = None if spec.samples is None else spec.shape_of_samples(options)
    kind = spec.terms if isinstance(spec.terms, str) and spec.samples is None else spec.shape_of_terms(options)
    selected = samples or kind
    axis = options.get("axis", spec.defaults.get("axis"))
    if selected == "rows" and not isinstance(axis, int):  # it has no axis, or a name
        axis = -1
    if isinstance(axis, int) and (shape or selected == "rows") and not functions:  # else it is one of their output
        if not -len(shape) <= axis < len(shape):
            raise axis_error(spec, axis, shape)
        axis %= len(shape)
    else:
        axis = 0
    if "eps" in spec.extras:
        options = {**options, "eps": max(float(backend.xp.finfo(x.dtype).eps) for x in arrays)}
    mask = over_inputs = None
    if where is not None or weights is not None:
        to, of = _terms_shape(selected, shape, axis), "terms" if samples is None else "samples"
        backend, mask, weights = masks(spec, backend, arrays[0], to, where, weights, of=of)
        if backend.lazy:  # else an axis that is broadcast would be one chunk
            chunks = _terms_shape(selected, arrays[0].chunks, axis)
            mask, weights = (None if x is None else backend.in_chunks(x, chunks) for x in (mask, weights))
        if mask is not None:
            over_inputs = mask_over_inputs(backend.xp, mask, selected, axis, len(shape))
        if "weights" in spec.extras and (samples is not None or kind in ("elements", "neighborhoods")):
            passed = mask if weights is None and samples is not None else weights
            if passed is not None:
                wide = dtype or arrays[0].dtype
                if passed.dtype != wide and backend.dtype(wide).kind == "real":
                    passed = backend.xp.astype(passed, wide)
                options = {**options, "weights": passed}
    work = Work(
        partial(spec.formula, *functions) if functions else spec.formula,
        options,
        backend.xp,
        dtype,
        arrays,
        over_inputs,
        "mask" in spec.extras,
        axis if kind == "rows" else None,
        spec.matrices,
        _divisor(call, kind, shape, axis),
        None if samples is not None else mask if weights is None else weights,
        kind,
    )
    return Prepared(backend, work, mask, weights, axis if selected == "rows" else None, samples is not None)


def _divisor(call: Call, kind: Shape, shape: Any, axis: int) -> float | None:
    """Return the divisor of the sum if it is known before evaluation, else 1. None for reduction "none"."""
    reduction, normalizer = call.reduction, call.normalizer
    if reduction == "none":
        return None
    if type(normalizer) is float:
        return normalizer
    known = reduction == "mean" and normalizer is None and call.where is None and call.weights is None
    if not known or kind != "rows":
        return 1.0
    size = math.prod(shape)
    return float(size // shape[axis]) if type(size) is int and size else 1.0  # not a symbolic size, as in an export


def axis_error(spec: Spec, axis: int, shape: Any) -> ValueError:
    if not shape:
        return ValueError(f"{spec.name}: `{spec.arrays[0]}` must have at least 1 axis, got shape (). Add one.")
    return ValueError(
        f"{spec.name}: `axis` must be an axis of `{spec.arrays[0]}`, got {axis} for shape {tuple(shape)}. "
        f"Give one in [{-len(shape)}, {len(shape) - 1}]."
    )


def _terms_shape(kind: Shape, shape: Any, axis: int) -> tuple[int, ...]:
    shape = tuple(shape)
    if kind in ("elements", "neighborhoods"):
        return shape
    if kind == "rows":
        return shape[:axis] + shape[axis + 1 :]
    if kind == "samples":
        return shape[:1]
    return shape[:-2] if kind == "matrices" else ()
