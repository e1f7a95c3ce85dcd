"""How an array is cut after a reshape."""

from __future__ import annotations

import math

from ._group import Cut
from ._part import Cuts, Part

__all__ = ["reshaped"]


def reshaped(x: Part, shape: tuple[int, ...]) -> tuple[tuple[int, ...], Cuts]:
    """Return the local shape and the cuts of `x` reshaped to the whole shape `shape`."""
    old = x.shape
    if -1 in shape:
        rest = math.prod([n for n in shape if n != -1])
        shape = tuple(math.prod(old) // max(rest, 1) if n == -1 else n for n in shape)
    if len(shape) == 1:
        local, cut = _joined(x, range(x.ndim))
        return (local,), (cut,)
    local_shape: list[int] = []
    cuts: list[Cut | None] = []
    i = j = 0
    while j < len(shape):
        if shape[j] == 1 and not (i < x.ndim and old[i] == 1):  # a new axis
            local_shape.append(1)
            cuts.append(None)
            j += 1
            continue
        start, first = i, j
        size, i = (old[i], i + 1) if i < x.ndim else (1, i)
        wanted, j = shape[j], j + 1
        while size != wanted:
            if size < wanted and i < x.ndim:
                size, i = size * old[i], i + 1
            elif wanted < size and j < len(shape):
                wanted, j = wanted * shape[j], j + 1
            else:
                raise ValueError(f"an array of shape {old} cannot be reshaped to {shape}.")
        axes = range(start, i)
        if j - first == 1:
            local, cut = _joined(x, axes)
            local_shape.append(local)
            cuts.append(cut)
        elif all(x.cuts[axis] is None for axis in axes):
            local_shape += shape[first:j]
            cuts += [None] * (j - first)
        else:
            raise NotImplementedError(f"a cut axis cannot be split, got a reshape of {old} to {shape}.")
    return tuple(local_shape), tuple(cuts)


def _joined(x: Part, axes: range) -> tuple[int, Cut | None]:
    """Return the local size and the cut of these axes joined into one."""
    local = math.prod([x.data.shape[axis] for axis in axes])
    cut_axes = [axis for axis in axes if x.cuts[axis] is not None]
    if not cut_axes:
        return local, None
    if len(cut_axes) > 1:
        cuts = [cut for axis in cut_axes if (cut := x.cuts[axis]) is not None]
        groups = tuple(dict.fromkeys(group for cut in cuts for group in cut.groups))
        return local, Cut(groups, math.prod([x.shape[axis] for axis in axes]), ())
    (axis,) = cut_axes
    cut = x.cuts[axis]
    assert cut is not None
    factor = math.prod([x.shape[i] for i in axes if i != axis])
    leads = all(x.shape[i] == 1 for i in axes if i < axis)
    return local, cut.scaled(factor, leads=leads)
