"""Options that are a number or an array, and that broadcast to the first array of a penalty."""

from __future__ import annotations

from typing import Any

from .._arrays.numerics import broadcasts
from .._core.checks import FINITE, check_argument
from ..backends import common_backend, is_array_beside, namespace

__all__ = ["as_beside", "check_beside"]


def check_beside(caller: str, name: str, value: Any, first: str, x: Any) -> None:
    """Check that `value`, an option called `name`, is a number or an array that broadcasts to `x`, called `first`."""
    if not is_array_beside(value, x):
        check_argument(caller, FINITE, name, value)
        return
    backend = common_backend(caller, [first, name], [x, value])
    if backend.dtype(value.dtype).kind == "complex" and backend.dtype(x.dtype).kind == "real":
        raise TypeError(f"{caller}: `{name}` must be real for a real `{first}`, got {value.dtype}. Take its real part.")
    shape, to = tuple(value.shape), tuple(x.shape)
    if not broadcasts(shape, to):
        raise ValueError(f"{caller}: `{name}` must broadcast to `{first}`, got {shape} for {to}. Reshape it.")


def as_beside(value: Any, x: Any) -> Any:
    """Return the checked number, or the array in the dtype of `x`."""
    if not is_array_beside(value, x):
        return float(value)  # a NumPy scalar would widen the dtype of `x`
    return value if value.dtype == x.dtype else namespace(x, value).astype(value, x.dtype)
