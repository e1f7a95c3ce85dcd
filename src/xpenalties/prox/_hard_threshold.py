"""Hard thresholding: keep the largest elements, and set all others to exactly 0."""

from __future__ import annotations

from functools import partial
from typing import Any

from .._arrays.numerics import abs_, stop_gradient
from .._core.checks import POSITIVE_INTEGER, check_argument
from .._core.types import Array
from ..backends import backend_of, namespace
from ._base import cast_like, checked, checked_axes, proximal_operator

__all__ = ["top_k"]


@proximal_operator
def top_k(x: Array, /, *, k: int, axis: int = -1) -> Array:
    """Project onto vectors with at most `k` elements that are not 0: keep those of the largest magnitude.

    Parameters
    ----------
    x : array, shape (...)
        Real or complex floating point.
    k : int
        How many elements to keep, >= 1. If there are no more, all are kept.
    axis : int, default -1
        The axis along which a vector lies.

    Returns
    -------
    array, shape (...)

    Raises
    ------
    NotImplementedError
        If the array library cannot sort, as Dask.

    Notes
    -----
    Of equal magnitudes, the first ones are kept. NaN counts as the largest, so that it is not lost. Only elements that
    are kept get a gradient.

    References
    ----------
    .. [1] Blumensath & Davies, "Iterative hard thresholding for compressed sensing", Appl. Comput. Harmon. Anal. 27(3),
       2009.

    Examples
    --------
    >>> prox.top_k(np.asarray([0.5, -3.0, 1.0]), k=2).tolist()
    [0.0, -3.0, 1.0]
    """
    xp, wide = checked("top_k", x)
    k = check_argument("top_k", POSITIVE_INTEGER, "k", k)
    (axis,) = checked_axes("top_k", x, axis)
    if k >= x.shape[axis]:
        return x
    return cast_like(x, xp.where(_are_largest(abs_(stop_gradient(wide)), k, axis), wide, 0.0))


def _are_largest(magnitude: Any, k: int, axis: int) -> Any:
    """Return a mask of the `k` largest numbers along an axis."""
    backend = backend_of(magnitude)
    assert backend is not None
    if backend.lazy:
        raise NotImplementedError("top_k: `x` must be sorted, which Dask cannot do. Compute it first.")
    return backend.along_whole(partial(_are_largest_of_whole, k, axis), axis, magnitude)


def _are_largest_of_whole(k: int, axis: int, magnitude: Any) -> Any:
    xp = namespace(magnitude)
    magnitude = xp.where(magnitude != magnitude, xp.inf, magnitude)  # NaN
    order = xp.argsort(-magnitude, axis=axis, stable=True)
    return xp.argsort(order, axis=axis, stable=True) < k
