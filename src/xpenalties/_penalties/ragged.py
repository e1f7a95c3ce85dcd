"""Evaluate penalties of ragged arrays: sequences of different lengths, packed one after another.

PyTorch's jagged nested tensors are such arrays. A penalty of elements, or of rows that do not lie along the sequences,
is evaluated on the packed elements. All other penalties would mix sequences, or count elements that do not exist, so
they refuse ragged arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._arrays.numerics import array_backend
from ..backends import Backend, backend_of, common_backend
from .arguments import Call
from .masks import refuse_ragged
from .preparation import axis_error
from .spec import Spec

__all__ = ["evaluate_ragged"]


def evaluate_ragged(call: Call, backend: Backend, evaluate: Callable[[Call, Backend], Any]) -> Any:
    """Evaluate a call on the packed elements of its arrays. Terms are returned as a ragged array."""
    spec, options = call.spec, call.options
    first = _first(call, backend)
    shape, ndim, ragged = first.shape, first.ndim, backend.ragged_axis(first)
    kind, axis_of_terms = spec.shape_of_terms(options), ragged
    if kind not in ("elements", "rows"):
        raise _ragged_error(spec, first, "Its sequences cannot be packed into one: pass them one by one, or pad them")
    axes: list[int] = []
    if kind == "rows":
        axis = options.get("axis", spec.defaults.get("axis", -1))
        for one in axis if type(axis) is tuple else (axis,):
            if not -ndim <= one < ndim:
                raise axis_error(spec, one, shape)
            axes.append(one % ndim)
        if 0 in axes or ragged in axes:
            raise _ragged_error(
                spec, first, f"A row lies along axis {axis}, across sequences: pass another, or pad them"
            )
        axis_of_terms = ragged - sum(one < ragged for one in axes)
        if "axis" in spec.defaults:
            options = {**options, "axis": tuple(one - 1 for one in axes) if type(axis) is tuple else axes[0] - 1}

    def packed(name: str, x: Any, ndim: int, ragged: int) -> Any:
        """Pack one array. It must match an array of `ndim` axes whose sequences lie along axis `ragged`."""
        if backend_of(x) is not backend:
            if name not in spec.arrays and x.ndim < ndim - ragged:  # it has only axes after that of the sequences
                return x
        elif x.ndim == ndim and backend.ragged_axis(x) == ragged and backend.are_alike(x, first):
            return backend.packed(x)
        raise TypeError(
            f"{spec.name}: `{name}` must be ragged like the other arrays, with the same offsets and without gaps, got "
            f"shape {_shape(x)} beside {_shape(first)}. Make all of them from one array of offsets, or pad them."
        )

    def packed_or_none(name: str, x: Any) -> Any:
        if x is None:
            return None
        common_backend(spec.name, (spec.arrays[0], name), (first, x))
        return packed(name, x, ndim - len(axes), axis_of_terms)

    arrays = [
        x if i in spec.matrices else packed(name, x, ndim, ragged)
        for i, (name, x) in enumerate(zip(spec.arrays, call.arrays, strict=True))
    ]
    options = {
        name: value if backend_of(value) is None else packed(name, value, ndim, ragged)
        for name, value in options.items()
    }
    where, weights = packed_or_none("where", call.where), packed_or_none("weights", call.weights)
    call = call._replace(arrays=tuple(arrays), where=where, weights=weights, options=options)
    value = evaluate(call, common_backend(spec.name, spec.arrays, arrays))
    if call.reduction != "none":
        return value
    terms, *metrics = value if call.with_metrics else (value,)
    terms = backend.unpacked(terms, first, axis_of_terms)
    return (terms, *metrics) if call.with_metrics else terms


def _first(call: Call, backend: Backend) -> Any:
    """Return the first ragged array. The linear maps must be plain arrays."""
    spec = call.spec
    for i in spec.matrices:
        refuse_ragged(spec, spec.arrays[i], call.arrays[i], array_backend(call.arrays[i]))
    return next(x for x in call.arrays if backend_of(x) is backend)


def _ragged_error(spec: Spec, x: Any, reason: str) -> TypeError:
    return TypeError(f"{spec.name}: `{spec.arrays[0]}` must not be ragged here, got shape {_shape(x)}. {reason}.")


def _shape(x: Any) -> str:
    return str(tuple(x.shape))
