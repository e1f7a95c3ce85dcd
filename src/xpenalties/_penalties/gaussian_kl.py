"""KL divergence between Gaussians, for the latents of variational autoencoders and similar models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Unpack

from .._arrays.numerics import array_backend, exp_minus_tangent, namespace_of, safe_divide, square
from .._core.checks import NonNegative
from .._core.types import Array
from .beside import as_beside, check_beside
from .decorator import Shared, penalty
from .log_probabilities import lowest
from .spec import Shape

__all__ = ["gaussian_kl"]


def _samples(options: Mapping[str, Any]) -> Shape | None:
    return None if options["free_bits"] == 0 else "samples"


def _check(arrays: tuple[Any, ...], options: Mapping[str, Any]) -> None:
    """Check the parameters of Q, and that there is an axis of samples to average over."""
    mean = arrays[0]
    for name in ("mean_q", "log_var_q"):
        value = options.get(name)
        if value is not None:
            check_beside("gaussian_kl", name, value, "mean", mean)
    if options.get("free_bits", 0.0) != 0 and mean.ndim == 0:
        raise ValueError("gaussian_kl: `mean` must have an axis of samples for `free_bits`, got shape (). Add one.")


@penalty(terms="elements", reduction="mean", extras=("mask", "weights"), check_arrays=_check, samples=_samples)
def gaussian_kl(
    mean: Array,
    log_var: Array,
    /,
    *,
    mean_q: Any = None,
    log_var_q: Any = None,
    free_bits: NonNegative = 0.0,
    **shared: Unpack[Shared],
) -> Array:
    r"""KL divergence between Gaussians with independent components: the penalty of variational autoencoders.

    Each term is :math:`\frac{1}{2} (\mu^2 + \sigma^2 - 1 - \log \sigma^2)`, the divergence of one component P from
    N(0, 1), or :math:`\frac{1}{2} ((\mu - \mu_Q)^2 / \sigma_Q^2 + \sigma^2 / \sigma_Q^2 - 1 - \log(\sigma^2 /
    \sigma_Q^2))`, that from Q.

    Parameters
    ----------
    mean, log_var : array, shape (...)
        Means :math:`\mu` and logarithms of the variances, :math:`\log \sigma^2`, of P. Real floating point, of the same
        shape.
    mean_q, log_var_q : number or array, optional
        The same of Q, by default 0 and 0, which is N(0, 1). An array must broadcast to `mean`.
    free_bits : float, default 0.0
        Divergence of each latent that costs nothing, in nats, >= 0. If it is not 0, the first axis counts samples, the
        other axes are latents, and the result is a single number: the mean over the latents of
        :math:`\max(\text{free\_bits}, \overline{\mathrm{KL}})`, where :math:`\overline{\mathrm{KL}}` is the mean of a
        latent's terms over the samples. `where` and `weights` are then of the samples, of shape (n,), and every
        `reduction` returns that number.

    Returns
    -------
    array, shape (), or that of `mean` with ``reduction="none"``
        In nats, in float32 or wider.

    Raises
    ------
    TypeError
        If an input is not a real floating-point array, or an option has the wrong type.
    ValueError
        If the shapes differ, `mean_q` or `log_var_q` does not broadcast to `mean`, `free_bits` is not >= 0, or there
        is no axis of samples for it.

    Notes
    -----
    Evidence lower bounds add the terms of all latents. For n samples that is ``reduction="sum", normalizer=n`` or,
    with `free_bits` and d latents, ``normalizer=1 / d``.

    Nothing is clamped. The value keeps its digits if P and Q are close, and variances may be as small or large as their
    logarithms allow. A log-variance of -inf is a point: the value is +inf, or 0 if P and Q are the same point.

    A latent whose mean divergence is at most `free_bits` has gradient 0. With ``free_bits=0`` the terms are >= 0
    anyway, so that the two cases agree in the limit.

    References
    ----------
    .. [1] Kingma & Welling, "Auto-encoding variational Bayes", ICLR 2014.
    .. [2] Kingma et al., "Improved variational inference with inverse autoregressive flow", NeurIPS 2016, for
       `free_bits`.

    Examples
    --------
    >>> mean, log_var = np.asarray([[0.0, 2.0], [0.0, 4.0]]), np.zeros((2, 2))
    >>> gaussian_kl(mean, log_var, reduction="none").tolist()
    [[0.0, 2.0], [0.0, 8.0]]
    >>> float(gaussian_kl(mean, log_var, free_bits=0.5))
    2.75
    """
    mask, weights = shared.get("mask"), shared.get("weights")
    beside = (None if x is None else _beside(x, mean, mask) for x in (mean_q, log_var_q))
    terms = _kl(mean, log_var, *beside)
    if free_bits == 0:
        return terms
    xp = namespace_of(terms, weights)
    if weights is None:
        of_latents = xp.mean(terms, axis=0)
    else:
        column = xp.reshape(weights, (weights.shape[0],) + (1,) * (terms.ndim - 1))
        of_latents = safe_divide(xp.sum(column * terms, axis=0), xp.sum(weights))
    # an array, not a number: torch.compile would compile again for each number
    floor = xp.ones_like(of_latents) * free_bits
    return xp.mean(xp.where(of_latents <= floor, floor, of_latents))  # keeps NaN


def _beside(value: Any, x: Any, mask: Any) -> Any:
    """Return a parameter of Q as an array. It may be NaN where samples or terms are masked."""
    value = as_beside(value, x)
    xp = namespace_of(x, None if isinstance(value, float) else value, mask)
    if isinstance(value, float):
        return xp.zeros_like(x) + value
    return value if mask is None else xp.where(mask, value, 0.0)


def _kl(mean: Any, log_var: Any, mean_q: Any, log_var_q: Any) -> Any:
    """Return the divergence of each component."""
    backend = array_backend(mean)
    xp = namespace_of(mean, log_var, mean_q, log_var_q)
    z = mean if mean_q is None else mean - mean_q
    d = log_var
    squares = square(z)
    if log_var_q is not None:
        both_zero = (log_var == -math.inf) & (log_var_q == -math.inf)
        d = xp.where(both_zero, 0.0, log_var - log_var_q)
        half = -0.5 * log_var_q
        overflows = half > -backend.dtype(mean.dtype).log_least
        squares = square(z * xp.exp(xp.where(overflows, 0.0, half)))
        squares = xp.where(overflows & (z != 0), math.inf, squares)
    is_infinite = xp.abs(d) > -lowest(mean)  # beyond that, the square in `exp_minus_tangent` overflows
    growth = exp_minus_tangent(xp.where(is_infinite, 0.0, d))
    return 0.5 * (squares + xp.where(is_infinite, math.inf, growth))
