"""Penalties on the derivative of a function with respect to its input: WGAN-GP, R1, Jacobian regularization."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Unpack

from .._arrays.gradients import explained
from .._arrays.numerics import safe_norm, square, wide
from .._core.checks import NonNegative
from .._core.types import Array
from ..backends import Backend, backend_of, common_backend, namespace
from .decorator import Shared, penalty
from .spec import Shape

__all__ = ["gradient_penalty", "interpolated_gradient_penalty", "jacobian_penalty"]

Function = Callable[[Any], Any]


def _terms(options: Mapping[str, Any]) -> Shape:
    return "samples" if options["per_sample"] else "whole"


def _samples(caller: str, name: str) -> Callable[[tuple[Any, ...], Mapping[str, Any]], None]:
    def requires(arrays: tuple[Any, ...], options: Mapping[str, Any]) -> None:
        if arrays[0].ndim == 0 and options.get("per_sample", True):
            raise ValueError(
                f"{caller}: `{name}` must have at least 1 axis, that of the samples, got shape (). Add one."
            )

    return requires


@penalty(terms=_terms, reduction="mean", requires=_samples("gradient_penalty", "x"))
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
    r"""Distance of the norm of a function's gradient from a target, such as a critic's Lipschitz constant.

    :math:`(\|\nabla_x f(x)\|_2 - t)^2` for each sample, with :math:`t` = `target_norm`; `one_sided`:
    :math:`\max(0, \|\nabla_x f(x)\|_2 - t)^2`. With ``target_norm=0`` it is :math:`\|\nabla_x f(x)\|_2^2`: R1 [2]_ on
    real samples, R2 on generated ones, without their factor 1/2.

    Parameters
    ----------
    fn : callable
        Takes `x` and returns one value for each sample, shape (n,) or (n, 1), not reduced over the batch. With
        ``per_sample=False`` it returns a single value, shape ().
    x : array, shape (n, ...)
        Samples along the first axis, in the dtype that `fn` takes.
    target_norm : float, default 1.0
        The norm to have, >= 0.
    one_sided : bool, default False
        Whether a norm below the target is as good as the target itself.
    per_sample : bool, default True
        One norm for each sample, over all other axes. False: one norm over all of `x`.

    Returns
    -------
    array, shape () or with ``reduction="none"`` (n,)
        Float32 at least. Differentiable with respect to what `fn` computes with, its parameters, and to `x`.

    Raises
    ------
    ValueError
        If `fn` returns another shape, or a value that does not depend on `x` (where the framework can tell: PyTorch in
        eager mode, and NumPy).
    TypeError
        If `fn` takes its array out of the framework, see `namespace`.
    NotImplementedError
        For arrays without automatic differentiation where there is none to borrow, see `value_and_grad`. From PyTorch's
        backward pass: if `fn` holds what PyTorch cannot differentiate twice, such as flash attention.

    Notes
    -----
    Gradient 0, of every order, where the norm is 0 and the target is not. `fn` sees a masked-out sample as zeros. It
    must treat samples independently of each other, or the norm of one has a part in the others: no batch norm.

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
    gradient = _gradient("gradient_penalty", fn, x, per_sample)
    return _deviation(gradient, target_norm, one_sided, per_sample)


@penalty(terms="samples", reduction="mean", requires=_samples("interpolated_gradient_penalty", "real"))
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

    :math:`(\|\nabla f(\alpha x + (1 - \alpha) \tilde x)\|_2 - t)^2`, :math:`\alpha \sim U(0, 1)` for each sample.

    Parameters
    ----------
    fn : callable
        Takes the points and returns one value for each sample, shape (n,) or (n, 1).
    real, fake : array, shape (n, ...)
        Same shape; the gradient flows into both, so that generated samples are usually detached first.
    target_norm, one_sided
        As for `gradient_penalty`.
    alpha : array, shape (n,), optional
        The share of `real` in each point, in place of a random one. (n, 1, ...) is taken too.
    rng : generator, optional
        torch.Generator, numpy.random.Generator or JAX key; NumPy's serves PyTorch and others as well. By default the
        framework's own generator; JAX has none, so there a key is required, another one at each step.

    Returns
    -------
    array, shape () or with ``reduction="none"`` (n,)
        Float32 at least.

    Raises
    ------
    ValueError, TypeError, NotImplementedError
        As `gradient_penalty`; for an `alpha` that is not one number for each sample; for another kind of `rng`.

    Notes
    -----
    Gradient 0, of every order, where the norm is 0 and the target is not.

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
        alpha = _backend(real).random.uniform(caller, rng, shape, real)
    else:
        alpha = _per_sample(caller, alpha, real, shape)
    gradient = _gradient(caller, fn, alpha * real + (1 - alpha) * fake, True)
    return _deviation(gradient, target_norm, one_sided, True)


