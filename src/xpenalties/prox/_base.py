"""Shared parts of proximal operators: checks of arguments, and the dtypes to compute in and to return."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from numbers import Real
from typing import Any, TypeVar, cast

from .._core.checks import NON_NEGATIVE, check_argument, integer
from ..backends import backend_of, common_backend, is_array_beside

__all__ = ["cast_like", "checked", "proximal_operator"]

F = TypeVar("F", bound=Callable[..., Any])
_AXIS = integer()


def proximal_operator(function: F) -> F:
    """Check that `x` is an array, and compute without NumPy's overflow warnings: the result shows an overflow."""

    @wraps(function)
    def operator(x: Any, /, **options: Any) -> Any:
        backend = common_backend(function.__name__, ["x"], [x])
        return backend.evaluation.run(function, (x,), options)

    return cast(F, operator)


def checked(name: str, x: Any, scale: Any, *, axis: int | None = None, real: bool = False) -> tuple[Any, Any, Any]:
    """Check the arguments. Returns the namespace, `x` in the dtype to compute in, and `scale`."""
    backend = backend_of(x)
    assert backend is not None  # `proximal_operator` has checked it
    kind, working, _, _ = backend.dtype(x.dtype)
    if kind != "real" and (real or kind != "complex"):
        raise TypeError(
            f"{name}: `x` must be {'real' if real else 'real or complex'} floating point, got {x.dtype}. Cast it first."
        )
    if axis is not None and not -x.ndim <= check_argument(name, _AXIS, "axis", axis) < x.ndim:
        raise ValueError(f"{name}: `axis` must be an axis of `x`, got {axis} for shape {tuple(x.shape)}.")
    wide = x if working is None else backend.xp.astype(x, working)
    if isinstance(scale, Real) or not is_array_beside(scale, x):
        return backend.xp, wide, check_argument(name, NON_NEGATIVE, "scale", scale)
    backend = common_backend(name, ["x", "scale"], [x, scale])  # the tracer's, if one of them is traced
    return backend.xp, wide, _checked_scale(name, backend, wide, scale)


def _checked_scale(name: str, backend: Any, x: Any, scale: Any) -> Any:
    if tuple(scale.shape) != ():
        raise ValueError(f"{name}: `scale` must be 0-d, got shape {tuple(scale.shape)}. Index it.")
    if backend.dtype(scale.dtype).kind != "real":
        raise TypeError(f"{name}: `scale` must be real, got {scale.dtype}. Cast it.")
    real = backend.xp.real(x).dtype if backend.dtype(x.dtype).kind == "complex" else x.dtype
    return scale if scale.dtype == real else backend.xp.astype(scale, real)


def cast_like(x: Any, result: Any) -> Any:
    """Cast the result to the dtype of `x`."""
    backend = backend_of(result)
    assert backend is not None
    return result if result.dtype == x.dtype else backend.xp.astype(result, x.dtype)
