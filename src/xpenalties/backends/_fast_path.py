"""Formulas without the care that extreme values need, and with it where the result asks for it.

Masks for probabilities of 0 and scales for norms cost more than the rest. Whether they are needed at all is seen in the
terms: 0 times the log of 0 makes them NaN, and a norm that squares have spoilt is made NaN. So formulas are first
evaluated without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

__all__ = ["Attempt", "Evaluate", "attempted", "is_attempted"]

#: What calls a formula with its arrays and its options.
Evaluate = Callable[[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]], Any]

_ASKED: ContextVar[list[bool] | None] = ContextVar("_ASKED", default=None)


def is_attempted() -> bool:
    """Whether a formula may do without care, for it is evaluated once more if what it returns is not finite."""
    asked = _ASKED.get()
    if asked is None:
        return False
    asked[0] = True
    return True


def attempted(formula: Callable[..., Any], arrays: tuple[Any, ...], options: Mapping[str, Any]) -> tuple[Any, bool]:
    """What a formula returns without care, and whether it has left any out."""
    asked = [False]
    token = _ASKED.set(asked)
    try:
        found = formula(*arrays, **options)
    finally:
        _ASKED.reset(token)
    return found, asked[0]


class Attempt:
    """Calls formulas without care, from the first result that is not finite on with it.

    An infinite one too: a probability that is not 0 but subnormal makes the difference, and counts as 0 everywhere.
    """

    __slots__ = ("finite", "given_up")

    def __init__(self, finite: Callable[[Any], bool]) -> None:
        self.finite = finite
        self.given_up = False  # threads share it: one that comes late tries in vain

    def __call__(self, formula: Callable[..., Any], arrays: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        if not self.given_up:
            found, asked = attempted(formula, arrays, options)
            if not asked or self.finite(found):
                return found
            self.given_up = True
        return formula(*arrays, **options)
