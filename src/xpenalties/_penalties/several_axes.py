"""Rows that lie along several axes: join these into one axis, so that all that follows knows one only."""

from __future__ import annotations

import math

from ..backends import Backend
from .arguments import Call

__all__ = ["with_one_axis"]


def with_one_axis(call: Call, backend: Backend) -> Call:
    """Return a call whose option `axis` is a tuple with these axes of its array joined, as the last axis."""
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
