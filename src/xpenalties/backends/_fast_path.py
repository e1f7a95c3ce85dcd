"""The fast path: evaluate a formula without guards, and again with guards if the result is not finite.

Guards protect a formula from extreme values: masks for probabilities of 0, scales for norms. They cost more than the
rest of the formula. The terms show if guards were needed: 0 times the log of 0 is NaN, and a norm whose squares
overflow is set to NaN.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

__all__ = ["Evaluate", "FastPath", "guards_are_skipped", "run_fast", "without_guards"]

#: Calls a formula with its arrays and its options.
Evaluate = Callable[[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]], Any]

_SKIPPED: ContextVar[list[bool] | None] = ContextVar("_SKIPPED", default=None)


def guards_are_skipped() -> bool:
    """Return True on the fast path: guards may be skipped, because results that are not finite are recomputed."""
    compiler = getattr(sys.modules.get("torch"), "compiler", None)
    if compiler is not None and compiler.is_compiling():  # `in_dynamo` inlined; Dynamo cannot read context variables
        return False  # pragma: no cover - coverage cannot see what Dynamo traces
    skipped = _SKIPPED.get()
    if skipped is None:
        return False
    skipped[0] = True
    return True


def without_guards(
    formula: Callable[..., Any], arrays: tuple[Any, ...], options: Mapping[str, Any]
) -> tuple[Any, bool]:
    """Evaluate a formula without guards. Returns the result, and True if it has any guards."""
    skipped = [False]
    token = _SKIPPED.set(skipped)
    try:
        result = formula(*arrays, **options)
    finally:
        _SKIPPED.reset(token)
    return result, skipped[0]


def run_fast(
    finite: Callable[[Any], bool], formula: Callable[..., Any], arrays: tuple[Any, ...], options: Mapping[str, Any]
) -> Any:
    """Evaluate a formula without guards, and again with guards if the result is not finite.

    This includes infinite results: a subnormal probability should count as 0, but makes the result infinite.
    """
    skipped = [False]  # `without_guards` inlined, to save a call
    token = _SKIPPED.set(skipped)
    try:
        result = formula(*arrays, **options)
    finally:
        _SKIPPED.reset(token)
    return formula(*arrays, **options) if skipped[0] and not finite(result) else result


class FastPath:
    """Evaluate blocks without guards until a result is not finite, then that block and all later ones with guards."""

    __slots__ = ("finite", "given_up")

    def __init__(self, finite: Callable[[Any], bool]) -> None:
        self.finite = finite
        self.given_up = False  # shared by threads; a race costs one wasted attempt

    def __call__(self, formula: Callable[..., Any], arrays: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        if not self.given_up:
            result, skipped = without_guards(formula, arrays, options)
            if not skipped or self.finite(result):
                return result
            self.given_up = True
        return formula(*arrays, **options)
