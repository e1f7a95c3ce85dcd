"""A penalty on the slope of a function that needs no gradient of it: only its values at two points."""

from __future__ import annotations

from typing import Any, Unpack

from .._arrays.numerics import array_backend, at_least_float32, safe_norm, square
from .._core.checks import NonNegative, Positive, PositiveInteger
from .._core.types import Array
from .decorator import Shared, penalty
from .input_gradients import Function, array_option, check_sample_outputs, outputs_of, samples_axis_check

__all__ = ["lipschitz_penalty"]


@penalty(
    terms="samples",
    reduction="mean",
    check_arrays=samples_axis_check("lipschitz_penalty", "x"),
    differentiates=False,
)
def lipschitz_penalty(
    fn: Function,
    x: Array,
    /,
    *,
    sigma: Positive | None = None,
    target: NonNegative = 0.0,
    one_sided: bool = False,
    projections: PositiveInteger = 1,
    noise: Any = None,
    rng: Any = None,
    **shared: Unpack[Shared],
) -> Array:
    r"""Squared slope of a function between each sample and a random point near it: R1 without a double backward pass.

    With :math:`s^2 = \frac{1}{k} \sum_{j=1}^k \|f(x + \sigma e_j) - f(x)\|_2^2 / \sigma^2` for k = `projections` draws
    :math:`e_j \sim N(0, I)`, each term is :math:`(s - t)^2` for a sample, with :math:`t` = `target`. If `one_sided` is
    True, it is :math:`\max(0, s - t)^2`.

    Parameters
    ----------
    fn : callable
        Takes samples, and returns the outputs of each, an array of shape (n, ...). It is called once, with the n
        samples first and then their n noisy copies for each projection.
    x : array, shape (n, ...)
        Samples along the first axis, real floating point, in the dtype that `fn` takes.
    sigma : float, optional
        Standard deviation of the noise, > 0, in units of `x`. By default 0.01, but 0.1 if `x` is in half precision.
    target : float, default 0.0
        The slope that `fn` should have, >= 0.
    one_sided : bool, default False
        If True, a slope below the target costs nothing.
    projections : int, default 1
        Number of noisy copies of each sample; >= 1.
    noise : array, shape (n, ...) or (projections, n, ...), optional
        The draws :math:`e_j`, in place of random ones.
    rng : generator, optional
        As for `interpolated_gradient_penalty`.

    Returns
    -------
    array, shape (), or (n,) with ``reduction="none"``
        In float32 or wider. Differentiable with respect to the parameters that `fn` uses, and with respect to `x`.

    Raises
    ------
    TypeError
        If `x` is not a real floating-point array, or an option has the wrong type. If `fn` is not callable, does not
        return a real array of the same framework, or converts its input.
    ValueError
        If `fn` does not return outputs of each sample, `x` has no axis of samples, `noise` has another shape, or an
        option is out of range.

    Notes
    -----
    No factor 1/2. For ``target=0``, the mean over the noise is the squared Frobenius norm of the Jacobian plus
    :math:`O(\sigma^2)`. For a function with the gradient :math:`g` and the constant Hessian :math:`H`, it is
    :math:`\|g\|^2 + \frac{\sigma^2}{4} (2 \|H\|_F^2 + \mathrm{tr}(H)^2)`. For any other target, the mean is that of
    :math:`(s - t)^2`, where :math:`s` varies around the norm: more projections make it vary less.

    Differences are rounded relative to ``|f| / sigma``: choose a larger `sigma` if values of `fn` are large or in half
    precision. Gradients flow through both values. If :math:`s` is 0 and the target is not, gradients of every order are
    0.

    `fn` need not treat samples independently, and it may use operations that can be differentiated only once, such as
    flash attention. It sees a masked-out sample as zeros.

    References
    ----------
    .. [1] Lin et al., "Diffusion adversarial post-training for one-step video generation", arXiv:2501.08316, 2025, for
       the approximate R1.
    .. [2] Petzka, Fischer & Lukovnikov, "On the regularization of Wasserstein GANs", ICLR 2018, for the one-sided form.

    Examples
    --------
    >>> x = np.asarray([[1.0, 2.0], [3.0, 4.0]])
    >>> noise = np.asarray([[1.0, 0.0], [0.0, -1.0]])
    >>> float(lipschitz_penalty(lambda x: 3 * x[:, 0] - 2 * x[:, 1], x, sigma=0.5, noise=noise))  # (3^2 + 2^2) / 2
    6.5
    """
    caller, backend = "lipschitz_penalty", array_backend(x)
    n = x.shape[0]
    if sigma is None:
        sigma = 0.01 if backend.dtype(x.dtype).working is None else 0.1
    if noise is None:
        sources = backend.random.split(caller, rng, projections)
        draws = [backend.random.normal(caller, source, tuple(x.shape), x) for source in sources]
    else:
        noise = _checked_noise(noise, x, (projections, *x.shape))
        draws = [noise[i, ...] for i in range(projections)]
    samples = backend.uncut(x, (0,))
    copies = [samples + sigma * backend.cut_like(draw, samples) for draw in draws]
    points = backend.xp.concat([samples, *copies], axis=0)
    out = at_least_float32(outputs_of(caller, fn, points, check_sample_outputs))
    values = [out[i * n : (i + 1) * n, ...] for i in range(projections + 1)]
    xp = array_backend(out).xp  # it may be traced where `x` is not
    slopes = xp.stack([(value - values[0]) / sigma for value in values[1:]], axis=1)
    axes, scale = tuple(range(1, slopes.ndim)), projections**0.5
    if target == 0:  # no root: to square it again would lose the second derivative at 0
        return xp.sum(square(slopes / scale), axis=axes)
    excess = safe_norm(slopes / scale, axis=axes) - target
    return square(xp.where(excess <= 0, 0.0, excess) if one_sided else excess)


def _checked_noise(noise: Any, x: Any, shape: tuple[int, ...]) -> Any:
    """Return `noise`, checked, in `shape` (projections, n, ...) and the dtype of `x`."""
    noise = array_option("lipschitz_penalty", "noise", noise, "x", x)
    if tuple(noise.shape) != shape and not (shape[0] == 1 and tuple(noise.shape) == shape[1:]):
        raise ValueError(
            f"lipschitz_penalty: `noise` must have the shape of `x` for each projection, {shape}, got "
            f"{tuple(noise.shape)}. Set `projections`, or broadcast it explicitly."
        )
    return noise if noise.ndim == len(shape) else noise[None, ...]
