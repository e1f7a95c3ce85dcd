"""Penalties on representations: orthogonality, consistency, size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Unpack

from .._arrays.numerics import (
    abs_,
    array_backend,
    gram_matrix,
    identity,
    is_at_most,
    namespace_of,
    of_all_vectors,
    safe_norm,
    safe_sqrt,
    square,
    unit,
)
from .._core.checks import NonNegative
from .._core.types import Array
from ..backends import namespace
from ..backends._fast_path import guards_are_skipped
from .decorator import Shared, penalty
from .jensen_shannon import jensen_shannon
from .kullback_leibler import kl
from .singular_values import squared_spectral_distance
from .spec import Distributions, Shape

__all__ = ["orthogonality", "consistency", "output_magnitude"]


def _check_two_axes(arrays: tuple[Any, ...], options: Mapping[str, Any]) -> None:
    if arrays[0].ndim < 2:
        raise ValueError(f"orthogonality: `x` must have at least 2 axes, got shape {tuple(arrays[0].shape)}. Add one.")


def _orthogonality_samples(options: Mapping[str, Any]) -> Shape | None:
    return None if options["per_sample"] else "rows"


@penalty(
    terms="matrices",
    reduction="sum",
    extras=("weights",),
    check_arrays=_check_two_axes,
    samples=_orthogonality_samples,
)
def orthogonality(
    x: Array,
    /,
    *,
    mode: Literal["soft", "hard", "spectral"] = "soft",
    axis: Literal["rows", "sequence", "vocabulary"] = "rows",
    normalize: bool = True,
    per_sample: bool = False,
    **shared: Unpack[Shared],
) -> Array:
    r"""Distance of vectors from being orthogonal, measured with their Gram matrix :math:`G = X X^T`.

    "soft" is :math:`\sum_{i \ne j} G_{ij}^2`, "hard" is :math:`\|G - I\|_F^2`, and "spectral" is
    :math:`\|G - I\|_2^2` (SRIP [1]_), the square of the largest absolute eigenvalue of :math:`G - I`.

    Parameters
    ----------
    x : array, shape (rows, d) or (..., sequence, vocabulary)
        Real floating point, with at least two axes.
    mode : {"soft", "hard", "spectral"}, default "soft"
        How to measure the distance. "soft" does not penalize the vectors' lengths.
    axis : {"rows", "sequence", "vocabulary"}, default "rows"
        Which vectors are the rows of X. For an `x` of shape [batch, seq, vocab], X is [batch * seq, vocab] for "rows",
        [seq, batch * vocab] for "sequence" and [vocab, batch * seq] for "vocabulary".
    normalize : bool, default True
        Divide each vector by its L2 norm first. A zero vector stays zero, with gradient 0.
    per_sample : bool, default False
        Take one Gram matrix for each leading index, instead of one over all of them. `where` and `weights` are then of
        the matrices. Otherwise, they are of the rows along the last axis.

    Returns
    -------
    array, shape (), or that of the leading axes with ``per_sample=True, reduction="none"``
        In float32 or wider.

    Raises
    ------
    TypeError
        If `x` is not a real floating-point array, or an option has the wrong type.
    ValueError
        If `x` has fewer than two axes, or an option is not one of its names.
    NotImplementedError
        If `mode` is "spectral" and the array library has no ``linalg.eigh``.

    Notes
    -----
    No factor: the sum is over ordered pairs, so each pair of vectors counts twice.

    For n vectors of length d < n, the n x n Gram matrix is never built: the d x d one has the same Frobenius norm and
    the same nonzero eigenvalues. "soft" is then a difference of two sums, rounded relative to
    :math:`\sum_i \|x_i\|^4`. That is small unless a few vectors are much longer than the others and `normalize` is
    False.

    If several eigenvalues share the maximum of "spectral", the gradient is that of one of their eigenvectors.

    Weights :math:`w` multiply each product :math:`G_{ij}` of rows by :math:`\sqrt{w_i w_j}`, and :math:`I` by
    :math:`w_i`. For "sequence" and "vocabulary", whose vectors lie across the rows, each row is multiplied by
    :math:`\sqrt{w}`; a vector without a row is left out. The gradient with respect to a weight of 0 is 0.

    References
    ----------
    .. [1] Bansal, Chen & Wang, "Can we gain more from orthogonality regularizations in training deep networks?",
       NeurIPS 2018.

    Examples
    --------
    >>> float(orthogonality(np.asarray([[2.0, 0.0], [0.0, 3.0]])))
    0.0
    >>> float(orthogonality(np.asarray([[1.0, 1.0], [1.0, 1.0]]), mode="hard", normalize=False))
    10.0
    """
    weights: Any = shared.get("weights")
    xp = namespace_of(x, weights)
    vectors, along = _axes(x.ndim, axis, per_sample)
    factor = None if weights is None else xp.expand_dims(safe_sqrt(weights), axis=-1)
    if factor is not None and axis != "rows":  # rows are parts of the vectors
        x = x * factor
    if normalize:
        x = unit(x, axis=along)
    if factor is not None and axis == "rows":
        x = x * factor
    ones = None if weights is None else _ones(weights, axis)
    n, d = (math.prod([x.shape[i] for i in axes]) for axes in (vectors, along))  # torch.compile needs a list
    of_rows = is_at_most(n, d)
    if mode == "spectral" and (type(n) is not int or ones is not None):
        of_rows = True  # if sizes are symbolic and n < d, zeros of the d x d matrix would count
    gram = gram_matrix(x, *((vectors, along) if of_rows else (along, vectors)))
    if ones is not None and of_rows:
        gram = gram + identity(gram) * (1 - of_all_vectors(xp.reshape(ones, (-1,))))
    if mode == "spectral":
        return squared_spectral_distance(gram, has_zero=not of_rows)
    eye = identity(gram)
    if mode == "soft" and of_rows:
        return xp.sum(square(gram * (1 - eye)), axis=(-2, -1))
    hard = xp.sum(square(gram - eye), axis=(-2, -1))
    if not of_rows:  # the n x n matrix has n - d more eigenvalues of 0, and each adds 1 to ||G - I||^2
        hard = hard + array_backend(x).number(n - d, x)
    if mode == "hard" and (of_rows or ones is None):
        return hard
    lengths = xp.sum(square(x), axis=along)
    if ones is not None:
        hard = hard + xp.sum((1 - ones) * (2 * lengths - 1 - ones))
    if mode == "hard":
        return hard
    return hard - xp.sum(square(lengths - (1 if ones is None else ones)), axis=-1 if per_sample else None)


def _ones(weights: Any, axis: str) -> Any:
    """Return the diagonal of the matrix that replaces I if rows are weighted, None if it is I itself.

    It has the shape of the vectors' axes, with 0 for vectors that are left out.
    """
    if axis == "vocabulary":
        return None
    if axis == "rows":
        return weights
    xp = namespace(weights)
    return xp.max(xp.astype(weights != 0, weights.dtype), axis=tuple(range(weights.ndim - 1)))


def _axes(ndim: int, axis: str, per_sample: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the axes that count the vectors, and those that a vector lies along. Other axes count matrices."""
    *lead, sequence, last = range(ndim)
    if per_sample:
        lead = []
    if axis == "sequence":
        return (sequence,), (*lead, last)
    rows = (*lead, sequence)
    return ((last,), rows) if axis == "vocabulary" else (rows, (last,))


