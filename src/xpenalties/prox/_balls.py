"""Projections onto balls and spheres of norms: weights of limited size."""

from __future__ import annotations

from typing import Any

from .._arrays.numerics import array_backend, safe_norm, unit
from .._core.checks import POSITIVE, AxisOrAxes
from .._core.types import Array
from ..backends import namespace
from ._base import along, cast_like, check_shape, checked, checked_axes, proximal_operator
from ._projections import onto_simplex

__all__ = ["l1_ball", "l2_ball", "l2_sphere", "spectral_ball"]


@proximal_operator
def l1_ball(x: Array, /, *, radius: Any = 1.0, axis: int = -1) -> Array:
    r"""Project onto a ball of the L1 norm: :math:`\sum |x_i| \le` `radius` along an axis. Some elements become 0.

    A vector outside is soft thresholded by the number that gives it the norm `radius`.

    Parameters
    ----------
    x : array, shape (...)
        Real floating point.
    radius : float or array, default 1.0
        The largest norm, > 0. For a norm for each slice, pass an array that broadcasts to the shape of `x` without
        `axis`.
    axis : int, default -1
        The axis along which a vector lies.

    Returns
    -------
    array, shape (...)

    References
    ----------
    .. [1] Duchi et al., "Efficient projections onto the l1-ball for learning in high dimensions", ICML 2008.

    Examples
    --------
    >>> prox.l1_ball(np.asarray([[2.0, -1.5], [0.5, 0.25]])).tolist()
    [[0.75, -0.25], [0.5, 0.25]]
    """
    xp, wide, radius = checked("l1_ball", x, real=True, radius=(POSITIVE, radius))
    (axis,) = axes = checked_axes("l1_ball", x, axis)
    check_shape("l1_ball", "radius", radius, (*x.shape[:axis], *x.shape[axis + 1 :]), "`x` without `axis`")
    if 0 in x.shape:
        return x
    radius = along(x, axes, radius)
    magnitude = xp.abs(wide)
    is_inside = xp.sum(magnitude, axis=axis, keepdims=True) <= radius
    on_simplex = onto_simplex(magnitude, radius, axis)
    return cast_like(x, xp.where(is_inside, wide, xp.where(wide < 0, -on_simplex, on_simplex)))


@proximal_operator
def l2_ball(x: Array, /, *, radius: Any = 1.0, axis: AxisOrAxes = -1) -> Array:
    r"""Project onto a ball of the L2 norm: vectors longer than `radius` are shortened to it. Also called max-norm.

    Parameters
    ----------
    x : array, shape (...)
        Real or complex floating point.
    radius : float or array, default 1.0
        The largest norm, > 0. For a norm for each slice, pass an array that broadcasts to the shape of `x` without
        `axis`.
    axis : int or tuple of int, default -1
        The axis along which a vector lies, or several axes.

    Returns
    -------
    array, shape (...)

    References
    ----------
    .. [1] Srebro & Shraibman, "Rank, trace-norm and max-norm", COLT 2005.

    Examples
    --------
    >>> prox.l2_ball(np.asarray([[3.0, 4.0], [0.3, 0.4]])).round(4).tolist()
    [[0.6, 0.8], [0.3, 0.4]]
    """
    xp, wide, radius, axes = _of_vectors("l2_ball", x, radius, axis)
    if 0 in x.shape:
        return x
    norm = along(x, axes, safe_norm(wide, axis=axes))
    return cast_like(x, xp.where(norm <= radius, wide, radius * unit(wide, axis=axes)))


@proximal_operator
def l2_sphere(x: Array, /, *, radius: Any = 1.0, axis: AxisOrAxes = -1) -> Array:
    """Project onto a sphere of the L2 norm: give each vector the length `radius`. A zero vector stays zero.

    Parameters
    ----------
    x : array, shape (...)
        Real or complex floating point.
    radius : float or array, default 1.0
        The norm, > 0. For a norm for each slice, pass an array that broadcasts to the shape of `x` without `axis`.
    axis : int or tuple of int, default -1
        The axis along which a vector lies, or several axes.

    Returns
    -------
    array, shape (...)

    Examples
    --------
    >>> prox.l2_sphere(np.asarray([[3.0, 4.0], [0.0, 0.0]])).round(4).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    _, wide, radius, axes = _of_vectors("l2_sphere", x, radius, axis)
    return x if 0 in x.shape else cast_like(x, radius * unit(wide, axis=axes))


@proximal_operator
def spectral_ball(x: Array, /, *, radius: Any = 1.0) -> Array:
    r"""Project onto a ball of the spectral norm: singular values above `radius` are lowered to it.

    A linear layer with such a weight changes its output by at most `radius` times the change of its input.

    Parameters
    ----------
    x : array, shape (..., m, n)
        Real or complex floating point. Leading axes are a batch of matrices.
    radius : float or array, default 1.0
        The largest singular value, > 0. For one for each matrix, pass an array that broadcasts to the leading axes.

    Returns
    -------
    array, shape (..., m, n)

    Notes
    -----
    As for `nuclear_norm`: the decomposition may raise an error for NaN, and its derivative is infinite or NaN if
    singular values are equal or one is 0.

    References
    ----------
    .. [1] Lewis & Malick, "Alternating projections on manifolds", Math. Oper. Res. 33(1), 2008.

    Examples
    --------
    >>> prox.spectral_ball(np.asarray([[3.0, 0.0], [0.0, 0.5]])).tolist()
    [[1.0, 0.0], [0.0, 0.5]]
    """
    xp, wide, radius = checked("spectral_ball", x, radius=(POSITIVE, radius))
    if x.ndim < 2:
        raise ValueError(f"spectral_ball: `x` must have at least 2 axes, got shape {tuple(x.shape)}. Add one.")
    check_shape("spectral_ball", "radius", radius, tuple(x.shape[:-2]), "the leading axes of `x`")
    if 0 in x.shape:
        return x
    if not isinstance(radius, float):
        radius = namespace(radius).expand_dims(radius, axis=-1)
    backend = array_backend(wide)
    return cast_like(x, backend.map_singular_values(wide, lambda values: xp.where(values > radius, radius, values)))


def _of_vectors(name: str, x: Any, radius: Any, axis: Any) -> tuple[Any, Any, Any, tuple[int, ...]]:
    xp, wide, radius = checked(name, x, radius=(POSITIVE, radius))
    axes = checked_axes(name, x, axis, several=True)
    rest = tuple(size for i, size in enumerate(x.shape) if i not in axes)
    check_shape(name, "radius", radius, rest, "`x` without `axis`")
    return xp, wide, along(x, axes, radius), axes
