"""Evaluate penalties of Dask arrays: one NumPy task for each chunk where the terms of a chunk need no other chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import dask.array as da
import numpy as np

from .._blocks import BLOCK_SIZE
from .._work import Work
from ..base import Evaluation
from ._chunks import Job, terms_of_chunk
from ._cut_rows import evaluate_cut_rows
from ._reading import read_again

__all__ = ["DaskEvaluation", "of_first_pass"]


class _Passes:
    """The norms and means that a formula takes of its arrays, in order."""

    def __init__(self) -> None:
        self.results: list[Any] = []
        self.needs_two = False
        self.taken: Iterator[Any] | None = None  # in the second run, the results of the first


_PASSES: ContextVar[_Passes | None] = ContextVar("_PASSES", default=None)


def of_first_pass(reduce: Callable[[Any], Any], x: Any, *, again: bool) -> Any:
    """Return a norm or a mean of `x`. If `again`, it will be used together with `x`, so `x` is read twice.

    In a formula, the norm is of `x` itself, and the formula runs once more on a copy. Elsewhere, it is of a copy.
    """
    passes = _PASSES.get()
    if passes is None:
        return reduce(read_again(x))
    if passes.taken is not None:
        return next(passes.taken)
    passes.needs_two |= again
    passes.results.append(reduce(x))
    return passes.results[-1]


class DaskEvaluation(Evaluation):
    def evaluate(self, work: Work) -> tuple[Any, Any]:
        work = _aligned(work)
        if work.kind == "neighborhoods":  # of other chunks, too
            return self._of_whole(work), None
        core = _axes_without_terms(work)
        cut = [axis for axis in core if any(len(x.chunks[axis]) > 1 for x in _with_rows(work))]
        # linear layers have whole rows, which may be of different sizes
        same_chunks = bool(work.matrices) or all(x.shape == work.arrays[0].shape for x in work.arrays)
        if not cut and same_chunks and not (work.kind == "whole" and "weights" in work.options):
            return _in_chunks(work, core), None
        if work.kind == "rows":
            return evaluate_cut_rows(work, _job(work, core)), None
        return self._of_whole(work), None

    def _of_whole(self, work: Work) -> Any:
        """Evaluate a formula of a few Gram matrices or norms, which all chunks add to."""
        passes = _Passes()
        token = _PASSES.set(passes)
        try:
            terms = self.run(work.whole, (), {})
            if passes.needs_two and any(x.npartitions > 1 for x in work.arrays):
                passes.taken = iter(passes.results)
                work = work._replace(arrays=tuple(read_again(x) for x in work.arrays))
                terms = self.run(work.whole, (), {})
        finally:
            _PASSES.reset(token)
        return terms

    def size_of_blocks(self, work: Work) -> int | None:
        return None  # the tasks of the chunks have blocks


def _with_rows(work: Work) -> list[Any]:
    """Return the arrays that have a row for each term. A linear layer's weight has none."""
    return [x for i, x in enumerate(work.arrays) if i not in work.matrices]


def _aligned(work: Work) -> Work:
    """Return the work with arrays that have the same chunks. Linear layers get whole rows and whole weights."""
    arrays = list(work.arrays)
    if work.matrices:
        arrays = [x.rechunk(-1 if i in work.matrices else {x.ndim - 1: -1}) for i, x in enumerate(arrays)]
    elif len(arrays) > 1:
        _, arrays = da.core.unify_chunks(*(part for x in arrays for part in (x, _index(x, arrays[0]))))
    options = dict(work.options)
    weights = options.pop("weights", None) if work.kind == "elements" else None  # for a mean only
    if isinstance(options.get("center"), str):  # the mean of x, which the terms need before they read x
        options["center"] = _mean(work, weights)
        arrays = [read_again(x) for x in arrays]
    return work._replace(arrays=tuple(arrays), options=options)


def _mean(work: Work, weights: Any) -> Any:
    """Return the weighted mean of the elements that are not masked, 0 if there are none."""
    (x,) = work.arrays
    x = x if work.dtype is None else x.astype(work.dtype)
    if weights is not None:
        total = da.sum(weights)
        return da.sum(weights * (x if work.mask is None else da.where(work.mask, x, 0.0))) / da.where(
            total == 0, 1, total
        )
    if work.mask is None:
        return da.mean(x)
    count = da.sum(work.mask, dtype=np.int64)
    return da.sum(da.where(work.mask, x, 0.0)) / da.where(count == 0, 1, count).astype(x.real.dtype)


def _index(x: Any, first: Any) -> tuple[tuple[int, int], ...]:
    """Return a name for each axis. Axes of the same name, which is that of the same size, get the same chunks."""
    sizes = zip(x.shape, first.shape, strict=True)
    return tuple((axis, 0 if n == of_first else n) for axis, (n, of_first) in enumerate(sizes))


def _axes_without_terms(work: Work) -> tuple[int, ...]:
    ndim = work.arrays[0].ndim
    if work.kind == "elements":
        return ()
    if work.kind == "rows":
        assert work.axis is not None
        return (work.axis,)
    return (ndim - 2, ndim - 1) if work.kind == "matrices" else tuple(range(ndim))


def _job(work: Work, core: tuple[int, ...]) -> Job:
    arrays = {name: value for name, value in work.options.items() if isinstance(value, da.Array)}
    return Job(
        formula=work.formula,
        options={name: value for name, value in work.options.items() if name not in arrays},
        array_options=tuple(arrays),
        dtype=work.dtype,
        has_mask=work.mask is not None,
        takes_mask=work.takes_mask,
        axis=work.axis,
        matrices=work.matrices,
        kind=work.kind,
        values=work.values,
        core=core,
        block_size=BLOCK_SIZE.get(),
    )


def _in_chunks(work: Work, core: tuple[int, ...]) -> Any:
    """Return the terms, from one task for each chunk."""
    job, ndim = _job(work, core), work.arrays[0].ndim
    index = tuple(range(ndim))
    pairs: list[Any] = []
    for x in (*work.arrays, *([] if work.mask is None else [work.mask])):
        pairs += [x, index[ndim - x.ndim :]]
    for name in job.array_options:
        pairs += [work.options[name], index[ndim - work.options[name].ndim :]]
    dtype = terms_of_chunk(*_ones(pairs, job), job=job).dtype
    options: dict[str, Any] = {"job": job, "dtype": dtype}
    if not work.matrices:
        options |= {"adjust_chunks": dict.fromkeys(core, 1), "meta": np.empty((0,) * ndim, dtype)}
        terms = da.blockwise(terms_of_chunk, index, *pairs, **options)
        return da.squeeze(terms, axis=core) if core else terms
    for i in range(len(work.arrays) + job.has_mask):  # each has features or classes of its own
        rows = () if i in work.matrices else index[:-1]
        pairs[2 * i + 1] = (*rows, *range(ndim * (i + 2), ndim * (i + 2) + pairs[2 * i].ndim - len(rows)))
    values = (ndim,) if work.values else ()
    options |= {"meta": np.empty((0,) * (ndim - 1 + len(values)), dtype)}
    return da.blockwise(
        terms_of_chunk, index[:-1] + values, *pairs, new_axes=dict.fromkeys(values, sum(work.values)), **options
    )


def _ones(pairs: list[Any], job: Job) -> list[Any]:
    """Return the smallest chunks that a formula takes, to find the dtype of its terms."""
    ones = [np.ones([min(size, 2) for size in x.shape], x.dtype) for x in pairs[::2]]
    return [[[x]] if i in job.matrices else [x] if job.matrices else x for i, x in enumerate(ones)]
