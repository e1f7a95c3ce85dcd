"""HIPS autograd as an array API namespace, and reverse mode over a list of leaves. Needs autograd."""

from __future__ import annotations

from typing import Any

import array_api_compat.numpy
import autograd.numpy as anp
from autograd.core import VJPNode, add_outgrads
from autograd.extend import defvjp, primitive, vspace
from autograd.numpy.numpy_vjps import unbroadcast_f
from autograd.tracer import isbox, new_box, toposort, trace_stack

from .base import OfLeaves

__all__ = ["Namespace", "differentiate"]


class Namespace:
    """autograd.numpy by the standard's names, with the functions filled in that it cannot differentiate."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(anp, name, None)
        if found is None:
            found = getattr(array_api_compat.numpy, name)
        setattr(self, name, found)
        return found

    @staticmethod
    def astype(x: Any, dtype: Any, /, *, copy: bool = True) -> Any:
        return x.astype(dtype, copy=copy)

    @staticmethod
    def concat(arrays: Any, /, *, axis: int | None = 0) -> Any:
        if axis is None:
            arrays, axis = [anp.ravel(x) for x in arrays], 0
        return anp.concatenate(arrays, axis=axis)

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
    def where(condition: Any, x1: Any, x2: Any, /) -> Any:
        return _where(condition, x1, x2)

    @staticmethod
    def vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
        return anp.sum(anp.conj(x1) * x2, axis=axis)


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


def differentiate(fn: OfLeaves, leaves: list[Any]) -> tuple[Any, list[Any], list[Any]]:
    """As `Backend.differentiate`. autograd's own make_vjp warns of an output that uses no input, and has one root."""
    roots = [VJPNode.new_root() for _ in leaves]
    with trace_stack.new_trace() as level:
        value, aux = fn([new_box(leaf, level, root) for leaf, root in zip(leaves, roots, strict=True)])
    aux = [_unbox(x, level) for x in aux]
    if not (isbox(value) and value._trace == level):
        return value, aux, [vspace(leaf).zeros() for leaf in leaves]
    cotangents = {value._node: (vspace(value._value).ones(), False)}
    gradients = dict.fromkeys(roots)
    for node in toposort(value._node):
        cotangent = cotangents.pop(node)
        if node in gradients:
            gradients[node] = cotangent[0]
        for parent, pulled in zip(node.parents, node.vjp(cotangent[0]), strict=True):
            cotangents[parent] = add_outgrads(cotangents.get(parent), pulled)
    return (
        value._value,
        aux,
        [
            vspace(leaf).zeros() if gradients[root] is None else gradients[root]
            for leaf, root in zip(leaves, roots, strict=True)
        ],
    )


def _unbox(x: Any, level: int) -> Any:
    return x._value if isbox(x) and x._trace == level else x
