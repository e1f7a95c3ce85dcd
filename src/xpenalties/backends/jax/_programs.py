"""Evaluate penalties in JAX: as compiled programs, first without guards, and linear maps in blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import jax

from .._work import Work
from ..base import Evaluation
from ._blocks import mapped
from ._fast_path import evaluated

__all__ = ["JaxEvaluation"]


class JaxEvaluation(Evaluation):
    def evaluate(self, work: Work) -> tuple[Any, Any]:
        if work.kind != "elements":  # such formulas have no guards
            work = work._replace(fast_path=evaluated)
        if not work.matrices:  # without blocks; and a size that is a symbol of an export cannot be compared
            return work.whole(), None
        elements = self.size_of_blocks(work)
        return work.whole() if elements is None else mapped(work, elements), None

    def run(self, function: Callable[..., Any], arrays: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        return function(*arrays, **options)

    def program(self, function: Callable[..., Any], key: Any, arrays: Any) -> Any:
        return _jitted(function)(key, arrays)

    def block_elements(self, work: Work) -> int | None:
        return 2**22  # of a matrix product only, because XLA fuses everything else


@cache
def _jitted(function: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(function, static_argnums=0)
