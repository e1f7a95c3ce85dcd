"""Reductions of DTensors that are complete when they return, forward and backward.

PyTorch's own return partial sums, so `float()` differs between processes, and a gradient that is broadcast again is
moved as a whole. Here each process reduces its part, and the results, which are small, are reduced over the axes of the
mesh. A part may be empty: a process without elements takes part in every move, or the others would wait for ever.

A result without axes is a plain tensor, which can be added to any loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.distributed.tensor import Partial, Replicate

from ._dtensor_moves import (
    assembled,
    from_local,
    held,
    moved_shard,
    number,
    partial_where_cut,
    plain,
    redistributed,
    replicated,
    without_partials,
)

__all__ = ["argmax", "axes_of", "cumulative_sum", "extremum", "result_without_partials", "summed", "total"]

Axes = tuple[int, ...]


def axes_of(x: Any, axis: int | Sequence[int] | None) -> Axes:
    """Return axes as a sorted tuple of numbers >= 0. None means all."""
    if axis is None:
        return tuple(range(x.ndim))
    return tuple(sorted({one % x.ndim for one in ((axis,) if isinstance(axis, int) else axis)}))


def summed(x: Any, axis: int | Sequence[int] | None = None, *, keepdims: bool = False) -> Any:
    """Return the sum of a DTensor along axes."""
    axes = axes_of(x, axis)
    x = redistributed(x, without_partials(x.placements))
    result = _Sum.apply(x, axes, keepdims) if axes else x
    return result if result.ndim else number(result)


def total(local: Any, mesh: Any, layout: Sequence[Any]) -> Any:
    """Return the sum of the processes' 0-d tensors, each computed from a part in this layout, as a plain tensor."""
    return plain(from_local(local, mesh, partial_where_cut(layout), ()))


def extremum(x: Any, axis: int | Sequence[int] | None = None, *, keepdims: bool = False, largest: bool) -> Any:
    """Return the largest or smallest elements of a DTensor along axes. NaN counts as both."""
    axes = axes_of(x, axis)
    x = redistributed(x, without_partials(x.placements))
    result = _Extremum.apply(x, axes, keepdims, largest) if axes else x
    return result if result.ndim else number(result)


def argmax(x: Any, axis: int | None = None, *, keepdims: bool = False, largest: bool = True) -> Any:
    """Return the index of the first extreme element along an axis, or in the flattened tensor."""
    x = redistributed(x.detach(), without_partials(x.placements))
    best = extremum(x, axis, keepdims=True, largest=largest)
    is_best = (x == best) | (x != x)  # NaN
    place = _places(x, axis)
    count = math.prod(x.shape) if axis is None else x.shape[axis]
    local = torch.where(held(is_best), held(place), count)
    return extremum(assembled(local, x.device_mesh, x.placements, x.shape), axis, keepdims=keepdims, largest=False)


def cumulative_sum(x: Any, axis: int) -> Any:
    """Return the cumulative sum of a DTensor along an axis."""
    x = redistributed(x, without_partials(x.placements))
    return _CumulativeSum.apply(x, axis % x.ndim)


def reduced_layout(layout: Sequence[Any], axes: Axes, keepdims: bool, partial: Any) -> tuple[Any, ...]:
    """Return the layout after a reduction of each part, with `partial` where the reduction is not complete."""
    reduced = []
    for placement in layout:
        if placement.is_replicate():
            reduced.append(placement)
        elif placement.dim in axes:
            reduced.append(partial)
        else:
            lost = 0 if keepdims else sum(axis < placement.dim for axis in axes)
            reduced.append(moved_shard(placement, placement.dim - lost))
    return tuple(reduced)


def _reduced_shape(shape: Sequence[int], axes: Axes, keepdims: bool) -> tuple[int, ...]:
    if keepdims:
        return tuple(1 if i in axes else size for i, size in enumerate(shape))
    return tuple(size for i, size in enumerate(shape) if i not in axes)


