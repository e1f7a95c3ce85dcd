"""Penalties on the differences between neighbors along an axis, for signals, images and sequences."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial, reduce
from operator import and_
from typing import Any, Literal, Unpack

from .._arrays.numerics import abs_, array_backend, safe_hypot, square, stop_gradient
from .._core.checks import AxisOrAxes, PositiveInteger
from .._core.types import Array
from ..backends import namespace
from .decorator import Shared, penalty
from .several_axes import counted_axes

__all__ = ["total_variation"]


def _check_axes(arrays: tuple[Any, ...], options: Mapping[str, Any]) -> None:
    counted_axes(total_variation.spec, options.get("axis", -1), tuple(arrays[0].shape))  # type: ignore[attr-defined]


@penalty(terms="neighborhoods", reduction="sum", complex=True, extras=("mask", "weights"), check_arrays=_check_axes)
def total_variation(
    x: Array,
    /,
    *,
    axis: AxisOrAxes = -1,
    order: PositiveInteger = 1,
    mode: Literal["anisotropic", "isotropic", "squared"] = "anisotropic",
    **shared: Unpack[Shared],
) -> Array:
    r"""Total variation: the sum of differences between neighbors, which makes signals and images piecewise constant.

    With :math:`D_a x` for the differences of `order` along an axis :math:`a`, each term is :math:`\sum_a |D_a x|` for
    "anisotropic", :math:`\sqrt{\sum_a |D_a x|^2}` for "isotropic", and :math:`\sum_a |D_a x|^2` for "squared", with the
    sums over `axis`.

    Parameters
    ----------
    x : array, shape (...)
        Real or complex floating point, with at least one axis.
    axis : int or tuple of int, default -1
        The axis along which neighbors lie, or several axes: ``(-2, -1)`` for images.
    order : int, default 1
        1 for :math:`x_{i+1} - x_i`, 2 for :math:`x_{i+2} - 2 x_{i+1} + x_i` (trend filtering [2]_), and so on; >= 1.
    mode : {"anisotropic", "isotropic", "squared"}, default "anisotropic"
        How to measure the differences. The first two are the same for a single axis.

    Returns
    -------
    array, shape (), or that of `x` with ``reduction="none"``
        Real, in float32 or wider.

    Raises
    ------
    TypeError
        If `x` is not a real or complex floating-point array, or an option has the wrong type.
    ValueError
        If `x` has no such axis, `order` is below 1, or `mode` is not one of its names.
    NotImplementedError
        If `x` is cut along `axis`, inside `over`.

    Notes
    -----
    No factor 1/2. Slope 0 at differences of 0; "isotropic" has slope 0 if all differences of a term are 0.

    The term of an element has the differences that begin at it. At the end of an axis there is no such difference, and
    it counts as 0. So "mean" divides by the number of elements, not of differences. An axis of at most `order` elements
    has no differences.

    A difference counts as 0 if `where` masks any of its elements, or if any of them has the weight 0. Other weights
    multiply the terms of their elements. For an order above 1, there are no mixed differences of several axes.

    References
    ----------
    .. [1] Rudin, Osher & Fatemi, "Nonlinear total variation based noise removal algorithms", Physica D 60, 1992.
    .. [2] Kim, Koh, Boyd & Gorinevsky, "l1 trend filtering", SIAM Review 51(2), 2009.

    Examples
    --------
    >>> float(total_variation(np.asarray([1.0, 1.0, 4.0, 2.0])))
    5.0
    >>> image = np.asarray([[0.0, 4.0], [3.0, 0.0]])
    >>> total_variation(image, axis=(0, 1), mode="isotropic", reduction="none").tolist()
    [[5.0, 4.0], [3.0, 0.0]]
    """
    mask, weights = shared.get("mask"), shared.get("weights")
    others = mask if weights is None else stop_gradient(weights) != 0
    axes = (axis,) if isinstance(axis, int) else axis
    differences = [_differences(x, one % x.ndim, order, mask, others) for one in axes]
    if mode == "isotropic" and len(axes) > 1:
        return safe_hypot(differences)
    terms = [square(each) if mode == "squared" else abs_(each) for each in differences]
    return reduce(lambda total, each: total + each, terms)


def _differences(x: Any, axis: int, order: int, mask: Any, others: Any) -> Any:
    """Return the differences that begin at each element, 0 where there is none.

    `mask` says which elements a difference may begin at, `others` which ones it may reach. None stands for all.
    """
    return array_backend(x).along_whole(partial(_differences_of_whole, axis, order), axis, x, mask, others)


def _differences_of_whole(axis: int, order: int, x: Any, mask: Any, others: Any) -> Any:
    xp, n = namespace(x), x.shape[axis]
    count = max(n - order, 0)

    def part(x: Any, start: int, stop: int) -> Any:
        return x[(slice(None),) * axis + (slice(start, stop), ...)]

    difference = x if count else part(x, 0, 0)
    for i in range(order if count else 0):
        difference = part(difference, 1, n - i) - part(difference, 0, n - i - 1)
    kept = [] if mask is None else [part(mask, 0, count)]
    kept += [] if others is None else [part(others, i, i + count) for i in range(1, order + 1) if count]
    if kept:
        difference = xp.where(reduce(and_, kept), difference, 0.0)
    return xp.concat([difference, xp.zeros_like(part(x, 0, n - count))], axis=axis)
