"""A penalty on how much a function's output changes in the direction in which it changes most."""

from __future__ import annotations

from typing import Any, Literal, Unpack

from .._arrays.numerics import array_backend, at_least_float32, namespace_of, square, stop_gradient, unit
from .._core.checks import Positive, PositiveInteger
from .._core.types import Array
from ..backends import namespace
from .decorator import Shared, penalty
from .input_gradients import (
    Function,
    array_option,
    check_sample_outputs,
    outputs_of,
    rows_of_samples,
    samples_axis_check,
    value_and_pullback,
)
from .jensen_shannon import jensen_shannon
from .kullback_leibler import kl

__all__ = ["adversarial_consistency"]

_CALLER = "adversarial_consistency"


@penalty(terms="samples", reduction="mean", check_arrays=samples_axis_check(_CALLER, "x"))
def adversarial_consistency(
    fn: Function,
    x: Array,
    /,
    *,
    epsilon: Positive = 1.0,
    xi: Positive | None = None,
    iterations: PositiveInteger = 1,
    metric: Literal["kl", "js", "mse"] = "kl",
    axis: int = -1,
    noise: Any = None,
    rng: Any = None,
    **shared: Unpack[Shared],
) -> Array:
    r"""Distance between the outputs for a sample and for its worst perturbation: virtual adversarial training [1]_.

    Each term is :math:`D(f(x), f(x + r))` for a sample, with :math:`\|r\|_2 = \epsilon`. :math:`D` is
    :math:`\mathrm{KL}(f(x)\,\|\,f(x + r))` for "kl", the Jensen-Shannon divergence for "js", and the mean squared
    difference for "mse". The perturbation :math:`r = \epsilon d` is found by power iteration. From a random :math:`d`
    of norm 1, each iteration sets :math:`d` to :math:`g / \|g\|_2` with :math:`g = \nabla_d \, D(f(x), f(x + \xi d))`.

    Parameters
    ----------
    fn : callable
        Takes samples, and returns the outputs of each, an array of shape (n, ...): logits or log-probabilities for "kl"
        and "js". It must treat samples independently, and compute the same each time. It is called `iterations` + 2
        times.
    x : array, shape (n, ...)
        Samples along the first axis, real floating point, in the dtype that `fn` takes.
    epsilon : float, default 1.0
        L2 norm of the perturbation of each sample, over all axes but the first; > 0, in units of `x`.
    xi : float, optional
        L2 norm of the step at which the gradient is taken, > 0, in units of `x`. By default `epsilon`.
    iterations : int, default 1
        Number of power iterations, each with a forward and a backward pass; >= 1.
    metric : {"kl", "js", "mse"}, default "kl"
        The distance of two outputs. "kl" and "js" normalize them by a log-softmax, which does not change
        log-probabilities. "mse" is for regression.
    axis : int, default -1
        The axis of the classes in the output of `fn`. "mse" does not use it.
    noise : array, shape (n, ...), optional
        The directions to start from, in place of random ones. They need not have norm 1.
    rng : generator, optional
        As for `interpolated_gradient_penalty`.

    Returns
    -------
    array, shape (), or (n,) with ``reduction="none"``
        In nats for "kl" and "js". In float32 or wider. Differentiable with respect to the parameters that `fn` uses,
        and with respect to `x`.

    Raises
    ------
    TypeError
        If `x` is not a real floating-point array, or an option has the wrong type. If `fn` is not callable, does not
        return a real array of the same framework, or converts its input.
    ValueError
        If `fn` does not return outputs of each sample, or they have no axis `axis` or do not depend on `x`. If `x` has
        no axis of samples, `noise` has another shape, or an option is out of range.
    NotImplementedError
        If the arrays' library has no automatic differentiation and cannot borrow any, see `value_and_grad`.

    Notes
    -----
    If a sample has several rows of classes, such as tokens, its term is the mean over them. "mse" is the mean over all
    outputs of a sample, without a factor 1/2.

    The perturbation and the output for `x` are constants: gradients flow through :math:`f(x + r)` only. So `fn` is
    differentiated once, and parameters get no gradient from the power iteration. If :math:`g` is 0, :math:`d` stays as
    it is: where `fn` is flat, the perturbation is random, still of norm :math:`\epsilon`.

    For small :math:`\epsilon`, D is the quadratic form :math:`r^T H r / 2`, and the iterations find the eigenvector of
    :math:`H` with the largest eigenvalue. So do those with a small `xi`, such as 1e-6 in [1]_, for any
    :math:`\epsilon`. The default also sees what is not quadratic, so the distance is often larger. A small `xi` is lost
    in rounding: in float32 below about 1e-5 `epsilon`, in half precision below about 0.1 `epsilon`.

    With dropout, the outputs would differ even without a perturbation, and the direction would fit another mask than
    the one it is used with. With batch norm in training mode, samples depend on each other, and each call updates the
    running statistics. So let `fn` call the module in evaluation mode, or with the same random state in each call.

    References
    ----------
    .. [1] Miyato, Maeda, Koyama & Ishii, "Virtual adversarial training: a regularization method for supervised and
       semi-supervised learning", IEEE TPAMI 41(8), 2019.
    .. [2] Jiang et al., "SMART: robust and efficient fine-tuning for pre-trained natural language models through
       principled regularized optimization", ACL 2020, for embeddings as `x`, with a maximum norm.

    Examples
    --------
    >>> x = np.asarray([[1.0, 2.0], [3.0, 4.0]])
    >>> start = np.asarray([[1.0, 1.0], [1.0, -1.0]])
    >>> scaled = lambda x: x * np.asarray([3.0, 1.0])
    >>> options = {"metric": "mse", "noise": start, "epsilon": 2.0}
    >>> round(float(adversarial_consistency(scaled, x, iterations=9, **options)), 9)  # (3 epsilon)^2 / 2
    18.0
    """
    backend = array_backend(x)
    at = stop_gradient(x)
    clean = stop_gradient(_outputs(fn, at, metric, axis))
    noise = backend.random.normal(_CALLER, rng, tuple(x.shape), x) if noise is None else _checked_noise(noise, x)
    direction, axes = rows_of_samples(stop_gradient(noise))
    direction = unit(direction, axis=axes)

    def distances(points: Any) -> Any:
        return _distances(clean, _outputs(fn, points, metric, axis), metric, axis)

    for _ in range(iterations):
        terms, pullback = value_and_pullback(
            _CALLER, distances, at + _step(direction, xi or epsilon, x), check_sample_outputs, again=False
        )
        gradient, _ = rows_of_samples(pullback(namespace(terms).ones_like(terms)))
        direction = _steepest(gradient, direction, axes)
    return distances(x + _step(direction, epsilon, x))