def _complete(local: Any, mesh: Any, layout: tuple[Any, ...], shape: tuple[int, ...]) -> Any:
    x = assembled(local, mesh, layout, shape)
    complete = without_partials(layout)
    return x if complete == layout else x.redistribute(placements=complete)


class _Sum(torch.autograd.Function):  # type: ignore[misc]
    """The sum along axes. Its derivative is `_Spread`."""

    @staticmethod
    def forward(ctx: Any, x: Any, axes: Axes, keepdims: bool) -> Any:
        ctx.set_materialize_grads(False)
        mesh, layout, shape, local = x.device_mesh, tuple(x.placements), tuple(x.shape), held(x)
        ctx.arguments = mesh, layout, shape, tuple(local.shape), axes, keepdims
        local = local.sum(dim=axes, keepdim=keepdims)
        reduced = reduced_layout(layout, axes, keepdims, Partial())
        return _complete(local, mesh, reduced, _reduced_shape(shape, axes, keepdims))

    @staticmethod
    def backward(ctx: Any, cotangent: Any) -> Any:
        return None if cotangent is None else spread(cotangent, *ctx.arguments), None, None


def spread(
    x: Any, mesh: Any, layout: tuple[Any, ...], shape: tuple[int, ...], local_shape: Any, axes: Axes, keepdims: bool
) -> Any:
    """Repeat a DTensor along axes, into a layout: the derivative of a sum. Nothing is moved unless `x` is partial."""
    x = redistributed(x, reduced_layout(layout, axes, keepdims, Replicate()))
    return _Spread.apply(x, mesh, layout, shape, local_shape, axes, keepdims)


class _Spread(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, x: Any, mesh: Any, layout: Any, shape: Any, local_shape: Any, axes: Axes, keep: bool) -> Any:
        ctx.set_materialize_grads(False)
        ctx.layout, ctx.axes, ctx.keepdims = layout, axes, keep
        local = held(x)
        if not keep:
            for axis in axes:
                local = local.unsqueeze(axis)
        return assembled(local.expand(local_shape).contiguous(), mesh, layout, shape)

    @staticmethod
    def backward(ctx: Any, cotangent: Any) -> Any:
        if cotangent is None:
            return (None,) * 7
        return _Sum.apply(redistributed(cotangent, ctx.layout), ctx.axes, ctx.keepdims), *(None,) * 6


class _Extremum(torch.autograd.Function):  # type: ignore[misc]
    """The largest or smallest elements along axes. Equal ones share the gradient, as in torch.amax."""

    @staticmethod
    def forward(ctx: Any, x: Any, axes: Axes, keepdims: bool, largest: bool) -> Any:
        ctx.set_materialize_grads(False)
        mesh, layout, shape, local = x.device_mesh, tuple(x.placements), tuple(x.shape), held(x)
        reduced = _reduced_shape(shape, axes, keepdims)
        kind = reduced_layout(layout, axes, keepdims, Partial("max" if largest else "min"))
        is_float = local.dtype.is_floating_point
        if local.numel() == 0 and any(local.shape[axis] == 0 for axis in axes):
            limits = torch.finfo(local.dtype) if is_float else torch.iinfo(local.dtype)
            worst = (-math.inf if largest else math.inf) if is_float else (limits.min if largest else limits.max)
            best = local.new_full(_reduced_shape(local.shape, axes, keepdims), worst)
        else:
            best = (torch.amax if largest else torch.amin)(local, dim=axes, keepdim=keepdims)
        if is_float and without_partials(kind) != kind:  # a collective may drop NaN, so it is told apart
            is_nan = best.isnan()
            worse = -math.inf if largest else math.inf
            pair = torch.stack([best.masked_fill(is_nan, worse), is_nan.to(best.dtype) * (1 if largest else -1)])
            after = tuple(p if not hasattr(p, "dim") else moved_shard(p, p.dim + 1) for p in kind)
            value, flag = held(_complete(pair, mesh, after, (2, *reduced)))
            result = assembled(torch.where(flag != 0, math.nan, value), mesh, without_partials(kind), reduced)
        else:
            result = _complete(best, mesh, kind, reduced)
        ctx.save_for_backward(x)
        ctx.result = result
        ctx.arguments = mesh, layout, shape, tuple(local.shape), axes, keepdims
        return result

    @staticmethod
    def backward(ctx: Any, cotangent: Any) -> Any:
        if cotangent is None:
            return None, None, None, None
        (x,) = ctx.saved_tensors
        mesh, layout, shape, *_ = ctx.arguments
        with torch.no_grad():
            is_best = held(x) == held(spread(ctx.result, *ctx.arguments))
            is_best = assembled(is_best.to(x.dtype), mesh, layout, shape)
            count = _Sum.apply(is_best, *ctx.arguments[4:])
            share = assembled(held(is_best) / held(spread(count, *ctx.arguments)), mesh, layout, shape)
        return spread(cotangent, *ctx.arguments) * share, None, None, None