def _consistency_terms(options: Mapping[str, Any]) -> Shape:
    return "elements" if options["metric"] in ("mse", "l1") else "rows"


def _consistency_distributions(options: Mapping[str, Any]) -> Distributions | None:
    return "complete" if options["metric"] in ("kl", "js") else None


@penalty(terms=_consistency_terms, reduction="mean", distributions=_consistency_distributions)
def consistency(
    a: Array,
    b: Array,
    /,
    *,
    metric: Literal["mse", "l1", "cosine", "kl", "js"] = "mse",
    axis: int = -1,
    **shared: Unpack[Shared],
) -> Array:
    r"""Distance between two outputs that should agree, such as those for an input and its augmentation.

    Each term is :math:`(a - b)^2` for "mse", :math:`|a - b|` for "l1", :math:`1 - \cos(a, b)` for "cosine", the mean of
    :math:`\mathrm{KL}(A\,\|\,B)` and :math:`\mathrm{KL}(B\,\|\,A)` for "kl", and the Jensen-Shannon divergence for
    "js".

    Parameters
    ----------
    a, b : array, shape (...)
        Real floating point, of the same shape. Log-probabilities (natural logarithm) for "kl" and "js".
    metric : {"mse", "l1", "cosine", "kl", "js"}, default "mse"
        The distance. "mse" and "l1" have one term for each element, the others one for each row.
    axis : int, default -1
        The axis along which a row lies: its features or its classes. "mse" and "l1" do not use it.

    Returns
    -------
    array, shape (), or that of the inputs with ``reduction="none"``, without `axis` for "cosine", "kl" and "js"
        In float32 or wider.

    Raises
    ------
    TypeError
        If an input is not a real floating-point array, or an option has the wrong type.
    ValueError
        If the shapes differ, the inputs have no such axis, or `metric` is not one of its names.

    Notes
    -----
    No factor 1/2. "l1" has slope 0 where a = b. The cosine with a zero vector is 0, with gradient 0 for both vectors.
    "kl" and "js" treat probabilities of 0 as `kl_divergence` and `js_divergence` do.

    References
    ----------
    .. [1] Laine & Aila, "Temporal ensembling for semi-supervised learning", ICLR 2017.

    Examples
    --------
    >>> a, b = np.asarray([[1.0, 0.0], [0.0, 2.0]]), np.asarray([[2.0, 0.0], [3.0, 0.0]])
    >>> consistency(a, b, metric="cosine", reduction="none").tolist()
    [0.0, 1.0]
    """
    if metric == "mse":
        return square(a - b)
    if metric == "l1":
        return abs_(a - b)
    if metric == "cosine":
        return _cosine_distance(a, b, axis=axis)
    return kl(a, b, direction="symmetric", axis=axis) if metric == "kl" else jensen_shannon(a, b, beta=0.5, axis=axis)


