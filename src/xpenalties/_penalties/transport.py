"""Optimal transport between numbers, which a sort solves: of rows, and of projections of samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Unpack

from .._arrays.numerics import abs_, array_backend, matmul, namespace_of, safe_divide, square, stop_gradient, unit
from .._core.checks import Interval, PositiveInteger
from .._core.types import Array
from ..backends import namespace
from .decorator import Shared, penalty
from .sample_means import samples_check

__all__ = ["wasserstein", "sliced_wasserstein"]


def _check_rows(arrays: tuple[Any, ...], options: Mapping[str, Any]) -> None:
    of_a, of_b = (tuple(x.shape) for x in arrays)
    if of_a == of_b:
        return
    axis, ndim = options.get("axis", -1), len(of_a)
    if ndim == len(of_b) and -ndim <= axis < ndim and of_a[axis] != 0 != of_b[axis]:
        axis %= ndim
        if (*of_a[:axis], *of_a[axis + 1 :]) == (*of_b[:axis], *of_b[axis + 1 :]):
            return
    raise ValueError(
        f"wasserstein: `a` and `b` must have the same shape, except along `axis`, got {of_a} and {of_b}. Broadcast "
        "them explicitly. Along `axis`, each needs a number."
    )


@penalty(terms="rows", reduction="mean", check_arrays=_check_rows, same_shape=False)
def wasserstein(
    a: Array,
    b: Array,
    /,
    *,
    p: Annotated[float, Interval(1, math.inf)] = 1.0,
    axis: int = -1,
    **shared: Unpack[Shared],
) -> Array:
    r"""Wasserstein distance between the numbers of two rows: the least cost of moving one set onto the other.

    Each term is :math:`W_p^p = \int_0^1 |F_a^{-1}(q) - F_b^{-1}(q)|^p dq`, where :math:`F^{-1}` are the quantiles of
    the numbers along `axis`. If `a` and `b` have equally many, it is the mean of :math:`|a_{(i)} - b_{(i)}|^p` over the
    sorted numbers.

    Parameters
    ----------
    a, b : array, shape (...)
        Real floating point, of the same shape. Only the sizes along `axis` may differ, and each number of a row then
        has the same share of the row's mass.
    p : float, default 1.0
        The power of the distances, >= 1.
    axis : int, default -1
        The axis along which each row lies.

    Returns
    -------
    array, shape (), or that of `a` without `axis` with ``reduction="none"``
        In float32 or wider.

    Raises
    ------
    TypeError
        If an input is not a real floating-point array, or an option has the wrong type.
    ValueError
        If the shapes differ elsewhere than along `axis`, there is no such axis, or `p` is below 1.
    NotImplementedError
        If rows are cut, as along `classes` in `over` and in a Dask array of several chunks along `axis`, or the sizes
        of Dask arrays differ.

    Notes
    -----
    The power p of the distance, without a root. The order of the numbers is a constant, by a stable sort, so the order
    of a row's numbers does not matter.

    For p = 1, the slope is 0 where two sorted numbers are equal. For p = 2, the value is a polynomial as long as the
    order stays the same. For all other p, gradients of every order are 0 where two sorted numbers are equal: for
    p < 2, the second one is infinite close to that.

    The value is NaN if a row has NaN, or if infinity meets infinity of the same sign.

    References
    ----------
    .. [1] Villani, "Topics in optimal transportation", American Mathematical Society, 2003, section 2.2.

    Examples
    --------
    >>> float(wasserstein(np.asarray([0.0, 1.0, 3.0]), np.asarray([5.0, 6.0, 8.0])))
    5.0
    >>> float(wasserstein(np.asarray([3.0, 1.0]), np.asarray([1.0, 3.0, 1.0, 3.0])))
    0.0
    """
    (n, m), (first, second) = (a.shape[axis], b.shape[axis]), (array_backend(a), array_backend(b))
    if n == m:
        costs = _cost(first.in_order(a, axis) - second.in_order(b, axis), p)
        return namespace(costs).mean(costs, axis=axis)
    ranks_a, ranks_b, shares = _merged(n, m)
    costs = _cost(first.in_order(a, axis, ranks_a) - second.in_order(b, axis, ranks_b), p)
    backend = array_backend(costs)
    xp, like = backend.xp, stop_gradient(costs)  # autograd's boxes have no device
    along_axis = tuple(-1 if i == axis % costs.ndim else 1 for i in range(costs.ndim))
    shares = xp.reshape(xp.asarray(shares, dtype=like.dtype, device=array_backend(like).device(like)), along_axis)
    return xp.sum(shares * costs, axis=axis)


def _merged(n: int, m: int) -> tuple[list[int], list[int], list[float]]:
    """Cut [0, 1] at all multiples of 1 / n and 1 / m. Returns each part's rank among n and m numbers, and its length.

    In integers, so that levels that are equal are not two levels.
    """
    levels = sorted({*range(0, n * m, m), *range(0, n * m, n)})
    ends = [*levels[1:], n * m]
    shares = [(end - start) / (n * m) for start, end in zip(levels, ends, strict=True)]
    return [start // m for start in levels], [start // n for start in levels], shares


def _cost(difference: Any, p: float) -> Any:
    """Return the p-th power of the magnitude."""
    if p == 1:
        return abs_(difference)
    if p == 2:
        return square(difference)
    xp, magnitude = namespace(difference), abs_(difference)
    is_zero = magnitude == 0
    # the power is an array, not a number: torch.compile would compile again for each number
    return xp.where(is_zero, 0.0, xp.where(is_zero, 1.0, magnitude) ** (xp.ones_like(magnitude) * p))


@penalty(
    terms="whole",
    reduction="sum",
    extras=("weights",),
    check_arrays=samples_check("sliced_wasserstein", "a"),
    samples="rows",
)
def sliced_wasserstein(
    a: Array,
    b: Array,
    /,
    *,
    slices: PositiveInteger = 64,
    p: Annotated[float, Interval(1, math.inf)] = 2.0,
    rng: Any = None,
    **shared: Unpack[Shared],
) -> Array:
    r"""Sliced Wasserstein distance between the distributions of two sets of samples.

    The mean over `slices` random unit vectors :math:`v` of :math:`W_p^p` between the numbers :math:`a_i^T v` and
    :math:`b_i^T v`, as in `wasserstein`.

    Parameters
    ----------
    a, b : array, shape (n, d)
        n samples of d features each, real floating point, of the same shape. Empty sets, n = 0, have the value 0.
    slices : int, default 64
        Number of directions, >= 1.
    p : float, default 2.0
        The power of the distances, >= 1.
    rng : generator, optional
        As for `interpolated_gradient_penalty`.

    Returns
    -------
    array, shape ()
        In float32 or wider.

    Raises
    ------
    TypeError
        If an input is not a real floating-point array, or an option has the wrong type.
    ValueError
        If the shapes differ, the inputs do not have two axes, or an option is out of range.
    NotImplementedError
        If the inputs are Dask arrays of several chunks or with weights.

    Notes
    -----
    The power p of the distance, without a root. With `slices`, the noise of the directions falls, not its mean. Pass
    the same `rng` to compare values.

    The order of the samples does not matter, and :math:`a_i` need not belong to :math:`b_i`. Slopes at kinks are those
    of `wasserstein`.

    `where` and `weights` select pairs of rows, :math:`a_i` together with :math:`b_i`. Weights are the masses of the
    samples, and only their ratios matter. If some of `a` and some of `b` have the same mass, as for equal weights or
    several weights of 0, the value has a kink in the weights, and its slope there is that of one side.

    References
    ----------
    .. [1] Rabin, Peyre, Delon & Bernot, "Wasserstein barycenter and its application to texture mixing", SSVM 2011,
       LNCS 6667, 2012.
    .. [2] Bonneel, Rabin, Peyre & Pfister, "Sliced and Radon Wasserstein barycenters of measures", Journal of
       Mathematical Imaging and Vision 51, 2015.

    Examples
    --------
    >>> a = np.random.default_rng(0).normal(size=(100, 3))
    >>> rng = np.random.default_rng(1)
    >>> round(float(sliced_wasserstein(a, a[::-1], rng=rng)), 9)
    0.0
    >>> round(float(sliced_wasserstein(a[:, :1], a[:, :1] + 0.5, rng=rng)), 9)  # exact in one dimension
    0.25
    """
    weights: Any = shared.get("weights")
    backend = array_backend(a)
    if backend.lazy:
        raise NotImplementedError(
            "sliced_wasserstein: `a` must not be a Dask array of several chunks or with weights, because the samples "
            "must be sorted. Compute it first, or use mmd."
        )
    directions = unit(backend.random.normal("sliced_wasserstein", rng, (a.shape[1], slices), a), axis=0)
    of_a, of_b = (array_backend(x).beside(matmul(x, directions), x) for x in (a, b))
    costs = backend.by_columns(partial(_transport, p=p), of_a, of_b, weights)
    return namespace(costs).sum(costs) / slices


def _transport(a: Any, b: Any, weights: Any, *, p: float) -> Any:
    """Return the cost of each column of `a` and `b`. `weights` are the masses of the rows of both, or None."""
    xp = namespace_of(a, b, weights)
    n, columns = a.shape
    if weights is None:
        difference = array_backend(a).in_order(a, 0) - array_backend(b).in_order(b, 0)
        return xp.mean(_cost(difference, p), axis=0)
    mass = xp.broadcast_to(xp.expand_dims(weights, axis=1), (n, columns))
    orders = [_order(x) for x in (a, b)]
    levels = xp.concat([_cumulative(xp.take_along_axis(mass, order, axis=0)) for order in orders], axis=0)
    merged = _order(levels)
    levels = xp.take_along_axis(levels, merged, axis=0)
    shares = levels - xp.concat([xp.zeros_like(levels[:1, :]), levels[:-1, :]], axis=0)
    ends = (merged < n, merged >= n)  # which parts of [0, total mass] end with a sample of `a`, and of `b`
    of_parts = [_of_parts(*args) for args in zip((a, b), orders, ends, strict=True)]
    total = xp.sum(shares * _cost(of_parts[0] - of_parts[1], p), axis=0)
    return safe_divide(total, xp.sum(mass, axis=0))


def _order(x: Any) -> Any:
    """Return the order of each column, as a constant."""
    x = stop_gradient(x)
    return namespace(x).argsort(x, axis=0)


def _cumulative(x: Any) -> Any:
    return array_backend(x).cumulative_sum(x, 0)


def _of_parts(x: Any, order: Any, ends: Any) -> Any:
    """Return the number in `x` for each part: that after as many numbers, in ascending order, as parts have ended."""
    xp = namespace(order)
    ends = xp.astype(ends, order.dtype)
    rank = _cumulative(ends) - ends
    rank = xp.where(rank < x.shape[0], rank, x.shape[0] - 1)  # rounding may add a part at the end
    return namespace_of(x, order).take_along_axis(x, xp.take_along_axis(order, rank, axis=0), axis=0)
