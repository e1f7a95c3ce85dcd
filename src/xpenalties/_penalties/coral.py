"""The distance between the covariances of two sets of samples."""

from __future__ import annotations

from typing import Any, Unpack

from .._arrays.numerics import array_backend, namespace_of, square
from .._core.types import Array
from .decorator import Shared, penalty
from .sample_means import degrees_of_freedom, deviations_from_mean, samples_check
from .squared_differences import squared_distance

__all__ = ["coral"]


@penalty(
    terms="whole",
    reduction="sum",
    extras=("weights",),
    check_arrays=samples_check("coral", "a", "A single sample has no covariance"),
    samples="rows",
)
def coral(a: Array, b: Array, /, **shared: Unpack[Shared]) -> Array:
    r"""Distance between the covariance matrices of two sets of samples, such as features of two domains (CORAL).

    :math:`\frac{1}{4 d^2} \|C_a - C_b\|_F^2`, where :math:`C` is the covariance matrix of d columns, with denominator
    n - 1.

    Parameters
    ----------
    a, b : array, shape (n, d)
        n samples of d features each, real floating point, of the same shape; n >= 2. Empty sets, n = 0, have the value
        0.

    Returns
    -------
    array, shape ()
        In float32 or wider.

    Raises
    ------
    TypeError
        If an input is not a real floating-point array.
    ValueError
        If the shapes differ, or the inputs do not have two axes or have a single sample.

    Notes
    -----
    The means may differ: only the covariances are compared. The order of the samples does not matter, and
    :math:`a_i` need not belong to :math:`b_i`. The value is a polynomial, so there are no kinks.

    It is computed from :math:`A - B` and :math:`A + B`, so that close samples keep their digits, and from matrices of
    d x d or n x n, whichever is smaller.

    `where` and `weights` select pairs of rows, :math:`a_i` together with :math:`b_i`. Weights :math:`w` are those of
    `numpy.cov` as `aweights`: the denominator is :math:`\sum w - \sum w^2 / \sum w`, so that only their ratios matter.
    If one pair is left, the value is 0.

    References
    ----------
    .. [1] Sun & Saenko, "Deep CORAL: correlation alignment for deep domain adaptation", ECCV Workshops 2016.

    Examples
    --------
    >>> a = np.asarray([[0.0], [2.0]])
    >>> float(coral(a, 3 - a))
    0.0
    >>> float(coral(a, 2 * a))  # variances of 2 and 8
    9.0
    """
    weights: Any = shared.get("weights")
    xp = namespace_of(a, b, weights)
    column = None if weights is None else xp.expand_dims(weights, axis=-1)
    sums, differences = deviations_from_mean(a + b, column), deviations_from_mean(a - b, column)
    squared = squared_distance(sums, differences, column, of="features")
    n, d = a.shape
    if weights is None:
        return squared / array_backend(a).number(2.0 * d * (n - 1), a) ** 2
    _, denominator = degrees_of_freedom(weights)  # of one sample, all deviations are 0
    return squared / square(array_backend(a).number(2 * d, a) * denominator)
