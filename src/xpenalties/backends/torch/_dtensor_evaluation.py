"""Evaluate penalties of DTensors on the processes' own parts.

A term depends on its own row only. If rows are whole on each process, it evaluates its rows as it would plain tensors:
in blocks, without guards first, with the gradients in one pass. If rows are cut, it does the same with blocks whose
rows are cut, and each reduction over classes is completed by the processes that share the rows. So nothing as large as
the input is moved, and no logits are gathered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import array_api_compat.torch as compat
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

from .._blocks import AUTOMATIC, BLOCK_SIZE, PART
from .._work import Work
from ..base import Evaluation
from ._blocks import evaluate_in_blocks
from ._dtensor_matmul import LEAVES
from ._dtensor_moves import aligned, from_local, moved_shard, redistributed, replicated, to_local, without_partials
from ._dtensor_namespace import lifted, mesh_of
from ._dtensor_reductions import total
from ._dtensor_submesh import submesh
from ._evaluation import TorchEvaluation
from ._threads import carried
from ._tracing import is_tracing

__all__ = ["DTensorEvaluation"]


class DTensorEvaluation(Evaluation):
    def __init__(self, xp: Any) -> None:
        super().__init__(xp)
        self.parts = TorchEvaluation(compat)

    def evaluate(self, work: Work) -> tuple[Any, Any]:
        mesh = mesh_of([*work.arrays, work.mask, work.factors])
        work = work._replace(
            arrays=tuple(lifted(x, mesh) for x in work.arrays),
            mask=lifted(work.mask, mesh),
            factors=lifted(work.factors, mesh),
            options={name: lifted(x, mesh) for name, x in work.options.items()},
        )
        if work.matrices:
            return self._in_parts(work, *_layouts_of_layers(work))
        layout = aligned(work.arrays)
        if work.kind not in ("rows", "matrices"):
            return work._replace(arrays=tuple(redistributed(x, layout) for x in work.arrays)).whole(), None
        ndim = work.arrays[0].ndim
        axes = (ndim - 2, ndim - 1) if work.axis is None else (work.axis,)
        cut = tuple(i for i, p in enumerate(layout) if not p.is_replicate() and p.dim in axes)
        return self._in_parts(work, [layout] * len(work.arrays), [layout] * len(work.arrays), cut, axes)

    def run(self, function: Callable[..., Any], arrays: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        return function(*arrays, **options)

    def thread_modes(self) -> Callable[[], AbstractContextManager[Any]]:
        return carried()

    def _in_parts(
        self, work: Work, layouts: Sequence[Any], gradients: Sequence[Any], cut: tuple[int, ...], axes: tuple[int, ...]
    ) -> tuple[Any, Any]:
        """Evaluate the terms of this process's rows. On the axes `cut` of the mesh, processes share rows."""
        first, mesh = work.arrays[0], work.arrays[0].device_mesh
        rows = tuple(Replicate() if i in cut else p for i, p in enumerate(layouts[0]))  # how rows are distributed
        of_terms = tuple(p if p.is_replicate() else moved_shard(p, p.dim - sum(a < p.dim for a in axes)) for p in rows)
        terms_shape = tuple(n for i, n in enumerate(first.shape) if i not in axes)
        moved = [redistributed(x, layout) for x, layout in zip(work.arrays, layouts, strict=True)]
        arrays = tuple(to_local(x, gradient) for x, gradient in zip(moved, gradients, strict=True))
        local = work._replace(
            xp=compat,
            arrays=arrays,
            mask=None if work.mask is None else _part(work.mask, rows),
            factors=None if work.factors is None else _part(work.factors, of_terms),
        )
        if cut:
            terms, fused = self._of_cut_rows(local, moved, cut)
        else:
            terms, fused = self.parts.evaluate(local)
        if fused is not None:
            fused = total(fused, mesh, of_terms)
        if not terms_shape and not work.values:
            return terms, fused
        return from_local(terms, mesh, of_terms, terms_shape + work.values), fused

    def _of_cut_rows(self, local: Work, moved: Sequence[Any], cut: tuple[int, ...]) -> tuple[Any, Any]:
        mesh = moved[0].device_mesh
        shared = submesh(mesh, cut)
        layouts = [tuple(x.placements[i] for i in cut) for x in moved]
        wholes = [tuple(x.shape) for x in moved]
        matrices, formula = local.matrices, local.formula

        def of_parts(*parts: Any, **options: Any) -> Any:
            arrays = []
            for i, (part, layout, whole) in enumerate(zip(parts, layouts, wholes, strict=True)):
                axes = {p.dim for p in layout if not p.is_replicate()}
                shape = tuple(n if axis in axes else part.shape[axis] for axis, n in enumerate(whole))
                x = from_local(part, shared, layout, shape)
                if i in matrices and not is_tracing():
                    LEAVES[x] = part
                arrays.append(x)
            result = formula(*arrays, **options)
            if not isinstance(result, DTensor):
                return result
            everywhere = replicated(shared)
            return to_local(redistributed(result, everywhere), everywhere)

        parts = math.prod([mesh.size(i) for i in cut])
        local = local._replace(formula=of_parts)
        if local.axis is None or is_tracing():  # a compiler gets all rows
            return local.whole(), None
        classes = wholes[matrices[0]][0] if matrices else wholes[0][local.axis]
        local = local._replace(classes=-(-classes // parts))
        elements = self._elements(local)
        return (local.whole(), None) if elements is None else evaluate_in_blocks(local, elements)

    def _elements(self, local: Work) -> int | None:
        """Return the number of elements in a block: the same on all processes that share rows."""
        elements, size = BLOCK_SIZE.get(), local.size()
        if len(local.terms_shape) == 0:
            return None
        if elements == AUTOMATIC:  # larger blocks than on one process, because each waits for several collectives
            elements = max(self.parts.block_elements(local) or 0, PART)
        return None if elements is None or size <= elements else elements


def _part(x: Any, layout: Sequence[Any]) -> Any:
    """Return this process's part of an array that is broadcast to one in `layout`, such as a mask."""
    if not isinstance(x, DTensor):
        return x
    layout = tuple(p if p.is_replicate() or x.shape[p.dim] != 1 else Replicate() for p in layout)
    gradient = tuple(p for p in layout)
    return to_local(redistributed(x, layout), gradient)


def _layouts_of_layers(work: Work) -> tuple[list[Any], list[Any], tuple[int, ...], tuple[int, ...]]:
    """Decide on each axis of the mesh if rows are cut, or classes.

    If hidden states are cut by rows and weights too, the smaller ones are gathered: a product needs rows of one whole.
    """
    arrays, matrices = work.arrays, work.matrices
    mesh = arrays[0].device_mesh
    layouts: list[list[Any]] = [[] for _ in arrays]
    gradients: list[list[Any]] = [[] for _ in arrays]
    shared = []
    for i in range(mesh.ndim):
        placements = [without_partials(x.placements)[i] for x in arrays]
        features = [x.ndim - 1 for x in arrays]
        row_cuts = [
            (x, p)
            for j, (x, p) in enumerate(zip(arrays, placements, strict=True))
            if j not in matrices and not p.is_replicate() and p.dim != features[j]
        ]
        others = [
            x
            for j, (x, p) in enumerate(zip(arrays, placements, strict=True))
            if not p.is_replicate() and (j in matrices or p.dim == features[j])
        ]
        by_rows = bool(row_cuts) and sum(x.numel() for x in others) <= sum(x.numel() for x, _ in row_cuts)
        if not by_rows and others:
            shared.append(i)
        for j in range(len(arrays)):
            if by_rows:
                to = Replicate() if j in matrices else row_cuts[0][1]
                gradient = Partial() if j in matrices else to
            elif not others:
                to = gradient = Replicate()
            else:
                to = gradient = _placement_in_layer(j, arrays, placements, matrices)
            layouts[j].append(to)
            gradients[j].append(gradient)
    return layouts, gradients, tuple(shared), (arrays[0].ndim - 1,)


def _placement_in_layer(j: int, arrays: Sequence[Any], placements: Sequence[Any], matrices: tuple[int, ...]) -> Any:
    """Return the placement of hidden states or of a weight whose layer is cut by classes or by features."""
    pairs = {}
    hidden = 0
    for i in range(len(arrays)):
        if i in matrices:
            pairs[hidden], pairs[i] = (hidden, i), (hidden, i)
        else:
            hidden = i if i + 1 in matrices else hidden
    if j not in pairs:  # tokens
        return Replicate()
    hidden, weight = pairs[j]
    of_hidden, of_weight = placements[hidden], placements[weight]
    last = arrays[hidden].ndim - 1
    if not of_weight.is_replicate() and of_weight.dim == 0:
        return of_weight if j == weight else Replicate()
    by_features = not of_weight.is_replicate() or (not of_hidden.is_replicate() and of_hidden.dim == last)
    if by_features:
        return Shard(1) if j == weight else Shard(last)
    return Shard(0) if j == weight else Replicate()
