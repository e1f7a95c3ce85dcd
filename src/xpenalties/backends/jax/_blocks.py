"""Evaluate linear maps in blocks of rows, so that the logits never exist for all rows.

If the rows are cut over devices, each block takes rows from all devices: each device evaluates its own.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._work import Work
from ._sharding import Cuts, cut_by, cuts_of, is_manual, pieces, reshape

__all__ = ["mapped"]


class _Axis(NamedTuple):
    """How to cut one axis of the rows: [parts, rows of a block, blocks]. The last blocks of a part may be padded."""

    parts: int  # as many as devices may hold, so that no row has to move
    rows: Any  # of a part, in all blocks together
    step: Any  # rows of a part in one block
    blocks: Any


def mapped(work: Work, elements: int) -> Any:
    """Evaluate the terms of a linear map block by block; the backward pass evaluates each block again."""
    shape, parts, cuts = _rows(work)
    axes = _axes(shape, parts, max(1, elements // work.classes_of_row))
    features = work.arrays[0].ndim - 1
    # float32 at least, because JAX sums the gradients of a weight in its dtype
    maps = {i: jnp.astype(x, jnp.result_type(x, jnp.float32)) for i, x in enumerate(work.arrays) if i in work.matrices}

    def terms(block: Any) -> Any:
        mask, *rows_of_block = block
        remaining = iter(rows_of_block)
        return work.terms(tuple(maps[i] if i in maps else next(remaining) for i in range(len(work.arrays))), mask)

    def cut(x: Any) -> Any:
        if cuts is None:
            return _cut(jnp.reshape(x, (*shape, *x.shape[features:])), axes)
        taken = {name for names in cuts for name in names}
        own = (cuts_of(x) or ((),) * x.ndim)[features:]
        return _cut(cut_by(x, [*cuts, *[tuple(n for n in names if n not in taken) for names in own]]), axes)

    blocks = [cut(x) for i, x in enumerate(work.arrays) if i not in maps]
    mask = None if work.mask is None else cut(work.mask)
    joined = _joined(jax.lax.map(jax.checkpoint(terms), (mask, *blocks)), axes)
    return jnp.reshape(joined, work.terms_shape + work.values)


def _rows(work: Work) -> tuple[tuple[Any, ...], list[int], Cuts | None]:
    """Return the shape of the rows, how many devices may have parts of each axis, and the explicit cuts.

    Without explicit axes of a mesh, any axis may be cut over any devices.
    """
    shape = work.terms_shape
    x = next(x for i, x in enumerate(work.arrays) if i not in work.matrices)
    cuts = cuts_of(x)
    if cuts is not None:
        mesh_shape = jax.typeof(x).sharding.mesh.shape
        cuts = cuts[: len(shape)]
        return shape, [pieces(names, mesh_shape) for names in cuts], cuts
    devices = 1 if is_manual(x) else jax.device_count()
    if devices == 1 or not all(type(size) is int for size in shape):  # sizes are symbols in an export
        return (math.prod(shape),), [1], None
    return shape, [math.gcd(size, devices) for size in shape], None


def _axes(shape: tuple[Any, ...], parts: list[int], rows: int) -> list[_Axis]:
    """Cut the axes so that a block has at most `rows` rows, but at least one of each part."""
    rows = max(1, rows // math.prod(parts))
    axes = []
    for whole, count in zip(reversed(shape), reversed(parts), strict=True):
        size, step = whole // count, rows
        if type(size) is int:
            blocks = -(-size // min(size, rows))
            step = -(-size // blocks)
            rows = max(1, rows // step)
        axes.append(_Axis(count, size, step, -(-size // step)))
    return axes[::-1]


def _cut(x: Any, axes: list[_Axis]) -> Any:
    """Return the blocks, [blocks, *rows of a block, ...]. Block j has the rows j, j + blocks, ... of each part."""
    cuts, other = cuts_of(x), x.shape[len(axes) :]
    x = reshape(x, [*[n for a in axes for n in (a.parts, a.rows)], *other], _spread(cuts, axes, 1))
    missing = [n for a in axes for n in (0, a.blocks * a.step - a.rows)]
    x = jnp.pad(x, [(0, n) for n in (*missing, *[0] * len(other))])
    x = reshape(x, [*[n for a in axes for n in (a.parts, a.step, a.blocks)], *other], _spread(cuts, axes, 2))
    x = jnp.permute_dims(x, _blocks_first(len(axes), len(other)))
    cuts = None if cuts is None else ((), *cuts)
    return reshape(x, [math.prod([a.blocks for a in axes]), *[a.parts * a.step for a in axes], *other], cuts)


def _joined(blocks: Any, axes: list[_Axis]) -> Any:
    """Return what `_cut` has cut."""
    cuts, other = cuts_of(blocks), blocks.shape[len(axes) + 1 :]
    cuts = None if cuts is None else cuts[1:]
    apart = _spread(cuts, axes, 1)
    counts = None if apart is None else [*[()] * len(axes), *apart]
    x = reshape(blocks, [*[a.blocks for a in axes], *[n for a in axes for n in (a.parts, a.step)], *other], counts)
    order = _blocks_first(len(axes), len(other))
    x = jnp.permute_dims(x, [order.index(axis) for axis in range(x.ndim)])
    x = reshape(x, [*[n for a in axes for n in (a.parts, a.step * a.blocks)], *other], apart)
    for i, a in enumerate(axes):
        x = jax.lax.slice_in_dim(x, 0, a.rows, axis=2 * i + 1)
    return reshape(x, [*[a.parts * a.rows for a in axes], *other], cuts)


def _spread(cuts: Cuts | None, axes: list[_Axis], more: int) -> list[tuple[str, ...]] | None:
    """Return the cuts after `more` uncut axes are put behind each axis of the rows."""
    if cuts is None:
        return None
    return [*[names for first in cuts[: len(axes)] for names in (first, *[()] * more)], *cuts[len(axes) :]]


def _blocks_first(axes: int, others: int) -> list[int]:
    """Return the order of axes that puts those that count blocks before all others."""
    blocks = [3 * i + 2 for i in range(axes)]
    return [*blocks, *[i for i in range(3 * axes + others) if i not in blocks]]