def _outputs(fn: Function, x: Any, metric: str, axis: int) -> Any:
    """Return the checked output of `fn`."""
    out = outputs_of(_CALLER, fn, x, check_sample_outputs)
    shape = tuple(out.shape)
    if 0 in shape[1:]:
        raise ValueError(f"{_CALLER}: `fn` must return an output for each sample, got none: shape {shape}. Add one.")
    if metric != "mse" and not (-out.ndim < axis < out.ndim and axis != 0):
        raise ValueError(
            f"{_CALLER}: `axis` must be an axis of the output of `fn` after the first, that of the samples, got {axis} "
            f"for shape {shape}. Return the logits of all classes, or pass metric='mse'."
        )
    return out


def _distances(clean: Any, out: Any, metric: str, axis: int) -> Any:
    """Return the distance of two outputs for each sample, the mean over its rows or elements."""
    clean, out = at_least_float32(clean), at_least_float32(out)
    if metric == "mse":
        terms = square(out - clean)
    elif metric == "kl":
        terms = kl(clean, out, direction="forward", axis=axis, from_logits=True)
    else:
        terms = jensen_shannon(clean, out, beta=0.5, axis=axis, from_logits=True)
    return terms if terms.ndim == 1 else namespace(terms).mean(terms, axis=tuple(range(1, terms.ndim)))


def _step(direction: Any, size: float, x: Any) -> Any:
    """Return `size * direction` in the shape and the dtype of `x`."""
    xp, step = namespace(direction), size * direction
    step = step if step.ndim == x.ndim else xp.reshape(step, tuple(x.shape))
    return step if step.dtype == x.dtype else xp.astype(step, x.dtype)


def _steepest(gradient: Any, direction: Any, axes: tuple[int, ...]) -> Any:
    """Return the direction of the gradient of each sample, or `direction` if the gradient is 0."""
    xp = namespace_of(gradient, direction)
    steepest = unit(gradient, axis=axes)
    is_flat = xp.sum(square(steepest), axis=axes, keepdims=True) == 0
    return xp.where(is_flat, direction, steepest)


def _checked_noise(noise: Any, x: Any) -> Any:
    """Return `noise`, checked, in the dtype of `x`, and cut over devices as `x` is."""
    noise = array_option(_CALLER, "noise", noise, "x", x)
    if tuple(noise.shape) != tuple(x.shape):
        raise ValueError(
            f"{_CALLER}: `noise` must have the shape of `x`, {tuple(x.shape)}, got {tuple(noise.shape)}. Broadcast it "
            "explicitly."
        )
    return array_backend(x).cut_like(noise, x)
