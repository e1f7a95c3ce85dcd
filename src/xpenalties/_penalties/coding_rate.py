"""The coding rate of a batch, which is large if its samples fill many directions."""

from __future__ import annotations

from typing import Any, Literal, Unpack

from .._arrays.numerics import (
    array_backend,
    gram_matrix,
    identity,
    is_at_most,
    namespace_of,
    of_all_vectors,
)
from .._core.checks import Positive
from .._core.types import Array
from ..backends import namespace
from .decorator import Shared, penalty
from .sample_means import products_of_features, samples_check

__all__ = ["coding_rate"]


@penalty(
    terms="whole",
    reduction="sum",
    extras=("weights",),
    check_arrays=samples_check("coding_rate", "x"),
    samples="rows",
)
def coding_rate(
    x: Array, /, *, eps: Positive = 0.5, mode: Literal["bonus", "penalty"] = "bonus", **shared: Unpack[Shared]
) -> Array:
    r"""Coding rate of samples, subtracted by default: features that fill the space do not collapse (MCR2, EMP-SSL).

    :math:`R = \frac{1}{2} \log\det\left(I + \frac{d}{n \epsilon^2} X^T X\right)`, about the number of nats for each of
    the n samples if their features are coded with errors of size :math:`\epsilon` = `eps`. "bonus" returns :math:`-R`,
    to be added to a loss that is minimized; "penalty" returns :math:`R`.

    Parameters
    ----------
    x : array, shape (n, d)
        n samples of d features, real floating point.
    eps : float, default 0.5
        The size of the errors that do not matter, > 0, in units of `x`.
    mode : {"bonus", "penalty"}, default "bonus"
        The sign. A bonus is negative.

    Returns
    -------
    array, shape ()
        In nats, in float32 or wider.

    Raises
    ------
    TypeError
        If `x` is not a real floating-point array, or an option has the wrong type.
    ValueError
        If `x` does not have two axes, `eps` is not > 0, or `mode` is not one of its names.
    NotImplementedError
        If the array library has no ``linalg.slogdet``.

    Notes
    -----
    Rows are taken as they are, with their mean. The papers divide each row by its L2 norm first. The gradient at zeros
    is 0.

    Only the smaller one of the n x n and the d x d matrix is built. The value is rounded relative to 1, even if it is
    small. In float32, do not let :math:`\frac{d}{n \epsilon^2} X^T X` have eigenvalues above 1e7: their rounding hides
    the 1 that is added to eigenvalues near 0. For unit rows, they are at most :math:`d / \epsilon^2`. If squares
    overflow, the value is infinite or NaN.

    Weights :math:`w` replace :math:`X^T X` by :math:`\sum_k w_k x_k x_k^T` and n by :math:`\sum w`, so that only their
    ratios matter.

    References
    ----------
    .. [1] Yu, Chan, You, Song & Ma, "Learning diverse and discriminative representations via the principle of maximal
       coding rate reduction", NeurIPS 2020.
    .. [2] Tong, Chen, Ma & LeCun, "EMP-SSL: towards self-supervised learning in one training epoch", arXiv:2304.03977,
       2023.

    Examples
    --------
    >>> x = np.asarray([[1.0, 0.0], [0.0, 1.0]])
    >>> round(float(coding_rate(x, eps=1.0, mode="penalty")), 4) == round(math.log(2), 4)
    True
    >>> x = np.asarray([[1.0, 0.0], [1.0, 0.0]])  # collapsed
    >>> round(float(coding_rate(x, eps=1.0, mode="penalty")), 4) == round(math.log(3) / 2, 4)
    True
    """
    weights: Any = shared.get("weights")
    xp = namespace_of(x, weights)
    n, d = x.shape
    backend = array_backend(x)
    of_rows = is_at_most(n, d)
    if weights is None:
        samples = backend.number(n, x)
        products = gram_matrix(x, (0,), (1,)) if of_rows else gram_matrix(x, (1,), (0,))
    else:
        total = xp.sum(weights)
        samples = xp.where(total == 0, 1.0, total)
        if of_rows:  # by Sylvester's identity, the determinant is that of a matrix without roots of weights
            products = xp.expand_dims(of_all_vectors(weights), axis=-1) * gram_matrix(x, (0,), (1,))
        else:
            products = products_of_features(x, xp.expand_dims(weights, axis=-1))
    factor = backend.number(d, x) / (samples * eps**2)
    rate = 0.5 * _log_determinant(identity(products) + factor * products)
    return -rate if mode == "bonus" else rate


def _log_determinant(matrix: Any) -> Any:
    xp = namespace(matrix)
    if not hasattr(xp.linalg, "slogdet"):
        raise NotImplementedError(f"coding_rate: needs linalg.slogdet, which {xp.__name__} lacks. Convert `x` first.")
    return xp.linalg.slogdet(matrix)[1]
