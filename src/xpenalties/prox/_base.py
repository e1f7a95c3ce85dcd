"""Shared parts of proximal operators: checks of arguments, and the dtypes to compute in and to return."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from numbers import Real
from typing import Any, TypeVar, cast

from .._arrays.numerics import broadcasts
from .._core.checks import Check, check_argument, integer
from ..backends import backend_of, common_backend, is_array_beside, namespace

__all__ = ["along", "cast_like", "check_shape", "checked", "checked_axes", "proximal_operator"]

F = TypeVar("F", bound=Callable[..., Any])
_AXIS = integer()


def proximal_operator(function: F) -> F:
    """Check that `x` is an array, and compute without NumPy's overflow warnings: the result shows an overflow."""

    @wraps(function)
    def operator(x: Any, /, **options: Any) -> Any:
        backend = common_backend(function.__name__, ["x"], [x])
        return backend.evaluation.run(function, (x,), options)

    return cast(F, operator)


def checked(name: str, x: Any, *, real: bool = False, **arguments: tuple[Check, Any]) -> tuple[Any, ...]:
    """Check `x` and arguments that are numbers or arrays.

    Parameters
    ----------
    **arguments : tuple of check and value
        The check is called for numbers only. The values of arrays are not checked.

    Returns
    -------
    tuple
        The namespace, `x` in the dtype to compute in, and each argument as a float or a real array of that dtype.
    """
    backend = backend_of(x)
    assert backend is not None  # `proximal_operator` has checked it
    if backend.is_sparse(x):
        raise TypeError(f"{name}: `x` must be dense, got {x.layout}. Call its `to_dense` first.")
    kind, working = backend.dtype(x.dtype)[:2]
    if kind != "real" and (real or kind != "complex"):
        raise TypeError(
            f"{name}: `x` must be {'real' if real else 'real or complex'} floating point, got {x.dtype}. Cast it first."
        )
    if backend.lazy:
        backend.require_sizes(name, "x", x)
    wide = x if working is None else backend.xp.astype(x, working)
    values: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    for argument, (check, value) in arguments.items():
        is_number = isinstance(value, Real) or not is_array_beside(value, x)
        values[argument] = check_argument(name, check, argument, value) if is_number else value
        if not is_number:
            arrays[argument] = value
    if arrays:  # if one of the arrays is traced, use the tracer's backend
        backend = common_backend(name, ["x", *arrays], [x, *arrays.values()])
        values.update((argument, _cast(name, argument, backend, wide, value)) for argument, value in arrays.items())
    return backend.xp, wide, *values.values()


def _cast(name: str, argument: str, backend: Any, x: Any, value: Any) -> Any:
    """Cast an array to the real dtype of `x`."""
    if backend.dtype(value.dtype).kind != "real":
        raise TypeError(f"{name}: `{argument}` must be real, got {value.dtype}. Cast it.")
    if backend.cut:
        value = backend.beside(value, x)
    real = backend.xp.real(x).dtype if backend.dtype(x.dtype).kind == "complex" else x.dtype
    return value if value.dtype == real else backend.xp.astype(value, real)


def check_shape(name: str, argument: str, value: Any, shape: tuple[int, ...], what: str) -> None:
    """Check that an argument is a float, or an array that broadcasts to `shape`. `what` has that shape, for errors."""
    if not isinstance(value, float) and not broadcasts(tuple(value.shape), shape):
        raise ValueError(
            f"{name}: `{argument}` must broadcast to {what}, got shapes {tuple(value.shape)} and {shape}. Reshape it."
        )


def checked_axes(name: str, x: Any, axis: int | tuple[int, ...], *, several: bool = False) -> tuple[int, ...]:
    """Check the option `axis`. Returns a tuple of axes, all >= 0."""
    axes = axis if several and isinstance(axis, tuple) else (axis,)
    for each in axes:
        if not -x.ndim <= check_argument(name, _AXIS, "axis", each) < x.ndim:
            raise ValueError(f"{name}: `axis` must be an axis of `x`, got {each} for shape {tuple(x.shape)}.")
    counted = tuple(each % x.ndim for each in axes)
    if not counted or len(set(counted)) < len(counted):
        raise ValueError(f"{name}: `axis` must have each axis once, got {axis}.")
    return counted


def along(x: Any, axes: tuple[int, ...], value: Any) -> Any:
    """Reshape an array that broadcasts to `x` without `axes`, so that it broadcasts to `x`."""
    if isinstance(value, float) or value.ndim == 0:
        return value
    kept = tuple(1 if i in axes else size for i, size in enumerate(x.shape))
    rest = tuple(size for i, size in enumerate(x.shape) if i not in axes)
    xp = namespace(value)
    return xp.reshape(xp.broadcast_to(value, rest), kept)


def cast_like(x: Any, result: Any) -> Any:
    """Cast the result to the dtype of `x`."""
    backend = backend_of(result)
    assert backend is not None
    if backend.cut:
        result = backend.laid_out(result, x)
    return result if result.dtype == x.dtype else backend.xp.astype(result, x.dtype)
