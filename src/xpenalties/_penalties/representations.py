"""Structure of representations: orthogonality, decorrelation, agreement, size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Unpack

from .._arrays.numerics import abs_, care_is_left_out, identity, matmul, safe_norm, square, stop_gradient, unit
from .._core.checks import NonNegative
from .._core.types import Array
from ..backends import namespace
from .decorator import Shared, penalty
from .divergences import symmetric_kl
from .jensen_shannon import jensen_shannon
from .spec import Shape

__all__ = ["orthogonality", "covariance", "consistency", "output_magnitude"]


def _requires_two_axes(arrays: tuple[Any, ...], options: Mapping[str, Any]) -> None:
    if arrays[0].ndim < 2:
        raise ValueError(f"orthogonality: `x` must have at least 2 axes, got shape {tuple(arrays[0].shape)}. Add one.")


def _gram_terms(options: Mapping[str, Any]) -> Shape:
    return "matrices" if options["per_sample"] else "whole"


@penalty(terms=_gram_terms, reduction="sum", requires=_requires_two_axes)
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
    r"""How far vectors are from orthogonal, by their Gram matrix :math:`G = X X^T`.

    soft: :math:`\sum_{i \ne j} G_{ij}^2`; hard: :math:`\|G - I\|_F^2`; spectral: :math:`\|G - I\|_2^2` (SRIP [1]_).

    Parameters
    ----------
    x : array, shape (rows, d) or (..., sequence, vocabulary)
        At least two axes.
    mode : {"soft", "hard", "spectral"}, default "soft"
        What of G to penalise.
    axis : {"rows", "sequence", "vocabulary"}, default "rows"
        Which vectors: of [batch, seq, vocab], "rows" takes X as [batch * seq, vocab], "sequence" as
        [seq, batch * vocab], "vocabulary" as [vocab, batch * seq].
    normalize : bool, default True
        Divide each vector by its L2 norm first; a zero vector stays zero, with gradient 0.
    per_sample : bool, default False
        One Gram matrix for each leading index, instead of one over all of them.

    Returns
    -------
    array, shape () or with ``per_sample=True, reduction="none"`` that of the leading axes
        Float32 at least.

    Notes
    -----
    The n x n Gram matrix of n vectors of length d < n is never built: the d x d one has the same Frobenius norm and
    the same nonzero eigenvalues. "soft" is then the difference of two sums, with the rounding error of
    :math:`\sum_i \|x_i\|^4`: little, unless a few unnormalised vectors are much longer than the others. Where the
    largest eigenvalue of "spectral" is a multiple one, the gradient is that of one of its eigenvectors.

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
    vectors = _vectors(x, axis, per_sample)
    if normalize:
        vectors = unit(vectors, axis=-1)
    n, d = vectors.shape[-2:]
    xp = namespace(vectors)
    transposed = xp.matrix_transpose(vectors)
    gram = matmul(vectors, transposed) if n <= d else matmul(transposed, vectors)
    if mode == "spectral":
        return _spectral(gram, wide=n > d)
    eye = identity(gram)
    if mode == "soft" and n <= d:
        return xp.sum(square(gram * (1 - eye)), axis=(-2, -1))
    # ||G - I||^2 of the larger matrix is that of the smaller one plus 1 for each eigenvalue 0 that it lacks
    hard = xp.sum(square(gram - eye), axis=(-2, -1)) + max(n - d, 0)
    if mode == "hard":
        return hard
    return hard - xp.sum(square(xp.sum(square(vectors), axis=-1) - 1), axis=-1)


def _vectors(x: Any, axis: str, per_sample: bool) -> Any:
    """`x` as [..., n, d]: the vectors whose Gram matrix to take."""
    xp = namespace(x)
    if per_sample:
        return xp.matrix_transpose(x) if axis == "vocabulary" else x
    if axis == "sequence":
        lead = x.ndim - 2
        x = xp.permute_dims(x, (lead, *range(lead), lead + 1))  # torch.vmap has no rule for moveaxis
        return xp.reshape(x, (x.shape[0], math.prod(x.shape[1:])))
    rows = xp.reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))
    return xp.matrix_transpose(rows) if axis == "vocabulary" else rows


def _spectral(gram: Any, *, wide: bool) -> Any:
    """(largest |eigenvalue - 1|)^2; with `wide`, 0 is an eigenvalue too that `gram` does not show.

    The eigenvectors enter as constants, so that ties between eigenvalues put no 1/0 into a derivative. One step of
    perturbation theory from them is right to first order, and the Rayleigh quotient squares the error: value, first and
    second derivative are exact.
    """
    xp = namespace(gram)
    if not hasattr(xp.linalg, "eigh"):
        raise NotImplementedError(
            f"orthogonality: mode='spectral' needs linalg.eigh, which {xp.__name__} lacks. Use 'soft' or 'hard'."
        )
    constant = stop_gradient(gram)
    eigenvalues, eigenvectors = namespace(constant).linalg.eigh(constant)
    low, high = eigenvalues[..., 0], eigenvalues[..., -1]
    from_top = high - 1 >= 1 - low
    value = xp.where(from_top, high, low)
    vector = xp.where(from_top[..., None], eigenvectors[..., -1], eigenvectors[..., 0])
    gap = value[..., None] - eigenvalues
    scale = xp.max(xp.abs(eigenvalues), axis=-1, keepdims=True)
    tied = xp.abs(gap) <= scale * (8 * gram.shape[-1] * xp.finfo(gram.dtype).eps)  # what eigh makes of a tie
    inverse_gap = xp.where(tied, 0.0, 1 / xp.where(tied, 1.0, gap))

    change = matmul(gram - constant, vector[..., None])  # zero, but not its derivative
    step = matmul(eigenvectors, inverse_gap[..., None] * matmul(xp.matrix_transpose(eigenvectors), change))
    v = vector[..., None] + step
    rayleigh = xp.sum(v * matmul(gram, v), axis=(-2, -1)) / xp.sum(v * v, axis=(-2, -1))
    deviation = square(rayleigh - 1)
    return xp.where(xp.abs(value - 1) < 1, 1.0, deviation) if wide else deviation


