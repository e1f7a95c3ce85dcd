"""Distances between two sets of samples: of their distributions, and of the geometry of each set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Unpack

from .._arrays.numerics import (
    array_backend,
    count_true,
    gram_matrix,
    identity,
    is_at_most,
    namespace_of,
    safe_divide,
    safe_norm,
    safe_sqrt,
    scale_of,
    square,
    stop_gradient,
    unit,
)
from .._core.checks import POSITIVE
from .._core.types import Array
from ..backends import namespace
from .decorator import Shared, penalty
from .sample_means import deviations_from_mean, mean_of_samples, weights_of_pairs
from .squared_differences import squared_distance

__all__ = ["mmd", "gram_distance"]


def _check_mmd(arrays: tuple[Any, ...], options: Mapping[str, Any]) -> None:
    shape, bandwidths = tuple(arrays[0].shape), options.get("bandwidths")
    if len(shape) != 2:
        raise ValueError(f"mmd: `a` must have shape (n, d), got {shape}. Reshape it to two axes.")
    if shape[0] == 1 and options.get("unbiased", False):
        raise ValueError("mmd: `a` must have at least 2 samples with unbiased=True, got 1. Pass unbiased=False.")
    if bandwidths is None:
        return
    if options.get("kernel") == "energy":
        raise ValueError(f"mmd: `bandwidths` must be None with kernel='energy', got {bandwidths}. It has no scale.")
    if not _numbers(bandwidths):
        raise ValueError("mmd: `bandwidths` must have a number, got none. Pass one or several.")
    for bandwidth in _numbers(bandwidths):
        mmd.spec.check("bandwidths", bandwidth, POSITIVE)  # type: ignore[attr-defined]


def _numbers(bandwidths: Any) -> tuple[Any, ...]:
    return tuple(bandwidths) if isinstance(bandwidths, (tuple, list)) else (bandwidths,)


@penalty(terms="whole", reduction="sum", extras=("weights",), check_arrays=_check_mmd, samples="rows")
def mmd(
    a: Array,
    b: Array,
    /,
    *,
    kernel: Literal["rbf", "imq", "energy"] = "rbf",
    bandwidths: Any = None,
    unbiased: bool = False,
    **shared: Unpack[Shared],
) -> Array:
    r"""Squared maximum mean discrepancy between the distributions of two sets of samples.

    :math:`\overline{k(a, a')} + \overline{k(b, b')} - 2 \, \overline{k(a, b)}`, means over all pairs. With a distance r
    and a bandwidth s, the kernel k is :math:`e^{-r^2 / (2 s^2)}` for "rbf", :math:`s^2 / (s^2 + r^2)` for "imq", and
    :math:`-r` for "energy". The last one gives the energy distance [2]_.

    Parameters
    ----------
    a, b : array, shape (n, d)
        n samples of d features each, real floating point, of the same shape.
    kernel : {"rbf", "imq", "energy"}, default "rbf"
        The kernel. "energy" has no bandwidth.
    bandwidths : float or tuple of float, optional
        The distance at which the kernel falls off, > 0. For several, the kernels are averaged. The default is the root
        of the mean squared distance between `a` and `b`, as a constant.
    unbiased : bool, default False
        Leave the pairs of a sample with itself out of the first two means. The value may then be negative.

    Returns
    -------
    array, shape ()
        In float32 or wider.

    Raises
    ------
    TypeError
        If an input is not a real floating-point array, or an option has the wrong type.
    ValueError
        If the shapes differ, or an option is out of range.

    Notes
    -----
    The value is a difference of means, which is rounded relative to each of them. Distances are those of differences,
    which take n x n x d numbers in memory. "energy" has slope 0 where samples of `a` and `b` are equal.

    `where` and `weights` select pairs of rows, :math:`a_i` together with :math:`b_i`. Weights :math:`w` replace each
    mean by :math:`\sum_{ij} w_i w_j (\cdot) / \sum_{ij} w_i w_j`. With `unbiased`, the value is 0 if one sample is
    left.

    References
    ----------
    .. [1] Gretton, Borgwardt, Rasch, Scholkopf & Smola, "A kernel two-sample test", JMLR 13, 2012.
    .. [2] Szekely & Rizzo, "Energy statistics: a class of statistics based on distances", Journal of Statistical
       Planning and Inference 143(8), 2013.

    Examples
    --------
    >>> a, b = np.asarray([[0.0], [1.0]]), np.asarray([[2.0], [3.0]])
    >>> float(mmd(a, b, kernel="energy"))  # 2 * 2 - 1 / 2 - 1 / 2
    3.0
    >>> float(mmd(a, a))
    0.0
    """
    weights: Any = shared.get("weights")
    a, b, distances = _scaled(a, b, kernel, bandwidths)
    xp = namespace_of(a, b, weights)
    between = _differences(a, b)
    of_pairs = None if weights is None else array_backend(between).beside(weights_of_pairs(weights), between)
    if distances is None:
        squares = stop_gradient(xp.sum(square(between), axis=-1))
        mean = _mean(squares, of_pairs)
        distances = (xp.where(mean == 0, 1.0, mean),)
    value = -2 * _mean(_kernel(xp, between, kernel, distances), of_pairs)
    if not unbiased and kernel != "energy":
        of_one = (_mean(_kernel(xp, _differences(x, x), kernel, distances), of_pairs) for x in (a, b))
        return sum(of_one, start=value)
    eye = identity(xp.sum(between, axis=-1))
    others = 1 - eye
    within = others if of_pairs is None else others * of_pairs
    for x in (a, b):
        differences = _differences(x, x) + xp.expand_dims(eye, axis=-1)  # the root of 0 has a slope that is infinite
        kernels = others * _kernel(xp, differences, kernel, distances)
        value = value + (_mean(kernels, within) if unbiased else _mean(kernels, of_pairs))
    return xp.where(count_true(weights != 0, a.dtype) > 1, value, 0.0) if unbiased and weights is not None else value


def _scaled(a: Any, b: Any, kernel: str, bandwidths: Any) -> tuple[Any, Any, tuple[Any, ...] | None]:
    """Return the samples and the squared bandwidths in a unit in which squares neither overflow nor underflow."""
    if kernel == "energy":
        return a, b, ()
    if bandwidths is None:
        scale = scale_of(a, axis=None) + scale_of(b, axis=None)
        return a / scale, b / scale, None
    first, *_ = numbers = [float(bandwidth) for bandwidth in _numbers(bandwidths)]
    return a / first, b / first, tuple((number / first) ** 2 for number in numbers)


def _differences(a: Any, b: Any) -> Any:
    xp = namespace(a, b)
    a, b = (array_backend(x).uncut(x, (0,)) for x in (a, b))
    return xp.expand_dims(a, axis=1) - xp.expand_dims(b, axis=0)


def _kernel(xp: Any, differences: Any, kernel: str, squared_bandwidths: tuple[Any, ...]) -> Any:
    """Return the kernel of each pair, the mean of those for all bandwidths."""
    if kernel == "energy":
        return 0.0 - safe_norm(differences, axis=-1)
    squares = xp.sum(square(differences), axis=-1)
    if kernel == "rbf":
        kernels = [xp.exp(squares / (-2 * s)) for s in squared_bandwidths]
    else:
        kernels = [1 / (1 + squares / s) for s in squared_bandwidths]
    return sum(kernels[1:], start=kernels[0]) / len(kernels)


def _mean(x: Any, of_pairs: Any) -> Any:
    """Return the weighted mean over all pairs, 0 if none is left."""
    return mean_of_samples(x, of_pairs, axis=None, keepdims=False)


def _check_gram(arrays: tuple[Any, ...], options: Mapping[str, Any]) -> None:
    if arrays[0].ndim != 2:
        raise ValueError(f"gram_distance: `a` must have shape (n, d), got {tuple(arrays[0].shape)}. Reshape it.")


@penalty(terms="whole", reduction="sum", extras=("weights",), check_arrays=_check_gram, samples="rows")
def gram_distance(
    a: Array,
    b: Array,
    /,
    *,
    normalize: Literal["rows", "gram", "none"] = "rows",
    centered: bool = False,
    **shared: Unpack[Shared],
) -> Array:
    r"""Distance between the geometries of two representations of the same samples: of their Gram matrices.

    :math:`\frac{1}{n^2} \|A A^T - B B^T\|_F^2`, after each row is divided by its L2 norm, for "rows"; without that, for
    "none". For "gram", it is :math:`1 - \langle A A^T, B B^T \rangle / (\|A A^T\|_F \|B B^T\|_F)`. With `centered`,
    that is 1 - CKA [2]_.

    Parameters
    ----------
    a, b : array, shape (n, d)
        Two representations of n samples, real floating point, of the same shape.
    normalize : {"rows", "gram", "none"}, default "rows"
        What to divide by its norm: each row, each Gram matrix, or nothing.
    centered : bool, default False
        Subtract the mean of each feature first.

    Returns
    -------
    array, shape ()
        In float32 or wider.

    Raises
    ------
    TypeError
        If an input is not a real floating-point array, or an option has the wrong type.
    ValueError
        If the shapes differ, the inputs do not have two axes, or `normalize` is not one of its names.

    Notes
    -----
    Both representations may be rotated without changing the value. It is computed from :math:`A - B` and :math:`A + B`,
    so that close representations keep their digits, and from matrices of n x n or d x d, whichever is smaller. A row of
    zeros stays zero, with gradient 0. If all of a Gram matrix is 0, the value for "gram" is 1, with gradient 0.

    Weights :math:`w` multiply each square of a difference of elements ij by :math:`w_i w_j`, and replace n by
    :math:`\sum w`. `centered` then subtracts the weighted mean.

    References
    ----------
    .. [1] Tung & Mori, "Similarity-preserving knowledge distillation", ICCV 2019.
    .. [2] Kornblith, Norouzi, Lee & Hinton, "Similarity of neural network representations revisited", ICML 2019.
    .. [3] Simeoni et al., "DINOv3", arXiv:2508.10104, 2025, for "rows".

    Examples
    --------
    >>> a = np.asarray([[1.0, 0.0], [0.0, 2.0]])
    >>> float(gram_distance(a, a[:, ::-1]))  # the features are exchanged
    0.0
    >>> float(gram_distance(a, np.asarray([[1.0, 0.0], [3.0, 0.0]])))
    0.5
    """
    weights: Any = shared.get("weights")
    xp = namespace_of(a, b, weights)
    column = None if weights is None else xp.expand_dims(weights, axis=-1)
    if centered:
        a, b = deviations_from_mean(a, column), deviations_from_mean(b, column)
    if normalize == "rows":
        a, b = unit(a, axis=-1), unit(b, axis=-1)
    if normalize == "gram":
        (a, a_is_zero), (b, b_is_zero) = _of_unit_gram(a, column), _of_unit_gram(b, column)
        zeros = xp.astype(a_is_zero, a.dtype) + xp.astype(b_is_zero, a.dtype)
        return 0.5 * (squared_distance(a + b, a - b, column, of="samples") + zeros)
    distance = squared_distance(a + b, a - b, column, of="samples")
    if weights is None:
        return distance / array_backend(a).number(1.0 * a.shape[0], a) ** 2
    return safe_divide(distance, square(xp.sum(weights)))


def _of_unit_gram(x: Any, column: Any) -> tuple[Any, Any]:
    """Return `x` divided so that the norm of its Gram matrix is 1, and if that is 0. Zeros stay 0, with gradient 0."""
    xp = namespace_of(x, column)
    x = x / scale_of(x, axis=None)
    n, d = x.shape
    if is_at_most(n, d):
        squares = square(gram_matrix(x, (0,), (1,)))
        squares = squares if column is None else squares * weights_of_pairs(xp.squeeze(column, axis=1))
    else:
        squares = square(gram_matrix(x if column is None else x * column, (1,), (0,), x))
    norm = array_backend(x).beside(xp.reshape(safe_sqrt(xp.sum(squares)), (1, 1)), x)
    is_zero = norm == 0
    return xp.where(is_zero, 0.0, x / xp.sqrt(xp.where(is_zero, 1.0, norm))), xp.reshape(is_zero, ())
