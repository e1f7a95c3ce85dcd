"""Penalties on the statistics of features over a batch: variance, covariance, correlation of two views."""

from __future__ import annotations

from typing import Any, Unpack

from .._arrays.numerics import (
    array_backend,
    gram_matrix,
    identity,
    is_at_most,
    namespace_of,
    safe_norm,
    square,
    weighted_norm,
    weighted_unit,
)
from .._core.checks import NonNegative, Positive
from .._core.types import Array
from ..backends import namespace
from .decorator import Shared, penalty
from .sample_means import (
    degrees_of_freedom,
    deviations_from_mean,
    mean_of_samples,
    products_of_features,
    samples_check,
    weights_of_pairs,
)

__all__ = ["variance", "covariance", "cross_correlation"]


@penalty(
    terms="whole",
    reduction="sum",
    extras=("weights",),
    check_arrays=samples_check("variance", "x", "A single sample has no variance"),
    samples="rows",
)
def variance(x: Array, /, *, target: Positive = 1.0, **shared: Unpack[Shared]) -> Array:
    r"""Shortfall of the features' standard deviations from a target, against collapse (VICReg's variance term).

    :math:`\frac{1}{d} \sum_j \max(0, t - s_j)` with :math:`t` = `target` and the standard deviation :math:`s_j` of
    column j, with denominator n - 1.

    Parameters
    ----------
    x : array, shape (n, d)
        n samples of d features, real floating point; n >= 2. An empty batch, n = 0, has the value 0.
    target : float, default 1.0
        The standard deviation that is enough, > 0.

    Returns
    -------
    array, shape ()
        In float32 or wider.

    Raises
    ------
    TypeError
        If `x` is not a real floating-point array, or `target` is not a number.
    ValueError
        If `x` does not have two axes or has a single sample, or `target` is not > 0.

    Notes
    -----
    No eps is added to the variance, as VICReg's code does, so small deviations are not overestimated. A feature that is
    constant has the gradient 0: all samples would have to move, and none knows where to. The slope is also 0 where
    :math:`s_j = t`.

    Weights :math:`w` are those of `numpy.cov` as `aweights`: the denominator is
    :math:`\sum w - \sum w^2 / \sum w`, so that only their ratios matter. If one sample is
    left, the value is 0.

    References
    ----------
    .. [1] Bardes, Ponce & LeCun, "VICReg: variance-invariance-covariance regularization", ICLR 2022.

    Examples
    --------
    >>> float(variance(np.asarray([[1.0, 0.0], [1.0, 2.0]])))  # deviations of 0 and sqrt(2)
    0.5
    """
    weights: Any = shared.get("weights")
    xp = namespace_of(x, weights)
    if weights is None:
        norms = safe_norm(x - xp.mean(x, axis=0, keepdims=True), axis=0)
        return _shortfall(norms / array_backend(x).number(x.shape[0] - 1, x) ** 0.5, target)
    column = xp.expand_dims(weights, axis=-1)
    has_two, denominator = degrees_of_freedom(weights)
    norms = weighted_norm(x - mean_of_samples(x, column), column, axis=0)
    return xp.where(has_two, _shortfall(norms / denominator**0.5, target), 0.0)


def _shortfall(deviations: Any, target: float) -> Any:
    xp = namespace(deviations)
    # an array, not a number: torch.compile would compile again for each number
    enough = xp.ones_like(deviations) * target
    return xp.mean(xp.where(deviations >= enough, 0.0, enough - deviations))  # in this order, NaN stays NaN


@penalty(
    terms="whole",
    reduction="sum",
    extras=("weights",),
    check_arrays=samples_check("covariance", "x", "A single sample has no covariance"),
    samples="rows",
)
def covariance(x: Array, /, **shared: Unpack[Shared]) -> Array:
    r"""Sum of squared covariances between features, which decorrelates them (VICReg's covariance term).

    :math:`\frac{1}{d} \sum_{i \ne j} C_{ij}^2`, where :math:`C` is the covariance matrix of the d columns, with
    denominator n - 1.

    Parameters
    ----------
    x : array, shape (n, d)
        n samples of d features, real floating point; n >= 2. An empty batch, n = 0, has the value 0.

    Returns
    -------
    array, shape ()
        In float32 or wider.

    Raises
    ------
    TypeError
        If `x` is not a real floating-point array.
    ValueError
        If `x` does not have two axes, or has a single sample.

    Notes
    -----
    Each pair of features counts twice, as in VICReg. Only the smaller one of the d x d and the n x n matrix is built.
    If that is the n x n one (d > n), the value is a difference of two sums, rounded relative to the sum of the squared
    variances.

    Weights :math:`w` are those of `numpy.cov` as `aweights`: the denominator is
    :math:`\sum w - \sum w^2 / \sum w`, so that only their ratios matter. If one sample is left, the value is 0.

    References
    ----------
    .. [1] Bardes, Ponce & LeCun, "VICReg: variance-invariance-covariance regularization", ICLR 2022.

    Examples
    --------
    >>> float(covariance(np.asarray([[0.0, 0.0], [2.0, 2.0]])))
    4.0
    """
    xp = namespace(x)
    n, d = x.shape
    weights: Any = shared.get("weights")
    if weights is not None:
        return _weighted_covariance(x, weights)
    centered = x - xp.mean(x, axis=0, keepdims=True)
    scale = 1 / array_backend(x).number(d * (n - 1) ** 2, x)
    if is_at_most(d, n):
        products = gram_matrix(centered, (1,), (0,))
        return scale * xp.sum(square(products * (1 - identity(products))))
    variances = xp.sum(square(centered), axis=0)
    return scale * (xp.sum(square(gram_matrix(centered, (0,), (1,)))) - xp.sum(square(variances)))