def _requires_samples(arrays: tuple[Any, ...], options: Mapping[str, Any]) -> None:
    shape = tuple(arrays[0].shape)
    if len(shape) != 2 or shape[0] == 1:
        raise ValueError(f"covariance: `x` must have shape (n, d) with n >= 2, got {shape}. Reshape it to two axes.")


@penalty(terms="whole", reduction="sum", requires=_requires_samples)
def covariance(x: Array, /, **shared: Unpack[Shared]) -> Array:
    r"""Squared covariances between features, which decorrelates them (VICReg's covariance term).

    :math:`\frac{1}{d} \sum_{i \ne j} C_{ij}^2` with :math:`C` the covariance of the d columns, n - 1 in its
    denominator.

    Parameters
    ----------
    x : array, shape (n, d)
        n >= 2 samples of d features, or none.

    Returns
    -------
    array, shape ()
        Float32 at least.

    Notes
    -----
    The smaller of the d x d and the n x n matrix is built. With n x n (d > n) the value is the difference of two
    sums, with the rounding error of the sum of squared variances.

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
    centered = x - xp.mean(x, axis=0, keepdims=True)
    transposed = xp.matrix_transpose(centered)
    scale = 1 / (d * (n - 1) ** 2)
    if d <= n:
        products = matmul(transposed, centered)
        return scale * xp.sum(square(products * (1 - identity(products))))
    variances = xp.sum(square(centered), axis=0)
    return scale * (xp.sum(square(matmul(centered, transposed))) - xp.sum(square(variances)))


def _metric_terms(options: Mapping[str, Any]) -> Shape:
    return "elements" if options["metric"] in ("mse", "l1") else "rows"


@penalty(terms=_metric_terms, reduction="mean")
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

    mse: :math:`(a - b)^2`; l1: :math:`|a - b|`; cosine: :math:`1 - \cos(a, b)`; kl: the mean of :math:`KL(A\|B)` and
    :math:`KL(B\|A)`; js: the Jensen-Shannon divergence.

    Parameters
    ----------
    a, b : array, shape (...)
        Same shape; log-probabilities for "kl" and "js".
    metric : {"mse", "l1", "cosine", "kl", "js"}, default "mse"
        "mse" and "l1" have one term for each element, the others one for each row.
    axis : int, default -1
        The axis of a row's features or classes.

    Returns
    -------
    array, shape () or with ``reduction="none"`` that of the inputs, without `axis` for "cosine", "kl" and "js"
        Float32 at least.

    Notes
    -----
    The cosine of a zero vector and any other is 0, with gradient 0. Slope 0 of "l1" where a = b.

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
    return symmetric_kl(a, b, axis=axis) if metric == "kl" else jensen_shannon(a, b, beta=0.5, axis=axis)


def _cosine_distance(a: Any, b: Any, *, axis: int) -> Any:
    """1 - cos as half the squared distance of the unit vectors, which does not cancel for close ones."""
    xp = namespace(a, b)
    if care_is_left_out():
        a, b = (x / xp.expand_dims(safe_norm(x, axis=axis), axis=axis) for x in (a, b))
        return 0.5 * xp.sum(square(a - b), axis=axis)
    a, b = unit(a, axis=axis), unit(b, axis=axis)
    lengths = xp.sum(square(a), axis=axis), xp.sum(square(b), axis=axis)  # 1, or 0 for a zero vector
    zeros = sum(xp.where(length == 0, 0.5, xp.zeros_like(length)) for length in lengths)
    return 0.5 * xp.sum(square(a - b), axis=axis) + zeros


@penalty(terms="whole", reduction="sum")
def output_magnitude(
    x: Array, /, *, target: NonNegative = 1.0, norm: Literal["rms", "l2"] = "rms", **shared: Unpack[Shared]
) -> Array:
    r"""Squared distance of the outputs' overall size from a target: a cheap proxy of a gradient penalty.

    :math:`(\|x\| - \text{target})^2` over all of `x`.

    Parameters
    ----------
    x : array, shape (...)
        Outputs.
    target : float, default 1.0
        The size to have, >= 0, in units of `x`.
    norm : {"rms", "l2"}, default "rms"
        Root of the mean, or of the sum, of squares.

    Returns
    -------
    array, shape ()
        Float32 at least.

    Notes
    -----
    Gradient 0, of every order, where `x` is all zeros and the target is not 0.

    References
    ----------
    .. [1] Gulrajani et al., "Improved training of Wasserstein GANs", NeurIPS 2017, for the penalty it stands in for.

    Examples
    --------
    >>> float(output_magnitude(np.asarray([3.0, 4.0]), norm="l2"))
    16.0
    """
    elements = math.prod(x.shape) if norm == "rms" else 1
    if target == 0:  # no root to take and square again, which would lose the second derivative at 0
        return namespace(x).sum(square(x)) / elements
    return square(safe_norm(x) / elements**0.5 - target)
