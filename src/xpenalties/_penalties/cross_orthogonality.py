"""Orthogonality of the rows of one matrix to those of another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from .._arrays.numerics import gram_matrix, is_at_most, matmul, square, unit
from .._core.types import Array
from ..backends import namespace
from .decorator import Shared, penalty

__all__ = ["cross_orthogonality"]


def _check_shapes(arrays: tuple[Any, ...], options: Mapping[str, Any]) -> None:
    of_a, of_b = (tuple(x.shape) for x in arrays)
    if len(of_a) < 2 or len(of_a) != len(of_b) or of_a[:-2] != of_b[:-2] or of_a[-1] != of_b[-1]:
        raise ValueError(
            f"cross_orthogonality: `a` and `b` must have the shapes (..., m, d) and (..., n, d), got {of_a} and "
            f"{of_b}. Only their numbers of rows may differ."
        )


@penalty(terms="matrices", reduction="sum", check_arrays=_check_shapes, same_shape=False)
def cross_orthogonality(a: Array, b: Array, /, *, normalize: bool = True, **shared: Unpack[Shared]) -> Array:
    r"""Distance of the rows of one matrix from being orthogonal to those of another (O-LoRA).

    Each term is :math:`\|A B^T\|_F^2 = \sum_{ij} (a_i \cdot b_j)^2` for two matrices along the last two axes. With
    `normalize`, that is the sum of the squared cosines of all pairs of a row of `a` and a row of `b`.

    Parameters
    ----------
    a, b : array, shapes (..., m, d) and (..., n, d)
        Real floating point. Only the numbers of rows, m and n, may differ.
    normalize : bool, default True
        Divide each row by its L2 norm first. A row of zeros stays zero, with gradient 0.

    Returns
    -------
    array, shape (), or that of the leading axes with ``reduction="none"``
        In float32 or wider.

    Raises
    ------
    TypeError
        If an input is not a real floating-point array, or `normalize` is not a bool.
    ValueError
        If the inputs have fewer than two axes, or shapes that differ in more than the number of rows.

    Notes
    -----
    No factor: each pair of rows counts once. Pairs of two rows of `a` do not count; use `orthogonality` for those.

    To keep a low-rank adapter orthogonal to earlier ones, pass its matrix of shape (rank, features) as `a`. Pass those
    of the earlier tasks, joined along the rows, as `b`. As a constant, `b` gets no gradient.

    If m n > d^2, the m x n matrix is never built: the value is :math:`\langle A^T A, B^T B \rangle`, of d x d matrices.
    It is then rounded relative to :math:`\|A^T A\|_F \|B^T B\|_F`, and so may be just below 0.

    `where` and `weights` select pairs of matrices, not rows: a row of `a` belongs to all rows of `b`. To weigh rows,
    pass ``normalize=False`` and rows that you multiplied by roots of weights.

    References
    ----------
    .. [1] Wang et al., "Orthogonal subspace learning for language model continual learning", Findings of EMNLP 2023.

    Examples
    --------
    >>> a, b = np.asarray([[3.0, 0.0, 0.0]]), np.asarray([[0.0, 1.0, 2.0], [2.0, 2.0, 0.0]])
    >>> round(float(cross_orthogonality(a, b)), 6)
    0.5
    >>> float(cross_orthogonality(a, b, normalize=False))
    36.0
    """
    xp = namespace(a, b)
    if normalize:
        a, b = unit(a, axis=-1), unit(b, axis=-1)
    rows, columns = a.ndim - 2, a.ndim - 1
    if is_at_most(a.shape[rows] * b.shape[rows], a.shape[columns] ** 2):
        products = square(matmul(a, xp.matrix_transpose(b)))
    else:
        products = gram_matrix(a, (columns,), (rows,)) * gram_matrix(b, (columns,), (rows,))
    return xp.sum(products, axis=(-2, -1))