def _places(x: Any, axis: int | None) -> Any:
    """Return the index of each element of a DTensor along an axis, or in the flattened tensor, in its layout."""
    device = torch.device(x.device_mesh.device_type)
    if axis is None:
        whole = torch.arange(math.prod(x.shape), device=device).reshape(tuple(x.shape))
    else:
        shape = [1] * x.ndim
        shape[axis] = -1
        whole = torch.arange(x.shape[axis], device=device).reshape(shape).expand(tuple(x.shape))
    everywhere = assembled(whole, x.device_mesh, replicated(x.device_mesh), x.shape)
    return everywhere.redistribute(placements=x.placements)


class _CumulativeSum(torch.autograd.Function):  # type: ignore[misc]
    """The cumulative sum along an axis. Where it is cut, each part adds the sums of the parts before it."""

    @staticmethod
    def forward(ctx: Any, x: Any, axis: int) -> Any:
        ctx.set_materialize_grads(False)
        ctx.axis = axis
        mesh, layout = x.device_mesh, tuple(x.placements)
        ctx.layout = layout
        if not any(not p.is_replicate() and p.dim == axis for p in layout):
            return assembled(held(x).cumsum(axis), mesh, layout, x.shape)
        # sums of parts are as many as parts: each process writes its own into a row of zeros, and they are added
        local = held(x)
        cuts = [i for i, p in enumerate(layout) if not p.is_replicate() and p.dim == axis]
        parts = math.prod([mesh.size(i) for i in cuts])
        own = 0
        for i in cuts:
            own = own * mesh.size(i) + mesh.get_local_rank(i)
        sums = local.new_zeros([parts if i == axis else size for i, size in enumerate(local.shape)])
        sums.narrow(axis, own, 1).copy_(local.sum(axis, keepdim=True))
        shape = [parts if i == axis else size for i, size in enumerate(x.shape)]
        partial = tuple(Partial() if i in cuts else p for i, p in enumerate(layout))
        sums = held(_complete(sums, mesh, partial, tuple(shape)))
        before = sums.narrow(axis, 0, own).sum(axis, keepdim=True)
        return assembled(local.cumsum(axis) + before, mesh, layout, x.shape)

    @staticmethod
    def backward(ctx: Any, cotangent: Any) -> Any:
        if cotangent is None:
            return None, None
        g = redistributed(cotangent, ctx.layout)
        return summed(g, ctx.axis, keepdims=True) - cumulative_sum(g, ctx.axis) + g, None


def result_without_partials(x: Any) -> Any:
    """Return what an operation of PyTorch returned, without partial sums, and as a plain tensor if it has no axes."""
    if any(placement.is_partial() for placement in x.placements):
        x = redistributed(x, without_partials(x.placements))
    return x if x.ndim else number(x)
