"""Projections, the proximal operators of bounds: onto a box, and onto a simplex."""

from __future__ import annotations

import math
from typing import Any

from .._arrays.numerics import stop_gradient
from .._core.checks import FINITE, POSITIVE, named
from .._core.types import Array
from ..backends import backend_of, namespace
from ._base import cast_like, checked, quiet

__all__ = ["box", "simplex"]


@quiet
def box(x: Array, /, *, low: float | None = None, high: float | None = None) -> Array:
    """The projection on a box: each element within bounds.

    Parameters
    ----------
    x : array, shape (...)
        Real floating point.
    low, high : float, optional
        The bounds; None: none on that side.

    Returns
    -------
    array, shape (...)

    Examples
    --------
    >>> prox.box(np.asarray([3.0, -0.5]), low=0.0, high=1.0).tolist()
    [1.0, 0.0]
    """
    xp, wide, _ = checked("box", x, 0.0, real=True)
    low = None if low is None else named("box", FINITE, "low", low)
    high = None if high is None else named("box", FINITE, "high", high)
    if low is not None and high is not None and low > high:
        raise ValueError(f"box: `low` must not be above `high`, got {low} and {high}. Swap them.")
    most = float(xp.finfo(wide.dtype).max)
    if low is not None and low > -most:
        wide = xp.where(wide < low, low, wide)
    if high is not None and high < most:
        wide = xp.where(wide > high, high, wide)
    return cast_like(x, wide)


@quiet
def simplex(x: Array, /, *, radius: float = 1.0, axis: int = -1) -> Array:
    r"""The projection on a simplex: what is >= 0 and sums to `radius` along an axis.

    :math:`\max(x - \theta, 0)`, with the :math:`\theta` that makes the sum right.

    Parameters
    ----------
    x : array, shape (...)
        Real floating point. Elements of -inf become 0.
    radius : float, default 1.0
        The sum, > 0.
    axis : int, default -1
        The axis along which it is.

    Returns
    -------
    array, shape (...)

    References
    ----------
    .. [1] Duchi et al., "Efficient projections onto the l1-ball for learning in high dimensions", ICML 2008.

    Examples
    --------
    >>> prox.simplex(np.asarray([1.0, 0.5, -1.0])).tolist()
    [0.75, 0.25, 0.0]
    """
    xp, wide, _ = checked("simplex", x, 0.0, axis=axis, real=True)
    radius = named("simplex", POSITIVE, "radius", radius)
    if 0 in x.shape:
        return x
    axis = axis % x.ndim
    constant = stop_gradient(wide)
    top = namespace(constant).max(constant, axis=axis, keepdims=True)
    kept = _support(constant - top, radius, axis)
    wide = wide - top  # the same projection, and sums that do not cancel
    total = xp.sum(xp.where(kept, wide, 0.0), axis=axis, keepdims=True)
    theta = (total - radius) / xp.sum(xp.astype(kept, wide.dtype), axis=axis, keepdims=True)
    return cast_like(x, xp.where(kept, wide - theta, 0.0))


def _support(x: Any, radius: float, axis: int) -> Any:
    """Where the projection of `x`, whose largest elements are 0, is above 0; NaN is kept."""
    backend = backend_of(x)
    assert backend is not None
    xp, size = backend.xp, x.shape[axis]
    ordered = xp.sort(x, axis=axis, descending=True)
    ranks = xp.arange(1, size + 1, dtype=x.dtype, device=backend.device(x))
    ranks = xp.reshape(ranks, tuple(size if i == axis else 1 for i in range(x.ndim)))
    below = ordered * ranks <= backend.cumulative_sum(ordered, axis) - radius
    # the elements that are left out are the smallest
    return ~(x <= xp.max(xp.where(below, ordered, -math.inf), axis=axis, keepdims=True))
