"""Evaluation of formulas: at once, without guards first, in blocks, or as compiled programs."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ._blocks import AUTOMATIC, BLOCK_SIZE, LEAST
from ._work import Work

__all__ = ["Evaluation"]


class Evaluation:
    """How a framework evaluates a penalty fastest. The default evaluates it at once."""

    #: `program(function, key, arrays)` runs ``function(key, arrays)`` as one compiled program for each key, if the
    #: framework has a compiler that pays off at once. `key` is hashable, `arrays` a tuple of arrays, dicts and None.
    program: Callable[[Callable[..., Any], Any, Any], Any] | None = None

    def __init__(self, xp: Any) -> None:
        self.xp = xp

    def evaluate(self, work: Work) -> tuple[Any, Any]:
        """Evaluate the terms of a penalty, at once or in blocks.

        Returns them, and the sum that `work` asks for if it was computed on the way, else None.
        """
        elements = self.size_of_blocks(work)
        if elements is not None:
            return self.run(work.in_blocks, (elements,), {}), None
        return self.run_fast(work.terms, (work.arrays, work.mask), {}), None

    def run(self, function: Callable[..., Any], arrays: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        """Run a function without NumPy's warnings.

        A formula takes -inf - -inf and masks it, so that a warning would be noise. (Dask computes later, under the
        settings of then.)
        """
        numpy = sys.modules.get("numpy")
        if numpy is None:
            return function(*arrays, **options)
        with numpy.errstate(all="ignore"):
            return function(*arrays, **options)

    def run_fast(self, function: Callable[..., Any], arrays: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        """Run a function, without guards first if results can be looked at."""
        return self.run(function, arrays, options)

    def block_elements(self, work: Work) -> int | None:
        """Return how many elements of an input, or of logits, a block of rows has. None: no blocks."""
        return None

    def size_of_blocks(self, work: Work) -> int | None:
        """Return the same unless `block_size` says otherwise; None if everything is no larger than one block."""
        if work.axis is None or work.arrays[0].ndim == 1:
            return None
        requested = BLOCK_SIZE.get()
        if requested == AUTOMATIC and not work.matrices and math.prod(work.arrays[0].shape) <= LEAST:
            return None  # small for any device
        elements = self.block_elements(work) if requested == AUTOMATIC else requested
        return None if elements is None or work.size() <= elements else elements

    def power_sum(self, first: float, second: float, arrays: Sequence[Any]) -> tuple[list[Any], frozenset[int]]:
        """Return `first * sum(|x|) + second * sum(x^2)` over the arrays that can be summed at once, and which."""
        return [], frozenset()

    def thread_modes(self) -> Callable[[], AbstractContextManager[Any]]:
        """Return what sets the modes of this thread, such as PyTorch's no_grad, on another thread."""
        return nullcontext
