"""Divergences of the distributions that a linear map makes of hidden states, without the logits ever being whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Unpack

from .._arrays.numerics import linear, log_probabilities, wide
from .._core.checks import Positive, UnitInterval
from .._core.types import Array
from ..backends import namespace
from .decorator import Shared, penalty
from .divergences import kl, negative_entropy
from .jensen_shannon import jensen_shannon

__all__ = ["linear_kl_divergence", "linear_js_divergence", "linear_entropy"]


def _requires_maps(name: str) -> Any:
    """A check that each weight has a row for each class, as long as the hidden states are, and all the same classes."""

    def requires(arrays: tuple[Any, ...], options: Mapping[str, Any]) -> None:
        shapes = [tuple(x.shape) for x in arrays]
        suffixes = ("_p", "_q") if len(arrays) == 4 else ("",)
        for suffix, hidden, weight in zip(suffixes, shapes[::2], shapes[1::2], strict=True):
            if len(hidden) < 1 or len(weight) != 2 or weight[1:] != hidden[-1:] or 0 in weight:
                raise ValueError(
                    f"{name}: `weight{suffix}` must have shape (classes, features) for a `hidden{suffix}` of shape "
                    f"(..., features), got {weight} and {hidden}. Transpose a kernel of shape (features, classes)."
                )
        if shapes[0][:-1] != shapes[-2][:-1]:
            raise ValueError(
                f"{name}: `hidden_p` and `hidden_q` must have the same shape but for their features, got {shapes[0]} "
                f"and {shapes[-2]}. Broadcast them explicitly."
            )
        if shapes[1][0] != shapes[-1][0]:
            raise ValueError(
                f"{name}: `weight_p` and `weight_q` must have the same number of classes, got {shapes[1][0]} and "
                f"{shapes[-1][0]}. Cut or pad one to the other's classes."
            )

    return requires


def _log_probabilities(hidden: Any, weight: Any, temperature: float) -> Any:
    xp = namespace(hidden, weight)
    if hidden.dtype != weight.dtype:
        dtype = xp.result_type(hidden.dtype, weight.dtype)
        hidden, weight = xp.astype(hidden, dtype), xp.astype(weight, dtype)
    logits = wide(linear(hidden, weight))
    return log_probabilities(logits, axis=-1, temperature=temperature, from_logits=True)


@penalty(
    terms="rows",
    reduction="mean",
    matrices=("weight_p", "weight_q"),
    requires=_requires_maps("linear_kl_divergence"),
)
def linear_kl_divergence(
    hidden_p: Array,
    weight_p: Array,
    hidden_q: Array,
    weight_q: Array,
    /,
    *,
    direction: Literal["forward", "reverse", "symmetric"] = "forward",
    temperature: Positive = 1.0,
    **shared: Unpack[Shared],
) -> Array:
    r"""Kullback-Leibler divergence of the distributions that two linear maps make of hidden states.

    `kl_divergence` of the logits :math:`h_P W_P^T` and :math:`h_Q W_Q^T`, which are computed for a few rows at a time
    and never kept, in the pass forward as in the pass back.

    Parameters
    ----------
    hidden_p, hidden_q : array, shape (..., features)
        Hidden states. Same shape but for the features, of which a teacher may have more.
    weight_p, weight_q : array, shape (classes, features)
        The output layers, as torch.nn.Linear has them; the transpose of Flax's and Keras' kernels.
    direction : {"forward", "reverse", "symmetric"}, default "forward"
        KL(P||Q), KL(Q||P) or the mean of both.
    temperature : float, default 1.0
        Of both distributions, > 0.

    Returns
    -------
    array, shape () or with ``reduction="none"`` (...)
        In nats, float32 at least.

    Notes
    -----
    Logits are computed in the dtype of hidden states and weight, as the layer does, and all else in float32 at least.
    With "sum" and "mean" PyTorch computes the gradients in the pass forward. With "none", learned `weights` and
    float16, as in JAX always, the blocks are computed again in the pass back. NumPy's gradients keep the logits, and so
    does a second derivative. For a bias append it to the weight, and 1 to the hidden states.

    References
    ----------
    .. [1] Hsu et al., "Liger Kernel: efficient Triton kernels for LLM training", 2024, for the idea.

    Examples
    --------
    >>> hidden, weight = np.eye(2), np.asarray([[0.0, 1.0], [0.0, 0.0], [0.0, 2.0]])
    >>> float(linear_kl_divergence(hidden, weight, hidden, weight))
    0.0
    """
    log_p = _log_probabilities(hidden_p, weight_p, temperature)
    log_q = _log_probabilities(hidden_q, weight_q, temperature)
    return kl(log_p, log_q, direction=direction, axis=-1)


@penalty(
    terms="rows",
    reduction="mean",
    matrices=("weight_p", "weight_q"),
    requires=_requires_maps("linear_js_divergence"),
)
def linear_js_divergence(
    hidden_p: Array,
    weight_p: Array,
    hidden_q: Array,
    weight_q: Array,
    /,
    *,
    beta: UnitInterval = 0.5,
    temperature: Positive = 1.0,
    **shared: Unpack[Shared],
) -> Array:
    r"""Generalised Jensen-Shannon divergence of the distributions that two linear maps make of hidden states.

    `js_divergence` of the logits :math:`h_P W_P^T` and :math:`h_Q W_Q^T`, which are computed for a few rows at a time
    and never kept.

    Parameters
    ----------
    hidden_p, hidden_q : array, shape (..., features)
        Hidden states. Same shape but for the features.
    weight_p, weight_q : array, shape (classes, features)
        The output layers, as torch.nn.Linear has them.
    beta : float, default 0.5
        Weight of P, in [0, 1].
    temperature : float, default 1.0
        Of both distributions, > 0.

    Returns
    -------
    array, shape () or with ``reduction="none"`` (...)
        In nats, between 0 and log 2 but for rounding, float32 at least.

    Notes
    -----
    As for `linear_kl_divergence`.

    References
    ----------
    .. [1] Lin, "Divergence measures based on the Shannon entropy", IEEE Trans. Inf. Theory 37(1), 1991.

    Examples
    --------
    >>> hidden, weight = np.eye(2), np.asarray([[0.0, 1.0], [0.0, 0.0], [0.0, 2.0]])
    >>> float(linear_js_divergence(hidden, weight, hidden, weight))
    0.0
    """
    log_p = _log_probabilities(hidden_p, weight_p, temperature)
    log_q = _log_probabilities(hidden_q, weight_q, temperature)
    return jensen_shannon(log_p, log_q, beta=beta, axis=-1)


@penalty(terms="rows", reduction="mean", matrices=("weight",), requires=_requires_maps("linear_entropy"))
def linear_entropy(
    hidden: Array,
    weight: Array,
    /,
    *,
    mode: Literal["penalty", "bonus"] = "penalty",
    normalize: bool = False,
    temperature: Positive = 1.0,
    **shared: Unpack[Shared],
) -> Array:
    r"""Shannon entropy of the distribution that a linear map makes of hidden states.

    `entropy` of the logits :math:`h W^T`, which are computed for a few rows at a time and never kept.

    Parameters
    ----------
    hidden : array, shape (..., features)
        Hidden states.
    weight : array, shape (classes, features)
        The output layer, as torch.nn.Linear has it.
    mode : {"penalty", "bonus"}, default "penalty"
        "penalty" is :math:`+H`, "bonus" :math:`-H`.
    normalize : bool, default False
        Divide by the log of the number of classes.
    temperature : float, default 1.0
        The distribution becomes softmax(h W^T / temperature); > 0.

    Returns
    -------
    array, shape () or with ``reduction="none"`` (...)
        In nats, or a share of the maximum with `normalize`; float32 at least.

    Notes
    -----
    As for `linear_kl_divergence`.

    References
    ----------
    .. [1] Shannon, "A mathematical theory of communication", Bell Syst. Tech. J. 27, 1948.

    Examples
    --------
    >>> round(float(linear_entropy(np.ones((2, 3)), np.ones((4, 3)))), 4) == round(math.log(4), 4)
    True
    """
    negative = negative_entropy(_log_probabilities(hidden, weight, temperature), normalize=normalize, axis=-1)
    return negative if mode == "bonus" else -negative
