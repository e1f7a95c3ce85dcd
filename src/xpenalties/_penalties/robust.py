"""Functions between a square and a magnitude that are smooth everywhere."""

from __future__ import annotations

import math
from typing import Unpack

from .._arrays.numerics import abs_
from .._core.checks import Positive
from .._core.types import Array
from ..backends import namespace
from .decorator import Shared, penalty

__all__ = ["log_cosh", "charbonnier"]


@penalty(terms="elements", reduction="sum")
def log_cosh(x: Array, /, *, scale: Positive = 1.0, **shared: Unpack[Shared]) -> Array:
    r"""Logarithm of the hyperbolic cosine: a square near zero, a magnitude far from it.

    Each term is :math:`s^2 \log \cosh(x / s)` with :math:`s` = `scale`: about :math:`x^2 / 2` within the scale, and
    :math:`s |x| - s^2 \log 2` beyond.

    Parameters
    ----------
    x : array, shape (...)
        Real floating point.
    scale : float, default 1.0
        Magnitude at which the square becomes linear, > 0, in units of `x`.

    Returns
    -------
    array, shape (), or that of `x` with ``reduction="none"``
        In float32 or wider.

    Raises
    ------
    TypeError
        If `x` is not a real floating-point array, or `scale` has the wrong type.
    ValueError
        If `scale` is not > 0.

    Notes
    -----
    Smooth everywhere, with the slope ``scale * tanh(x / scale)``. Factor 1/2 on the square, as in `huber`. Small values
    keep their digits, and large ones do not overflow.

    References
    ----------
    .. [1] Green, "Bayesian reconstructions from emission tomography data using a modified EM algorithm", IEEE
       Transactions on Medical Imaging 9(1), 1990.

    Examples
    --------
    >>> round(float(log_cosh(np.asarray([0.0, 1000.0]))), 4)
    999.3069
    """
    xp = namespace(x)
    scaled = x / scale
    magnitude = abs_(scaled)
    is_far = magnitude > 1
    half = xp.sinh(xp.where(is_far, 0.0, scaled) / 2)  # `where` comes first: the square of a large one would overflow
    near = xp.log1p(2 * half * half)  # cosh(x) = 1 + 2 sinh(x / 2)^2 does not round small x away
    far = xp.where(is_far, magnitude, 1.0)
    far = far + xp.log1p(xp.exp(-2 * far)) - math.log(2)
    return scale * (scale * xp.where(is_far, far, near))


@penalty(terms="elements", reduction="sum")
def charbonnier(x: Array, /, *, eps: Positive = 1.0, **shared: Unpack[Shared]) -> Array:
    r"""Charbonnier's function: a square near zero, a magnitude far from it; also called pseudo-Huber.

    Each term is :math:`\sqrt{x^2 + \epsilon^2} - \epsilon` with :math:`\epsilon` = `eps`.

    Parameters
    ----------
    x : array, shape (...)
        Real floating point.
    eps : float, default 1.0
        Magnitude at which the square becomes linear, > 0, in units of `x`.

    Returns
    -------
    array, shape (), or that of `x` with ``reduction="none"``
        In float32 or wider.

    Raises
    ------
    TypeError
        If `x` is not a real floating-point array, or `eps` has the wrong type.
    ValueError
        If `eps` is not > 0.

    Notes
    -----
    Smooth everywhere, 0 at 0, about :math:`x^2 / (2 \epsilon)` near it, and with slopes up to 1. The pseudo-Huber
    function with the parameter :math:`\delta` is :math:`\delta` times this one. Code for images often leaves out
    :math:`- \epsilon`, which changes no gradient. Small values keep their digits, and large ones do not overflow.

    References
    ----------
    .. [1] Charbonnier, Blanc-Feraud, Aubert & Barlaud, "Two deterministic half-quadratic regularization algorithms for
       computed imaging", ICIP 1994.

    Examples
    --------
    >>> round(float(charbonnier(np.asarray([0.0, 4.0]), eps=3.0)), 6)
    2.0
    """
    xp = namespace(x)
    scaled = x / eps
    magnitude = abs_(scaled)
    is_far = magnitude > 1e8  # there the square may overflow, and 1 is below its rounding
    near = xp.where(is_far, 0.0, scaled)
    squared = near * near
    near = squared / (xp.sqrt(1 + squared) + 1)  # a difference of nearly equal numbers would round small x away
    return eps * xp.where(is_far, magnitude - 1, near)
