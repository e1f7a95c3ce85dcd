"""A check for debugging eager code. It reads values, so it waits for the device."""

from __future__ import annotations

import math
from typing import Any

from .._core.types import Array
from ..backends import Backend, common_backend

__all__ = ["check_finite"]


def check_finite(x: Array, /) -> Array:
    """Return `x` itself if all of its elements are finite; otherwise raise an error.

    Parameters
    ----------
    x : array, shape (...)
        Real or complex floating point. It must be an eager array: the values are read, and the call waits for them.

    Returns
    -------
    array
        `x` itself, so that you can put the call inside an expression. Gradients pass through it.

    Raises
    ------
    ValueError
        If `x` contains NaN or infinities. The message counts both and gives the index of the first.
    TypeError
        If `x` is not a floating-point array, or is traced, as under jax.jit or a vmap, and so has no values yet.

    Examples
    --------
    >>> check_finite(np.asarray([1.0, np.nan, np.inf]))
    Traceback (most recent call last):
        ...
    ValueError: check_finite: `x` must be finite, got 1 NaN and 1 Inf of 3 elements, the first at (1,).
    """
    backend = common_backend("check_finite", ["x"], [x])
    if backend.dtype(x.dtype).kind not in ("real", "complex"):
        raise TypeError(f"check_finite: `x` must be floating point, got {x.dtype}. Other dtypes are always finite.")
    if backend.lazy:
        backend.require_sizes("check_finite", "x", x)
        not_finite = backend.not_finite(x)
        if not_finite is not None:
            raise _error(x, *not_finite)
        return x
    xp = backend.xp
    finite = xp.isfinite(x)
    try:
        if bool(xp.all(finite)):
            return x
    except (TypeError, RuntimeError) as error:  # raised by the tracers of JAX and of torch.vmap
        raise TypeError(
            "check_finite: `x` must be an eager array, got one without values. Call it outside of jit, grad and vmap."
        ) from error
    nan = int(xp.sum(xp.astype(xp.isnan(x), xp.int32)))
    inf = int(xp.sum(xp.astype(~finite, xp.int32))) - nan
    raise _error(x, nan, inf, first_index(backend, ~finite))


def _error(x: Any, nan: int, inf: int, first: tuple[int, ...]) -> ValueError:
    return ValueError(
        f"check_finite: `x` must be finite, got {nan} NaN and {inf} Inf of {math.prod(x.shape)} elements, the first at "
        f"{first}."
    )


def first_index(backend: Backend, mask: Any) -> tuple[int, ...]:
    """Return the index of the first element that is true."""
    xp = backend.xp
    position = int(xp.argmax(xp.astype(xp.reshape(mask, (-1,)), xp.int32)))
    index: list[int] = []
    for length in reversed(mask.shape):
        position, index_on_axis = divmod(position, length)
        index.insert(0, index_on_axis)
    return tuple(index)
