"""The array API namespace of DTensors: reductions are complete, and new arrays are on the mesh.

Everything else is PyTorch's. A plain tensor beside a DTensor counts as the same on every process. A result without axes
is a plain tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import array_api_compat.torch as compat
import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard

from ._dtensor_moves import copies, for_any_loss, from_local, redistributed, to_local, without_partials
from ._dtensor_reductions import argmax, axes_of, cumulative_sum, extremum, result_without_partials, summed

__all__ = ["Namespace", "lifted", "mesh_of", "reshaped"]


def mesh_of(arrays: Sequence[Any]) -> Any:
    """Return the device mesh of the first DTensor, or None."""
    for x in arrays:
        if isinstance(x, DTensor):
            return x.device_mesh
        if isinstance(x, (list, tuple)):
            mesh = mesh_of(x)
            if mesh is not None:
                return mesh
    return None


def lifted(x: Any, mesh: Any) -> Any:
    """Return a plain tensor with axes as a DTensor that every process has a copy of, and anything else unchanged."""
    if isinstance(x, torch.Tensor) and not isinstance(x, DTensor) and x.ndim:
        return copies(x, mesh)
    return type(x)(lifted(one, mesh) for one in x) if type(x) in (list, tuple) else x


def _without_partials(result: Any) -> Any:
    if isinstance(result, DTensor):
        return result_without_partials(result)
    if isinstance(result, (list, tuple)) and any(isinstance(x, DTensor) for x in result):
        parts = [_without_partials(x) for x in result]
        return type(result)(*parts) if hasattr(result, "_fields") else type(result)(parts)
    return result


def _completed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function of PyTorch take plain tensors beside DTensors, and return no partial sums."""

    def call(*args: Any, **kwargs: Any) -> Any:
        mesh = mesh_of(args) or mesh_of(tuple(kwargs.values()))
        if mesh is None:
            return function(*args, **kwargs)
        kwargs = {name: lifted(x, mesh) for name, x in kwargs.items()}
        return _without_partials(function(*[lifted(x, mesh) for x in args], **kwargs))

    return call


