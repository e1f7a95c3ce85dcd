"""Evaluate formulas: at once, first without guards, in blocks, or as compiled programs."""

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
    """Evaluates penalties in the way that is fastest for a framework. The default evaluates all at once."""

    #: ``program(function, key, arrays)`` runs ``function(key, arrays)`` as a compiled program, one for each key. None
    #: if compiling one penalty does not pay off. `key` is hashable; `arrays` is a tuple of arrays, dicts and None.
    program: Callable[[Callable[..., Any], Any, Any], Any] | None = None

    def __init__(self, xp: Any) -> None:
        self.xp = xp

    def evaluate(self, work: Work) -> tuple[Any, Any]:
        """Evaluate the terms of a penalty, at once or in blocks.

        Returns the terms and, if the backend fused it, the sum that `work` asks for, else None.
        """
        elements = self.size_of_blocks(work)
        if elements is not None:
            return self.run(work.in_blocks, (elements,), {}), None
        return self.run_fast(work.terms, (work.arrays, work.mask), {}), None

    def evaluate_in_step(self, work: Work) -> tuple[Any, Any]:
        """Evaluate a linear map whose formula communicates with other devices, like `evaluate`.

        Nothing here may depend on values, because all devices must communicate at the same points.
        """
        return self.run(work.whole, (), {}), None

    def run(self, function: Callable[..., Any], arrays: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        """Run a function without NumPy's warnings.

        Formulas compute -inf - -inf and mask the result, so a warning would be noise. (Dask computes later, under the
        settings in force then.)
        """
        numpy = sys.modules.get("numpy")
        if numpy is None:
            return function(*arrays, **options)
        with numpy.errstate(all="ignore"):
            return function(*arrays, **options)

    def run_fast(self, function: Callable[..., Any], arrays: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        """Run a function, first without guards if the backend can read the result."""
        return self.run(function, arrays, options)

    def block_elements(self, work: Work) -> int | None:
        """Return the default number of elements in a block, of an input or of the logits. None: no blocks."""
        return None

    def size_of_blocks(self, work: Work) -> int | None:
        """Return the number of elements in a block, from `block_size` or else the default. None: all rows at once."""
        if work.axis is None or work.arrays[0].ndim == 1:
            return None
        requested = BLOCK_SIZE.get()
        if requested == AUTOMATIC and not work.matrices and math.prod(work.arrays[0].shape) <= LEAST:
            return None  # small for any device
        elements = self.block_elements(work) if requested == AUTOMATIC else requested
        return None if elements is None or self.fits(work, elements) else elements

    def fits(self, work: Work, elements: int) -> bool:
        """Return True if all rows fit into one block."""
        return work.size() <= elements

    def power_sum(self, first: float, second: float, arrays: Sequence[Any]) -> tuple[list[Any], frozenset[int]]:
        """Sum `first * |x| + second * x^2` over those arrays that can be summed in one call.

        Returns the sums, and the indices of these arrays.
        """
        return [], frozenset()

    def thread_modes(self) -> Callable[[], AbstractContextManager[Any]]:
        """Return a factory of context managers that set this thread's modes, such as no_grad, on another thread."""
        return nullcontext
