"""Norms of matrices, which measure the size of linear maps and their rank."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Unpack

from .._arrays.numerics import array_backend
from .._core.types import Array
from .decorator import Shared, penalty
from .singular_values import squared_spectral_norm, sum_of_singular_values

__all__ = ["spectral_norm", "nuclear_norm"]


def _two_axes_check(caller: str) -> Callable[[tuple[Any, ...], Mapping[str, Any]], None]:
    """Make a check that the array holds matrices."""

    def check(arrays: tuple[Any, ...], options: Mapping[str, Any]) -> None:
        if arrays[0].ndim < 2:
            raise ValueError(
                f"{caller}: `x` must have at least 2 axes, got shape {tuple(arrays[0].shape)}. Reshape it to matrices."
            )

    return check


@penalty(terms="matrices", reduction="sum", check_arrays=_two_axes_check("spectral_norm"))
def spectral_norm(x: Array, /, **shared: Unpack[Shared]) -> Array:
    r"""Squared spectral norm of matrices, which bounds how much linear maps stretch their inputs.

    Each term is :math:`\|X\|_2^2 = \sigma_{\max}(X)^2`, the square of the largest singular value of a matrix along the
    last two axes.

    Parameters
    ----------
    x : array, shape (..., n, d)
        Real floating point, with at least two axes.

    Returns
    -------
    array, shape (), or that of the leading axes with ``reduction="none"``
        In float32 or wider.

    Raises
    ------
    TypeError
        If `x` is not a real floating-point array.
    ValueError
        If `x` has fewer than two axes.
    NotImplementedError
        If the array library has no ``linalg.eigh``.

    Notes
    -----
    No factor 1/2; the square, as `l2` is. If several singular values are the largest within rounding, the gradient is
    that of one of their pairs of vectors, and the second derivative ignores the others. At a matrix of zeros, the
    gradient is 0.

    It is computed from the smaller one of the two Gram matrices, :math:`X X^T` or :math:`X^T X`. If the squares of all
    elements underflow, the gradient is that of any pair of vectors.

    The kernel of a convolution has more than two axes: reshape it to ``(w.shape[0], -1)``. The norm of that matrix is
    not the norm of the convolution, but for stride 1, the latter is at most the square root of the number of places in
    the kernel times larger.

    References
    ----------
    .. [1] Yoshida & Miyato, "Spectral norm regularization for improving the generalizability of deep learning",
       arXiv:1705.10941, 2017.

    Examples
    --------
    >>> round(float(spectral_norm(np.asarray([[3.0, 0.0], [0.0, -4.0]]))), 6)
    16.0
    """
    return squared_spectral_norm(x)


@penalty(terms="matrices", reduction="sum", check_arrays=_two_axes_check("nuclear_norm"))
def nuclear_norm(x: Array, /, **shared: Unpack[Shared]) -> Array:
    r"""Nuclear norm of matrices, the sum of their singular values, which lowers their rank.

    Each term is :math:`\|X\|_* = \sum_i \sigma_i(X)` for a matrix along the last two axes.

    Parameters
    ----------
    x : array, shape (..., n, d)
        Real floating point, with at least two axes.

    Returns
    -------
    array, shape (), or that of the leading axes with ``reduction="none"``
        In float32 or wider.

    Raises
    ------
    TypeError
        If `x` is not a real floating-point array.
    ValueError
        If `x` has fewer than two axes.
    NotImplementedError
        If a Dask array's chunks, or the parts of an array inside `over`, do not hold whole matrices.

    Notes
    -----
    The gradient is :math:`U V^T` of the nonzero singular values, so it is 0 at a matrix of zeros: of all subgradients,
    that is the smallest. A singular value counts as 0 if it is below the rounding of the largest one. Equal singular
    values change nothing. If some are 0, there is no second derivative; the one that is computed is that of the sum of
    the others.

    `prox.nuclear_norm` is its proximal operator. See `spectral_norm` for the kernels of convolutions.

    References
    ----------
    .. [1] Fazel, "Matrix rank minimization with applications", PhD thesis, Stanford University, 2002.
    .. [2] Recht, Fazel & Parrilo, "Guaranteed minimum-rank solutions of linear matrix equations via nuclear norm
       minimization", SIAM Review 52(3), 2010.

    Examples
    --------
    >>> round(float(nuclear_norm(np.asarray([[3.0, 0.0], [0.0, -4.0]]))), 6)
    7.0
    """
    if array_backend(x).lazy:
        raise NotImplementedError(
            "nuclear_norm: `x` must have chunks of whole matrices, because singular values need all of a matrix. Call "
            "x.rechunk({-2: -1, -1: -1})."
        )
    return sum_of_singular_values(x)
