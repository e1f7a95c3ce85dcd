"""Norms of weights or activations, which measure their size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from .._arrays.numerics import (
    abs_,
    count_true,
    namespace_of,
    safe_divide,
    square,
)
from .._core.checks import Positive, UnitInterval
from .._core.shown import shown
from .._core.types import Array
from ..backends import namespace
from .beside import as_beside, check_beside
from .decorator import Shared, penalty

__all__ = ["l1", "l2", "elastic_net", "huber"]


@penalty(terms="elements", reduction="sum", complex=True)
def l1(x: Array, /, **shared: Unpack[Shared]) -> Array:
    r"""L1 norm: the sum of absolute values, which drives elements to zero.

    Each term is :math:`|x|`.

    Parameters
    ----------
    x : array, shape (...)
        Real or complex floating point.

    Returns
    -------
    array, shape (), or that of `x` with ``reduction="none"``
        Real, in float32 or wider.

    Raises
    ------
    TypeError
        If `x` is not a real or complex floating-point array.

    Notes
    -----
    Slope 0 at ``x == 0`` on every backend. The term of a complex number is its magnitude.

    References
    ----------
    .. [1] Tibshirani, "Regression shrinkage and selection via the lasso", JRSS B 58(1), 1996.

    Examples
    --------
    >>> float(l1(np.asarray([1.0, -2.0, 3.0])))
    6.0
    """
    return abs_(x)


def _check_center(arrays: tuple[Any, ...], options: Mapping[str, Any]) -> None:
    """Check that `center` is None, "mean", a number, or an array that can be subtracted from `x`."""
    x, center = arrays[0], options.get("center")
    if center is None:
        return
    if isinstance(center, str):
        if center != "mean":
            raise ValueError(
                f"l2: `center` must be 'mean', a number or an array, got {shown(center)}. Did you mean 'mean'?"
            )
        return
    check_beside("l2", "center", center, "x", x)


@penalty(terms="elements", reduction="sum", complex=True, extras=("mask", "weights"), check_arrays=_check_center)
def l2(x: Array, /, *, center: Any = None, clip: Positive | None = None, **shared: Unpack[Shared]) -> Array:
    r"""Squared L2 norm: the sum of squared distances from a center, by default zero.

    Each term is :math:`|x - \text{center}|^2`, but at most :math:`\text{clip}^2`.

    Parameters
    ----------
    x : array, shape (...)
        Real or complex floating point.
    center : "mean", number or array, optional
        The point that `x` is pulled toward, by default 0. "mean" is the mean of the elements that are not masked out,
        weighted with `weights`. An array must broadcast to `x`; it may hold the weights before fine-tuning (L2-SP
        [1]_).
    clip : float, optional
        Distance from the center beyond which a term is constant, > 0, so that outliers have no gradient.

    Returns
    -------
    array, shape (), or that of `x` with ``reduction="none"``
        Real, in float32 or wider.

    Raises
    ------
    TypeError
        If `x` is not a real or complex floating-point array, or `center` or `clip` has the wrong type.
    ValueError
        If `center` is another string or does not broadcast to `x`, or `clip` is not > 0.

    Notes
    -----
    No factor 1/2. At a distance of exactly `clip`, the slope is that of the square. With ``center="mean"`` the gradient
    also flows through the mean.

    References
    ----------
    .. [1] Li, Grandvalet & Davoine, "Explicit inductive bias for transfer learning with convolutional networks",
       ICML 2018.

    Examples
    --------
    >>> x = np.asarray([1.0, -2.0, 3.0])
    >>> float(l2(x))
    14.0
    >>> float(l2(x, center=1.0, clip=2.0))
    8.0
    """
    mask: Any = shared.get("mask")
    if center is not None:
        x = x - _center(x, center, mask, shared.get("weights"))
        if mask is not None:  # `center` may be NaN where `x` is masked out
            x = namespace(x, mask).where(mask, x, 0.0)
    if clip is None:
        return square(x)
    xp = namespace(x)
    is_outside = abs_(x) > clip
    inside = square(xp.where(is_outside, 0.0, x))  # of x, not |x|: a magnitude has no second derivative at 0
    # an array, not a number: torch.compile would compile again for each number
    return xp.where(is_outside, xp.ones_like(inside) * (clip * clip), inside)


def _center(x: Any, center: Any, mask: Any, weights: Any) -> Any:
    """Return the number or the array to subtract from `x`."""
    if isinstance(center, str):
        xp = namespace_of(x, weights)
        if weights is not None:
            return safe_divide(xp.sum(weights * x), xp.sum(weights))
        return xp.mean(x) if mask is None else safe_divide(xp.sum(x), count_true(mask, x.dtype))
    return as_beside(center, x)


@penalty(terms="elements", reduction="sum", complex=True)
def elastic_net(x: Array, /, *, l1_ratio: UnitInterval = 0.5, **shared: Unpack[Shared]) -> Array:
    r"""Convex mix of the L1 norm and the squared L2 norm.

    Each term is :math:`\alpha |x| + (1 - \alpha) |x|^2` with :math:`\alpha` = `l1_ratio`.

    Parameters
    ----------
    x : array, shape (...)
        Real or complex floating point.
    l1_ratio : float, default 0.5
        Fraction of the L1 part, in [0, 1].

    Returns
    -------
    array, shape (), or that of `x` with ``reduction="none"``
        Real, in float32 or wider.

    Raises
    ------
    TypeError
        If `x` is not a real or complex floating-point array, or `l1_ratio` has the wrong type.
    ValueError
        If `l1_ratio` is not in [0, 1].

    Notes
    -----
    Slope 0 at ``x == 0``. No factor 1/2 on the squared part.

    References
    ----------
    .. [1] Zou & Hastie, "Regularization and variable selection via the elastic net", JRSS B 67(2), 2005.

    Examples
    --------
    >>> float(elastic_net(np.asarray([1.0, -2.0, 3.0])))
    10.0
    """
    return l1_ratio * abs_(x) + (1 - l1_ratio) * square(x)


@penalty(terms="elements", reduction="sum", complex=True)
def huber(x: Array, /, *, delta: Positive = 1.0, **shared: Unpack[Shared]) -> Array:
    r"""Huber's function: a square near zero, linear beyond; also called smooth L1.

    Each term is :math:`|x|^2 / 2` if :math:`|x| \le \delta`, else :math:`\delta (|x| - \delta / 2)`.

    Parameters
    ----------
    x : array, shape (...)
        Real or complex floating point.
    delta : float, default 1.0
        Magnitude up to which the function is a square, > 0, in units of `x`.

    Returns
    -------
    array, shape (), or that of `x` with ``reduction="none"``
        Real, in float32 or wider.

    Raises
    ------
    TypeError
        If `x` is not a real or complex floating-point array, or `delta` has the wrong type.
    ValueError
        If `delta` is not > 0.

    Notes
    -----
    Factor 1/2 on the square, as in Huber's paper and optax.huber_loss. torch.nn.functional.smooth_l1_loss is this
    divided by `delta`. Value and slope are continuous; at ``|x| == delta`` the second derivative is that of the square.

    References
    ----------
    .. [1] Huber, "Robust estimation of a location parameter", Ann. Math. Statist. 35(1), 1964.

    Examples
    --------
    >>> float(huber(np.asarray([1.0, -2.0, 3.0])))
    4.5
    """
    xp = namespace(x)
    magnitude = abs_(x)
    is_outside = magnitude > delta
    inside = square(xp.where(is_outside, 0.0, x))  # of x, not |x|: a magnitude has no second derivative at 0
    return xp.where(is_outside, delta * (magnitude - delta / 2), 0.5 * inside)
