"""Make DTensors whole along some axes and cut along another, without a process that gathers more than its part.

On a mesh of several axes, one axis exchanges after the other, the innermost cut first. PyTorch's own moves gather for
this, because the parts in between are not in the order of the mesh. So they are plain tensors here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch.distributed.tensor import Shard

from ._dtensor_moves import copies, from_local, held, plain, redistributed, to_local, without_partials
from ._dtensor_submesh import submesh
from ._tracing import is_tracing

__all__ = ["along_whole", "part_of_all"]


@dataclass(frozen=True)
class _Exchange:
    """An exchange along one axis of the mesh: `source` becomes whole there, and `target` is cut."""

    mesh: Any
    source: int
    source_size: int
    target: int
    target_size: int

    def run(self, part: Any) -> Any:
        return self._moved(part, self.source, self.source_size, self.target)

    def undo(self, part: Any) -> Any:
        return self._moved(part, self.target, self.target_size, self.source)

    def _moved(self, part: Any, cut: int, size: int, to: int) -> Any:
        shape = [size if axis == cut else n for axis, n in enumerate(part.shape)]
        return to_local(redistributed(from_local(part, self.mesh, [Shard(cut)], shape), [Shard(to)]))


def along_whole(fn: Callable[..., Any], axis: int, x: Any, *others: Any) -> Any:
    """Return `fn` of DTensors of one shape, see `Backend.along_whole`. `fn` gets plain tensors."""
    layout = without_partials(x.placements)
    arrays = [None if y is None else redistributed(y, layout) for y in (x, *others)]
    if x.ndim == 1:
        result = fn(*[None if y is None else plain(y) for y in arrays])
        return redistributed(copies(result, x.device_mesh), layout)
    target = max((other for other in range(x.ndim) if other != axis), key=lambda other: x.shape[other])
    result = fn(*[None if y is None else part_of_all(y, (axis,), target) for y in arrays])
    return _back(result, arrays[0], (axis,), target)


def part_of_all(x: Any, axes: tuple[int, ...], target: int) -> Any:
    """Return a process's part of a DTensor, whole along `axes`: where these were cut, `target` is cut instead."""
    exchanges = _exchanges(x, axes, target)
    if exchanges is None:
        return to_local(redistributed(x, _moved_layout(x, axes, target)))
    part = to_local(x)
    for exchange in exchanges:
        part = exchange.run(part)
    return part


def _back(part: Any, like: Any, axes: tuple[int, ...], target: int) -> Any:
    """Return the DTensor, laid out as `like`, of a part that is cut as `part_of_all` cuts it."""
    exchanges, mesh, layout = _exchanges(like, axes, target), like.device_mesh, like.placements
    if exchanges is None:
        return redistributed(from_local(part, mesh, _moved_layout(like, axes, target), like.shape), layout)
    for exchange in reversed(exchanges):
        part = exchange.undo(part)
    return from_local(part, mesh, layout, like.shape)


def _moved_layout(x: Any, axes: tuple[int, ...], target: int) -> list[Any]:
    return [Shard(target) if not p.is_replicate() and p.dim in axes else p for p in x.placements]


def _exchanges(x: Any, axes: tuple[int, ...], target: int) -> list[_Exchange] | None:
    """Return the exchanges, the innermost cut first.

    None if PyTorch has to decide, because a trace knows no parts of a mesh, or because of an unusual layout.
    """
    cuts = _cuts(x, axes)
    if cuts is None:
        return None
    mesh, exchanges = x.device_mesh, []
    size = held(x).shape[target]
    for i, axis, source_size in reversed(cuts):
        exchanges.append(_Exchange(submesh(mesh, (i,)), axis, source_size, target, size))
        size = _part_size(size, mesh, i)
    return exchanges


def _cuts(x: Any, axes: Sequence[int]) -> list[tuple[int, int, int]] | None:
    """Return what cuts these axes, the outermost first: an axis of the mesh, the axis, and its size before the cut.

    None has the meaning that it has for `_exchanges`.
    """
    mesh, cuts = x.device_mesh, []
    if is_tracing():
        return None
    for axis in axes:
        found = [i for i, p in enumerate(x.placements) if not p.is_replicate() and p.dim == axis]
        plainly = [i for i in found if type(x.placements[i]) is Shard]
        strided = [i for i in found if i not in plainly]  # FSDP cuts the parts of a layer that is cut already
        for i in strided:
            split_factor = math.prod([mesh.size(j) for j in plainly if j > i])
            if len(strided) > 1 or x.placements[i].split_factor != split_factor:
                return None
        size = x.shape[axis]
        for i in (*plainly, *strided):
            cuts.append((i, axis, size))
            size = _part_size(size, mesh, i)
    return cuts


def _part_size(size: int, mesh: Any, i: int) -> int:
    """Return the size of this process's part of an axis that the axis `i` of a mesh cuts."""
    most = -(-size // mesh.size(i))
    return min(most, max(0, size - most * mesh.get_local_rank(i)))
