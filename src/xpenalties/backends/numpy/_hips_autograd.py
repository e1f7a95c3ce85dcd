"""HIPS autograd as an array API namespace, and reverse mode over a list of leaves. Needs autograd."""

from __future__ import annotations

import math
from threading import Lock
from typing import Any

import array_api_compat.numpy
import autograd.numpy as anp
import numpy as np
from autograd.core import VJPNode, add_outgrads
from autograd.extend import defvjp, primitive
from autograd.numpy.numpy_vjps import unbroadcast_f
from autograd.tracer import getval, isbox, new_box, toposort, trace_stack

from ..base import OfLeaves, Pull

__all__ = ["Namespace", "vjp"]


class _Linalg:
    """autograd.numpy.linalg with the standard's names and with the functions that it lacks."""

    @staticmethod
    def diagonal(x: Any, /, *, offset: int = 0) -> Any:
        if offset < 0:
            return _Linalg.diagonal(anp.swapaxes(x, -1, -2), offset=-offset)
        rows = np.arange(max(min(x.shape[-2], x.shape[-1] - offset), 0))
        return x[..., rows, rows + offset]

    @staticmethod
    def outer(x1: Any, x2: Any, /) -> Any:
        return x1[:, None] * x2[None, :]

    @staticmethod
    def trace(x: Any, /, *, offset: int = 0) -> Any:
        return anp.sum(_Linalg.diagonal(x, offset=offset), axis=-1)

    def __getattr__(self, name: str) -> Any:
        return _looked_up(self, name, anp.linalg, array_api_compat.numpy.linalg)

    @staticmethod
    def vector_norm(x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Any:
        sizes = anp.abs(x)
        if math.isinf(ord):
            return (anp.max if ord > 0 else anp.min)(sizes, axis=axis, keepdims=keepdims)
        if ord == 0:
            return anp.sum(sizes != 0, axis=axis, keepdims=keepdims).astype(sizes.dtype)
        return anp.sum(sizes**ord, axis=axis, keepdims=keepdims) ** (1 / ord)


class Namespace:
    """autograd.numpy with the standard's names. Adds what it lacks, and replaces what it gets wrong.

    If a gradient goes through a function that cannot be differentiated, the error names the function.
    """

    def __init__(self) -> None:
        self.linalg = _Linalg()
        self.linalg.matrix_transpose = self.matrix_transpose  # type: ignore[attr-defined]
        self.linalg.vecdot = self.vecdot  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        return _looked_up(self, name, anp, array_api_compat.numpy)

    @staticmethod
    def abs(x: Any, /) -> Any:
        return anp.abs(x) if anp.iscomplexobj(x) else _abs(x)

    @staticmethod
    def asarray(x: Any, /, *, dtype: Any = None, **options: Any) -> Any:
        if not isbox(x):
            return array_api_compat.numpy.asarray(x, dtype=dtype, **options)
        return x if dtype is None else x.astype(dtype)

    @staticmethod
    def astype(x: Any, dtype: Any, /, *, copy: bool = True) -> Any:
        return x.astype(dtype, copy=copy)

    @staticmethod
    def broadcast_to(x: Any, /, shape: Any) -> Any:
        full = anp.reshape(x, (1,) * (len(shape) - anp.ndim(x)) + anp.shape(x))  # autograd's own adds no axes
        return anp.broadcast_to(full, tuple(shape))

    @staticmethod
    def clip(x: Any, /, min: Any = None, max: Any = None) -> Any:
        x = x if min is None else _where(x < min, min, x)
        return x if max is None else _where(x > max, max, x)

    @staticmethod
    def concat(arrays: Any, /, *, axis: int | None = 0) -> Any:
        if axis is None:
            arrays, axis = [anp.ravel(x) for x in arrays], 0
        return anp.concatenate(arrays, axis=axis)

    @staticmethod
    def cumulative_sum(x: Any, /, *, axis: int | None = None) -> Any:
        return anp.cumsum(x, axis=0 if axis is None else axis)

    @staticmethod
    def flip(x: Any, /, *, axis: Any = None) -> Any:
        axes = range(x.ndim) if axis is None else [a % x.ndim for a in ((axis,) if isinstance(axis, int) else axis)]
        return x[tuple(slice(None, None, -1 if a in axes else None) for a in range(x.ndim))]

    @staticmethod
    def isdtype(dtype: Any, kind: Any) -> bool:
        return bool(array_api_compat.numpy.isdtype(dtype, kind))

    @staticmethod
    def matrix_transpose(x: Any, /) -> Any:
        return anp.swapaxes(x, -1, -2)

    @staticmethod
    def mean(x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Any:
        total = anp.sum(x, axis=axis, keepdims=keepdims)
        return total / (x.size / total.size)  # autograd's own turns a float32 gradient into a float64 one

    @staticmethod
    def permute_dims(x: Any, /, axes: Any) -> Any:
        return anp.transpose(x, axes)

    @staticmethod
    def positive(x: Any, /) -> Any:
        return 1 * x

    def sort(self, x: Any, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Any:
        order = array_api_compat.numpy.argsort(getval(x), axis=axis, descending=descending, stable=stable)
        return self.take_along_axis(x, order, axis=axis)  # autograd's own derivative is that of one axis

    def std(self, x: Any, /, *, axis: Any = None, correction: float = 0, keepdims: bool = False) -> Any:
        return anp.sqrt(self.var(x, axis=axis, correction=correction, keepdims=keepdims))

    def var(self, x: Any, /, *, axis: Any = None, correction: float = 0, keepdims: bool = False) -> Any:
        squared = anp.abs(x - self.mean(x, axis=axis, keepdims=True)) ** 2
        total = anp.sum(squared, axis=axis, keepdims=keepdims)
        return total / (x.size / total.size - correction)  # autograd's own knows `ddof` only

    @staticmethod
    def take(x: Any, indices: Any, /, *, axis: int = 0) -> Any:
        return x[(slice(None),) * (axis % x.ndim) + (indices,)]

    @staticmethod
    def take_along_axis(x: Any, indices: Any, /, *, axis: int = -1) -> Any:
        at = [np.arange(n).reshape([-1 if i == j else 1 for j in range(x.ndim)]) for i, n in enumerate(x.shape)]
        at[axis] = indices
        return x[tuple(at)]

    @staticmethod
    def unstack(x: Any, /, *, axis: int = 0) -> tuple[Any, ...]:
        return tuple(anp.moveaxis(x, axis, 0))

    @staticmethod
    def where(condition: Any, x1: Any, x2: Any, /) -> Any:
        return _where(condition, x1, x2)

    @staticmethod
    def vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
        return anp.sum(anp.conj(x1) * x2, axis=axis)


def _looked_up(namespace: Any, name: str, first: Any, second: Any) -> Any:
    """Return the function `name` of `first`, or else of `second`, as an autograd primitive.

    Plain NumPy would take a box for data.
    """
    function = getattr(first, name, None)
    if function is None:
        function = getattr(second, name)
        if callable(function) and not isinstance(function, type):
            function = primitive(function)
    setattr(namespace, name, function)
    return function


@primitive
def _abs(x: Any) -> Any:
    return array_api_compat.numpy.abs(x)


# autograd's own is x / |x|, whose derivative should be 0, but is a rounding error that grows without bound near 0
defvjp(_abs, lambda ans, x: lambda g: g * anp.sign(x))


@primitive
def _where(condition: Any, x1: Any, x2: Any) -> Any:
    return array_api_compat.numpy.where(condition, x1, x2)


# autograd's own fills the gradient with float64 zeros, which makes the whole pass float64
defvjp(
    _where,
    None,
    lambda ans, condition, x1, x2: unbroadcast_f(x1, lambda g: _where(condition, g, 0.0)),
    lambda ans, condition, x1, x2: unbroadcast_f(x2, lambda g: _where(condition, 0.0, g)),
)


def vjp(fn: OfLeaves, leaves: list[Any]) -> tuple[Any, list[Any], Pull]:
    """Implement `Autodiff.vjp`. autograd's make_vjp takes one input, and warns if the output does not use it."""
    roots = [VJPNode.new_root() for _ in leaves]
    level = _new_level()
    plain = [np.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf for leaf in leaves]  # no box for subclasses
    value, aux = fn([new_box(leaf, level, root) for leaf, root in zip(plain, roots, strict=True)])
    aux = [_unbox(x, level) for x in aux]
    if not (isbox(value) and value._trace == level):
        return value, aux, lambda cotangent: [None] * len(leaves)
    end = value._node

    def pull(cotangent: Any) -> list[Any]:
        cotangents = {end: (cotangent, False)}
        gradients = dict.fromkeys(roots)
        for node in toposort(end):
            total, _ = cotangents.pop(node)
            if node in gradients:
                gradients[node] = total
            for parent, pulled in zip(node.parents, node.vjp(total), strict=True):
                cotangents[parent] = add_outgrads(cotangents.get(parent), pulled)
        return [
            None if gradients[root] is None else _of_dtype(gradients[root], leaf.dtype)
            for root, leaf in zip(roots, leaves, strict=True)
        ]

    return value._value, aux, pull


_LEVELS = Lock()


def _new_level() -> int:
    """Return a level above all others. It is never reused, because all threads share autograd's stack."""
    with _LEVELS:
        trace_stack.top += 1
        return int(trace_stack.top)


def _of_dtype(gradient: Any, dtype: Any) -> Any:
    """Cast a gradient. autograd makes the gradients of max, log2 and some other functions float64."""
    return gradient if gradient.dtype == dtype else gradient.astype(dtype)


def _unbox(x: Any, level: int) -> Any:
    return x._value if isbox(x) and x._trace == level else x
