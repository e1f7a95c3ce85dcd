"""How important parameters are for what a model has learned: the weights of `trees.anchored` against forgetting.

Each function takes a function of one sample, the parameters and the samples, and returns a tree like the parameters. It
holds the mean over the samples of a number >= 0 for each element. It differentiates one sample after another, so it
takes the memory of a few gradients::

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

    For "data", it is :math:`\frac{1}{n} \sum_i (\partial \log p(y_i | x_i))^2`, with the labels of the data: the
    empirical Fisher information. For "model", it is the expectation over the model's own distribution,
    :math:`\frac{1}{n} \sum_i \sum_c p(c | x_i) (\partial \log p(c | x_i))^2`.

    Parameters
    ----------
    fn : callable
        Takes the parameters and one sample. For "data", it returns the log-likelihood of the sample, or its negative: a
        scalar. For "model", it returns the log-probabilities of all classes, shape (classes,).
    params : pytree of arrays
        For a PyTorch module, ``dict(module.named_parameters())`` with `torch.func.functional_call` in `fn`.
    samples : pytree of arrays
        The first axis of each array counts the samples. `fn` gets an element of it from each.
    labels : {"data", "model"}, default "data"
        Whose labels. "model" takes one backward pass for each class of each sample.

    Returns
    -------
    pytree of arrays
        Like `params`, in float32 or wider. None for leaves that are not floating-point arrays.

    Raises
    ------
    TypeError
        If `params` holds no real floating-point array, or the arrays are of several frameworks.
    ValueError
        If `labels` is not one of its names, there is no sample, the arrays of `samples` differ in the first axis, or
        `fn` returns another shape.

    Notes
    -----
    The square is that of each sample's gradient. The square of the mean gradient would be a different number, which is
    near 0 after training. There is no factor 1/2: put that of elastic weight consolidation into the penalty's weight.

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
            return _map(square, _floats(grad(fn)(params, sample)))
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
        return _map(abs_, _floats(grad(squared_norm)(params, sample)))

    return _mean_over("memory_aware", of_sample, params, samples)


def mean(trees: Sequence[Any], weights: Sequence[float] | None = None) -> Any:
    """Return the weighted mean of several importances, such as those of several batches or earlier tasks.

    Parameters
    ----------
    trees : sequence of pytrees
        Of the same structure.
    weights : sequence of numbers > 0, optional
        For batches, their numbers of samples. By default, all are equal.

    Returns
    -------
    pytree of arrays

    Raises
    ------
    ValueError
        If there is no tree, the trees differ in structure, or there are more or fewer weights than trees.

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


def _map(fn: Callable[[Any], Any], arrays: list[Any]) -> list[Any]:
    return [fn(x) for x in arrays]


def _is_floating(x: Any) -> bool:
    backend = backend_of(x)
    return backend is not None and backend.dtype(x.dtype).kind == "real"
