"""Evaluate a penalty whose rows are cut into chunks along the classes.

The formula runs on each chunk, on arrays whose maxima and sums along the classes are those of the whole rows. They are
computed in passes: a pass computes each maximum and sum of the chunks that needs only those of the passes before, and
they are merged. In the end, the formula runs once more without the data, and only on maxima and sums.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import dask.array as da
import numpy as np

from .._work import Work
from ._chunks import BLOCK, NUMPY, Job
from ._parts import KNOWN as PARTS
from ._parts import DoneError, Run, reduced
from ._reading import read_again

__all__ = ["evaluate_cut_rows"]

(_PARTS,) = PARTS.values()
Numbers = tuple[int, ...]  # of maxima and sums
Names = tuple[str, ...]  # "max" or "sum"


def evaluate_cut_rows(work: Work, job: Job) -> Any:
    """Return the terms of Dask arrays whose rows are cut along the classes."""
    assert work.axis is not None
    axis, ndim, classes = work.axis, work.arrays[0].ndim, work.arrays[0].shape[work.axis]
    kinds, dtype = _kinds(work, job, classes)
    passes = max(level for _, level in kinds) + 1
    index = tuple(range(ndim))
    rows = tuple(i for i in index if i != axis)
    mask = [] if work.mask is None else [work.mask, index]
    known: dict[int, Any] = {}
    for at in range(passes):
        wanted = tuple(number for number, (_, level) in enumerate(kinds) if level == at)
        names = tuple(kinds[number][0] for number in wanted)
        arrays = [read_again(x, at) for x in work.arrays]
        parts = da.blockwise(
            _pass,
            (*index, ndim),
            *(item for x in arrays for item in (x, index)),
            *mask,
            *(item for x in known.values() for item in (x, rows)),
            job=job,
            classes=classes,
            numbers=tuple(known),
            wanted=wanted,
            names=names,
            of_terms=dtype,
            new_axes={ndim: len(wanted)},
            adjust_chunks={axis: 1},
            dtype=dtype,
            meta=np.empty((0,) * (ndim + 1), dtype),
        )
        merged = da.blockwise(
            _merge,
            (*rows, ndim),
            parts,
            (*index, ndim),
            names=names,
            axis=axis,
            concatenate=True,
            dtype=dtype,
            meta=np.empty((0,) * ndim, dtype),
        )
        known |= {number: merged[..., i] for i, number in enumerate(wanted)}
    return da.blockwise(
        _terms,
        rows,
        *(item for x in known.values() for item in (x, rows)),
        job=job,
        classes=classes,
        numbers=tuple(known),
        dtypes=tuple(x.dtype for x in work.arrays),
        dtype=dtype,
        meta=np.empty((0,) * (ndim - 1), dtype),
    )


def _kinds(work: Work, job: Job, classes: int) -> tuple[list[tuple[str, int]], Any]:
    """Run the formula on one row of one class, to find its maxima and sums, and the dtype of its terms."""
    assert job.axis is not None
    run = Run(job.axis, classes, {})
    ones = [np.ones((1,) * x.ndim, x.dtype) for x in work.arrays]
    mask = [] if work.mask is None else [np.ones(ones[0].shape, bool)]
    return run.kinds, _formula(job, run, [*ones, *mask]).dtype


def _formula(job: Job, run: Run, chunks: Any) -> Any:
    count = len(chunks) - job.has_mask
    parts = [run.part(x) for x in chunks[:count]]
    return NUMPY.evaluation.run(job.work((*parts, *chunks[count:]), _PARTS.xp).whole, (), {})


def _pass(*chunks: Any, job: Job, classes: int, numbers: Numbers, wanted: Numbers, names: Names, of_terms: Any) -> Any:
    """Return the maxima and sums of one pass for a chunk, on a new last axis. Works on a few elements at a time."""
    assert job.axis is not None
    axis, with_mask = job.axis, len(chunks) - len(numbers)
    arrays, masks = chunks[: with_mask - job.has_mask], chunks[with_mask - job.has_mask : with_mask]
    known = [np.expand_dims(x, axis) for x in chunks[with_mask:]]
    shape = arrays[0].shape
    results = np.empty((*shape[:axis], 1, *shape[axis + 1 :], len(wanted)), of_terms)
    for rows in _blocks(job.work(chunks[:with_mask])):
        of_strips = []
        for strip in _strips(shape[axis]):
            block = (*rows[:axis], strip, *rows[axis + 1 :])
            run = Run(axis, classes, {number: x[rows] for number, x in zip(numbers, known, strict=True)}, wanted)
            with suppress(DoneError):
                _formula(job, run, [*(x[block] for x in arrays), *(x[rows] for x in masks)])
            of_strips.append(np.stack([run.results[number] for number in wanted], axis=-1))
        merged = _merge(np.concatenate(of_strips, axis=axis), names=names, axis=axis)
        results[rows] = np.expand_dims(merged, axis)
    return results


def _merge(parts: Any, *, names: Names, axis: int) -> Any:
    """Merge the maxima and the sums of several parts of the rows."""
    with np.errstate(all="ignore"):
        merged = [reduced(name, parts[..., i], axis) for i, name in enumerate(names)]
    return np.stack([np.squeeze(x, axis=axis) for x in merged], axis=-1)


def _terms(*known: Any, job: Job, classes: int, numbers: Numbers, dtypes: tuple[Any, ...]) -> Any:
    """Return the terms from the maxima and sums of whole rows. Nothing else of the formula matters."""
    assert job.axis is not None
    values = [np.expand_dims(x, job.axis) for x in known]
    run = Run(job.axis, classes, dict(zip(numbers, values, strict=True)))
    chunks = [np.zeros(values[0].shape, dtype) for dtype in dtypes]
    mask = [np.ones(values[0].shape, bool)] if job.has_mask else []
    return np.asarray(_formula(job, run, [*chunks, *mask]))


def _blocks(work: Work) -> Iterator[Any]:
    """Yield the indices of blocks of rows. A row may have more elements than a block should."""
    shape = work.arrays[0].shape
    if len(shape) == 1 or 0 in shape:
        yield (slice(None),) * len(shape)
    else:
        yield from work.indices(BLOCK)


def _strips(classes: int) -> list[slice]:
    """Return the indices of strips of the classes, in case a row has more elements than a block should."""
    return [slice(start, start + BLOCK) for start in range(0, max(1, classes), BLOCK)]
