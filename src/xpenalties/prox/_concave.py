"""The proximal operators of concave penalties: soft thresholding by an amount that is 0 for large elements.

An operator is a jump if its scale is so large that the minimized sum is not convex.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

from .._arrays.numerics import abs_, safe_sqrt, soft_threshold
from .._core.checks import NON_NEGATIVE, POSITIVE, Interval, Positive, check_argument, number_in
from .._core.types import Array
from ._base import cast_like, check_shape, checked, proximal_operator

__all__ = ["log_sum", "lp", "mcp", "scad"]

_ABOVE_TWO = Interval(2, math.inf, low_open=True)
_POWER = Interval(0, 1, low_open=True)
_NEWTON_STEPS = 7  # 6 come to float64's rounding, and one more lets the derivatives follow


@proximal_operator
def mcp(x: Array, /, *, scale: Any, threshold: Positive = 1.0) -> Array:
    r"""Apply the proximal operator of `mcp`: firm thresholding, which keeps large elements as they are.

    With :math:`t` = `threshold`: exactly 0 if :math:`|x| \le s`; :math:`x` if :math:`|x| > t`; and between them
    :math:`\frac{x}{|x|} \frac{|x| - s}{1 - s / t}`. If :math:`s \ge t`, nothing is between: 0 if
    :math:`|x| \le \sqrt{s t}`, else :math:`x`.

    Parameters
    ----------
    x : array, shape (...)
        Real or complex floating point.
    scale : float or array
        :math:`s`, the factor of the penalty, >= 0. For a factor for each element, pass an array that broadcasts to `x`.
    threshold : float, default 1.0
        Magnitude from which on the penalty is constant, > 0, in units of `x`.

    Returns
    -------
    array, shape (...)

    References
    ----------
    .. [1] Zhang, "Nearly unbiased variable selection under minimax concave penalty", Annals of Statistics 38(2), 2010.

    Examples
    --------
    >>> prox.mcp(np.asarray([0.25, 1.0, -3.0]), scale=0.5, threshold=2.0).round(4).tolist()
    [0.0, 0.6667, -3.0]
    >>> prox.mcp(np.asarray([3.0, -5.0]), scale=8.0, threshold=2.0).tolist()  # the square root of 16 is 4
    [0.0, -5.0]
    """
    xp, wide, magnitude, s = _prepared("mcp", x, scale)
    t = check_argument("mcp", POSITIVE, "threshold", threshold)
    is_firm = s < t
    amount = xp.where(is_firm, s, 0.0) * (_below(xp, magnitude, t) / xp.where(is_firm, t - s, 1.0))
    is_zero = ~is_firm & (magnitude <= xp.sqrt(xp.where(is_firm, 1.0, s)) * math.sqrt(t))
    return _moved(xp, x, wide, magnitude, is_zero, amount)


@proximal_operator
def scad(x: Array, /, *, scale: Any, knee: Positive = 1.0, a: Annotated[float, _ABOVE_TWO] = 3.7) -> Array:
    r"""Apply the proximal operator of `scad`: soft thresholding of small elements, which keeps large ones as they are.

    With :math:`k` = `knee`, if :math:`s < (a - 1) k`: soft thresholding by :math:`s` if :math:`|x| \le s + k`;
    :math:`x` if :math:`|x| > a k`; and between them soft thresholding by
    :math:`s \frac{a k - |x|}{(a - 1) k - s}`. For larger :math:`s`, soft thresholding jumps to :math:`x` at
    :math:`\sqrt{s (a + 1) k}` if that is at most :math:`s`, else at :math:`(s + (a + 1) k) / 2`.

    Parameters
    ----------
    x : array, shape (...)
        Real or complex floating point.
    scale : float or array
        :math:`s`, the factor of the penalty, >= 0. For a factor for each element, pass an array that broadcasts to `x`.
    knee : float, default 1.0
        Magnitude up to which the penalty is that of `l1`, > 0, in units of `x`.
    a : float, default 3.7
        The penalty is constant from ``a * knee`` on; > 2.

    Returns
    -------
    array, shape (...)

    References
    ----------
    .. [1] Fan & Li, "Variable selection via nonconcave penalized likelihood and its oracle properties", JASA 96(456),
       2001.

    Examples
    --------
    >>> prox.scad(np.asarray([0.25, 1.0, -2.0, 8.0]), scale=0.5, a=3.0).round(4).tolist()
    [0.0, 0.5, -1.6667, 8.0]
    """
    xp, wide, magnitude, s = _prepared("scad", x, scale)
    k = check_argument("scad", POSITIVE, "knee", knee)
    a = check_argument("scad", number_in(_ABOVE_TWO), "a", a)
    is_convex = s < (a - 1) * k
    bent = xp.where(is_convex, s, 0.0) * (_below(xp, magnitude, a * k) / xp.where(is_convex, (a - 1) * k - s, 1.0))
    of_zero = xp.sqrt(s) * math.sqrt((a + 1) * k)
    jump = xp.where(of_zero <= s, of_zero, 0.5 * (s + (a + 1) * k))
    amount = xp.where(magnitude > xp.where(is_convex, s + k, jump), bent, s)
    return cast_like(x, soft_threshold(xp, wide, amount))


@proximal_operator
def log_sum(x: Array, /, *, scale: Any, eps: Positive = 1.0) -> Array:
    r"""Apply the proximal operator of `log_sum`.

    With :math:`\epsilon` = `eps` and :math:`u = |x| + \epsilon`: soft thresholding by
    :math:`2 s / (u + \sqrt{u^2 - 4 s})`, or exactly 0 if that gives the smaller sum. If :math:`s \le \epsilon^2`, this
    is so for :math:`|x| \le s / \epsilon`.

    Parameters
    ----------
    x : array, shape (...)
        Real or complex floating point.
    scale : float or array
        :math:`s`, the factor of the penalty, >= 0. For a factor for each element, pass an array that broadcasts to `x`.
    eps : float, default 1.0
        Magnitude at which the logarithm begins to bend, > 0, in units of `x`.

    Returns
    -------
    array, shape (...)

    References
    ----------
    .. [1] Gong et al., "A general iterative shrinkage and thresholding algorithm for non-convex regularized
       optimization problems", ICML 2013.

    Examples
    --------
    >>> prox.log_sum(np.asarray([0.5, 1.0, -9.0]), scale=1.0).round(4).tolist()
    [0.0, 0.0, -8.899]
    """
    xp, wide, magnitude, s = _prepared("log_sum", x, scale)
    eps = check_argument("log_sum", POSITIVE, "eps", eps)
    root = safe_sqrt(s)
    is_zero = magnitude + eps <= 2 * root  # the derivative has no zero
    u = magnitude + eps
    root, s = xp.where(is_zero, 0.0, root), xp.where(is_zero, 0.0, s)
    amount = 2 * s / (u + xp.sqrt(u - 2 * root) * xp.sqrt(u + 2 * root))
    rest = magnitude - amount
    finite = xp.where(is_zero | (s == 0), 0.0, rest)  # 0 * inf would be NaN
    is_worse = s * xp.log1p(finite / eps) >= 0.5 * rest * (magnitude + amount)
    return _moved(xp, x, wide, magnitude, is_zero | is_worse, amount)


@proximal_operator
def lp(x: Array, /, *, scale: Any, p: Annotated[float, _POWER] = 0.5) -> Array:
    r"""Apply the proximal operator of `lp`.

    Exactly 0 if :math:`|x| \le \frac{2 - p}{2 - 2 p} (2 s (1 - p))^{1 / (2 - p)}`, else the larger solution of
    :math:`z + s p z^{p - 1} = |x|`, with the sign of :math:`x`. It is found by Newton's method.

    Parameters
    ----------
    x : array, shape (...)
        Real or complex floating point.
    scale : float or array
        :math:`s`, the factor of the penalty, >= 0. For a factor for each element, pass an array that broadcasts to `x`.
    p : float, default 0.5
        The power, in (0, 1]. 1 is `l1`.

    Returns
    -------
    array, shape (...)

    References
    ----------
    .. [1] Marjanovic & Solo, "On l_q optimization and matrix completion", IEEE Transactions on Signal Processing
       60(11), 2012.

    Examples
    --------
    >>> prox.lp(np.asarray([1.25, 4.0]), scale=1.0).round(4).tolist()
    [0.0, 3.7415]
    """
    xp, wide, magnitude, s = _prepared("lp", x, scale)
    p = check_argument("lp", number_in(_POWER), "p", p)
    if p == 1:
        return cast_like(x, soft_threshold(xp, wide, s))
    is_zero = magnitude <= (2 * s * (1 - p)) ** (1 / (2 - p)) * ((2 - p) / (2 - 2 * p))
    s, size = xp.where(is_zero, 0.0, s), xp.where(is_zero, 1.0, magnitude)
    z = size
    for _ in range(_NEWTON_STEPS):  # from above: the function is convex, so no step goes too far
        amount = s * p * z ** (p - 1)
        z = (size - (2 - p) * amount) / (1 - (1 - p) * amount / z)
    return _moved(xp, x, wide, magnitude, is_zero, s * p * z ** (p - 1))


def _prepared(name: str, x: Any, scale: Any) -> tuple[Any, Any, Any, Any]:
    """Return the namespace, `x` in the dtype to compute in, its magnitudes, and the scale in their shape."""
    xp, wide, scale = checked(name, x, scale=(NON_NEGATIVE, scale))
    check_shape(name, "scale", scale, tuple(x.shape), "`x`")
    magnitude = abs_(wide)
    return xp, wide, magnitude, xp.zeros_like(magnitude) + scale


def _below(xp: Any, magnitude: Any, limit: float) -> Any:
    """Return how much is missing to a limit, 0 if nothing is."""
    return limit - xp.where(magnitude > limit, limit, magnitude)


def _moved(xp: Any, x: Any, wide: Any, magnitude: Any, is_zero: Any, amount: Any) -> Any:
    """Move elements toward 0 by `amount`, and those of `is_zero` to exactly 0."""
    return cast_like(x, soft_threshold(xp, wide, xp.where(is_zero, magnitude, amount)))
