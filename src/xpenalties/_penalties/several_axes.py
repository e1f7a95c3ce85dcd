"""Several axes in the option `axis`: check them, and join those of rows into one, so that later code sees one axis."""

from __future__ import annotations

import math

from ..backends import Backend
from .arguments import Call
from .preparation import axis_error
from .spec import Spec

__all__ = ["counted_axes", "with_one_axis"]


def counted_axes(spec: Spec, axis: int | tuple[int, ...], shape: tuple[int, ...]) -> list[int]:
    """Check an option `axis`, an axis or several. Returns the axes, counted from 0."""
    ndim = len(shape)
    axes = axis if isinstance(axis, tuple) else (axis,)
    counted = [one % ndim for one in axes if -ndim <= one < ndim]
    if len(set(counted)) == len(axes):
        return counted
    if not isinstance(axis, tuple) or not ndim:
        raise axis_error(spec, axes[0], shape)
    raise ValueError(
        f"{spec.name}: `axis` must have axes of `{spec.arrays[0]}`, each once, got {axes} for shape {shape}. "
        f"Give some in [{-ndim}, {ndim - 1}]."
    )


def with_one_axis(call: Call, backend: Backend) -> Call:
    """Return the call with the axes in its option `axis`, a tuple, joined into one last axis if they are of rows."""
    spec, (x,) = call.spec, call.arrays
    if spec.shape_of_terms(call.options) != "rows":
        return call
    shape, ndim = tuple(x.shape), x.ndim
    counted = counted_axes(spec, call.options["axis"], shape)
    rest = [axis for axis in range(ndim) if axis not in counted]
    joined = (*[shape[axis] for axis in rest], math.prod([shape[axis] for axis in counted]))
    array = backend.xp.reshape(backend.xp.permute_dims(x, (*rest, *counted)), joined)
    return call._replace(arrays=(array,), options={**call.options, "axis": -1})
