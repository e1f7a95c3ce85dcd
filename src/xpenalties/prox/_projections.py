"""Projections onto a box and onto a simplex: the proximal operators of constraints."""

from __future__ import annotations

import math
from typing import Any

from .._arrays.numerics import stop_gradient
from .._core.checks import FINITE, POSITIVE, check_argument
from .._core.types import Array
from ..backends import backend_of, namespace
from ._base import cast_like, checked, proximal_operator

__all__ = ["box", "simplex"]


@proximal_operator
def box(x: Array, /, *, low: float | None = None, high: float | None = None) -> Array:
    """Project onto a box: clip each element to the bounds.

    Parameters
    ----------
    x : array, shape (...)
        Real floating point.
    low, high : float, optional
        The bounds. None means no bound on that side.

    Returns
    -------
    array, shape (...)

    Examples
    --------
    >>> prox.box(np.asarray([3.0, -0.5]), low=0.0, high=1.0).tolist()
    [1.0, 0.0]
    """
    xp, wide, _ = checked("box", x, 0.0, real=True)
    low = None if low is None else check_argument("box", FINITE, "low", low)
    high = None if high is None else check_argument("box", FINITE, "high", high)
    if low is not None and high is not None and low > high:
        raise ValueError(f"box: `low` must not be above `high`, got {low} and {high}. Swap them.")
    largest = float(xp.finfo(wide.dtype).max)
    if low is not None and low > -largest:
        wide = xp.where(wide < low, low, wide)
    if high is not None and high < largest:
        wide = xp.where(wide > high, high, wide)
    return cast_like(x, wide)


@proximal_operator
def simplex(x: Array, /, *, radius: float = 1.0, axis: int = -1) -> Array:
    r"""Project onto a simplex: elements >= 0 that sum to `radius` along an axis.

    :math:`\max(x - \theta, 0)`, with the :math:`\theta` that gives this sum.

    Parameters
    ----------
    x : array, shape (...)
        Real floating point. Elements of -inf become 0.
    radius : float, default 1.0
        The sum, > 0.
    axis : int, default -1
        The axis of the sum.

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
    radius = check_argument("simplex", POSITIVE, "radius", radius)
    if 0 in x.shape:
        return x
    axis = axis % x.ndim
    constant = stop_gradient(wide)
    top = namespace(constant).max(constant, axis=axis, keepdims=True)
    support = _support(constant - top, radius, axis)
    wide = wide - top  # the projection stays the same, and the sums do not cancel
    total = xp.sum(xp.where(support, wide, 0.0), axis=axis, keepdims=True)
    theta = (total - radius) / xp.sum(xp.astype(support, wide.dtype), axis=axis, keepdims=True)
    return cast_like(x, xp.where(support, wide - theta, 0.0))


def _support(x: Any, radius: float, axis: int) -> Any:
    """Return a mask: True where the projection is > 0, or NaN. The largest elements of `x` must be 0."""
    backend = backend_of(x)
    assert backend is not None
    xp, size = backend.xp, x.shape[axis]
    ordered = xp.sort(x, axis=axis, descending=True)
    ranks = xp.arange(1, size + 1, dtype=x.dtype, device=backend.device(x))
    ranks = xp.reshape(ranks, tuple(size if i == axis else 1 for i in range(x.ndim)))
    outside = ordered * ranks <= backend.cumulative_sum(ordered, axis) - radius
    # elements outside the support are the smallest
    return ~(x <= xp.max(xp.where(outside, ordered, -math.inf), axis=axis, keepdims=True))
