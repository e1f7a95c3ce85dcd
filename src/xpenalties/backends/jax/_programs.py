"""Evaluate penalties in JAX: as compiled programs, first without guards, and linear maps in blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import jax
import jax.export

from .._work import Work
from ..base import Evaluation
from ._blocks import mapped
from ._fast_path import evaluated

__all__ = ["JaxEvaluation"]


class JaxEvaluation(Evaluation):
    def evaluate(self, work: Work) -> tuple[Any, Any]:
        if work.kind != "elements":  # such formulas have no guards
            axis = None if work.matrices else work.axis
            work = work._replace(fast_path=partial(evaluated, axis=axis))
        elements = self.size_of_blocks(work) if work.matrices else None  # XLA fuses everything else
        return work.whole() if elements is None else mapped(work, elements), None

    def evaluate_in_step(self, work: Work) -> tuple[Any, Any]:
        elements = self.size_of_blocks(work)
        return work.whole() if elements is None else mapped(work, elements), None

    def run(self, function: Callable[..., Any], arrays: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        return function(*arrays, **options)

    def program(self, function: Callable[..., Any], key: Any, arrays: Any) -> Any:
        return _jitted(function)(key, arrays)

    def block_elements(self, work: Work) -> int | None:
        return 2**22

    def fits(self, work: Work, elements: int) -> bool:
        if jax.export.is_symbolic_dim(work.size()):  # use blocks, unless the size of a block would be symbolic too
            return jax.export.is_symbolic_dim(work.arrays[work.matrices[0]].shape[0])
        return super().fits(work, elements)


@cache
def _jitted(function: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(function, static_argnums=0)
