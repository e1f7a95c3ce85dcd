"""Move DTensors between layouts, and between DTensors and plain tensors, with derivatives of every order.

A DTensor is one tensor, of which each process holds a part. A move changes who holds what, never the tensor. So its
derivative is the move back, which is written here as the same functions. PyTorch's own moves can be differentiated
once or twice, and `from_local` loses the second derivative if the gradient arrives in another layout.

On each axis of the mesh, a layout has a placement: `Shard(d)` cuts axis `d`, `Replicate` gives every process a copy,
and with `Partial` the tensor is the sum of what the processes hold. Here no result is left partial.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

from ._tracing import is_tracing

__all__ = [
    "aligned",
    "assembled",
    "copies",
    "for_any_loss",
    "from_local",
    "held",
    "moved_shard",
    "number",
    "partial_where_cut",
    "plain",
    "redistributed",
    "replicated",
    "without_partials",
    "to_local",
    "uncut",
]

Layout = tuple[Any, ...]


def held(x: Any) -> Any:
    """Return this process's part of a DTensor, as a constant."""
    local = x._local_tensor
    return local.wait() if isinstance(local, AsyncCollectiveTensor) else local


def without_partials(layout: Sequence[Any]) -> Layout:
    """Return a layout with copies in place of partial sums."""
    return tuple(Replicate() if placement.is_partial() else placement for placement in layout)


def replicated(mesh: Any) -> Layout:
    """Return the layout that gives every process a copy."""
    return (Replicate(),) * mesh.ndim


def uncut(x: Any, axes: tuple[int, ...]) -> Any:
    """Return a DTensor that is whole along these axes. The longest other axis is cut instead, if there is any."""
    others = [axis for axis in range(x.ndim) if axis not in axes]
    other = Shard(max(others, key=lambda axis: x.shape[axis])) if others else Replicate()
    layout = without_partials(x.placements)
    return redistributed(x, tuple(other if not p.is_replicate() and p.dim in axes else p for p in layout))


def moved_shard(placement: Any, axis: int) -> Any:
    """Return a placement that cuts another axis in the same way."""
    if type(placement) is Shard:
        return Shard(axis)
    return type(placement)(axis, split_factor=placement.split_factor)


def redistributed(x: Any, layout: Sequence[Any]) -> Any:
    """Return a DTensor in another layout. Its gradient comes in the layout of `x`."""
    return _Redistributed.apply(x, tuple(layout))


def from_local(local: Any, mesh: Any, layout: Sequence[Any], shape: Sequence[int]) -> Any:
    """Return the DTensor of this global shape of which `local` is this process's part."""
    return _FromLocal.apply(local, mesh, tuple(layout), tuple(shape))


def to_local(x: Any, gradient: Sequence[Any] | None = None) -> Any:
    """Return this process's part of a DTensor that is not partial. `gradient` is the layout of the parts' gradients.

    It is that of `x` by default. `Partial` in place of `Replicate` says that each process uses its copy for another
    part of the result, so that their gradients are summed.
    """
    return _ToLocal.apply(x, tuple(x.placements if gradient is None else gradient))


def plain(x: Any) -> Any:
    """Return a DTensor as a plain tensor that is the same on every process."""
    everywhere = replicated(x.device_mesh)
    return to_local(redistributed(x, everywhere), everywhere)


def number(x: Any) -> Any:
    """Return a small result as a plain tensor. In a trace, it stays a DTensor, as its gradient may be one."""
    return redistributed(x, replicated(x.device_mesh)) if is_tracing() else plain(x)


def copies(x: Any, mesh: Any) -> Any:
    """Return a plain tensor that is the same on every process as a DTensor."""
    return from_local(x, mesh, replicated(mesh), x.shape)


def for_any_loss(x: Any) -> Any:
    """Return a plain tensor whose gradient is plain, even if it is added to a DTensor."""
    return _PlainCotangent.apply(x) if x.requires_grad else x


def aligned(arrays: Sequence[Any]) -> Layout:
    """Return the layout to evaluate DTensors of one shape in: on each axis of the mesh, the first array that is cut."""
    mesh = arrays[0].device_mesh
    for x in arrays[1:]:
        if x.device_mesh != mesh:
            raise ValueError(
                f"DTensors: all arrays must be on one device mesh, got {mesh} and {x.device_mesh}. Redistribute one."
            )
    layout = []
    for placements in zip(*(x.placements for x in arrays), strict=True):
        cut = next((p for p in placements if not p.is_replicate() and not p.is_partial()), None)
        if cut is None and any(p.is_partial() for p in placements) and arrays[0].ndim:
            cut = Shard(0)  # a sum of parts is as cheap as a sum of all
        layout.append(Replicate() if cut is None else cut)
    return tuple(layout)


def assembled(local: Any, mesh: Any, layout: Layout, shape: Sequence[int]) -> Any:
    """Return a constant DTensor."""
    shape = torch.Size(shape)
    stride = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
    return DTensor.from_local(local.detach(), mesh, layout, run_check=False, shape=shape, stride=stride)


def _with_layout(x: Any, mesh: Any, layout: Layout) -> Any:
    """Return a cotangent in a layout. That of a plain value may be plain, or a DTensor if it was added to one."""
    if not isinstance(x, DTensor):
        x = copies(x, mesh)
    return redistributed(x, layout)


class _Redistributed(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, x: Any, layout: Layout) -> Any:
        ctx.set_materialize_grads(False)
        ctx.mesh, ctx.source = x.device_mesh, without_partials(x.placements)
        x = x.detach()
        if torch.compiler.is_compiling():  # Dynamo does not know the layout of a cotangent
            return x.redistribute(placements=layout)
        return x if tuple(x.placements) == layout else x.redistribute(placements=layout)

    @staticmethod
    def backward(ctx: Any, cotangent: Any) -> Any:
        return None if cotangent is None else _with_layout(cotangent, ctx.mesh, ctx.source), None


class _FromLocal(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, local: Any, mesh: Any, layout: Layout, shape: tuple[int, ...]) -> Any:
        ctx.set_materialize_grads(False)
        ctx.mesh, ctx.layout = mesh, layout
        return assembled(local, mesh, layout, shape)

    @staticmethod
    def backward(ctx: Any, cotangent: Any) -> Any:
        if cotangent is None:
            return None, None, None, None
        return to_local(_with_layout(cotangent, ctx.mesh, without_partials(ctx.layout)), ctx.layout), None, None, None


class _ToLocal(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, x: Any, gradient: Layout) -> Any:
        ctx.set_materialize_grads(False)
        ctx.mesh, ctx.layout, ctx.gradient, ctx.shape = x.device_mesh, tuple(x.placements), gradient, tuple(x.shape)
        local = held(x)
        return local.view_as(local)

    @staticmethod
    def backward(ctx: Any, cotangent: Any) -> Any:
        if cotangent is None:
            return None, None
        if not isinstance(cotangent, DTensor):
            cotangent = from_local(cotangent, ctx.mesh, ctx.gradient, ctx.shape)
        return redistributed(cotangent, ctx.layout), None


class _PlainCotangent(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.set_materialize_grads(False)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, cotangent: Any) -> Any:
        return plain(cotangent) if isinstance(cotangent, DTensor) else cotangent


def partial_where_cut(layout: Sequence[Any]) -> Layout:
    """Return the layout of a sum over all elements, before it is without_partials."""
    return tuple(placement if placement.is_replicate() else Partial() for placement in layout)
