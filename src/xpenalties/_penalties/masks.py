"""`where` and `weights`: which terms count, and by how much."""

from __future__ import annotations

from typing import Any

from .._arrays.numerics import broadcasts
from ..backends import Backend, common_backend
from .spec import Shape, Spec

__all__ = ["mask_over_inputs", "masks", "refuse_ragged"]

_REMEDY = {
    "terms": "There is one term per element, row, matrix or sample. reduction='none' returns them.",
    "samples": "It is that of the input, without the axis of features.",
}


def masks(
    spec: Spec, backend: Backend, first: Any, shape: tuple[int, ...], where: Any, weights: Any, *, of: str = "terms"
) -> tuple[Backend, Any, Any]:
    """Check `where` and `weights`, which are of terms or samples.

    Returns the backend, the mask, and weights that are 0 where masked.
    """
    for name, x in (("where", where), ("weights", weights)):
        if x is None:
            continue
        other = common_backend(spec.name, (spec.arrays[0], name), (first, x))
        refuse_ragged(spec, name, x, other)
        backend = other if other.traces else backend
        kind = other.dtype(x.dtype).kind
        if name == "where" and kind != "bool":
            raise TypeError(f"{spec.name}: `where` must be a boolean array, got {x.dtype}. Pass `where != 0`.")
        if name == "weights" and kind != "real":
            raise TypeError(
                f"{spec.name}: `weights` must be real floating point, got {x.dtype}. For a mask, use `where`."
            )
        if not broadcasts(tuple(x.shape), shape):
            raise ValueError(
                f"{spec.name}: `{name}` must broadcast to the {of}' shape {shape}, got {tuple(x.shape)}. " + _REMEDY[of]
            )
    xp = backend.xp
    if backend.cut:
        where, weights = backend.beside(where, first), backend.beside(weights, first)
    if weights is not None:
        mask = backend.autodiff.weight_mask(weights)
        if where is not None:
            mask = where if mask is None else where & mask
        weights = xp.broadcast_to(weights if mask is None else xp.where(mask, weights, 0.0), shape)
    else:
        mask = where
    mask = None if mask is None else xp.broadcast_to(mask, shape)
    if backend.cut:  # again, because a number stays plain
        mask, weights = backend.beside(mask, first), backend.beside(weights, first)
    return backend, mask, weights


def refuse_ragged(spec: Spec, name: str, x: Any, backend: Backend) -> None:
    """Refuse a ragged array for an argument that must be a plain array."""
    if backend.ragged:
        raise TypeError(
            f"{spec.name}: `{name}` must not be ragged beside a plain array, got shape {tuple(x.shape)}. Pad it, or "
            "make all arrays ragged with the same offsets."
        )


def mask_over_inputs(xp: Any, mask: Any, kind: Shape, axis: int, ndim: int) -> Any:
    """Reshape the terms' mask so that it broadcasts against the inputs."""
    if kind == "rows":
        return xp.expand_dims(mask, axis=axis)
    if kind == "matrices":
        return xp.expand_dims(xp.expand_dims(mask, axis=ndim - 2), axis=ndim - 1)
    return xp.reshape(mask, (mask.shape[0],) + (1,) * (ndim - 1)) if kind == "samples" else mask
