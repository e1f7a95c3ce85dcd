"""The proximal operators of norms."""

from __future__ import annotations

import math
from typing import Any

from .._arrays.numerics import array_backend, safe_norm, soft_threshold, unit
from .._core.checks import NON_NEGATIVE, AxisOrAxes, Interval, check_argument, number_in
from .._core.types import Array
from ._base import along, cast_like, check_shape, checked, checked_axes, proximal_operator

__all__ = ["elastic_net", "group_lasso", "l1", "l2", "nuclear_norm", "sparse_group_lasso"]

_SHARE = number_in(Interval(0, 1))


@proximal_operator
def l1(x: Array, /, *, scale: Any) -> Array:
    r"""Apply the proximal operator of `l1`: soft thresholding.

    :math:`x (1 - s / |x|)` if :math:`|x| > s`, else exactly 0.

    Parameters
    ----------
    x : array, shape (...)
        Real or complex floating point.
    scale : float or array
        :math:`s`, the factor of the penalty, >= 0: the learning rate times the weight. For a factor for each
        element, pass an array that broadcasts to `x`.

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
    xp, wide, scale = checked("l1", x, scale=(NON_NEGATIVE, scale))
    check_shape("l1", "scale", scale, tuple(x.shape), "`x`")
    return cast_like(x, soft_threshold(xp, wide, scale))


@proximal_operator
def l2(x: Array, /, *, scale: Any) -> Array:
    r"""Apply the proximal operator of `l2`, the sum of squares: :math:`x / (1 + 2 s)`.

    Parameters
    ----------
    x : array, shape (...)
        Real or complex floating point.
    scale : float or array
        :math:`s`, the factor of the penalty, >= 0. For a factor for each element, pass an array that broadcasts to `x`.

    Returns
    -------
    array, shape (...)

    Examples
    --------
    >>> prox.l2(np.asarray([3.0, -1.0]), scale=0.5).tolist()
    [1.5, -0.5]
    """
    _, wide, scale = checked("l2", x, scale=(NON_NEGATIVE, scale))
    check_shape("l2", "scale", scale, tuple(x.shape), "`x`")
    return cast_like(x, wide / (1 + 2 * scale))


@proximal_operator
def elastic_net(x: Array, /, *, scale: Any, l1_ratio: float = 0.5) -> Array:
    r"""Apply the proximal operator of `elastic_net`: soft thresholding, then scaling.

    Soft thresholding by :math:`s \alpha`, divided by :math:`1 + 2 s (1 - \alpha)`.

    Parameters
    ----------
    x : array, shape (...)
        Real or complex floating point.
    scale : float or array
        :math:`s`, the factor of the penalty, >= 0. For a factor for each element, pass an array that broadcasts to `x`.
    l1_ratio : float, default 0.5
        :math:`\alpha`, the fraction of the L1 part, in [0, 1].

    Returns
    -------
    array, shape (...)

    Examples
    --------
    >>> prox.elastic_net(np.asarray([3.0, -0.5]), scale=1.0).tolist()
    [1.25, 0.0]
    """
    xp, wide, scale = checked("elastic_net", x, scale=(NON_NEGATIVE, scale))
    check_shape("elastic_net", "scale", scale, tuple(x.shape), "`x`")
    share = check_argument("elastic_net", _SHARE, "l1_ratio", l1_ratio)
    return cast_like(x, soft_threshold(xp, wide, scale * share) / (1 + 2 * scale * (1 - share)))


@proximal_operator
def group_lasso(x: Array, /, *, scale: Any, axis: AxisOrAxes = -1) -> Array:
    r"""Apply the proximal operator of `group_lasso`: whole groups become exactly 0.

    :math:`x_g (1 - s \sqrt{k} / \|x_g\|)` if :math:`\|x_g\| > s \sqrt{k}`, else 0, for groups of :math:`k` elements.

    Parameters
    ----------
    x : array, shape (...)
        Real or complex floating point.
    scale : float or array
        :math:`s`, the factor of the penalty, >= 0. For a factor for each group, pass an array that broadcasts to the
        shape of `x` without `axis`.
    axis : int or tuple of int, default -1
        The axis along which the elements of a group lie, or several axes: ``(1, 2, 3)`` for the filters of PyTorch's
        convolutions.

    Returns
    -------
    array, shape (...)

    Examples
    --------
    >>> prox.group_lasso(np.asarray([[3.0, 4.0], [0.3, 0.4]]), scale=math.sqrt(0.5)).round(4).tolist()
    [[2.4, 3.2], [0.0, 0.0]]
    """
    xp, wide, scale, axes = _of_groups("group_lasso", x, scale, axis)
    return x if 0 in x.shape else cast_like(x, _shrink_groups(xp, wide, along(x, axes, scale), axes))


@proximal_operator
def sparse_group_lasso(x: Array, /, *, scale: Any, l1_ratio: float = 0.5, axis: AxisOrAxes = -1) -> Array:
    r"""Apply the proximal operator of `sparse_group_lasso`: elements and whole groups become exactly 0.

    Soft thresholding by :math:`s \alpha`, then `group_lasso` with :math:`s (1 - \alpha)`.

    Parameters
    ----------
    x : array, shape (...)
        Real or complex floating point.
    scale : float or array
        :math:`s`, the factor of the penalty, >= 0. For a factor for each group, pass an array that broadcasts to the
        shape of `x` without `axis`.
    l1_ratio : float, default 0.5
        :math:`\alpha`, the fraction of the L1 part, in [0, 1].
    axis : int or tuple of int, default -1
        The axis along which the elements of a group lie, or several axes.

    Returns
    -------
    array, shape (...)

    References
    ----------
    .. [1] Simon et al., "A sparse-group lasso", J. Comput. Graph. Statist. 22(2), 2013.

    Examples
    --------
    >>> prox.sparse_group_lasso(np.asarray([[3.5, 0.5], [0.6, 0.7]]), scale=1.0).round(4).tolist()
    [[2.2929, 0.0], [0.0, 0.0]]
    """
    xp, wide, scale, axes = _of_groups("sparse_group_lasso", x, scale, axis)
    share = check_argument("sparse_group_lasso", _SHARE, "l1_ratio", l1_ratio)
    if 0 in x.shape:
        return x
    scale = along(x, axes, scale)
    return cast_like(x, _shrink_groups(xp, soft_threshold(xp, wide, scale * share), scale * (1 - share), axes))


def _of_groups(name: str, x: Any, scale: Any, axis: Any) -> tuple[Any, Any, Any, tuple[int, ...]]:
    xp, wide, scale = checked(name, x, scale=(NON_NEGATIVE, scale))
    axes = checked_axes(name, x, axis, several=True)
    groups = tuple(size for i, size in enumerate(x.shape) if i not in axes)
    check_shape(name, "scale", scale, groups, "`x` without `axis`")
    return xp, wide, scale, axes


def _shrink_groups(xp: Any, x: Any, scale: Any, axes: tuple[int, ...]) -> Any:
    norm = along(x, axes, safe_norm(x, axis=axes))
    threshold = scale * math.sqrt(math.prod([x.shape[i] for i in axes]))  # torch.compile needs a list
    return xp.where(norm <= threshold, 0.0, x - threshold * unit(x, axis=axes))


@proximal_operator
def nuclear_norm(x: Array, /, *, scale: Any) -> Array:
    r"""Apply the proximal operator of the nuclear norm, the sum of singular values, which lowers the rank.

    It applies soft thresholding to the singular values, as `l1` does to elements.

    Parameters
    ----------
    x : array, shape (..., m, n)
        Real or complex floating point. Leading axes are a batch of matrices.
    scale : float or array
        :math:`s`, the factor of the norm, >= 0. For a factor for each singular value, largest value first, pass an
        array that broadcasts to shape (..., min(m, n)). The factors must not decrease: only then is this the proximal
        operator of the weighted norm [2]_.

    Returns
    -------
    array, shape (..., m, n)

    Notes
    -----
    The singular value decomposition may raise an error for NaN. Its derivative is infinite or NaN if singular values
    are equal or one is 0.

    In JAX, a matrix that is cut over devices is gathered. The products of its vectors would be smaller, but lose half
    of the digits of small singular values.

    References
    ----------
    .. [1] Cai, Candes & Shen, "A singular value thresholding algorithm for matrix completion", SIAM J. Optim. 20(4),
       2010.
    .. [2] Gu et al., "Weighted nuclear norm minimization with application to image denoising", CVPR 2014.

    Examples
    --------
    >>> prox.nuclear_norm(np.asarray([[3.0, 0.0], [0.0, 0.5]]), scale=1.0).tolist()
    [[2.0, 0.0], [0.0, 0.0]]
    """
    xp, wide, scale = checked("nuclear_norm", x, scale=(NON_NEGATIVE, scale))
    if x.ndim < 2:
        raise ValueError(f"nuclear_norm: `x` must have at least 2 axes, got shape {tuple(x.shape)}. Add one.")
    values_shape = (*x.shape[:-2], min(x.shape[-2:]))
    check_shape("nuclear_norm", "scale", scale, values_shape, "the singular values")
    if 0 in x.shape:
        return x
    backend = array_backend(wide)
    return cast_like(x, backend.map_singular_values(wide, lambda values: soft_threshold(xp, values, scale)))
