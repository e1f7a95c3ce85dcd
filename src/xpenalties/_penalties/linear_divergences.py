"""Divergences and entropy from hidden states and output layers. The logits are never stored as a whole."""

from __future__ import annotations

from typing import Literal, Unpack

from .._arrays.numerics import linear
from .._core.checks import Positive, UnitInterval
from .._core.types import Array
from .decorator import Shared, penalty
from .jensen_shannon import jensen_shannon
from .kullback_leibler import kl
from .linear_layers import layers_check, logits_of_two_layers
from .log_probabilities import negative_entropy

__all__ = ["linear_kl_divergence", "linear_js_divergence", "linear_entropy"]


@penalty(
    terms="rows",
    reduction="mean",
    matrices=("weight_p", "weight_q"),
    check_arrays=layers_check("linear_kl_divergence"),
)
def linear_kl_divergence(
    hidden_p: Array,
    weight_p: Array,
    hidden_q: Array,
    weight_q: Array,
    /,
    *,
    direction: Literal["forward", "reverse", "symmetric"] = "forward",
    skew: UnitInterval = 0.0,
    temperature: Positive = 1.0,
    **shared: Unpack[Shared],
) -> Array:
    r"""Kullback-Leibler divergence between the outputs of two linear layers, from their hidden states.

    Each term is the `kl_divergence` of a row of the logits :math:`h_P W_P^T` and :math:`h_Q W_Q^T`. The logits are
    computed for a few rows at a time, and never stored as a whole in the forward or backward pass.

    Parameters
    ----------
    hidden_p, hidden_q : array, shape (..., features)
        Hidden states, real floating point. Their shapes may differ only in the number of features: a teacher may have
        more.
    weight_p, weight_q : array, shape (classes, features)
        Weights of the output layers, as torch.nn.Linear stores them; the kernels of Flax and Keras are the transpose.
    direction : {"forward", "reverse", "symmetric"}, default "forward"
        KL(P||Q), KL(Q||P) or the mean of both.
    skew : float, default 0.0
        Fraction of a distribution that the other one is mixed with, in [0, 1], as in `kl_divergence`.
    temperature : float, default 1.0
        Divides the logits of both before a softmax normalizes them; > 0.

    Returns
    -------
    array, shape (), or (...) with ``reduction="none"``
        In nats, in float32 or wider.

    Raises
    ------
    TypeError
        If an input is not a real floating-point array, or an option has the wrong type.
    ValueError
        If the shapes do not fit each other, or an option is out of range.

    Notes
    -----
    The logits are summed and stored in float32 or wider, even if hidden states and weights are in half precision. So
    they are more precise than those of the layer itself, which rounds them. If the layer has a bias, append the bias to
    the weight as one more column, and append 1 to each hidden state.

    With "sum" and "mean", PyTorch computes the gradients during the forward pass. With "none", with learned `weights`,
    with float16, and always in JAX, the backward pass computes the blocks again. Gradients in NumPy and second
    derivatives store the logits, and so does torch.compile. A weight in half precision is cast to float32 in parts. JAX
    and torch.compile cast it as a whole.

    References
    ----------
    .. [1] Hsu et al., "Liger Kernel: efficient Triton kernels for LLM training", 2024, for the idea.

    Examples
    --------
    >>> hidden, weight = np.eye(2), np.asarray([[0.0, 1.0], [0.0, 0.0], [0.0, 2.0]])
    >>> float(linear_kl_divergence(hidden, weight, hidden, weight))
    0.0
    """
    logits_p, logits_q = logits_of_two_layers(hidden_p, weight_p, hidden_q, weight_q)
    return kl(logits_p, logits_q, direction=direction, skew=skew, axis=-1, temperature=temperature, from_logits=True)


@penalty(
    terms="rows",
    reduction="mean",
    matrices=("weight_p", "weight_q"),
    check_arrays=layers_check("linear_js_divergence"),
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
    r"""Jensen-Shannon divergence between the outputs of two linear layers, from their hidden states.

    Each term is the `js_divergence` of a row of the logits :math:`h_P W_P^T` and :math:`h_Q W_Q^T`. The logits are
    computed for a few rows at a time and never stored as a whole.

    Parameters
    ----------
    hidden_p, hidden_q : array, shape (..., features)
        Hidden states, real floating point. Their shapes may differ only in the number of features.
    weight_p, weight_q : array, shape (classes, features)
        Weights of the output layers, as torch.nn.Linear stores them.
    beta : float, default 0.5
        Weight of P, in [0, 1]. At both ends the divergence is 0.
    temperature : float, default 1.0
        Divides the logits of both before a softmax normalizes them; > 0.

    Returns
    -------
    array, shape (), or (...) with ``reduction="none"``
        In nats, in float32 or wider. Each term is between 0 and log 2, up to rounding.

    Raises
    ------
    TypeError
        If an input is not a real floating-point array, or an option has the wrong type.
    ValueError
        If the shapes do not fit each other, or an option is out of range.

    Notes
    -----
    Dtypes, biases and memory are as for `linear_kl_divergence`.

    References
    ----------
    .. [1] Lin, "Divergence measures based on the Shannon entropy", IEEE Trans. Inf. Theory 37(1), 1991.

    Examples
    --------
    >>> hidden, weight = np.eye(2), np.asarray([[0.0, 1.0], [0.0, 0.0], [0.0, 2.0]])
    >>> float(linear_js_divergence(hidden, weight, hidden, weight))
    0.0
    """
    logits_p, logits_q = logits_of_two_layers(hidden_p, weight_p, hidden_q, weight_q)
    return jensen_shannon(logits_p, logits_q, beta=beta, axis=-1, temperature=temperature, from_logits=True)


@penalty(terms="rows", reduction="mean", matrices=("weight",), check_arrays=layers_check("linear_entropy"))
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
    r"""Shannon entropy of the output of a linear layer, from its hidden states.

    Each term is the `entropy` of a row of the logits :math:`h W^T`. The logits are computed for a few rows at a time
    and never stored as a whole.

    Parameters
    ----------
    hidden : array, shape (..., features)
        Hidden states, real floating point.
    weight : array, shape (classes, features)
        Weight of the output layer, as torch.nn.Linear stores it.
    mode : {"penalty", "bonus"}, default "penalty"
        The sign: +H makes the distribution certain, -H rewards exploration.
    normalize : bool, default False
        Divide by the log of the number of classes, so that H is in [0, 1].
    temperature : float, default 1.0
        Divides the logits before a softmax normalizes them; > 0.

    Returns
    -------
    array, shape (), or (...) with ``reduction="none"``
        In nats or, with `normalize`, as a fraction of the largest entropy. In float32 or wider.

    Raises
    ------
    TypeError
        If an input is not a real floating-point array, or an option has the wrong type.
    ValueError
        If the shapes do not fit each other, or an option is out of range.

    Notes
    -----
    Dtypes, biases and memory are as for `linear_kl_divergence`.

    References
    ----------
    .. [1] Shannon, "A mathematical theory of communication", Bell Syst. Tech. J. 27, 1948.

    Examples
    --------
    >>> round(float(linear_entropy(np.ones((2, 3)), np.ones((4, 3)))), 4) == round(math.log(4), 4)
    True
    """
    logits = linear(hidden, weight)
    negative = negative_entropy(logits, normalize=normalize, axis=-1, temperature=temperature, from_logits=True)
    return negative if mode == "bonus" else -negative
