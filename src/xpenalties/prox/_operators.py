r"""Proximal operators: what a penalty makes of weights in one exact step, zeros included.

The proximal operator of :math:`s f` maps :math:`x` to the :math:`z` with the least
:math:`\frac{1}{2} \|z - x\|^2 + s f(z)`. After a step of gradient descent on the loss alone, with a learning rate of
:math:`\eta`, that of :math:`\eta w f` is a step on the loss with the penalty :math:`w f`: proximal gradient descent.
A subgradient of a norm makes weights small; this makes them exactly 0.

Functions have the names, and the factors, of the penalties whose sums they belong to; `box` and `simplex` are
projections. They return an array like `x`, of its dtype; half precision is computed in float32. They can be traced.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from numbers import Real
from typing import Any, TypeVar, cast

from .._arrays.numerics import matmul, safe_norm, soft_threshold, stop_gradient, unit
from .._core.checks import FINITE, NON_NEGATIVE, POSITIVE, Interval, integer, named, number
from .._core.types import Array
from ..backends import backend_of, common_backend, is_array_beside, namespace
from ._trees import prox_step, sparsity

__all__ = ["box", "elastic_net", "group_lasso", "l1", "l2", "nuclear_norm", "prox_step", "simplex", "sparsity"]

F = TypeVar("F", bound=Callable[..., Any])
_AXIS = integer()
_SHARE = number(Interval(0, 1))


def _quiet(operator: F) -> F:
    """`operator` of what is an array, without NumPy's remarks on what overflows: that is seen in the result."""

    @wraps(operator)
    def quiet(x: Any, /, **options: Any) -> Any:
        backend = common_backend(operator.__name__, ["x"], [x])
        return backend.evaluation.run(operator, (x,), options)

    return cast(F, quiet)


@_quiet
def l1(x: Array, /, *, scale: Any) -> Array:
    r"""The proximal operator of `l1`: soft thresholding.

    :math:`x (1 - s / |x|)` where :math:`|x| > s`, else exactly 0.

    Parameters
    ----------
    x : array, shape (...)
        Real or complex floating point.
    scale : float or 0-d array
        :math:`s`, what the penalty is multiplied by, >= 0: the learning rate times the weight.

    Returns
    -------
    array, shape (...)

    References
    ----------
    .. [1] Beck & Teboulle, "A fast iterative shrinkage-thresholding algorithm for linear inverse problems", SIAM J.
       Imaging Sci. 2(1), 2009.

    Examples
    --------
    >>> prox.l1(np.asarray([3.0, -0.5, -2.0]), scale=1.0).tolist()
    [2.0, 0.0, -1.0]
    """
    xp, wide, scale = _given("l1", x, scale)
    return _like(x, soft_threshold(xp, wide, scale))


@_quiet
def l2(x: Array, /, *, scale: Any) -> Array:
    r"""The proximal operator of `l2`, the sum of squares: :math:`x / (1 + 2 s)`.

    Parameters
    ----------
    x : array, shape (...)
        Real or complex floating point.
    scale : float or 0-d array
        :math:`s`, what the penalty is multiplied by, >= 0.

    Returns
    -------
    array, shape (...)

    Examples
    --------
    >>> prox.l2(np.asarray([3.0, -1.0]), scale=0.5).tolist()
    [1.5, -0.5]
    """
    _, wide, scale = _given("l2", x, scale)
    return _like(x, wide / (1 + 2 * scale))


@_quiet
def elastic_net(x: Array, /, *, scale: Any, l1_ratio: float = 0.5) -> Array:
    r"""The proximal operator of `elastic_net`: soft thresholding, and a factor.

    By :math:`s \alpha`, and 1 over :math:`1 + 2 s (1 - \alpha)`.

    Parameters
    ----------
    x : array, shape (...)
        Real or complex floating point.
    scale : float or 0-d array
        :math:`s`, what the penalty is multiplied by, >= 0.
    l1_ratio : float, default 0.5
        :math:`\alpha`, the share of the L1 part, in [0, 1].

    Returns
    -------
    array, shape (...)

    Examples
    --------
    >>> prox.elastic_net(np.asarray([3.0, -0.5]), scale=1.0).tolist()
    [1.25, 0.0]
    """
    xp, wide, scale = _given("elastic_net", x, scale)
    share = named("elastic_net", _SHARE, "l1_ratio", l1_ratio)
    return _like(x, soft_threshold(xp, wide, scale * share) / (1 + 2 * scale * (1 - share)))


