"""Spectral norm of G - I for a Gram matrix G, with exact derivatives even if eigenvalues are equal."""

from __future__ import annotations

from typing import Any

from .._arrays.numerics import array_backend, matmul, square, stop_gradient
from ..backends import namespace

__all__ = ["squared_spectral_distance"]


def squared_spectral_distance(gram: Any, *, has_zero: bool) -> Any:
    """Return max |eigenvalue - 1|^2 over the eigenvalues of `gram`, and over 0 too if `has_zero`.

    The eigenvectors are constants, so equal eigenvalues put no 1/0 into a derivative. One step of perturbation theory
    makes them right to first order, and the Rayleigh quotient squares the remaining error. So the value and its first
    and second derivatives are exact.
    """
    xp = namespace(gram)
    if not hasattr(xp.linalg, "eigh"):
        raise NotImplementedError(
            f"orthogonality: mode='spectral' needs linalg.eigh, which {xp.__name__} lacks. Use 'soft' or 'hard'."
        )
    constant = stop_gradient(gram)
    eigenvalues, eigenvectors = namespace(constant).linalg.eigh(constant)
    lowest, highest = eigenvalues[..., 0], eigenvalues[..., -1]
    is_highest = highest - 1 >= 1 - lowest
    value = xp.where(is_highest, highest, lowest)
    vector = xp.where(is_highest[..., None], eigenvectors[..., -1], eigenvectors[..., 0])
    gap = value[..., None] - eigenvalues
    scale = xp.max(xp.abs(eigenvalues), axis=-1, keepdims=True)
    rounding = array_backend(gram).number(8 * gram.shape[-1], gram) * xp.finfo(gram.dtype).eps  # the error of eigh
    is_tie = xp.abs(gap) <= scale * rounding
    inverse_gap = xp.where(is_tie, 0.0, 1 / xp.where(is_tie, 1.0, gap))

    change = matmul(gram - constant, vector[..., None])  # 0, but its derivative is not
    step = matmul(eigenvectors, inverse_gap[..., None] * matmul(xp.matrix_transpose(eigenvectors), change))
    v = vector[..., None] + step
    rayleigh = xp.sum(v * matmul(gram, v), axis=(-2, -1)) / xp.sum(v * v, axis=(-2, -1))
    deviation = square(rayleigh - 1)
    return xp.where(xp.abs(value - 1) < 1, 1.0, deviation) if has_zero else deviation
