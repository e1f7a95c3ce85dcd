"""Convert values to plain data, and callables to their registered names."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

from ..._core.checks import TOO_LARGE
from ..._core.registry import name_of
from ..._core.shown import shown, shown_function
from ...backends import backend_of

__all__ = ["plain", "registered_name"]


def registered_name(caller: str, argument: str, function: object) -> str:
    """Return the name that `function` is registered under."""
    name = name_of(function)
    if name is None:
        raise TypeError(
            f"{caller}: `{argument}` must have a name to be in a configuration, got {shown_function(function)}. "
            "Name it with `register`."
        )
    return name


def plain(caller: str, name: str, value: Any) -> Any:
    """Convert a number, a string, a boolean, None or a 0-d array to a plain Python value."""
    if value is None or isinstance(value, (bool, str)):
        return value
    kind = _kind_of_number(value)
    if kind is None:
        raise TypeError(
            f"{caller}: `{name}` must be a number, a string or a boolean to be in a configuration, "
            f"got {shown(value)}. Set it inside your own function, and name that with `register`."
        )
    number = kind(value) if kind is not float or isinstance(value, Real) else _float(value)
    if kind is float and not math.isfinite(number):
        raise ValueError(f"{caller}: `{name}` must be finite to be in a configuration, got {number!r}.")
    if isinstance(number, int) and not -TOO_LARGE < number < TOO_LARGE:
        raise ValueError(
            f"{caller}: `{name}` must be below 2**63 to be in a configuration, got an integer of "
            f"{number.bit_length()} bits."
        )
    return number


def _float(array: Any) -> float:
    backend = backend_of(array)
    assert backend is not None
    return backend.to_floats([array])[0]


def _kind_of_number(value: Any) -> type | None:
    """Return Python's type for a number or a 0-d array, None for anything else."""
    backend = backend_of(value)
    if backend is None:
        return int if isinstance(value, Integral) else float if isinstance(value, Real) else None
    kinds = {"real": float, "bool": bool, "other": int}
    return kinds.get(backend.dtype(value.dtype).kind) if tuple(value.shape) == () else None
