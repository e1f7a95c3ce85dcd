"""Functions that run on one chunk, which is a NumPy array, when Dask computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import numpy as np

from .._blocks import BLOCK_SIZE
from .._work import Work
from ..base import Backend
from ..numpy import find as find_numpy

__all__ = [
    "BLOCK",
    "NUMPY",
    "Job",
    "eigh_of_chunk",
    "norm_of_chunk",
    "not_finite_in_chunk",
    "slogdet_of_chunk",
    "terms_of_chunk",
]

BLOCK = 2**16  # elements to compute at once, so that intermediate results stay small
NUMPY = cast(Backend, find_numpy(np.ndarray))


class Job(NamedTuple):
    """What the tasks of a penalty need besides chunks."""

    formula: Callable[..., Any]
    options: Mapping[str, Any]  # without those that are arrays
    array_options: tuple[str, ...]
    dtype: Any
    has_mask: bool
    takes_mask: bool
    axis: int | None
    matrices: tuple[int, ...]
    kind: str
    values: tuple[int, ...]
    core: tuple[int, ...]  # axes that terms do not have
    block_size: int | None

    def work(self, chunks: tuple[Any, ...], xp: Any = NUMPY.xp) -> Work:
        """Return the work of one chunk of each array, then of the mask, then of the options that are arrays."""
        count = len(chunks) - self.has_mask - len(self.array_options)
        if self.matrices:  # Dask wraps chunks in a list for each axis that the terms do not have
            chunks = tuple(x[0][0] if i in self.matrices else x[0] for i, x in enumerate(chunks))
        arrays = chunks[:count]
        of_options = dict(zip(self.array_options, chunks[count + self.has_mask :], strict=True))
        return Work(
            formula=self.formula,
            options={**self.options, **of_options},
            xp=xp,
            dtype=self.dtype,
            arrays=arrays,
            mask=chunks[count] if self.has_mask else None,
            takes_mask=self.takes_mask,
            axis=self.axis,
            matrices=self.matrices,
            kind=self.kind,
            values=self.values,
        )


def terms_of_chunk(*chunks: Any, job: Job) -> Any:
    """Return the terms of one chunk. The axes that terms do not have are of size 1, except for linear layers."""
    work = job.work(chunks)
    if job.kind == "elements":
        return NUMPY.evaluation.run(_elements, (work, job.array_options), {})
    token = BLOCK_SIZE.set(job.block_size)  # the task may run on another thread or machine
    try:
        terms = np.asarray(NUMPY.evaluation.evaluate(work)[0])
    finally:
        BLOCK_SIZE.reset(token)
    return terms if job.matrices else np.expand_dims(terms, job.core)


def _elements(work: Work, array_options: tuple[str, ...]) -> Any:
    """Evaluate a formula with one term for each element, a few elements at a time."""
    shape = work.arrays[0].shape
    if work.arrays[0].size <= BLOCK:
        return work.whole()
    arrays = tuple(x[..., None] for x in work.arrays)  # each element is a row
    mask = None if work.mask is None else work.mask[..., None]
    rows = work._replace(arrays=arrays, mask=mask, axis=len(shape))
    of_options = {name: np.broadcast_to(work.options[name], shape)[..., None] for name in array_options}
    result = None
    for index in rows.indices(BLOCK):
        options = {**work.options, **{name: x[index] for name, x in of_options.items()}}
        terms = work._replace(options=options).terms(*rows.block(index))[..., 0]
        if result is None:
            result = np.empty(shape, terms.dtype)
        result[index[:-1]] = terms
    return result


def norm_of_chunk(x: Any, *, norm: Callable[..., Any], axes: tuple[int, ...]) -> Any:
    """Return the L2 norm along `axes`, of size 1 there."""
    if len(axes) < x.ndim:
        return np.expand_dims(NUMPY.evaluation.run_fast(norm, (x,), {"axis": axes}), axes)
    parts = np.array_split(x.reshape(-1), max(1, x.size // BLOCK))
    norms = np.stack([NUMPY.evaluation.run_fast(norm, (part,), {}) for part in parts])
    return NUMPY.evaluation.run_fast(norm, (norms,), {}).reshape((1,) * x.ndim)


def eigh_of_chunk(x: Any) -> Any:
    """Return the eigenvalues of symmetric matrices, and below them the eigenvectors."""
    eigenvalues, eigenvectors = np.linalg.eigh(x)
    return np.concatenate([eigenvalues[..., None, :], eigenvectors], axis=-2)


def slogdet_of_chunk(x: Any, part: int) -> Any:
    """Return the signs of determinants (part 0), or the logarithms of their magnitudes (part 1)."""
    with np.errstate(all="ignore"):  # of NaN, for example
        return np.asarray(np.linalg.slogdet(x)[part])


def not_finite_in_chunk(x: Any, block_info: Any = None) -> Any:
    """Return the number of NaN, the number of Inf, and the position of the first in the whole array, if any."""
    finite = np.isfinite(x[..., 0])
    not_finite, nan = int(np.sum(~finite)), int(np.sum(np.isnan(x)))
    position = 0
    if not_finite:
        *starts, _ = (start for start, _ in block_info[0]["array-location"])
        index = np.unravel_index(np.argmin(finite), finite.shape)
        at = [start + i for start, i in zip(starts, index, strict=True)]
        position = int(np.ravel_multi_index(at, block_info[0]["shape"][:-1])) if at else 0
    return np.asarray([nan, not_finite - nan, position]).reshape((1,) * finite.ndim + (3,))