@penalty(terms="samples", reduction="mean", requires=_samples("jacobian_penalty", "x"))
def jacobian_penalty(
    fn: Function, x: Array, /, *, projections: int = 1, rng: Any = None, **shared: Unpack[Shared]
) -> Array:
    r"""Squared Frobenius norm of a function's Jacobian for each sample, estimated by random projections.

    Hutchinson's :math:`\|J\|_F^2 = E \|J^T v\|_2^2`, averaged over `projections` vectors :math:`v` of independent +-1.

    Parameters
    ----------
    fn : callable
        Takes `x` and returns an array of shape (n, ...), each sample's outputs.
    x : array, shape (n, ...)
        Samples along the first axis.
    projections : int, default 1
        How many vectors, and passes back through `fn`, >= 1. The estimate has no bias with any number.
    rng : generator, optional
        As for `interpolated_gradient_penalty`.

    Returns
    -------
    array, shape () or with ``reduction="none"`` (n,)
        Float32 at least.

    Raises
    ------
    ValueError, TypeError, NotImplementedError
        As `gradient_penalty`; if `projections` is below 1; for another kind of `rng`.

    Notes
    -----
    No factor 1/2. Exact for any vectors where the outputs' gradients are orthogonal, as for elementwise functions.

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
        raise ValueError(f"{caller}: `projections` must be 1 at least, got {projections}. One estimates without bias.")
    out, pull = _traced(caller, fn, x, _requires_a_row_each)
    signs = _backend(out).random.uniform(caller, rng, (projections, *out.shape), out)
    xp = namespace(signs, out)
    signs = xp.where(signs < 0.5, -1.0, xp.ones_like(signs))
    total: Any = 0.0
    for i in range(projections):
        total = total + xp.sum(square(_rows(pull(signs[i, ...]))), axis=1)
    return total / projections


def _gradient(caller: str, fn: Function, x: Any, per_sample: bool) -> Any:
    """The gradient of the sum of what `fn` returns: that of each sample's value, where samples are independent."""
    out, pull = _traced(caller, fn, x, _requires_a_value_each if per_sample else _requires_one_value)
    return pull(namespace(out).ones_like(out))


def _traced(
    caller: str, fn: Function, x: Any, requires: Callable[[str, Backend, Any, Any], None]
) -> tuple[Any, Callable[[Any], Any]]:
    """What `fn` returns, checked, and what pulls a cotangent of that back to a gradient by `x`."""
    backend = _backend(x)

    def of_leaves(leaves: list[Any]) -> tuple[Any, list[Any]]:
        with explained(caller, backend):
            out = fn(leaves[0])
        requires(caller, backend, out, x)
        return out, []

    out, _, pull = backend.autodiff.vjp(of_leaves, [x])

    def gradient(cotangent: Any) -> Any:
        (found,) = pull(cotangent)
        if found is None:
            raise ValueError(
                f"{caller}: `fn` must return what depends on `x` by operations with derivatives, got a value that does "
                "not. Do not detach it, and compute with `namespace(x)`."
            )
        return backend.autodiff.checked_twice(caller, found)

    return out, gradient


def _backend(x: Any) -> Backend:
    backend = backend_of(x)
    assert backend is not None
    return backend


def _requires_real(caller: str, backend: Backend, out: Any) -> None:
    found = backend_of(out)
    if found is None or found.library != backend.library:
        raise TypeError(
            f"{caller}: `fn` must return a {backend.library} array, as it was given, got "
            f"{type(out).__module__}.{type(out).__qualname__}. Compute with `namespace(x)`."
        )
    kind = found.dtype(out.dtype).kind
    if kind != "real":
        hint = "Take the real part" if kind == "complex" else "Compute with `namespace(x)`, in floating point"
        raise TypeError(f"{caller}: `fn` must return real floating-point values, got {out.dtype}. {hint}.")


def _requires_a_value_each(caller: str, backend: Backend, out: Any, x: Any) -> None:
    _requires_real(caller, backend, out)
    shape, n = tuple(out.shape), x.shape[0]
    if shape[:1] != (n,) or math.prod(shape[1:]) != 1:
        raise ValueError(
            f"{caller}: `fn` must return one value for each sample, shape ({n},) or ({n}, 1), got {shape}. Do not "
            "reduce over the batch, and pick or sum a sample's outputs."
        )


def _requires_one_value(caller: str, backend: Backend, out: Any, x: Any) -> None:
    _requires_real(caller, backend, out)
    if math.prod(out.shape) != 1:
        raise ValueError(
            f"{caller}: `fn` must return a single value, shape (), got {tuple(out.shape)}. Reduce it with sum or mean, "
            "or pass per_sample=True."
        )


def _requires_a_row_each(caller: str, backend: Backend, out: Any, x: Any) -> None:
    _requires_real(caller, backend, out)
    if tuple(out.shape[:1]) != tuple(x.shape[:1]):
        raise ValueError(
            f"{caller}: `fn` must return each sample's outputs, shape ({x.shape[0]}, ...), got {tuple(out.shape)}. Do "
            "not reduce over the batch."
        )


def _per_sample(caller: str, alpha: Any, x: Any, shape: tuple[int, ...]) -> Any:
    """`alpha` of shape (n, 1, ...) and the dtype of `x`."""
    backend = common_backend(caller, ("real", "alpha"), (x, alpha))
    if backend.dtype(alpha.dtype).kind != "real":
        raise TypeError(f"{caller}: `alpha` must be real floating point, got {alpha.dtype}. Cast it first.")
    given = tuple(alpha.shape)
    if given not in (shape, shape[:1]):
        raise ValueError(
            f"{caller}: `alpha` must have one number for each sample, shape {shape[:1]}, got {given}. Broadcast it "
            "explicitly."
        )
    xp = backend.xp
    return xp.reshape(alpha if alpha.dtype == x.dtype else xp.astype(alpha, x.dtype), shape)


def _rows(gradient: Any) -> Any:
    """A row for each sample."""
    shape = gradient.shape
    return namespace(gradient).reshape(wide(gradient), (shape[0], math.prod(shape[1:])))


def _deviation(gradient: Any, target: float, one_sided: bool, per_sample: bool) -> Any:
    rows, axis = (_rows(gradient), 1) if per_sample else (wide(gradient), None)
    xp = namespace(rows)
    if target == 0:  # no root to take and square again, which would lose the second derivative at 0
        return xp.sum(square(rows), axis=axis)
    excess = safe_norm(rows, axis=axis) - target
    return square(xp.where(excess > 0, excess, 0.0) if one_sided else excess)
