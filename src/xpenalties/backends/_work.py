"""A formula and its arrays, and how to cut them into blocks of rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any, NamedTuple

from ._fast_path import Evaluate

__all__ = ["Index", "Work"]

Index = tuple[slice, ...]


class Work(NamedTuple):
    """A formula and its arrays, to be evaluated at once or in blocks."""

    formula: Callable[..., Any]
    options: Mapping[str, Any]
    xp: Any
    dtype: Any  # dtype to compute in; None: the arrays' own
    arrays: tuple[Any, ...]
    mask: Any  # broadcastable to the arrays, except `matrices`; None: nothing is masked
    takes_mask: bool  # True if the formula has an option `mask`
    axis: int | None  # axis along which a row lies; None: terms do not belong to rows
    matrices: tuple[int, ...] = ()  # indices of the arrays that all rows share, [classes, features]
    divisor: float | None = None  # if set, only sum(terms * factors) / divisor and its gradient are needed
    factors: Any = None  # of the terms; None: all 1
    kind: str = "rows"  # what a term belongs to, see `penalty`
    fast_path: Evaluate | None = None  # how to call the formula; None: with guards
    values: tuple[int, ...] = ()  # shape of the result of one row; () is a number, as for penalties
    classes: int | None = None  # if processes share rows: the most classes that one has. Blocks are then in order

    def terms(self, arrays: tuple[Any, ...], mask: Any) -> Any:
        """Cast and mask the arrays, or a block of them, and evaluate the formula on them."""
        xp, dtype, options = self.xp, self.dtype, self.options
        if dtype is not None:
            arrays = tuple(x if x.dtype == dtype else xp.astype(x, dtype) for x in arrays)
        if mask is not None:
            arrays = tuple(x if i in self.matrices else xp.where(mask, x, 0.0) for i, x in enumerate(arrays))
            if self.takes_mask:
                options = {**options, "mask": mask}
        if self.fast_path is None:
            return self.formula(*arrays, **options)
        return self.fast_path(self.formula, arrays, options)

    def whole(self) -> Any:
        """Evaluate all terms at once."""
        return self.terms(self.arrays, self.mask)

    def in_blocks(self, elements: int) -> Any:
        """Evaluate all terms block by block."""
        xp = self.xp
        blocks = [xp.reshape(self.terms(*self.block(index)), (-1, *self.values)) for index in self.indices(elements)]
        return xp.reshape(xp.concat(blocks), self.terms_shape + self.values)

    def size(self) -> int:
        """Return the number of elements of an input, or of the logits."""
        assert self.axis is not None
        return math.prod(self.terms_shape) * self.classes_of_row

    @property
    def terms_shape(self) -> tuple[int, ...]:
        """Return the shape of the terms: one for each row."""
        return self.outer(tuple(self.arrays[0].shape))

    def outer(self, index: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return an index or a shape without the axis that a row lies along."""
        assert self.axis is not None
        return index[: self.axis] + index[self.axis + 1 :]

    def block(self, index: Index) -> tuple[tuple[Any, ...], Any]:
        """Return the arrays and the mask at `index`."""
        arrays = tuple(x if i in self.matrices else x[index] for i, x in enumerate(self.arrays))
        return arrays, None if self.mask is None else self.mask[index]

    def indices(self, elements: int) -> Iterator[Index]:
        """Yield the index of each block, in the order of the terms in memory. A block has at least one row."""
        shape = tuple(self.arrays[0].shape)
        axes = [axis for axis in range(len(shape)) if axis != self.axis]
        inner = self.classes_of_row
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
    def classes_of_row(self) -> int:
        """Return the number of classes of a row: elements of an input, or logits."""
        assert self.axis is not None
        if self.classes is not None:
            return self.classes
        classes: int = self.arrays[self.matrices[0]].shape[0] if self.matrices else self.arrays[0].shape[self.axis]
        return classes