@_quiet
def group_lasso(x: Array, /, *, scale: Any, axis: int = -1) -> Array:
    r"""The proximal operator of `group_lasso`: whole groups become exactly 0.

    :math:`x_g (1 - s \sqrt{k} / \|x_g\|)` where :math:`\|x_g\| > s \sqrt{k}`, else 0, for groups of :math:`k` elements.

    Parameters
    ----------
    x : array, shape (...)
        Real or complex floating point.
    scale : float or 0-d array
        :math:`s`, what the penalty is multiplied by, >= 0.
    axis : int, default -1
        The axis along which a group lies.

    Returns
    -------
    array, shape (...)

    Examples
    --------
    >>> prox.group_lasso(np.asarray([[3.0, 4.0], [0.3, 0.4]]), scale=math.sqrt(0.5)).round(4).tolist()
    [[2.4, 3.2], [0.0, 0.0]]
    """
    xp, wide, scale = _given("group_lasso", x, scale, axis=axis)
    if 0 in x.shape:
        return x
    axis = axis % x.ndim
    norm = xp.expand_dims(safe_norm(wide, axis=axis), axis=axis)
    threshold = scale * math.sqrt(x.shape[axis])
    return _like(x, xp.where(norm <= threshold, 0.0, wide - threshold * unit(wide, axis=axis)))


@_quiet
def nuclear_norm(x: Array, /, *, scale: Any) -> Array:
    r"""The proximal operator of the nuclear norm, the sum of singular values: what is left is of lower rank.

    The singular values, thresholded as by `l1`.

    Parameters
    ----------
    x : array, shape (..., m, n)
        Real or complex floating point. Leading axes are a batch of matrices.
    scale : float or 0-d array
        :math:`s`, what the norm is multiplied by, >= 0.

    Returns
    -------
    array, shape (..., m, n)

    Notes
    -----
    By a singular value decomposition, which may raise an error for NaN. Its derivative is infinite or NaN where
    singular values are equal, or one is 0.

    References
    ----------
    .. [1] Cai, Candes & Shen, "A singular value thresholding algorithm for matrix completion", SIAM J. Optim. 20(4),
       2010.

    Examples
    --------
    >>> prox.nuclear_norm(np.asarray([[3.0, 0.0], [0.0, 0.5]]), scale=1.0).tolist()
    [[2.0, 0.0], [0.0, 0.0]]
    """
    xp, wide, scale = _given("nuclear_norm", x, scale)
    if x.ndim < 2:
        raise ValueError(f"nuclear_norm: `x` must have at least 2 axes, got shape {tuple(x.shape)}. Add one.")
    if 0 in x.shape:
        return x
    u, values, vh = xp.linalg.svd(wide, full_matrices=False)
    return _like(x, matmul(u * xp.expand_dims(soft_threshold(xp, values, scale), axis=-2), vh))


@_quiet
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
    xp, wide, _ = _given("box", x, 0.0, real=True)
    low = None if low is None else named("box", FINITE, "low", low)
    high = None if high is None else named("box", FINITE, "high", high)
    if low is not None and high is not None and low > high:
        raise ValueError(f"box: `low` must not be above `high`, got {low} and {high}. Swap them.")
    most = float(xp.finfo(wide.dtype).max)
    if low is not None and low > -most:
        wide = xp.where(wide < low, low, wide)
    if high is not None and high < most:
        wide = xp.where(wide > high, high, wide)
    return _like(x, wide)


@_quiet
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
    xp, wide, _ = _given("simplex", x, 0.0, axis=axis, real=True)
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
    return _like(x, xp.where(kept, wide - theta, 0.0))


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


def _given(name: str, x: Any, scale: Any, *, axis: int | None = None, real: bool = False) -> tuple[Any, Any, Any]:
    """The namespace, `x` in the dtype to compute in, and `scale`, all checked."""
    backend = backend_of(x)
    assert backend is not None  # see `_quiet`
    kind, working, _ = backend.dtype(x.dtype)
    if kind != "real" and (real or kind != "complex"):
        raise TypeError(
            f"{name}: `x` must be {'real' if real else 'real or complex'} floating point, got {x.dtype}. Cast it first."
        )
    if axis is not None and not -x.ndim <= named(name, _AXIS, "axis", axis) < x.ndim:
        raise ValueError(f"{name}: `axis` must be an axis of `x`, got {axis} for shape {tuple(x.shape)}.")
    wide = x if working is None else backend.xp.astype(x, working)
    if isinstance(scale, Real) or not is_array_beside(scale, x):
        return backend.xp, wide, named(name, NON_NEGATIVE, "scale", scale)
    backend = common_backend(name, ["x", "scale"], [x, scale])  # a tracer's, if it is of one of them
    return backend.xp, wide, _checked_scale(name, backend, wide, scale)


def _checked_scale(name: str, backend: Any, x: Any, scale: Any) -> Any:
    if tuple(scale.shape) != ():
        raise ValueError(f"{name}: `scale` must be 0-d, got shape {tuple(scale.shape)}. Index it.")
    if backend.dtype(scale.dtype).kind != "real":
        raise TypeError(f"{name}: `scale` must be real, got {scale.dtype}. Cast it.")
    real = backend.xp.real(x).dtype if backend.dtype(x.dtype).kind == "complex" else x.dtype
    return scale if scale.dtype == real else backend.xp.astype(scale, real)


def _like(x: Any, found: Any) -> Any:
    """What was found, in the dtype of `x`."""
    backend = backend_of(found)
    assert backend is not None
    return found if found.dtype == x.dtype else backend.xp.astype(found, x.dtype)
