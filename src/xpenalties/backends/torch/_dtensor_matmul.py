"""Matrix products of DTensors: cut the axis that is summed over, multiply the parts, and add up the small results.

PyTorch's own product gathers an operand if both are cut along axes that are not summed over, as for a Gram matrix.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.utils.weak import WeakTensorKeyDictionary

from ._autocast import without_autocast
from ._backend import BACKEND
from ._dtensor_exchanges import part_of_all
from ._dtensor_moves import from_local, number, redistributed, to_local, without_partials
from ._dtensor_namespace import lifted
from ._tracing import is_tracing

__all__ = ["LEAVES", "gram", "linear", "product"]

#: The plain tensor that a block made a weight's DTensor from: the gradients of all blocks are added up by its identity.
LEAVES = WeakTensorKeyDictionary()


def product(a: Any, b: Any) -> Any:
    """Return `a @ b`. A matrix that every process has a copy of is returned as a plain tensor."""
    if not isinstance(a, DTensor) and not isinstance(b, DTensor):
        return BACKEND.matmul(a, b)
    mesh = (a if isinstance(a, DTensor) else b).device_mesh
    a, b = lifted(a, mesh), lifted(b, mesh)
    summed_a, summed_b, row, column = a.ndim - 1, b.ndim - 2, a.ndim - 2, b.ndim - 1
    ndim = max(a.ndim, b.ndim)
    of_a: list[Any] = []  # layouts of the operands, of their gradients, and of the result
    of_b: list[Any] = []
    of_gradient_a: list[Any] = []
    of_gradient_b: list[Any] = []
    of_result: list[Any] = []
    for p, q in zip(without_partials(a.placements), without_partials(b.placements), strict=True):
        cut_a, cut_b = (None if x.is_replicate() else x.dim for x in (p, q))
        batch = _batch(cut_a, a, b) if cut_a is not None else None
        if summed_a == cut_a or summed_b == cut_b or (cut_a == row and cut_b == column):
            layouts = Shard(summed_a), Shard(summed_b), Shard(summed_a), Shard(summed_b), Partial()
        elif cut_a is None and cut_b is None:
            layouts = (Replicate(),) * 5
        elif cut_a == row:
            layouts = p, Replicate(), p, Partial(), Shard(ndim - 2)
        elif cut_a is not None and batch is not None:
            layouts = Shard(cut_a), Shard(batch), Shard(cut_a), Shard(batch), Shard(cut_a + ndim - a.ndim)
        elif cut_a is not None:  # `b` has no such axis
            layouts = Shard(cut_a), Replicate(), Shard(cut_a), Partial(), Shard(cut_a + ndim - a.ndim)
        elif cut_b == column:
            layouts = Replicate(), q, Partial(), q, Shard(ndim - 1)
        else:
            assert cut_b is not None
            batch = _batch(cut_b, b, a)
            if batch is None:
                layouts = Replicate(), Shard(cut_b), Partial(), Shard(cut_b), Shard(cut_b + ndim - b.ndim)
            else:
                layouts = Shard(batch), Shard(cut_b), Shard(batch), Shard(cut_b), Shard(cut_b + ndim - b.ndim)
        for layout, placement in zip((of_a, of_b, of_gradient_a, of_gradient_b, of_result), layouts, strict=True):
            layout.append(placement)
    shape = (*torch.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    a, b = to_local(redistributed(a, of_a), of_gradient_a), to_local(redistributed(b, of_b), of_gradient_b)
    with without_autocast(a.device.type):
        result = from_local(a @ b, mesh, of_result, shape)
    result = redistributed(result, without_partials(of_result))
    return number(result) if ndim == 2 and all(p.is_replicate() for p in result.placements) else result


def gram(x: Any, vectors: tuple[int, ...], along: tuple[int, ...], other: Any = None) -> Any:
    """Return a Gram matrix, see `Backend.gram`. Cut vectors are cut along themselves instead, so that none is whole.

    Each process then adds up its part of every product. A single matrix is returned as a plain tensor.
    """
    mesh, layout = x.device_mesh, without_partials(x.placements)
    summed = (*vectors, *along)
    partial = [Partial() if not p.is_replicate() and p.dim in summed else p for p in layout]
    n = math.prod([x.shape[axis] for axis in vectors])
    leading = [size for axis, size in enumerate(x.shape) if axis not in summed]
    _, longest = max([(x.shape[axis], axis) for axis in along])
    part, of_other = (
        None if y is None else part_of_all(redistributed(y, layout), vectors, longest) for y in (x, other)
    )
    result = from_local(BACKEND.gram(part, vectors, along, of_other), mesh, partial, (*leading, n, n))
    result = redistributed(result, without_partials(partial))
    return result if leading else number(result)


def _batch(cut: int, x: Any, other: Any) -> int | None:
    """Return the axis of `other` that belongs to a leading axis of `x`, or None if it has none of that size."""
    axis = cut - x.ndim + other.ndim
    return axis if axis >= 0 and other.shape[axis] == x.shape[cut] else None


def linear(hidden: Any, weight: Any) -> Any:
    """Return `hidden @ weight.T` in float32 or wider, cut along the classes where the weight is.

    Hidden states must not be cut along rows where the weight is cut. Where both are cut along the features, each
    process gets the sum of all products for a part of the classes.
    """
    mesh = weight.device_mesh
    last = hidden.ndim - 1
    of_hidden: list[Any] = []
    of_weight: list[Any] = []
    of_gradient: list[Any] = []  # of hidden
    of_gradient_w: list[Any] = []
    of_result: list[Any] = []
    for p, q in zip(without_partials(hidden.placements), without_partials(weight.placements), strict=True):
        cut, cut_w = (None if x.is_replicate() else x.dim for x in (p, q))
        if cut is not None and cut != last:  # rows
            layouts = p, Replicate(), p, Partial(), p
        elif cut_w == 0:
            layouts = Replicate(), q, Partial(), q, Shard(last)
        elif cut == last or cut_w == 1:
            layouts = Shard(last), Shard(1), Shard(last), Shard(1), Partial()
        else:
            layouts = (Replicate(),) * 5
        lists = of_hidden, of_weight, of_gradient, of_gradient_w, of_result
        for layout, placement in zip(lists, layouts, strict=True):
            layout.append(placement)
    shape = (*hidden.shape[:-1], weight.shape[0])
    leaf = None if is_tracing() else LEAVES.get(weight)
    if leaf is None or tuple(of_weight) != tuple(weight.placements):
        leaf = to_local(redistributed(weight, of_weight), of_gradient_w)
    part = to_local(redistributed(hidden, of_hidden), of_gradient)
    logits = from_local(BACKEND.linear(part, leaf), mesh, of_result, shape)
    return redistributed(logits, [Shard(last) if p.is_partial() else p for p in of_result])
