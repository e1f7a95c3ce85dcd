"""Join several axes of rows into one, so that later code sees a single axis."""

from __future__ import annotations

import math

from ..backends import Backend
from .arguments import Call

__all__ = ["with_one_axis"]


def with_one_axis(call: Call, backend: Backend) -> Call:
    """Return the call with the axes in its option `axis`, a tuple, joined into one last axis."""
    spec, (x,), axes = call.spec, call.arrays, call.options["axis"]
    shape, ndim = tuple(x.shape), x.ndim
    counted = [axis % ndim for axis in axes if -ndim <= axis < ndim]
    if len(set(counted)) < len(axes):
        raise ValueError(
            f"{spec.name}: `axis` must have axes of `{spec.arrays[0]}`, each once, got {axes} for shape {shape}. "
            f"Give some in [{-ndim}, {ndim - 1}]."
        )
    rest = [axis for axis in range(ndim) if axis not in counted]
    joined = (*[shape[axis] for axis in rest], math.prod([shape[axis] for axis in counted]))
    array = backend.xp.reshape(backend.xp.permute_dims(x, (*rest, *counted)), joined)
    return call._replace(arrays=(array,), options={**call.options, "axis": -1})
