"""The distance between the products of two sets of samples, which keeps its digits if the sets are close."""

from __future__ import annotations

from typing import Any, Literal

from .._arrays.numerics import gram_matrix, is_at_most, namespace_of, square
from .sample_means import weights_of_pairs

__all__ = ["squared_distance"]


def squared_distance(sums: Any, differences: Any, column: Any, *, of: Literal["samples", "features"]) -> Any:
    """Return the squared Frobenius norm of A A^T - B B^T, of samples, or of A^T A - B^T B, of features.

    With S = A + B and D = A - B, which are passed, these are (S D^T + D S^T) / 2 and (S^T D + D^T S) / 2. The smaller
    one of the n x n and the d x d matrices is built. `column` has the weights of the samples, or is None.
    """
    xp = namespace_of(sums, differences, column)
    n, d = sums.shape
    by_samples = is_at_most(n, d) if of == "samples" else not is_at_most(d, n)

    def products(x: Any, y: Any) -> Any:
        """Return the products of all pairs of samples or, summed over the weighted samples, of features."""
        if by_samples:
            return gram_matrix(x, (0,), (1,), y)
        return gram_matrix(x if column is None else x * column, (1,), (0,), y)

    mixed = products(sums, differences)
    if by_samples == (of == "samples"):
        squares = square(0.5 * (mixed + xp.matrix_transpose(mixed)))
    else:  # the same sum of squares, in terms of the other products
        squares = mixed * xp.matrix_transpose(mixed) + products(sums, sums) * products(differences, differences)
        squares = 0.5 * squares
    if by_samples and column is not None:
        squares = squares * weights_of_pairs(xp.squeeze(column, axis=1))
    return xp.sum(squares)
