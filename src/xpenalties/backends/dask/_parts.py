"""NumPy arrays that stand for rows of which they have only some classes.

Their maxima and sums along the classes are those of whole rows, if those are known. So a formula that computes with
them gets the results of whole rows, in as many runs as maxima and sums depend on each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import array_api_compat.numpy
import numpy as np

from ..base import Backend, Evaluation

__all__ = ["KNOWN", "DoneError", "Part", "Run", "reduced"]


class DoneError(Exception):
    """Ends a pass: all that it computes is there."""


class Run:
    """One run of a formula on chunks of rows: which maxima and sums are known, and which to compute.

    They are numbered in the order in which the formula computes them.
    """

    def __init__(self, axis: int, classes: int, known: dict[int, Any], wanted: tuple[int, ...] = ()) -> None:
        self.axis = axis
        self.classes = classes
        self.known = known
        self.wanted = wanted
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
            value = reduced(name, x.view(np.ndarray), self.axis)
            if number in self.wanted:
                self.results[number] = value
                if number == self.wanted[-1]:
                    raise DoneError
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


def reduced(name: str, x: Any, axis: int) -> Any:
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

    def in_order(self, x: Any, axis: int, ranks: Sequence[int] | None = None) -> Any:
        raise NotImplementedError(
            "Dask sorts rows that are in one chunk, of arrays of the same shape. Rechunk them along `axis`, or compute "
            "them first."
        )


_PARTS = _PartBackend("numpy", _Namespace(), evaluation=Evaluation)
KNOWN: dict[type, Backend] = {Part: _PARTS}
