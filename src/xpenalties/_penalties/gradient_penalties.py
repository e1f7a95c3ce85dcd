"""Penalties on the derivative of a function with respect to its input: WGAN-GP, R1, Jacobian regularization."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from .._arrays.numerics import array_backend, at_least_float32, safe_norm, square
from .._core.checks import NonNegative
from .._core.types import Array
from ..backends import namespace
from .decorator import Shared, penalty
from .input_gradients import (
    Function,
    array_option,
    check_sample_outputs,
    input_gradient,
    rows_of_samples,
    samples_axis_check,
    value_and_pullback,
)
from .spec import Shape

__all__ = ["gradient_penalty", "interpolated_gradient_penalty", "jacobian_penalty"]


def _terms(options: Mapping[str, Any]) -> Shape:
    return "samples" if options["per_sample"] else "whole"


@penalty(terms=_terms, reduction="mean", check_arrays=samples_axis_check("gradient_penalty", "x"))
def gradient_penalty(
    fn: Function,
    x: Array,
    /,
    *,
    target_norm: NonNegative = 1.0,
    one_sided: bool = False,
    per_sample: bool = True,
    **shared: Unpack[Shared],
) -> Array:
    r"""Squared distance between the norm of a function's gradient and a target, such as a Lipschitz constant.

    Each term is :math:`(\|\nabla_x f(x)\|_2 - t)^2` for a sample, with :math:`t` = `target_norm`. If `one_sided` is
    True, it is :math:`\max(0, \|\nabla_x f(x)\|_2 - t)^2`. With ``target_norm=0`` it is :math:`\|\nabla_x f(x)\|_2^2`:
    that is R1 [2]_ on real samples and R2 on generated ones, without their factor 1/2.

    Parameters
    ----------
    fn : callable
        Takes `x` and returns one value for each sample, shape (n,) or (n, 1), not reduced over the batch. With
        ``per_sample=False`` it returns a single value, shape ().
    x : array, shape (n, ...)
        Samples along the first axis, real floating point, in the dtype that `fn` takes.
    target_norm : float, default 1.0
        The norm that the gradient should have, >= 0.
    one_sided : bool, default False
        If True, a norm below the target costs nothing.
    per_sample : bool, default True
        If True, take one norm for each sample, over all other axes. If False, take one norm over all of `x`.

    Returns
    -------
    array, shape (), or (n,) with ``reduction="none"``
        In float32 or wider. Differentiable with respect to the parameters that `fn` uses, and with respect to `x`.

    Raises
    ------
    TypeError
        If `x` is not a real floating-point array, or an option has the wrong type. If `fn` is not callable, does not
        return a real array of the same framework, or converts its input, for example with NumPy's functions or float()
        (see `namespace`).
    ValueError
        If `fn` returns another shape, `x` has no axis of samples, or an option is out of range. Eager PyTorch and NumPy
        also raise it if the result of `fn` does not depend on `x`.
    NotImplementedError
        If the arrays' library has no automatic differentiation and cannot borrow any, see `value_and_grad`. PyTorch's
        backward pass raises it if `fn` contains an operation that PyTorch cannot differentiate twice, such as flash
        attention.

    Notes
    -----
    `fn` must treat samples independently: with batch norm, for example, the gradient of one sample would contain parts
    of the others. `fn` sees a masked-out sample as zeros.

    At the target the slope is 0. If the norm is 0 and the target is not, gradients of every order are 0.

    References
    ----------
    .. [1] Gulrajani et al., "Improved training of Wasserstein GANs", NeurIPS 2017.
    .. [2] Mescheder, Geiger & Nowozin, "Which training methods for GANs do actually converge?", ICML 2018.

    Examples
    --------
    >>> x = np.asarray([[3.0, 4.0], [0.0, 1.0]])
    >>> def critic(x):
    ...     xp = namespace(x)
    ...     return xp.sum(x * x, axis=-1) / 2  # its gradient is x
    >>> float(gradient_penalty(critic, x))
    8.0
    >>> gradient_penalty(critic, x, target_norm=0, reduction="none").tolist()
    [25.0, 1.0]
    """
    gradient = input_gradient("gradient_penalty", fn, x, per_sample=per_sample)
    return _squared_deviation(gradient, target_norm, one_sided=one_sided, per_sample=per_sample)


@penalty(terms="samples", reduction="mean", check_arrays=samples_axis_check("interpolated_gradient_penalty", "real"))
def interpolated_gradient_penalty(
    fn: Function,
    real: Array,
    fake: Array,
    /,
    *,
    target_norm: NonNegative = 1.0,
    one_sided: bool = False,
    alpha: Any = None,
    rng: Any = None,
    **shared: Unpack[Shared],
) -> Array:
    r"""`gradient_penalty` at random points between real and generated samples, as in WGAN-GP [1]_.

    Each term is :math:`(\|\nabla f(\alpha x + (1 - \alpha) \tilde x)\|_2 - t)^2` for a real sample :math:`x` and a
    generated one :math:`\tilde x`, with :math:`t` = `target_norm` and one :math:`\alpha \sim U(0, 1)` for each pair.

    Parameters
    ----------
    fn : callable
        Takes the points and returns one value for each sample, shape (n,) or (n, 1).
    real, fake : array, shape (n, ...)
        Samples along the first axis, real floating point, of the same shape. Gradients flow to both, so you
        usually detach the generated samples first.
    target_norm, one_sided
        As for `gradient_penalty`.
    alpha : array, shape (n,) or (n, 1, ...), optional
        The fraction of `real` in each point, in place of random ones.
    rng : generator, optional
        Source of the random numbers: a torch.Generator for PyTorch, a key for JAX, a numpy.random.Generator for any
        framework except JAX. By default, the framework's own generator. JAX has none, so pass a new key at each step.

    Returns
    -------
    array, shape (), or (n,) with ``reduction="none"``
        In float32 or wider.

    Raises
    ------
    TypeError
        As `gradient_penalty`; also if `alpha` is not a real floating-point array, or `rng` has the wrong type.
    ValueError
        As `gradient_penalty`; also if `alpha` does not have one number for each sample.
    NotImplementedError
        As `gradient_penalty`.

    Notes
    -----
    If the norm is 0 and the target is not, gradients of every order are 0.

    References
    ----------
    .. [1] Gulrajani et al., "Improved training of Wasserstein GANs", NeurIPS 2017.

    Examples
    --------
    >>> real, fake = np.asarray([[3.0], [5.0]]), np.asarray([[1.0], [1.0]])
    >>> alpha = np.asarray([0.5, 1.0])
    >>> float(interpolated_gradient_penalty(lambda x: x[:, 0] ** 2 / 2, real, fake, alpha=alpha))  # at 2 and 5
    8.5
    """
    caller = "interpolated_gradient_penalty"
    shape = (real.shape[0],) + (1,) * (real.ndim - 1)
    if alpha is None:
        alpha = array_backend(real).random.uniform(caller, rng, shape, real)
    else:
        alpha = _checked_alpha(caller, alpha, real, shape)
    gradient = input_gradient(caller, fn, alpha * real + (1 - alpha) * fake, per_sample=True)
    return _squared_deviation(gradient, target_norm, one_sided=one_sided, per_sample=True)


@penalty(terms="samples", reduction="mean", check_arrays=samples_axis_check("jacobian_penalty", "x"))
def jacobian_penalty(
    fn: Function, x: Array, /, *, projections: int = 1, rng: Any = None, **shared: Unpack[Shared]
) -> Array:
    r"""Squared Frobenius norm of a function's Jacobian for each sample, estimated by random projections.

    Each term estimates :math:`\|J\|_F^2 = E \|J^T v\|_2^2` for a sample (Hutchinson [2]_), as the mean over
    `projections` vectors :math:`v` whose elements are 1 or -1 with equal probability.

    Parameters
    ----------
    fn : callable
        Takes `x` and returns the outputs of each sample, an array of shape (n, ...). As for `gradient_penalty`, it must
        treat samples independently.
    x : array, shape (n, ...)
        Samples along the first axis, real floating point.
    projections : int, default 1
        Number of vectors, and of backward passes through `fn`; >= 1. The estimate is unbiased for any number.
    rng : generator, optional
        As for `interpolated_gradient_penalty`.

    Returns
    -------
    array, shape (), or (n,) with ``reduction="none"``
        In float32 or wider.

    Raises
    ------
    TypeError
        As `gradient_penalty`; also if `rng` has the wrong type.
    ValueError
        As `gradient_penalty`; also if `projections` is below 1.
    NotImplementedError
        As `gradient_penalty`.

    Notes
    -----
    No factor 1/2. The estimate is exact if the gradients of the outputs are orthogonal, as for elementwise functions.

    References
    ----------
    .. [1] Hoffman, Roberts & Yaida, "Robust learning with Jacobian regularization", arXiv:1908.02729, 2019.
    .. [2] Hutchinson, "A stochastic estimator of the trace of the influence matrix for Laplacian smoothing splines",
       Communications in Statistics 19(2), 1990.

    Examples
    --------
    >>> x = np.asarray([[1.0, 2.0], [3.0, 4.0]])
    >>> jacobian_penalty(lambda x: x * x, x, reduction="none").tolist()  # (2 x)^2, summed
    [20.0, 100.0]
    """
    caller = "jacobian_penalty"
    if projections < 1:
        raise ValueError(f"{caller}: `projections` must be at least 1, got {projections}. One is an unbiased estimate.")
    out, pullback = value_and_pullback(caller, fn, x, check_sample_outputs)
    signs = array_backend(out).random.uniform(caller, rng, (projections, *out.shape), out)
    xp = namespace(signs, out)
    signs = xp.where(signs < 0.5, -1.0, xp.ones_like(signs))
    total: Any = 0.0
    for i in range(projections):
        gradient, axes = rows_of_samples(pullback(signs[i, ...]))
        total = total + xp.sum(square(gradient), axis=axes)
    return total / projections


def _checked_alpha(caller: str, alpha: Any, real: Any, shape: tuple[int, ...]) -> Any:
    """Return `alpha`, checked, in `shape` (n, 1, ...) and the dtype of `x`."""
    alpha = array_option(caller, "alpha", alpha, "real", real)
    if tuple(alpha.shape) not in (shape, shape[:1]):
        raise ValueError(
            f"{caller}: `alpha` must have one number for each sample, shape {shape[:1]}, got {tuple(alpha.shape)}. "
            "Broadcast it explicitly."
        )
    return namespace(alpha).reshape(alpha, shape)


def _squared_deviation(gradient: Any, target: float, *, one_sided: bool, per_sample: bool) -> Any:
    """Return the squared distance of the gradient's norm from the target."""
    rows, axis = rows_of_samples(gradient) if per_sample else (at_least_float32(gradient), None)
    xp = namespace(rows)
    if target == 0:  # no root: to square it again would lose the second derivative at 0
        return xp.sum(square(rows), axis=axis)
    excess = safe_norm(rows, axis=axis) - target
    return square(xp.where(excess > 0, excess, 0.0) if one_sided else excess)
