"""Evaluate a penalty whose rows are cut into chunks along the classes.

The formula runs on each chunk, on arrays whose maxima and sums along the classes are those of the whole rows. They are
computed in passes: a pass computes each maximum and sum of the chunks that needs only those of the passes before, and
they are merged. In the end, the formula runs once more without the data, and only on maxima and sums.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import array_api_compat.numpy
import dask.array as da
import numpy as np

from .._work import Work
from ..base import Backend, Evaluation
from ._chunks import BLOCK, NUMPY, Job
from ._reading import read_again

__all__ = ["KNOWN", "evaluate_cut_rows"]


Passes = tuple[tuple[int, ...], ...]  # the numbers of the maxima and sums that each pass computes
Names = tuple[str, ...]  # "max" or "sum"


class _DoneError(Exception):
    """Ends a pass: all that it computes is there."""


class Run:
    """One run of a formula on chunks of rows: which maxima and sums are known, and which to compute.

    They are numbered in the order in which the formula computes them.
    """

    def __init__(self, axis: int, classes: int, known: dict[int, Any], wanted: tuple[int, ...] | None) -> None:
        self.axis = axis
        self.classes = classes
        self.known = known
        self.wanted = wanted  # None: all, to find out what there is
        self.results: dict[int, Any] = {}
        self.kinds: list[tuple[str, int]] = []  # of each, its name, and the pass that computes it

    def part(self, x: Any, *, is_cut: bool = True, level: int = 0) -> Part:
        part = np.asarray(x).view(Part)
        part.run, part.is_cut, part.level = self, is_cut, level
        return part

    def reduce(self, name: str, x: Part, axis: int, keepdims: bool) -> Any:
        """Return a maximum or a sum over the classes: of the whole rows if it is known, else of the chunk."""
        number, level = len(self.kinds), x.level
        self.kinds.append((name, level))
        assert axis % x.ndim == self.axis  # a formula with a term for each row reduces along the classes only
        value = self.known.get(number)
        if value is None:
            value = _of_chunk(name, x.view(np.ndarray), self.axis)
            if self.wanted is not None and number in self.wanted:
                self.results[number] = value
                if number == self.wanted[-1]:
                    raise _DoneError
        value = value if keepdims else np.squeeze(value, axis=self.axis)
        return self.part(value, is_cut=False, level=level + 1)


class Part(np.ndarray):
    """A chunk of rows, or one number for each row, in a run of a formula."""

    run: Run
    is_cut: bool  # along the classes
    level: int  # the number of passes that come before it

    def __array_finalize__(self, obj: Any) -> None:
        if isinstance(obj, Part):
            self.run, self.is_cut, self.level = obj.run, obj.is_cut, obj.level

    @property  # type: ignore[misc]
    def shape(self) -> Any:
        """The shape of whole rows."""
        shape = np.shape(self.view(np.ndarray))
        axis = self.run.axis
        return (*shape[:axis], self.run.classes, *shape[axis + 1 :]) if self.is_cut else shape

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        return _joined(inputs, getattr(ufunc, method)(*map(_plain, inputs), **options))

    def __array_function__(self, func: Any, types: Any, args: Any, options: Any) -> Any:
        return _joined(args, func(*map(_plain, args), **{name: _plain(x) for name, x in options.items()}))


def _plain(x: Any) -> Any:
    return x.view(np.ndarray) if isinstance(x, Part) else x


def _joined(inputs: Any, result: Any) -> Any:
    """Return the result of an operation as a part of rows."""
    parts = [x for x in inputs if isinstance(x, Part)]
    is_cut, level = any(x.is_cut for x in parts), max(x.level for x in parts)
    return parts[0].run.part(result, is_cut=is_cut, level=level)


def _of_chunk(name: str, x: Any, axis: int) -> Any:
    if name == "sum":
        return np.sum(x, axis=axis, keepdims=True)
    return np.max(x, axis=axis, keepdims=True, initial=-math.inf)  # a chunk may be empty


class _Namespace:
    """NumPy's functions. The reductions along the classes are those of whole rows."""

    def __getattr__(self, name: str) -> Any:
        return getattr(array_api_compat.numpy, name)

    @staticmethod
    def sum(x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Any:
        return x.run.reduce("sum", x, axis, keepdims)

    @staticmethod
    def max(x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Any:
        return x.run.reduce("max", x, axis, keepdims)

    @staticmethod
    def clip(x: Any, min: Any = None, max: Any = None) -> Any:
        return np.clip(x, min, max)


class _PartBackend(Backend):
    def abs(self, x: Any) -> Any:
        return np.abs(x)


_PARTS = _PartBackend("numpy", _Namespace(), evaluation=Evaluation)
KNOWN: dict[type, Backend] = {Part: _PARTS}


def evaluate_cut_rows(work: Work, job: Job) -> Any:
    """Return the terms of Dask arrays whose rows are cut along the classes."""
    assert work.axis is not None
    axis, ndim, classes = work.axis, work.arrays[0].ndim, work.arrays[0].shape[work.axis]
    kinds, dtype = _kinds(work, job, classes)
    passes = [tuple(i for i, (_, level) in enumerate(kinds) if level == at) for at in _levels(kinds)]
    index, last = tuple(range(ndim)), ndim
    rows = tuple(i for i in index if i != axis)
    mask = [] if work.mask is None else [work.mask, index]
    known: list[Any] = []
    for at, wanted in enumerate(passes):
        arrays = [read_again(x, len(passes) - 1 - at) for x in work.arrays]
        parts = da.blockwise(
            _pass,
            (*index, last),
            *(part for x in arrays for part in (x, index)),
            *mask,
            *(part for i, x in enumerate(known) for part in (x, (*rows, last + 1 + i))),
            job=job,
            classes=classes,
            passes=tuple(passes[: at + 1]),
            names=(names := tuple(kinds[i][0] for i in wanted)),
            new_axes={last: len(wanted)},
            adjust_chunks={axis: 1},
            of_terms=dtype,
            concatenate=True,
            dtype=dtype,
            meta=np.empty((0,) * (ndim + 1), dtype),
        )
        known.append(_merged(parts, names, axis, index, rows, last, dtype))
    return da.blockwise(
        _terms,
        rows,
        *(part for i, x in enumerate(known) for part in (x, (*rows, last + 1 + i))),
        job=job,
        classes=classes,
        passes=tuple(passes),
        dtypes=tuple(x.dtype for x in work.arrays),
        concatenate=True,
        dtype=dtype,
        meta=np.empty((0,) * (ndim - 1), dtype),
    )


def _levels(kinds: list[tuple[str, int]]) -> range:
    return range(max(level for _, level in kinds) + 1)


def _merged(
    parts: Any, names: Names, axis: int, index: tuple[int, ...], rows: tuple[int, ...], last: int, dtype: Any
) -> Any:
    return da.blockwise(
        _merge,
        (*rows, last),
        parts,
        (*index, last),
        names=names,
        axis=axis,
        concatenate=True,
        dtype=dtype,
        meta=np.empty((0,) * len(index), dtype),
    )


def _merge(parts: Any, *, names: Names, axis: int) -> Any:
    """Merge the maxima and the sums of all chunks of the rows."""
    with np.errstate(all="ignore"):
        merged = [_of_chunk(name, parts[..., i], axis) for i, name in enumerate(names)]
    return np.stack([np.squeeze(x, axis=axis) for x in merged], axis=-1)


def _kinds(work: Work, job: Job, classes: int) -> tuple[list[tuple[str, int]], Any]:
    """Run the formula on one row of one class, to find its maxima and sums, and the dtype of its terms."""
    ndim = work.arrays[0].ndim
    run = Run(job.axis or 0, classes, {}, None)
    chunks = [np.ones((1,) * ndim, x.dtype) for x in work.arrays]
    mask = [] if work.mask is None else [np.ones((1,) * ndim, bool)]
    terms = NUMPY.evaluation.run(_formula, (job, run, [*chunks, *mask]), {})
    return run.kinds, terms.dtype


def _formula(job: Job, run: Run, chunks: Any) -> Any:
    count = len(chunks) - job.has_mask
    parts = [run.part(x) for x in chunks[:count]]
    return job.work((*parts, *chunks[count:]), _PARTS.xp).whole()


def _known(axis: int, passes: Passes, values: Any) -> dict[int, Any]:
    """Return the known maxima and sums by their numbers, of size 1 along the classes."""
    return {
        number: np.expand_dims(of_pass[..., i], axis)
        for numbers, of_pass in zip(passes, values, strict=False)
        for i, number in enumerate(numbers)
    }


def _pass(*chunks: Any, job: Job, classes: int, passes: Passes, names: Names, of_terms: Any) -> Any:
    """Return the maxima and sums of one pass for a chunk, on a new last axis. Works on a few elements at a time."""
    assert job.axis is not None
    axis, wanted, arrays = job.axis, passes[-1], len(chunks) - (len(passes) - 1)
    known = _known(axis, passes, chunks[arrays:])
    arrays_of_mask = chunks[arrays - job.has_mask : arrays]
    shape = chunks[0].shape
    results = np.empty((*shape[:axis], 1, *shape[axis + 1 :], len(wanted)), of_terms)
    for rows in _blocks(job.work(chunks[:arrays])):
        strips = []
        for strip in _strips(shape[axis]):
            block = (*rows[:axis], strip, *rows[axis + 1 :])
            run = Run(axis, classes, {number: x[rows] for number, x in known.items()}, wanted)
            inputs = [x[block] for x in chunks[: arrays - job.has_mask]] + [x[rows] for x in arrays_of_mask]
            with suppress(_DoneError):
                NUMPY.evaluation.run(_formula, (job, run, inputs), {})
            strips.append(np.stack([run.results[number] for number in wanted], axis=-1))
        merged = _merge(np.concatenate(strips, axis=axis), names=names, axis=axis)
        results[rows] = np.expand_dims(merged, axis)
    return results


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


def _terms(*known: Any, job: Job, classes: int, passes: Passes, dtypes: tuple[Any, ...]) -> Any:
    """Return the terms from the maxima and sums of whole rows. Nothing else of the formula matters."""
    assert job.axis is not None
    run = Run(job.axis, classes, _known(job.axis, passes, known), ())
    of_rows = known[0][..., 0]
    chunks = [np.expand_dims(np.zeros(of_rows.shape, dtype), job.axis) for dtype in dtypes]
    mask = [np.ones(chunks[0].shape, bool)] if job.has_mask else []
    return np.asarray(NUMPY.evaluation.run(_formula, (job, run, [*chunks, *mask]), {}))
