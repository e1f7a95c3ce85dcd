"""Concave penalties, which drive small elements to zero and do not shrink large ones."""

from __future__ import annotations

import math
from typing import Annotated, Unpack

from .._arrays.numerics import abs_, square
from .._core.checks import Interval, Positive
from .._core.types import Array
from ..backends import namespace
from .decorator import Shared, penalty

__all__ = ["mcp", "scad", "log_sum", "lp"]


@penalty(terms="elements", reduction="sum", complex=True)
def mcp(x: Array, /, *, threshold: Positive = 1.0, **shared: Unpack[Shared]) -> Array:
    r"""Minimax concave penalty: L1 near zero, constant beyond a threshold, so large elements are not shrunk.

    Each term is :math:`|x| - |x|^2 / (2 t)` if :math:`|x| \le t`, else :math:`t / 2`, with :math:`t` = `threshold`.

    Parameters
    ----------
    x : array, shape (...)
        Real or complex floating point.
    threshold : float, default 1.0
        Magnitude from which on the penalty is constant, > 0, in units of `x`.

    Returns
    -------
    array, shape (), or that of `x` with ``reduction="none"``
        Real, in float32 or wider.

    Raises
    ------
    TypeError
        If `x` is not a real or complex floating-point array, or `threshold` has the wrong type.
    ValueError
        If `threshold` is not > 0.

    Notes
    -----
    The penalty with :math:`\lambda` and :math:`\gamma` as published is :math:`\lambda` times this one, with
    ``threshold = gamma * lambda``. Slope 0 at ``x == 0``, and close to it 1. At the threshold the slope is 0, and the
    second derivative is that of the inside.

    References
    ----------
    .. [1] Zhang, "Nearly unbiased variable selection under minimax concave penalty", Annals of Statistics 38(2), 2010.

    Examples
    --------
    >>> float(mcp(np.asarray([0.0, 1.0, -8.0]), threshold=2.0))
    1.75
    """
    xp, magnitude = namespace(x), abs_(x)
    is_outside = magnitude > threshold
    size = xp.where(is_outside, 0.0, magnitude)
    inside = size - square(xp.where(is_outside, 0.0, x)) / (2 * threshold)  # of x: a magnitude has no curvature at 0
    # an array, not a number: torch.compile would compile again for each number
    return xp.where(is_outside, xp.ones_like(inside) * (threshold / 2), inside)


@penalty(terms="elements", reduction="sum", complex=True)
def scad(
    x: Array,
    /,
    *,
    knee: Positive = 1.0,
    a: Annotated[float, Interval(2, math.inf, low_open=True)] = 3.7,
    **shared: Unpack[Shared],
) -> Array:
    r"""Smoothly clipped absolute deviation: L1 up to a knee, then bent, and constant for large elements.

    With :math:`k` = `knee`, each term is :math:`|x|` if :math:`|x| \le k`, then
    :math:`|x| - (|x| - k)^2 / (2 (a - 1) k)` up to :math:`a k`, and :math:`(a + 1) k / 2` beyond.

    Parameters
    ----------
    x : array, shape (...)
        Real or complex floating point.
    knee : float, default 1.0
        Magnitude up to which the penalty is that of `l1`, > 0, in units of `x`.
    a : float, default 3.7
        The penalty is constant from ``a * knee`` on; > 2.

    Returns
    -------
    array, shape (), or that of `x` with ``reduction="none"``
        Real, in float32 or wider.

    Raises
    ------
    TypeError
        If `x` is not a real or complex floating-point array, or an option has the wrong type.
    ValueError
        If `knee` is not > 0, or `a` is not > 2.

    Notes
    -----
    The penalty with :math:`\lambda` as published is :math:`\lambda` times this one, with ``knee = lambda``. Slope 0 at
    ``x == 0``, and close to it 1. Value and slope are continuous elsewhere; at the two joints, the second derivative is
    that of the inside.

    References
    ----------
    .. [1] Fan & Li, "Variable selection via nonconcave penalized likelihood and its oracle properties", JASA 96(456),
       2001.

    Examples
    --------
    >>> float(scad(np.asarray([0.5, -2.0, 8.0]), knee=1.0, a=3.0))
    4.25
    """
    xp, magnitude = namespace(x), abs_(x)
    is_outside = magnitude > a * knee
    size = xp.where(is_outside, 0.0, magnitude)
    beyond = xp.where(size > knee, size - knee, 0.0)
    inside = size - beyond * beyond / (2 * (a - 1) * knee)
    return xp.where(is_outside, xp.ones_like(inside) * ((a + 1) * knee / 2), inside)


