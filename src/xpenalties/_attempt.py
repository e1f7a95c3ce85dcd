"""Formulas without the masks that zeros among the probabilities need, and with them where the result asks for it.

Whether there is a zero at all is seen in the terms: 0 times the log of 0 makes them NaN. So where operations run one by
one, and a mask costs as much as the rest, formulas are first evaluated without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

__all__ = ["Attempt", "masks_are_left_out"]

_CURRENT: ContextVar[Attempt | None] = ContextVar("_CURRENT", default=None)


def masks_are_left_out() -> bool:
    """Whether a formula may leave the masks of its zeros out: what it returns is looked at, for it has asked."""
    attempt = _CURRENT.get()
    if attempt is None:
        return False
    attempt.asked = True
    return True


class Attempt:
    """Calls formulas without masks, from the first result that is not finite on with them.

    An infinite one too: a probability that is not 0 but subnormal makes the difference, and counts as 0 everywhere.
    """

    __slots__ = ("asked", "finite", "given_up")

    def __init__(self, finite: Callable[[Any], bool]) -> None:
        self.finite = finite
        self.asked = self.given_up = False  # threads share them: one that comes late tries in vain

    def __call__(self, formula: Callable[..., Any], arrays: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        if not self.given_up:
            token = _CURRENT.set(self)
            try:
                found = formula(*arrays, **options)
            finally:
                _CURRENT.reset(token)
            if not self.asked or self.finite(found):
                return found
            self.given_up = True
        return formula(*arrays, **options)
