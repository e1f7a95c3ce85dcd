"""Penalties of groups of weights, which drive whole groups to zero."""

from __future__ import annotations

from typing import Unpack

from .._arrays.numerics import abs_, array_backend, safe_norm
from .._core.checks import AxisOrAxes, UnitInterval
from .._core.types import Array
from ..backends import namespace
from .decorator import Shared, penalty

__all__ = ["group_lasso", "sparse_group_lasso"]


@penalty(terms="rows", reduction="sum", complex=True)
def group_lasso(x: Array, /, *, axis: AxisOrAxes = -1, **shared: Unpack[Shared]) -> Array:
    r"""Group lasso: the sum of the groups' L2 norms, which drives whole groups to zero.

    Each term is :math:`\sqrt{k}\,\|x_g\|_2` for a group :math:`x_g` of :math:`k` elements, which lies along `axis`.

    Parameters
    ----------
    x : array, shape (...)
        Real or complex floating point.
    axis : int or tuple of int, default -1
        The axis along which each group lies, or several axes: ``(1, 2, 3)`` for the filters of PyTorch's convolutions.

    Returns
    -------
    array, shape (), or that of `x` without `axis` with ``reduction="none"``
        Real, in float32 or wider.

    Raises
    ------
    TypeError
        If `x` is not a real or complex floating-point array, or `axis` has the wrong type.
    ValueError
        If `x` has no such axis.

    Notes
    -----
    The factor :math:`\sqrt{k}` makes groups of different sizes comparable. At a group of zeros, gradients of every
    order are 0.

    References
    ----------
    .. [1] Yuan & Lin, "Model selection and estimation in regression with grouped variables", JRSS B 68(1), 2006.

    Examples
    --------
    >>> round(float(group_lasso(np.asarray([[3.0, 4.0], [0.0, 0.0]]))), 4)
    7.0711
    """
    return array_backend(x).number(x.shape[axis], x) ** 0.5 * safe_norm(x, axis=axis)


@penalty(terms="rows", reduction="sum", complex=True)
def sparse_group_lasso(
    x: Array, /, *, l1_ratio: UnitInterval = 0.5, axis: AxisOrAxes = -1, **shared: Unpack[Shared]
) -> Array:
    r"""Sparse group lasso: a mix of `group_lasso` and `l1`, which also drives elements within groups to zero.

    Each term is :math:`(1 - \alpha) \sqrt{k}\,\|x_g\|_2 + \alpha \|x_g\|_1` for a group :math:`x_g` of :math:`k`
    elements, which lies along `axis`, with :math:`\alpha` = `l1_ratio`.

    Parameters
    ----------
    x : array, shape (...)
        Real or complex floating point.
    l1_ratio : float, default 0.5
        Fraction of the L1 part, in [0, 1].
    axis : int or tuple of int, default -1
        The axis along which each group lies, or several axes.

    Returns
    -------
    array, shape (), or that of `x` without `axis` with ``reduction="none"``
        Real, in float32 or wider.

    Raises
    ------
    TypeError
        If `x` is not a real or complex floating-point array, or an option has the wrong type.
    ValueError
        If `x` has no such axis, or `l1_ratio` is not in [0, 1].

    Notes
    -----
    Slope 0 where an element is 0, and gradients of every order are 0 at a group of zeros. A subgradient only makes
    weights small: `prox.sparse_group_lasso` makes them exactly 0.

    References
    ----------
    .. [1] Simon et al., "A sparse-group lasso", J. Comput. Graph. Statist. 22(2), 2013.

    Examples
    --------
    >>> round(float(sparse_group_lasso(np.asarray([[3.0, 4.0], [0.0, 0.0]]))), 4)
    7.0355
    """
    groups = array_backend(x).number(x.shape[axis], x) ** 0.5 * safe_norm(x, axis=axis)
    return (1 - l1_ratio) * groups + l1_ratio * namespace(x).sum(abs_(x), axis=axis)
