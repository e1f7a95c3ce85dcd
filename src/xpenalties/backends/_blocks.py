"""Rows in blocks: what a penalty needs between its inputs and its terms stays in the cache, and is never whole.

A penalty of rows is evaluated on a few of them at a time, by the same formula, where a framework runs each operation on
its own: NumPy, CuPy and eager PyTorch. A compiler fuses the operations better than that, and is given the whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from itertools import product
from typing import Any, NamedTuple

from ._fast_path import Evaluate

__all__ = ["AUTOMATIC", "BLOCK_SIZE", "LEAST", "Index", "Work", "block_size", "keep_pages"]

Index = tuple[slice, ...]

AUTOMATIC = 0
LEAST = 2**18  # elements: what is smaller stays in the caches of a CPU as a whole
#: Elements of a block as `block_size` says; AUTOMATIC: as the device likes it, None: no blocks.
BLOCK_SIZE: ContextVar[int | None] = ContextVar("BLOCK_SIZE", default=AUTOMATIC)


@contextmanager
def block_size(elements: int | None) -> Iterator[None]:
    """Evaluate penalties of rows in blocks of another size than the one chosen for the device.

    NumPy, CuPy and eager PyTorch evaluate penalties with one term for each row (all divergences but `sampled_kl`,
    `group_lasso`, `consistency` by "cosine", "kl" and "js") a block of rows at a time, and forward and backward at once
    where PyTorch wants a gradient: nothing as large as the inputs is stored but their gradients. The divergences of
    linear maps are evaluated so in JAX and under torch.compile too. The value is the same but for rounding.

    Parameters
    ----------
    elements : int or None
        How many elements of an input, or logits, a block has at most, but for one row at least; None: never in blocks.

    Raises
    ------
    TypeError, ValueError
        For what is not an integer >= 1 or None.

    Notes
    -----
    Holds for what this thread, or asyncio task, calls within the block, and for the threads that a pipeline starts
    there. What torch.compile and jax.jit have compiled keeps the size it was compiled with.

    Examples
    --------
    >>> log_p = np.log(np.full((1000, 4), 0.25))
    >>> with block_size(2**10):
    ...     round(float(entropy(log_p)), 4)
    1.3863
    """
    if elements is not None:
        if isinstance(elements, bool) or not isinstance(elements, int):
            raise TypeError(f"block_size: `elements` must be an integer or None, got {elements!r}. Pass a Python int.")
        if elements < 1:
            raise ValueError(f"block_size: `elements` must be 1 at least, got {elements}. Pass None for no blocks.")
    token = BLOCK_SIZE.set(elements)
    try:
        yield
    finally:
        BLOCK_SIZE.reset(token)


@cache
def keep_pages(empty: Callable[[int], Any]) -> None:
    """Have the C library keep the memory that one block frees for the next one; `empty` allocates so many bytes.

    glibc gives back what is free at the end of its heap, if that is more than twice the largest allocation of up to
    32 MiB that the process has freed so far (mallopt(3), M_MMAP_THRESHOLD): here is one. Pages that come again from the
    system are zeroed, which takes longer than what blocks compute.
    """
    empty(2**25 - 2**16)


class Work(NamedTuple):
    """A formula and its arrays, to be evaluated whole or in blocks."""

    formula: Callable[..., Any]
    options: Mapping[str, Any]
    xp: Any
    dtype: Any  # to compute in; None: as the arrays have it
    arrays: tuple[Any, ...]
    mask: Any  # of the elements of the arrays with rows, broadcastable to them; None: all count
    takes_mask: bool  # the formula does, as its option `kept`
    axis: int | None  # along which a row lies; None: terms are not of rows
    matrices: tuple[int, ...] = ()  # which of the arrays all rows have in common, as [classes, features]
    divisor: float | None = None  # of the sum of terms times factors, where nothing but that is differentiated
    factors: Any = None  # of the terms; None: all 1
    kind: str = "rows"  # what a term belongs to: "elements", "rows", "matrices", "samples" or "whole"
    fast_path: Evaluate | None = None  # how to call the formula; None: with guards

    @property
    def has_rows(self) -> bool:
        """Whether it can be cut."""
        return self.axis is not None and self.arrays[0].ndim > 1

    def terms(self, arrays: tuple[Any, ...], mask: Any) -> Any:
        """What the formula makes of the arrays, or of a block of them."""
        xp, dtype, options = self.xp, self.dtype, self.options
        if dtype is not None:
            arrays = tuple(x if x.dtype == dtype else xp.astype(x, dtype) for x in arrays)
        if mask is not None:
            arrays = tuple(x if i in self.matrices else xp.where(mask, x, 0.0) for i, x in enumerate(arrays))
            if self.takes_mask:
                options = {**options, "kept": mask}
        if self.fast_path is None:
            return self.formula(*arrays, **options)
        return self.fast_path(self.formula, arrays, options)

    def whole(self) -> Any:
        """All terms at once."""
        return self.terms(self.arrays, self.mask)

    def in_blocks(self, elements: int) -> Any:
        """All terms, from blocks."""
        xp = self.xp
        parts = [xp.reshape(self.terms(*self.block(index)), (-1,)) for index in self.indices(elements)]
        return xp.reshape(xp.concat(parts), self.terms_shape)

    def size(self) -> int:
        """How many elements an input has, or the logits."""
        assert self.axis is not None
        return math.prod(self.terms_shape) * self._classes

    @property
    def terms_shape(self) -> tuple[int, ...]:
        """One for each row."""
        return self.outer(tuple(self.arrays[0].shape))

    def outer(self, index: tuple[Any, ...]) -> tuple[Any, ...]:
        """`index`, or a shape, without the axis of the rows."""
        assert self.axis is not None
        return index[: self.axis] + index[self.axis + 1 :]

    def block(self, index: Index) -> tuple[tuple[Any, ...], Any]:
        """Return the arrays and the mask at `index`."""
        arrays = tuple(x if i in self.matrices else x[index] for i, x in enumerate(self.arrays))
        return arrays, None if self.mask is None else self.mask[index]

    def indices(self, elements: int) -> Iterator[Index]:
        """Where the blocks lie, in the order of the terms in memory; a block has a row at least."""
        shape = tuple(self.arrays[0].shape)
        axes = [axis for axis in range(len(shape)) if axis != self.axis]
        inner = self._classes
        while len(axes) > 1 and inner * shape[axes[-1]] <= elements:
            inner *= shape[axes.pop()]
        *single, cut = axes
        step = max(1, elements // inner)
        for at in product(*(range(shape[axis]) for axis in single)):
            for start in range(0, shape[cut], step):
                index = [slice(None)] * len(shape)
                for axis, i in zip(single, at, strict=True):
                    index[axis] = slice(i, i + 1)
                index[cut] = slice(start, min(start + step, shape[cut]))
                yield tuple(index)

    @property
    def _classes(self) -> int:
        assert self.axis is not None
        classes: int = self.arrays[self.matrices[0]].shape[0] if self.matrices else self.arrays[0].shape[self.axis]
        return classes
