"""Projections onto a box, onto numbers >= 0 and onto a simplex: the proximal operators of constraints."""

from __future__ import annotations

import math
from typing import Any

from .._arrays.numerics import stop_gradient
from .._core.checks import FINITE, POSITIVE
from .._core.types import Array
from ..backends import backend_of, namespace
from ._base import along, cast_like, check_shape, checked, checked_axes, proximal_operator

__all__ = ["box", "non_negative", "onto_simplex", "simplex"]


@proximal_operator
def box(x: Array, /, *, low: Any = None, high: Any = None) -> Array:
    """Project onto a box: clip each element to the bounds.

    Parameters
    ----------
    x : array, shape (...)
        Real floating point.
    low, high : float or array, optional
        The bounds. None means no bound on that side. For a bound for each element, pass an array that broadcasts to
        `x`. Values of arrays are not checked: if `low` is above `high`, the result is `high`.

    Returns
    -------
    array, shape (...)

    Examples
    --------
    >>> prox.box(np.asarray([3.0, -0.5]), low=0.0, high=1.0).tolist()
    [1.0, 0.0]
    """
    bounds = {side: (FINITE, bound) for side, bound in (("low", low), ("high", high)) if bound is not None}
    xp, wide, *checked_bounds = checked("box", x, real=True, **bounds)
    for side, bound in zip(bounds, checked_bounds, strict=True):
        check_shape("box", side, bound, tuple(x.shape), "`x`")
    if len(checked_bounds) == 2 and all(isinstance(bound, float) for bound in checked_bounds):
        low, high = checked_bounds
        if low > high:
            raise ValueError(f"box: `low` must not be above `high`, got {low} and {high}. Swap them.")
    largest = float(xp.finfo(wide.dtype).max)
    for side, bound in zip(bounds, checked_bounds, strict=True):
        if not isinstance(bound, float) or abs(bound) < largest or (bound > 0) == (side == "low"):
            wide = xp.where(wide < bound if side == "low" else wide > bound, bound, wide)
    return cast_like(x, wide)


@proximal_operator
def non_negative(x: Array, /) -> Array:
    """Project onto numbers >= 0: negative elements become 0.

    Parameters
    ----------
    x : array, shape (...)
        Real floating point.

    Returns
    -------
    array, shape (...)

    Examples
    --------
    >>> prox.non_negative(np.asarray([3.0, -0.5])).tolist()
    [3.0, 0.0]
    """
    xp, wide = checked("non_negative", x, real=True)
    return cast_like(x, xp.where(wide < 0, 0.0, wide))


@proximal_operator
def simplex(x: Array, /, *, radius: Any = 1.0, axis: int = -1) -> Array:
    r"""Project onto a simplex: elements >= 0 that sum to `radius` along an axis.

    :math:`\max(x - \theta, 0)`, with the :math:`\theta` that gives this sum.

    Parameters
    ----------
    x : array, shape (...)
        Real floating point. Elements of -inf become 0.
    radius : float or array, default 1.0
        The sum, > 0. For a sum for each slice, pass an array that broadcasts to the shape of `x` without `axis`.
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
    _, wide, radius = checked("simplex", x, real=True, radius=(POSITIVE, radius))
    (axis,) = axes = checked_axes("simplex", x, axis)
    check_shape("simplex", "radius", radius, (*x.shape[:axis], *x.shape[axis + 1 :]), "`x` without `axis`")
    if 0 in x.shape:
        return x
    return cast_like(x, onto_simplex(wide, along(x, axes, radius), axis))


def onto_simplex(wide: Any, radius: Any, axis: int) -> Any:
    """Project onto elements >= 0 that sum to `radius`, which broadcasts to `wide`, along an axis."""
    xp = namespace(wide) if isinstance(radius, float) else namespace(wide, radius)
    constant = stop_gradient(wide)
    top = namespace(constant).max(constant, axis=axis, keepdims=True)
    support = _support(constant - top, radius if isinstance(radius, float) else stop_gradient(radius), axis)
    wide = wide - top  # the projection stays the same, and the sums do not cancel
    total = xp.sum(xp.where(support, wide, 0.0), axis=axis, keepdims=True)
    theta = (total - radius) / xp.sum(xp.astype(support, wide.dtype), axis=axis, keepdims=True)
    return xp.where(support, wide - theta, 0.0)


def _support(x: Any, radius: Any, axis: int) -> Any:
    """Return a mask: True where the projection is > 0, or NaN. The largest elements of `x` must be 0."""
    backend = backend_of(x)
    assert backend is not None
    if backend.cut:
        return _support_by_sums(backend.xp, x, radius, axis)
    xp, size = backend.xp, x.shape[axis]
    whole = backend.uncut(x, (axis,))
    radius = radius if isinstance(radius, float) else backend.cut_like(radius, whole)
    ordered = xp.sort(whole, axis=axis, descending=True)
    ranks = xp.arange(1, size + 1, dtype=x.dtype, device=backend.device(x))
    ranks = xp.reshape(ranks, tuple(size if i == axis else 1 for i in range(x.ndim)))
    outside = ordered * ranks <= backend.cumulative_sum(ordered, axis) - radius
    largest = xp.max(xp.where(outside, ordered, -math.inf), axis=axis, keepdims=True)
    return ~(x <= backend.cut_like(largest, x))  # elements outside the support are the smallest


def _support_by_sums(xp: Any, x: Any, radius: Any, axis: int) -> Any:
    """Return the mask of `_support` without sorting, because a sort needs whole slices.

    Drop the elements at or below the threshold that the mask so far gives, until there are none [1]_.

    References
    ----------
    .. [1] Michelot, "A finite algorithm for finding the projection of a point onto the canonical simplex of R^n",
       J. Optim. Theory Appl. 50(1), 1986.
    """
    support = ~(x <= -radius)
    while True:
        total = xp.sum(xp.where(support, x, 0.0), axis=axis, keepdims=True)
        theta = (total - radius) / xp.sum(xp.astype(support, x.dtype), axis=axis, keepdims=True)
        dropped = support & (x <= theta)
        if not bool(xp.any(dropped)):
            return support
        support = support & ~dropped
