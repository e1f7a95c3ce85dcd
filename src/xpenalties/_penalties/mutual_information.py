"""The mutual information between samples and classes: certain predictions that use all classes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Unpack

from .._arrays.numerics import array_backend, exp_minus_tangent, namespace_of
from .._core.checks import NonNegative, Positive
from .._core.types import Array
from .decorator import Shared, penalty
from .log_probabilities import log_probabilities
from .sample_means import mean_of_samples
from .spec import Distributions

__all__ = ["mutual_information"]


def _distributions(options: Mapping[str, Any]) -> Distributions | None:
    return None if options["from_logits"] or options["temperature"] != 1 else "complete"


@penalty(terms="whole", reduction="sum", extras=("weights",), samples="rows", distributions=_distributions)
def mutual_information(
    log_p: Array,
    /,
    *,
    diversity: NonNegative = 1.0,
    mode: Literal["bonus", "penalty"] = "bonus",
    temperature: Positive = 1.0,
    axis: int = -1,
    from_logits: bool = False,
    **shared: Unpack[Shared],
) -> Array:
    r"""Mutual information between a batch's samples and their classes, subtracted by default.

    .. warning:: Values are not checked. If you pass probabilities, or logits without ``from_logits=True``, the result
       is a plausible, wrong number. Use `set_value_checks` to find such calls.

    :math:`I = \lambda H(\bar p) - \frac{1}{n} \sum_k H(p_k)` with :math:`\bar p = \frac{1}{n} \sum_k p_k`,
    :math:`H(p) = -\sum_i p_i \log p_i` and :math:`\lambda` = `diversity`. It is large if each sample is certain of its
    class, and all classes are used equally often. "bonus" returns :math:`-I`, to be added to a loss that is minimized;
    "penalty" returns :math:`I`.

    Parameters
    ----------
    log_p : array, shape (..., classes)
        Log-probabilities, or logits if `from_logits` is True, real floating point. One sample for each row.
    diversity : float, default 1.0
        Factor of the entropy of the mean, >= 0. With 1, :math:`I` is the mutual information, in [0, log(classes)].
    mode : {"bonus", "penalty"}, default "bonus"
        The sign. A bonus is negative.
    temperature : float, default 1.0
        Divides the input before a softmax normalizes it; > 0.
    axis : int, default -1
        The axis of the classes.
    from_logits : bool, default False
        Normalize the input by a log-softmax first. If False and `temperature` is 1, the input is used as it is.

    Returns
    -------
    array, shape ()
        In nats, in float32 or wider.

    Raises
    ------
    TypeError
        If `log_p` is not a real floating-point array, or an option has the wrong type.
    ValueError
        If the input has no such axis, or an option is out of range.

    Notes
    -----
    With ``diversity=1``, the value is computed as :math:`\frac{1}{n} \sum_k \mathrm{KL}(p_k\,\|\,\bar p)`, which is
    never below 0 and keeps its digits if all samples are nearly equal. A class with p = 0 adds 0.

    Weights :math:`w` replace both means by :math:`\sum_k w_k (\cdot) / \sum_k w_k`, so that only their ratios matter.
    The value of a single sample is ``(diversity - 1) * H(p)``.

    References
    ----------
    .. [1] Krause, Perona & Gomes, "Discriminative clustering by regularized information maximization", NeurIPS 2010.
    .. [2] Hu et al., "Learning discrete representations via information maximizing self-augmented training", ICML
       2017, for `diversity`.

    Examples
    --------
    >>> certain = np.log(np.asarray([[0.99, 0.01], [0.01, 0.99]]))
    >>> round(float(mutual_information(certain)), 4)  # near -log(2)
    -0.6371
    >>> float(mutual_information(certain[:1]))  # one class only
    0.0
    """
    weights: Any = shared.get("weights")
    log_p = log_probabilities(log_p, axis=axis, temperature=temperature, from_logits=from_logits)
    xp = namespace_of(log_p, weights)
    samples = tuple(i for i in range(log_p.ndim) if i != axis % log_p.ndim)
    column = None if weights is None else xp.expand_dims(weights, axis=axis)
    p = xp.exp(log_p)
    mean_p = _mean(p, column, samples)
    divergence = xp.sum(_mean(_divergences(xp, log_p, p, mean_p), column, samples))
    value = divergence if diversity == 1 else divergence + (diversity - 1) * _entropy(xp, mean_p)
    return value if mode == "penalty" else 0.0 - value


def _mean(x: Any, column: Any, samples: tuple[int, ...]) -> Any:
    return mean_of_samples(x, column, axis=samples) if samples else x


def _divergences(xp: Any, log_p: Any, p: Any, mean_p: Any) -> Any:
    """Return p log(p / mean) + mean - p for each element, which is >= 0. Over all samples, mean - p adds up to 0."""
    least = _least(log_p)
    is_normal = (p > least) & (mean_p > least)
    log_ratio = xp.log(xp.where(is_normal, mean_p, 1.0)) - xp.where(is_normal, log_p, 0.0)
    return xp.where(is_normal, p * exp_minus_tangent(log_ratio), mean_p - p)


def _entropy(xp: Any, p: Any) -> Any:
    is_normal = p > _least(p)
    return -xp.sum(p * xp.log(xp.where(is_normal, p, 1.0)))


def _least(x: Any) -> float:
    """Return the smallest normal number."""
    return math.exp(array_backend(x).dtype(x.dtype).log_least)
