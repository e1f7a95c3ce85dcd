"""Log-probabilities of given tokens, from hidden states and an output layer: inputs of penalties, not a penalty."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, Literal, overload

from .._arrays.numerics import linear
from .._core.checks import Positive, check_argument, checks_of
from .._core.types import Array
from ..backends import Backend, common_backend, is_array
from ..backends._blocks import BLOCK_SIZE
from ..backends._over import ACTIVE, Groups, active_groups
from ..backends._registry import part_backend_of
from ..backends._work import Work
from .linear_layers import layers_check
from .log_probabilities import log_probabilities, negative_entropy
from .part_shapes import PartShapes
from .part_sizes import PartSizes
from .parts import layouts_of_layer

__all__ = ["linear_log_probabilities"]

_NAME = "linear_log_probabilities"
_check_layer = layers_check(_NAME)


@overload
def linear_log_probabilities(
    hidden: Array,
    weight: Array,
    tokens: Any,
    /,
    *,
    temperature: Positive = ...,
    with_entropy: Literal[False] = ...,
) -> Array: ...
@overload
def linear_log_probabilities(
    hidden: Array, weight: Array, tokens: Any, /, *, temperature: Positive = ..., with_entropy: Literal[True]
) -> tuple[Array, Array]: ...
def linear_log_probabilities(
    hidden: Array, weight: Array, tokens: Any, /, *, temperature: Positive = 1.0, with_entropy: bool = False
) -> Array | tuple[Array, Array]:
    r"""Compute the log-probabilities of given tokens from hidden states and an output layer.

    The result is :math:`\log \text{softmax}(h W^T)` at each token, for policy losses and `sampled_kl`. The logits are
    computed for a few rows at a time, and never stored as a whole in the forward or backward pass.

    Parameters
    ----------
    hidden : array, shape (..., features)
        Hidden states, real floating point. For a causal language model, those *before* each token.
    weight : array, shape (classes, features)
        Weight of the output layer, as torch.nn.Linear stores it; the kernels of Flax and Keras are the transpose.
    tokens : array, shape (...)
        Integers: the class of each row. A negative number, such as -100, leaves a row out. The row has no gradient,
        even if its hidden state is NaN.
    temperature : float, default 1.0
        Divides the logits before a softmax normalizes them; > 0.
    with_entropy : bool, default False
        Also return the entropy of each row, from the same logits.

    Returns
    -------
    array, shape (...)
        The log-probability of each token, in nats, in float32 or wider. 0 for a row that is left out. NaN for a token
        that is not a class, because a check would have to wait for the device.
    array, shape (...), only if `with_entropy` is True
        The entropy of each row, in nats: that of `linear_entropy`. 0 for a row that is left out.

    Raises
    ------
    TypeError
        If `hidden` or `weight` is not a real floating-point array, `tokens` is not an integer array, or an option has
        the wrong type.
    ValueError
        If the shapes do not fit each other, or `temperature` is out of range.

    Notes
    -----
    Both results can be differentiated with respect to `hidden` and `weight`, any number of times. The backward pass
    computes the blocks again. Dtypes, biases and memory are as for `linear_kl_divergence` with ``reduction="none"``.

    References
    ----------
    .. [1] Hsu et al., "Liger Kernel: efficient Triton kernels for LLM training", 2024, for the idea.

    Examples
    --------
    >>> hidden, weight = np.zeros((3, 2)), np.ones((4, 2))
    >>> log_p, entropy = linear_log_probabilities(hidden, weight, np.asarray([0, 3, -100]), with_entropy=True)
    >>> log_p.round(4).tolist(), entropy.round(4).tolist()
    ([-1.3863, -1.3863, 0.0], [1.3863, 1.3863, 0.0])
    """
    arrays = (hidden, weight, tokens)
    backend = common_backend(_NAME, ("hidden", "weight", "tokens"), arrays)
    if is_array(temperature) and not isinstance(temperature, Real):
        raise TypeError(
            f"{_NAME}: `temperature` must be a number in (0, inf), got {type(temperature).__qualname__}. To learn or "
            f"anneal it, divide by it: {_NAME}(hidden / t, weight, tokens)."
        )
    temperature = check_argument(_NAME, _CHECKS["temperature"], "temperature", temperature)
    with_entropy = check_argument(_NAME, _CHECKS["with_entropy"], "with_entropy", with_entropy)
    if ACTIVE.any and (groups := active_groups()) is not None:
        values = _values_of_parts(backend, groups, arrays, temperature, with_entropy)
        return (values[..., 0], values[..., 1]) if with_entropy else values[..., 0]
    _check(backend, *arrays)
    program = backend.evaluation.program
    key = backend, temperature, with_entropy, None if program is None else BLOCK_SIZE.get()
    values = _values(key, arrays) if program is None else program(_values, key, arrays)
    return (values[..., 0], values[..., 1]) if with_entropy else values[..., 0]


_CHECKS = checks_of(linear_log_probabilities, ("temperature", "with_entropy"))


def _check(backend: Backend, hidden: Any, weight: Any, tokens: Any) -> None:
    if backend.lazy:
        for name, x in (("hidden", hidden), ("weight", weight), ("tokens", tokens)):
            backend.require_sizes(_NAME, name, x)
    for name, x in (("hidden", hidden), ("weight", weight)):
        if backend.dtype(x.dtype).kind != "real":
            raise TypeError(
                f"{_NAME}: `{name}` must be real floating point, got {x.dtype}. Cast it first, for example to float32."
            )
    if not backend.xp.isdtype(tokens.dtype, "integral"):
        raise TypeError(f"{_NAME}: `tokens` must be integers, got {tokens.dtype}. Pass the index of each row's class.")
    _check_layer((hidden, weight), {})
    if tuple(tokens.shape) != tuple(hidden.shape[:-1]):
        raise ValueError(
            f"{_NAME}: `tokens` must have the shape of `hidden` without the features, got {tuple(tokens.shape)} and "
            f"{tuple(hidden.shape)}. Broadcast them explicitly, to one token for each row."
        )


def _values_of_parts(
    backend: Backend, groups: Groups, arrays: tuple[Any, Any, Any], temperature: float, with_entropy: bool
) -> Any:
    """Return what `_values` does, for arrays of which each device holds a part."""
    named = dict(zip(("hidden", "weight", "tokens"), arrays, strict=True))
    settings = {"temperature": temperature, "with_entropy": with_entropy}
    sizes = PartSizes(_NAME, backend, groups, named, settings)
    of_hidden, of_weight = layouts_of_layer(_NAME, arrays[0], groups)
    hidden, weight, tokens = PartShapes(_NAME, backend, groups, sizes, (of_hidden, of_weight, of_hidden), (1,)).parts
    backend = part_backend_of(backend)
    _check(backend, hidden, weight, tokens)
    return _values((backend, temperature, with_entropy, None), (hidden, weight, tokens)).data


def _values(key: Any, arrays: tuple[Any, Any, Any]) -> Any:
    """Return the log-probability and, if the key asks for it, the entropy of each row, on a last axis."""
    backend, temperature, with_entropy, _ = key
    hidden, weight, tokens = arrays
    if 0 in hidden.shape:  # no rows, but connected to the graph of both arrays
        empty = backend.xp.sum(linear(hidden, weight), axis=-1, keepdims=True)
        return backend.xp.broadcast_to(empty, (*tokens.shape, 1 + with_entropy))
    work = Work(
        formula=_formula,
        options={"temperature": temperature, "with_entropy": with_entropy},
        xp=backend.xp,
        dtype=None,
        arrays=(hidden, weight, backend.xp.expand_dims(backend.signed(tokens), axis=-1)),
        mask=None,
        takes_mask=False,
        axis=len(hidden.shape) - 1,
        matrices=(1,),
        values=(1 + with_entropy,),
    )
    return backend.evaluation.evaluate(work)[0]


def _formula(hidden: Any, weight: Any, tokens: Any, *, temperature: float, with_entropy: bool) -> Any:
    backend = common_backend(_NAME, ("hidden", "weight", "tokens"), (hidden, weight, tokens))
    xp, classes = backend.xp, weight.shape[0]
    is_kept = tokens >= 0
    logits = linear(xp.where(is_kept, hidden, 0.0), weight)
    log_p = log_probabilities(logits, axis=-1, temperature=temperature, from_logits=True)
    index = backend.positions(log_p, tokens)
    # no gather: its gradient is a scatter, which is slow on devices and not deterministic
    of_token = xp.sum(xp.where(index == tokens, log_p, 0.0), axis=-1, keepdims=True)
    values = xp.where(tokens < classes, of_token, math.nan)
    if with_entropy:
        entropy = -negative_entropy(logits, normalize=False, axis=-1, temperature=temperature, from_logits=True)
        values = xp.concat([values, xp.expand_dims(entropy, axis=-1)], axis=-1)
    return xp.where(is_kept, values, 0.0)
