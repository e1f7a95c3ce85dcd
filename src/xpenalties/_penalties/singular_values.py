"""Functions of singular values and eigenvalues, with exact first and second derivatives even if some are equal.

The vectors of a decomposition are constants here, so equal values put no 1/0 into a derivative. Perturbation theory
gives the derivatives: a difference from the constant, which is 0, has the right coefficients.
"""

from __future__ import annotations

import math
from typing import Any

from .._arrays.numerics import array_backend, gram_matrix, identity, is_at_most, matmul, square, stop_gradient
from ..backends import namespace

__all__ = ["squared_spectral_distance", "squared_spectral_norm", "sum_of_singular_values"]


def squared_spectral_distance(gram: Any, *, has_zero: bool) -> Any:
    """Return max |eigenvalue - 1|^2 over the eigenvalues of `gram`, and over 0 too if `has_zero`."""
    xp = namespace(gram)
    if not hasattr(xp.linalg, "eigh"):
        raise NotImplementedError(
            f"orthogonality: mode='spectral' needs linalg.eigh, which {xp.__name__} lacks. Use 'soft' or 'hard'."
        )
    constant = stop_gradient(gram)
    eigenvalues, eigenvectors = namespace(constant).linalg.eigh(constant)
    is_highest = eigenvalues[..., -1] - 1 >= 1 - eigenvalues[..., 0]
    value = xp.where(is_highest, eigenvalues[..., -1], eigenvalues[..., 0])
    vector = xp.where(is_highest[..., None], eigenvectors[..., -1], eigenvectors[..., 0])
    deviation = square(_eigenvalue(gram, gram - constant, eigenvalues, eigenvectors, value, vector) - 1)
    return xp.where(xp.abs(value - 1) < 1, 1.0, deviation) if has_zero else deviation


def squared_spectral_norm(x: Any) -> Any:
    """Return the square of the largest singular value of each matrix."""
    rows, columns = x.ndim - 2, x.ndim - 1
    if is_at_most(x.shape[rows], x.shape[columns]):
        gram = gram_matrix(x, (rows,), (columns,))
    else:
        gram = gram_matrix(x, (columns,), (rows,))
    xp, constant = namespace(gram), stop_gradient(gram)
    plain = namespace(constant)
    if not hasattr(xp.linalg, "eigh"):
        raise NotImplementedError(f"spectral_norm: needs linalg.eigh, which {xp.__name__} lacks. Convert `x` first.")
    is_finite = plain.all(plain.isfinite(constant), axis=(-2, -1))
    finite = plain.where(is_finite[..., None, None], constant, 0.0)  # LAPACK raises an error for NaN
    eigenvalues, eigenvectors = plain.linalg.eigh(finite)
    value, vector = eigenvalues[..., -1], eigenvectors[..., -1]
    norm = _eigenvalue(gram, gram - constant, eigenvalues, eigenvectors, value, vector)
    trace = plain.sum(plain.where(identity(constant) == 1, constant, 0.0), axis=(-2, -1))  # beside it, inf - inf is NaN
    return xp.where(is_finite, norm, trace)


def _eigenvalue(gram: Any, change: Any, eigenvalues: Any, eigenvectors: Any, value: Any, vector: Any) -> Any:
    """Return an eigenvalue of `gram`, with its first and second derivatives. `change` is 0, but its derivative is not.

    One step of perturbation theory makes the constant vector right to first order, and the Rayleigh quotient squares
    the remaining error.
    """
    xp = namespace(gram)
    gap = value[..., None] - eigenvalues
    scale = xp.max(xp.abs(eigenvalues), axis=-1, keepdims=True)
    rounding = array_backend(gram).number(8 * gram.shape[-1], gram) * xp.finfo(gram.dtype).eps  # the error of eigh
    is_tie = xp.abs(gap) <= scale * rounding
    inverse_gap = xp.where(is_tie, 0.0, 1 / xp.where(is_tie, 1.0, gap))
    change = matmul(change, vector[..., None])
    step = matmul(eigenvectors, inverse_gap[..., None] * matmul(xp.matrix_transpose(eigenvectors), change))
    v = vector[..., None] + step
    return xp.sum(v * matmul(gram, v), axis=(-2, -1)) / xp.sum(v * v, axis=(-2, -1))


def sum_of_singular_values(x: Any) -> Any:
    r"""Return the sum of the singular values of each matrix. Derivatives are those of the sum of the nonzero ones.

    For :math:`X = U S V^T` and :math:`A = U^T \Delta V`, the sum for :math:`X + \Delta` is, up to second order,

    .. math:: \sum_i s_i + \mathrm{tr} A + \sum_{ij} \frac{(A_{ij} - A_{ji})^2}{4 (s_i + s_j)}
              + \sum_i \frac{\|R_i\|^2 + \|L_i\|^2}{2 s_i}

    with the rows of :math:`R = U^T \Delta - A V^T` and the columns of :math:`L = \Delta V - U A`. There are sums of
    singular values in the denominators, but no differences.
    """
    x = array_backend(x).whole_matrices(x)
    backend, constant = array_backend(x), stop_gradient(x)
    plain = namespace(constant)
    is_finite = plain.all(plain.isfinite(constant), axis=(-2, -1))
    finite = plain.where(is_finite[..., None, None], constant, 0.0)  # LAPACK raises an error for NaN
    u, s, v_transposed = plain.linalg.svd(finite, full_matrices=False)
    rounding = backend.number(8 * max(x.shape[-2:]), constant) * plain.finfo(constant.dtype).eps  # the error of svd
    is_zero = (s <= s[..., :1] * rounding) | (s < math.exp(backend.dtype(x.dtype).log_least))
    u = plain.where(is_zero[..., None, :], 0.0, u)
    v_transposed = plain.where(is_zero[..., None], 0.0, v_transposed)
    inverse = plain.where(is_zero, 0.0, 1 / plain.where(is_zero, 1.0, s))
    nonzero = plain.where(is_zero, 0.0, s)
    pairs = nonzero[..., None] + nonzero[..., None, :]
    is_zero = pairs == 0
    inverse_pairs = plain.where(is_zero, 0.0, 1 / plain.where(is_zero, 1.0, pairs))

    xp, both = namespace(x), (-2, -1)
    change = x - constant  # 0, but its derivative is not
    of_v, of_u = matmul(change, plain.matrix_transpose(v_transposed)), matmul(plain.matrix_transpose(u), change)
    a = matmul(plain.matrix_transpose(u), of_v)
    left, right = square(of_v - matmul(u, a)), square(of_u - matmul(a, v_transposed))
    first = xp.sum(u * of_v, axis=both)
    second = xp.sum(square(a - xp.matrix_transpose(a)) * inverse_pairs, axis=both) / 4
    second = second + xp.sum((xp.sum(left, axis=-2) + xp.sum(right, axis=-1)) * inverse, axis=-1) / 2
    total = plain.sum(s, axis=-1) + first + second
    return xp.where(is_finite, total, plain.sum(plain.abs(constant), axis=both))