def _reduction(own: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    def call(x: Any, /, **options: Any) -> Any:
        return own(x, **options) if isinstance(x, DTensor) else for_any_loss(plain(x, **options))

    return call


def _sum(x: Any, *, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    if dtype is None and not (x.dtype.is_floating_point or x.dtype.is_complex):
        dtype = torch.int64
    return summed(x if dtype is None or x.dtype == dtype else x.to(dtype), axis, keepdims=keepdims)


def _mean(x: Any, *, axis: Any = None, keepdims: bool = False) -> Any:
    return summed(x, axis, keepdims=keepdims) / _count(x, axis)


def _var(x: Any, *, axis: Any = None, correction: float = 0.0, keepdims: bool = False) -> Any:
    count = _count(x, axis)
    centered = x - _mean(x, axis=axis, keepdims=True)
    return summed(centered * centered, axis, keepdims=keepdims) / max(count - correction, 0)


def _std(x: Any, **options: Any) -> Any:
    return torch.sqrt(_var(x, **options))


def _count(x: Any, axis: Any) -> int:
    return math.prod([x.shape[i] for i in axes_of(x, axis)])


def _any(x: Any, *, axis: Any = None, keepdims: bool = False) -> Any:
    return _sum((x != 0).to(torch.int32), axis=axis, keepdims=keepdims) > 0


def _all(x: Any, *, axis: Any = None, keepdims: bool = False) -> Any:
    return _sum((x == 0).to(torch.int32), axis=axis, keepdims=keepdims) == 0


def _max(x: Any, *, axis: Any = None, keepdims: bool = False) -> Any:
    return extremum(x, axis, keepdims=keepdims, largest=True)


def _min(x: Any, *, axis: Any = None, keepdims: bool = False) -> Any:
    return extremum(x, axis, keepdims=keepdims, largest=False)


def _argmax(x: Any, *, axis: int | None = None, keepdims: bool = False) -> Any:
    return argmax(x, axis, keepdims=keepdims, largest=True)


def _argmin(x: Any, *, axis: int | None = None, keepdims: bool = False) -> Any:
    return argmax(x, axis, keepdims=keepdims, largest=False)


def _cumulative_sum(x: Any, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> Any:
    if include_initial:
        raise NotImplementedError("cumulative_sum: DTensors have no `include_initial`. Concatenate zeros.")
    return cumulative_sum(x if dtype is None else x.to(dtype), 0 if axis is None else axis)


def reshaped(x: Any, shape: Sequence[int]) -> Any:
    """Reshape a DTensor. An axis that is cut must survive, or be the outer one of a merge of equal parts.

    Otherwise, another axis that survives is cut in its place, which moves a part of `x`. Only if none survives do all
    processes get all of it.
    """
    old, size = tuple(x.shape), math.prod(x.shape)
    known = math.prod([n for n in shape if n != -1])
    new = tuple((size // known if known else 0) if n == -1 else n for n in shape)
    if new == old:
        return x
    survivors = _survivors(old, new)
    layout: list[Any] = []
    target: list[Any] = []
    for i, placement in enumerate(without_partials(x.placements)):
        if placement.is_replicate():
            layout.append(placement)
            target.append(placement)
            continue
        axis = placement.dim
        to = survivors.get(axis)
        if to is None and type(placement) is Shard:
            to = _merged(old, new, axis, x.device_mesh.size(i), x.placements)
        if to is None:
            others = [a for a in survivors if old[a] > 1]
            axis = max([(old[a], a) for a in others])[1] if others else None
            to = None if axis is None else survivors[axis]
            layout.append(Replicate() if axis is None else Shard(axis))
            target.append(Replicate() if to is None else Shard(to))
            continue
        layout.append(placement)
        target.append(_with_axis(placement, to))
    x = redistributed(x, layout)
    local = to_local(x)
    local_shape = list(new)
    for i, placement in enumerate(target):
        if not placement.is_replicate() and survivors.get(layout[i].dim) == placement.dim:
            local_shape[placement.dim] = local.shape[layout[i].dim]
        elif not placement.is_replicate():
            local_shape[placement.dim] //= x.device_mesh.size(i)
    return from_local(local.reshape(local_shape), x.device_mesh, target, new)


def _with_axis(placement: Any, axis: int) -> Any:
    return Shard(axis) if type(placement) is Shard else type(placement)(axis, split_factor=placement.split_factor)


def _survivors(old: tuple[int, ...], new: tuple[int, ...]) -> dict[int, int]:
    """Return the axes that a reshape keeps, with their new numbers."""
    kept: dict[int, int] = {}
    for i, size in enumerate(old):
        for j, other in enumerate(new):
            if size == other and math.prod(old[:i]) == math.prod(new[:j]) and math.prod(old[i:]) == math.prod(new[j:]):
                kept.setdefault(i, j)
    return kept


def _merged(old: tuple[int, ...], new: tuple[int, ...], axis: int, parts: int, layout: Sequence[Any]) -> int | None:
    """Return the new axis of which `axis` is the outer part, if all parts are equal and nothing else in it is cut."""
    if old[axis] % parts or sum(not p.is_replicate() and p.dim == axis for p in layout) > 1:
        return None
    for j, size in enumerate(new):
        if math.prod(new[:j]) == math.prod(old[:axis]) and size >= old[axis] > 0:
            inner = 1
            for end in range(axis, len(old)):
                inner *= old[end]
                if inner == size and math.prod(new[j + 1 :]) == math.prod(old[end + 1 :]):
                    cut = {p.dim for p in layout if not p.is_replicate()}
                    return None if cut & set(range(axis + 1, end + 1)) else j
    return None


def _reshape(x: Any, /, shape: Any, **options: Any) -> Any:
    return _without_partials(reshaped(x, shape)) if isinstance(x, DTensor) else compat.reshape(x, shape, **options)


def _sign(x: Any) -> Any:
    # array-api-compat's writes NaN by a mask
    return torch.sign(x) if isinstance(x, DTensor) and not x.dtype.is_complex else _completed(compat.sign)(x)


def _abs(x: Any) -> Any:
    # the second derivative of torch.abs is a plain tensor of zeros
    return (
        x * torch.sign(x.detach()) if isinstance(x, DTensor) and not x.dtype.is_complex else _completed(compat.abs)(x)
    )


def _astype(x: Any, dtype: Any, /, **options: Any) -> Any:
    return _without_partials(x.to(dtype)) if isinstance(x, DTensor) else compat.astype(x, dtype, **options)


def _created(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function that makes arrays take a mesh as `device`. Every process gets a copy."""

    def call(*args: Any, device: Any = None, **kwargs: Any) -> Any:
        if not isinstance(device, DeviceMesh):
            return function(*args, device=device, **kwargs)
        made = function(*args, device=torch.device(device.device_type), **kwargs)
        return copies(made, device) if made.ndim else made

    return call


def _arange(*args: Any, device: Any = None, **kwargs: Any) -> Any:
    """Return numbers that are cut over the mesh, so that comparing them with all classes is cut too."""
    whole = _created(compat.arange)(*args, device=device, **kwargs)
    return whole.redistribute(placements=[Shard(0)] * whole.device_mesh.ndim) if isinstance(whole, DTensor) else whole


class _Linalg:
    """Linear algebra of DTensors, which is small: each process computes all of it."""

    @staticmethod
    def eigh(x: Any) -> Any:
        return _of_whole(compat.linalg.eigh, x)

    @staticmethod
    def slogdet(x: Any) -> Any:
        return _of_whole(compat.linalg.slogdet, x)

    def __getattr__(self, name: str) -> Any:
        return _completed(getattr(compat.linalg, name))


def _of_whole(function: Any, x: Any) -> Any:
    if not isinstance(x, DTensor):
        return function(x)
    mesh = x.device_mesh
    everywhere = (Replicate(),) * mesh.ndim
    first, second = function(to_local(redistributed(x, everywhere), everywhere))
    return copies(first, mesh), copies(second, mesh)


class Namespace:
    """The functions of array-api-compat for PyTorch, for DTensors."""

    __name__ = "torch.distributed.tensor"
    linalg = _Linalg()
    sum = staticmethod(_reduction(_sum, compat.sum))
    mean = staticmethod(_reduction(_mean, compat.mean))
    var = staticmethod(_reduction(_var, compat.var))
    std = staticmethod(_reduction(_std, compat.std))
    max = staticmethod(_reduction(_max, compat.max))
    min = staticmethod(_reduction(_min, compat.min))
    any = staticmethod(_reduction(_any, compat.any))
    all = staticmethod(_reduction(_all, compat.all))
    argmax = staticmethod(_reduction(_argmax, compat.argmax))
    argmin = staticmethod(_reduction(_argmin, compat.argmin))
    cumulative_sum = staticmethod(_reduction(_cumulative_sum, compat.cumulative_sum))
    reshape = staticmethod(_reshape)
    sign = staticmethod(_sign)
    abs = staticmethod(_abs)
    astype = staticmethod(_astype)
    arange = staticmethod(_arange)
    eye = staticmethod(_created(compat.eye))
    zeros = staticmethod(_created(compat.zeros))
    ones = staticmethod(_created(compat.ones))
    empty = staticmethod(_created(compat.empty))
    full = staticmethod(_created(compat.full))
    linspace = staticmethod(_created(compat.linspace))

    @staticmethod
    def asarray(x: Any, /, *, dtype: Any = None, device: Any = None, copy: bool | None = None) -> Any:
        if not isinstance(x, DTensor):
            return _created(compat.asarray)(x, dtype=dtype, device=device, copy=copy)
        result = x if dtype is None else x.to(dtype)
        return result.clone() if copy and result is x else result

    def __getattr__(self, name: str) -> Any:
        value = getattr(compat, name)
        if not callable(value) or isinstance(value, type) or name in _OF_DTYPES:
            return value
        completed = _completed(value)
        setattr(self, name, completed)
        return completed


_OF_DTYPES = frozenset({"isdtype", "finfo", "iinfo", "can_cast", "__array_namespace_info__"})