def _cosine_distance(a: Any, b: Any, *, axis: int) -> Any:
    """Return 1 - cos as half the squared distance of the unit vectors, which does not cancel if they are close."""
    xp = namespace(a, b)
    if guards_are_skipped():
        a, b = (x / xp.expand_dims(safe_norm(x, axis=axis), axis=axis) for x in (a, b))
        return 0.5 * xp.sum(square(a - b), axis=axis)
    a, b = unit(a, axis=axis), unit(b, axis=axis)
    lengths = xp.sum(square(a), axis=axis), xp.sum(square(b), axis=axis)  # 1, or 0 for a zero vector
    zeros = sum(xp.where(length == 0, 0.5, xp.zeros_like(length)) for length in lengths)
    return 0.5 * xp.sum(square(a - b), axis=axis) + zeros


@penalty(terms="whole", reduction="sum", extras=("weights",), samples="elements")
def output_magnitude(
    x: Array, /, *, target: NonNegative = 1.0, norm: Literal["rms", "l2"] = "rms", **shared: Unpack[Shared]
) -> Array:
    r"""Squared distance of the outputs' overall size from a target: a cheap stand-in for a gradient penalty.

    :math:`(\|x\| - \text{target})^2`, with one norm over all of `x`.

    Parameters
    ----------
    x : array, shape (...)
        Outputs, real floating point.
    target : float, default 1.0
        The size that the outputs should have, >= 0, in units of `x`.
    norm : {"rms", "l2"}, default "rms"
        How to measure the size: the root of the mean of squares, or of their sum.

    Returns
    -------
    array, shape ()
        In float32 or wider.

    Raises
    ------
    TypeError
        If `x` is not a real floating-point array, or an option has the wrong type.
    ValueError
        If an option is out of range.

    Notes
    -----
    No factor 1/2. If `x` is all zeros and the target is not 0, gradients of every order are 0.

    Weights multiply the squares. The mean divides by the sum of the weights. If the target is not 0, the gradient with
    respect to a weight of 0 is 0.

    References
    ----------
    .. [1] Gulrajani et al., "Improved training of Wasserstein GANs", NeurIPS 2017, for the penalty it stands in for.

    Examples
    --------
    >>> float(output_magnitude(np.asarray([3.0, 4.0]), norm="l2"))
    16.0
    """
    weights: Any = shared.get("weights")
    xp = namespace_of(x, weights)
    elements: Any = 1
    if norm == "rms":
        elements = array_backend(x).number(math.prod(x.shape), x) if weights is None else xp.sum(weights)
        if weights is not None:
            elements = xp.where(elements == 0, 1.0, elements)
    if target == 0:  # no root: to square it again would lose the second derivative at 0
        return xp.sum(square(x) if weights is None else weights * square(x)) / elements
    return square(safe_norm(x if weights is None else x * safe_sqrt(weights)) / elements**0.5 - target)
