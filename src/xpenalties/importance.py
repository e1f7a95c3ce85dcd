"""Importance of parameters for what a model has learned: weights for `trees.anchored`, against forgetting.

Pass a function of one sample, the parameters, and the samples. You get a tree like the parameters, with a number >= 0
for each element: a mean over the samples. Samples are differentiated one after another, so this takes the memory of a
few gradients::

    importances = importance.fisher(log_likelihood, params, samples)
    stay = trees.anchored(params, importance=importances)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from ._arrays.gradients import grad, value_and_grad
from ._arrays.numerics import abs_, array_backend, at_least_float32, square, stop_gradient
from ._core.checks import POSITIVE, check_argument, one_of
from .backends import backend_of, common_backend, flatten_of, flatten_with_paths_of, namespace

__all__ = ["fisher", "mean", "memory_aware"]

OfSample = Callable[[Any, Any], Any]
_LABELS = one_of(("data", "model"))


def fisher(fn: OfSample, params: Any, samples: Any, *, labels: Literal["data", "model"] = "data") -> Any:
    r"""Diagonal of the Fisher information: the mean over the samples of squared gradients.

    "data" takes the labels of the data, :math:`\frac{1}{n} \sum_i (\partial \log p(y_i | x_i))^2`. This is the
    empirical Fisher information. "model" takes the expectation over the model's own distribution of labels,
    :math:`\frac{1}{n} \sum_i \sum_c p(c | x_i) (\partial \log p(c | x_i))^2`.

    Parameters
    ----------
    fn : callable
        Takes the parameters and one sample. For "data", it returns a scalar: the log-likelihood of the sample, or its
        negative. For "model", it returns the log-probabilities of all classes, shape (classes,).
    params : pytree of arrays
        For a PyTorch module, pass ``dict(module.named_parameters())``, and call `torch.func.functional_call` in `fn`.
    samples : pytree of arrays
        The first axis of each array counts the samples. For sample i, `fn` gets the tree with ``x[i]`` for each array.
    labels : {"data", "model"}, default "data"
        Whose labels to use. "model" takes one backward pass for each class of each sample.

    Returns
    -------
    pytree of arrays
        Like `params`, in float32 or wider. None for leaves that are not floating-point arrays.

    Raises
    ------
    TypeError
        If `params` has no real floating-point array, or the arrays are of several frameworks.
    ValueError
        If `labels` is not "data" or "model", there is no sample, the arrays of `samples` differ in the first axis, or
        `fn` returns another shape.

    Notes
    -----
    Each sample's gradient is squared. The square of the mean gradient would be near 0 after training.

    No factor 1/2. If you want the one of elastic weight consolidation, put it into the penalty's weight.

    References
    ----------
    .. [1] Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 114(13), 2017.

    Examples
    --------
    >>> def log_likelihood(params, sample):  # of a normal distribution with standard deviation 0.5
    ...     return -((sample - params["mean"]) ** 2) / (2 * 0.5**2)
    >>> values = importance.fisher(log_likelihood, {"mean": np.asarray(0.0)}, np.asarray([0.5, -0.5]))
    >>> float(values["mean"])  # 1 / 0.5^2
    4.0
    """
    labels = check_argument("fisher", _LABELS, "labels", labels)

    def of_sample(params: Any, sample: Any) -> list[Any]:
        if labels == "data":
            return [square(g) for g in _floats(grad(fn)(params, sample))]
        log_p = stop_gradient(fn(params, sample))
        if log_p.ndim != 1:
            raise ValueError(
                f"fisher: `fn` must return log-probabilities of shape (classes,) for labels='model', got shape "
                f"{tuple(log_p.shape)}. Return those of one sample."
            )

        def of_class(rows: Sequence[Any]) -> list[Any]:
            (c,) = rows
            log_of_class, gradient = value_and_grad(lambda p: fn(p, sample)[c])(params)
            p = at_least_float32(namespace(log_p).exp(stop_gradient(log_of_class)))
            return [p * square(g) for g in _floats(gradient)]

        backend = array_backend(log_p)
        return backend.sum_over([backend.xp.arange(log_p.shape[0], device=backend.device(log_p))], of_class)

    return _mean_over("fisher", of_sample, params, samples)


def memory_aware(fn: OfSample, params: Any, samples: Any) -> Any:
    r"""Memory-aware synapses (MAS): the mean magnitude of the gradients of the output's squared norm.

    :math:`\frac{1}{n} \sum_i |\partial \|f(x_i)\|^2|`. It needs no labels.

    Parameters
    ----------
    fn : callable
        Takes the parameters and one sample, and returns the model's output, of any shape.
    params, samples
        As for `fisher`.

    Returns
    -------
    pytree of arrays
        As for `fisher`.

    Raises
    ------
    TypeError, ValueError
        As for `fisher`.

    References
    ----------
    .. [1] Aljundi et al., "Memory aware synapses: learning what (not) to forget", ECCV 2018.

    Examples
    --------
    >>> def output(params, sample):
    ...     return params["w"] * sample
    >>> values = importance.memory_aware(output, {"w": np.asarray([1.0, -2.0])}, np.asarray([[1.0, 1.0], [2.0, 0.0]]))
    >>> values["w"].tolist()
    [5.0, 2.0]
    """

    def squared_norm(params: Any, sample: Any) -> Any:
        out = at_least_float32(fn(params, sample))
        return namespace(out).sum(square(out))

    def of_sample(params: Any, sample: Any) -> list[Any]:
        return [abs_(g) for g in _floats(grad(squared_norm)(params, sample))]

    return _mean_over("memory_aware", of_sample, params, samples)


def mean(trees: Sequence[Any], weights: Sequence[float] | None = None) -> Any:
    """Return the weighted mean of importances, such as those of several batches or earlier tasks.

    Parameters
    ----------
    trees : sequence of pytrees
        The importances, with the same structure.
    weights : sequence of numbers > 0, optional
        A weight for each tree, such as the number of samples in a batch. By default, all weights are equal.

    Returns
    -------
    pytree of arrays

    Raises
    ------
    ValueError
        If there is no tree, the trees differ in structure, or there is not one weight > 0 for each tree.

    Examples
    --------
    >>> batches = [{"w": np.asarray([1.0, 0.0])}, {"w": np.asarray([3.0, 4.0])}]
    >>> importance.mean(batches, weights=[3, 1])["w"].tolist()
    [1.5, 1.0]
    """
    if not trees:
        raise ValueError("mean: `trees` must have a tree, got none. Pass the importances of each batch.")
    factors = [1.0] * len(trees) if weights is None else list(weights)
    if len(factors) != len(trees):
        raise ValueError(
            f"mean: `weights` must have a number for each of the {len(trees)} trees, got {len(factors)}. Pass one each."
        )
    factors = [check_argument("mean", POSITIVE, "weights", factor) for factor in factors]
    flat = [flatten_with_paths_of(tree) for tree in trees]
    if any(paths != flat[0][2] for _, _, paths in flat):
        raise ValueError("mean: `trees` must have the same leaves. Pass the importances of one model.")
    shares = [factor / sum(factors) for factor in factors]
    columns = zip(*(leaves for leaves, _, _ in flat), strict=True)
    return flat[0][1](iter([_weighted_sum(column, shares) for column in columns]))


def _mean_over(caller: str, of_sample: Callable[[Any, Any], list[Any]], params: Any, samples: Any) -> Any:
    """Return the mean of lists of arrays over the samples, as a tree like the parameters."""
    leaves, rebuild = flatten_of(samples)
    names = [f"samples[{i}]" for i in range(len(leaves))]
    backend = common_backend(caller, names, leaves)
    sizes = {x.shape[0] if x.ndim else None for x in leaves}
    if len(sizes) != 1 or sizes & {None, 0}:
        raise ValueError(
            f"{caller}: the arrays of `samples` must have the same first axis, of at least one sample, got shapes "
            f"{', '.join(str(tuple(x.shape)) for x in leaves)}. Stack the samples."
        )
    (count,) = sizes
    total = backend.sum_over(leaves, lambda rows: of_sample(params, rebuild(iter(rows))))
    of_params, rebuild_params = flatten_of(params)
    means = iter(total)
    return rebuild_params(iter([_like(next(means) / count, x) if _is_floating(x) else None for x in of_params]))


def _like(x: Any, param: Any) -> Any:
    """Return an importance that is cut into parts as its parameter is. A gradient may be cut in another way."""
    return array_backend(x).laid_out(x, param)


def _weighted_sum(arrays: Sequence[Any], factors: Sequence[float]) -> Any:
    return None if arrays[0] is None else sum(x * factor for x, factor in zip(arrays, factors, strict=True))


def _floats(gradient: Any) -> list[Any]:
    """Return the gradients of floating-point arrays as constants, in float32 or wider."""
    return [at_least_float32(stop_gradient(g)) for g in flatten_of(gradient)[0] if g is not None]


def _is_floating(x: Any) -> bool:
    backend = backend_of(x)
    return backend is not None and backend.dtype(x.dtype).kind == "real"
