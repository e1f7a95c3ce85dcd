"""Checks of arguments that are numbers or 0-d arrays, and array functions for Python numbers."""

from __future__ import annotations

import math
import sys
from numbers import Real
from typing import Any

from .._core.checks import NON_NEGATIVE, Check, check_argument
from ..backends import backend_of

__all__ = ["PythonNamespace", "check_weight", "scalar"]

_MAX_EXPONENT = math.log(sys.float_info.max)


class PythonNamespace:
    """Array functions that schedules and controllers need, for Python numbers."""

    cos = math.cos

    @staticmethod
    def exp(x: float) -> float:
        return math.exp(x) if x < _MAX_EXPONENT else math.inf

    @staticmethod
    def where(condition: bool, a: Any, b: Any) -> Any:
        return a if condition else b


def scalar(caller: str, check: Check, name: str, value: Any) -> Any:
    """Check a number with `check`, or check that an array is real and 0-d. Never reads the value of an array."""
    backend = None if isinstance(value, Real) else backend_of(value)
    if backend is None:
        return check_argument(caller, check, name, value)
    if tuple(value.shape) != ():
        raise ValueError(f"{caller}: `{name}` must be 0-d, got shape {tuple(value.shape)}. Index it.")
    if backend.dtype(value.dtype).kind in ("complex", "bool"):
        raise TypeError(f"{caller}: `{name}` must be real, got {value.dtype}. Cast it.")
    return value


def check_weight(caller: str, weight: Any) -> Any:
    """Check a weight. Returns a number as a Python float >= 0, and a 0-d array or a schedule unchanged."""
    return weight if callable(weight) else scalar(caller, NON_NEGATIVE, "weight", weight)