def _weighted_covariance(x: Any, weights: Any) -> Any:
    xp = namespace_of(x, weights)
    n, d = x.shape
    column = xp.expand_dims(weights, axis=-1)
    centered = x - mean_of_samples(x, column)
    has_two, denominator = degrees_of_freedom(weights)
    scale = 1 / (array_backend(x).number(d, x) * square(denominator))
    if is_at_most(d, n):
        products = products_of_features(centered, column)
        squares = xp.sum(square(products * (1 - identity(products))))
    else:
        products = gram_matrix(centered, (0,), (1,))
        variances = xp.sum(column * square(centered), axis=0)
        squares = xp.sum(square(products) * weights_of_pairs(weights)) - xp.sum(square(variances))
    return xp.where(has_two, scale * squares, 0.0)


@penalty(
    terms="whole",
    reduction="sum",
    extras=("weights",),
    check_arrays=samples_check("cross_correlation", "a", "A single sample has no correlation"),
    samples="rows",
)
def cross_correlation(a: Array, b: Array, /, *, off_diagonal: NonNegative = 0.005, **shared: Unpack[Shared]) -> Array:
    r"""Distance of the correlations between the features of two views from the identity (Barlow Twins).

    :math:`\sum_i (1 - C_{ii})^2 + \lambda \sum_{i \ne j} C_{ij}^2`, where :math:`C_{ij}` is the correlation of column
    i of `a` with column j of `b`, and :math:`\lambda` = `off_diagonal`.

    Parameters
    ----------
    a, b : array, shape (n, d)
        The features of two views of n samples, real floating point, of the same shape; n >= 2. An empty batch, n = 0,
        has the value 0.
    off_diagonal : float, default 0.005
        Factor of the correlations between different features, >= 0.

    Returns
    -------
    array, shape ()
        In float32 or wider.

    Raises
    ------
    TypeError
        If an input is not a real floating-point array, or `off_diagonal` is not a number.
    ValueError
        If the shapes differ, the inputs do not have two axes or have a single sample, or `off_diagonal` is below 0.

    Notes
    -----
    No eps. The correlation with a constant feature is 0, with gradient 0 for both. Each pair of different features
    counts twice. Only the smaller one of the d x d and the n x n matrix is built. If that is the n x n one (d > n), the
    second sum is a difference of two sums, rounded relative to :math:`\sum_{ij} C_{ij}^2`.

    Weights :math:`w` replace each sum over samples by a weighted one, in the means and in the correlations, so that
    only their ratios matter. If one sample is left, the value is 0.

    References
    ----------
    .. [1] Zbontar, Jing, Misra, LeCun & Deny, "Barlow twins: self-supervised learning via redundancy reduction", ICML
       2021.

    Examples
    --------
    >>> x = np.asarray([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> float(cross_correlation(x, 3 * x + 1))
    0.0
    >>> float(cross_correlation(x, -x))
    8.0
    """
    weights: Any = shared.get("weights")
    xp = namespace_of(a, b, weights)
    column = None if weights is None else xp.expand_dims(weights, axis=-1)
    a, a_is_constant = weighted_unit(deviations_from_mean(a, column), column, axis=0)
    b, b_is_constant = weighted_unit(deviations_from_mean(b, column), column, axis=0)
    differences = xp.sum(_weighted(square(a - b), column), axis=0)  # 1 - C_ii is half of that, without rounding C_ii
    half = 0.5 * (xp.astype(a_is_constant, a.dtype) + xp.astype(b_is_constant, a.dtype))
    value = xp.sum(square(0.5 * differences + half))
    if off_diagonal:
        n, d = a.shape
        if is_at_most(d, n):
            products = gram_matrix(_weighted(a, column), (1,), (0,), b)
            others = xp.sum(square(products * (1 - identity(products))))
        else:
            products = gram_matrix(a, (0,), (1,)) * gram_matrix(b, (0,), (1,))
            products = products if column is None else products * weights_of_pairs(weights)
            others = xp.sum(products) - xp.sum(square(xp.sum(_weighted(a * b, column), axis=0)))
        value = value + off_diagonal * others
    return value if weights is None else xp.where(degrees_of_freedom(weights)[0], value, 0.0)


def _weighted(x: Any, column: Any) -> Any:
    return x if column is None else column * x