@penalty(terms="elements", reduction="sum", complex=True)
def log_sum(x: Array, /, *, eps: Positive = 1.0, **shared: Unpack[Shared]) -> Array:
    r"""Logarithm of magnitudes, which pulls hardest on the smallest ones.

    Each term is :math:`\log(1 + |x| / \epsilon)` with :math:`\epsilon` = `eps`.

    Parameters
    ----------
    x : array, shape (...)
        Real or complex floating point.
    eps : float, default 1.0
        Magnitude at which the logarithm begins to bend, > 0, in units of `x`. The smaller it is, the closer is the
        penalty to a count of nonzero elements.

    Returns
    -------
    array, shape (), or that of `x` with ``reduction="none"``
        Real, in float32 or wider.

    Raises
    ------
    TypeError
        If `x` is not a real or complex floating-point array, or `eps` has the wrong type.
    ValueError
        If `eps` is not > 0.

    Notes
    -----
    Natural logarithm. Slope 0 at ``x == 0``, and close to it ``1 / eps``. Reweighted L1 minimizes this penalty [1]_.

    References
    ----------
    .. [1] Candes, Wakin & Boyd, "Enhancing sparsity by reweighted l1 minimization", Journal of Fourier Analysis and
       Applications 14, 2008.

    Examples
    --------
    >>> round(float(log_sum(np.asarray([0.0, 1.0, -7.0]))), 4)
    2.7726
    """
    xp, magnitude = namespace(x), abs_(x)
    is_far = magnitude > 1e17 * eps  # there |x| / eps may overflow, and 1 is below its rounding
    near = xp.log1p(xp.where(is_far, 0.0, magnitude) / eps)
    far = 2 * xp.log(xp.sqrt(xp.where(is_far, magnitude, 1.0)) / eps**0.5)
    return xp.where(is_far, far, near)


@penalty(terms="elements", reduction="sum", complex=True)
def lp(
    x: Array,
    /,
    *,
    p: Annotated[float, Interval(0, 1, low_open=True)] = 0.5,
    **shared: Unpack[Shared],
) -> Array:
    r"""Bridge penalty: a power of the magnitudes, between a count and the L1 norm.

    Each term is :math:`|x|^p`.

    Parameters
    ----------
    x : array, shape (...)
        Real or complex floating point.
    p : float, default 0.5
        The power, in (0, 1]. 1 is `l1`.

    Returns
    -------
    array, shape (), or that of `x` with ``reduction="none"``
        Real, in float32 or wider.

    Raises
    ------
    TypeError
        If `x` is not a real or complex floating-point array, or `p` has the wrong type.
    ValueError
        If `p` is not in (0, 1].

    Notes
    -----
    No root is taken of the sum. Gradients of every order are 0 at ``x == 0``, but close to it the slope is unbounded:
    :math:`p |x|^{p - 1}`. Gradient descent overshoots there, so prefer `mcp` or `log_sum` if you train with gradients.

    References
    ----------
    .. [1] Frank & Friedman, "A statistical view of some chemometrics regression tools", Technometrics 35(2), 1993.
    .. [2] Xu, Chang, Xu & Zhang, "L1/2 regularization: a thresholding representation theory and a fast solver", IEEE
       Transactions on Neural Networks and Learning Systems 23(7), 2012.

    Examples
    --------
    >>> float(lp(np.asarray([0.0, 4.0, -9.0])))
    5.0
    """
    xp, magnitude = namespace(x), abs_(x)
    is_zero = magnitude == 0
    # the power is an array, not a number: torch.compile would compile again for each number
    return xp.where(is_zero, 0.0, xp.where(is_zero, 1.0, magnitude) ** (xp.ones_like(magnitude) * p))
