"""Turn a checked call into the work for a backend: find its dtype, axis, mask and weights."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from ..backends import Backend
from ..backends._work import Work
from .arguments import Call
from .dtypes import working_dtype
from .masks import mask_over_inputs, masks
from .spec import Shape, Spec

__all__ = ["axis_error", "prepare"]


def prepare(call: Call, backend: Backend) -> tuple[Backend, Work, Any, Any]:
    """Check the arrays, and find the dtype to compute in, the axis, the mask and the weights.

    Returns the backend (the tracer's if `where` or `weights` are traced), the work, and the mask and the weights in the
    terms' shape. The mask is None without `where` and `weights`, the weights are None without `weights`.
    """
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
    kind = spec.terms if isinstance(spec.terms, str) else spec.shape_of_terms(options)
    axis = options.get("axis", spec.defaults.get("axis", -1 if kind == "rows" else None))
    if isinstance(axis, int) and (shape or kind == "rows"):
        if not -len(shape) <= axis < len(shape):
            raise axis_error(spec, axis, shape)
        axis %= len(shape)
    else:
        axis = 0
    if "eps" in spec.extras:
        options = {**options, "eps": max(float(backend.xp.finfo(x.dtype).eps) for x in arrays)}
    mask = over_inputs = None
    if where is not None or weights is not None:
        backend, mask, weights = masks(spec, backend, arrays[0], _terms_shape(kind, shape, axis), where, weights)
        if backend.lazy:  # else an axis that is broadcast would be one chunk
            chunks = _terms_shape(kind, arrays[0].chunks, axis)
            mask, weights = (None if x is None else backend.in_chunks(x, chunks) for x in (mask, weights))
        if mask is not None:
            over_inputs = mask_over_inputs(backend.xp, mask, kind, axis, len(shape))
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
    if kind == "elements":
        return shape
    if kind == "rows":
        return shape[:axis] + shape[axis + 1 :]
    if kind == "samples":
        return shape[:1]
    return shape[:-2] if kind == "matrices" else ()
