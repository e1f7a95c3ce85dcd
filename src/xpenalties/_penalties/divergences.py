"""Divergences and entropies of distributions, given as log-probabilities or logits. Natural logarithms throughout."""

from __future__ import annotations

import math
from typing import Any, Literal, Unpack

from .._arrays.numerics import is_log_zero, log_probabilities, logsumexp, stop_gradient, supported
from .._core.checks import Positive, UnitInterval
from .._core.types import Array
from ..backends import namespace
from .decorator import Shared, penalty
from .jensen_shannon import jensen_shannon

__all__ = ["kl_divergence", "js_divergence", "entropy", "topk_kl_divergence", "sampled_kl", "z_loss"]


@penalty(terms="rows", reduction="mean")
def kl_divergence(
    log_p: Array,
    log_q: Array,
    /,
    *,
    direction: Literal["forward", "reverse", "symmetric"] = "forward",
    temperature: Positive = 1.0,
    axis: int = -1,
    from_logits: bool = False,
    **shared: Unpack[Shared],
) -> Array:
    r"""Kullback-Leibler divergence of two distributions over classes.

    Forward is :math:`KL(P\|Q) = \sum_i p_i (\log p_i - \log q_i)`, reverse :math:`KL(Q\|P)`, symmetric the mean of
    both.

    Parameters
    ----------
    log_p, log_q : array, shape (..., classes)
        Log-probabilities, or logits with `from_logits`. Same shape.
    direction : {"forward", "reverse", "symmetric"}, default "forward"
        Which one.
    temperature : float, default 1.0
        Both become softmax(log / temperature); > 0. The value is not multiplied by its square.
    axis : int, default -1
        The axis of the classes.
    from_logits : bool, default False
        Normalise the inputs first. Log-probabilities are otherwise used as they are, unless `temperature` is not 1.

    Returns
    -------
    array, shape () or with ``reduction="none"`` that of the inputs without `axis`
        In nats, float32 at least.

    Notes
    -----
    A class with p = 0 (below the smallest normal number) adds 0, whatever q is; one with p > 0 and q = 0 makes the
    value +inf, as in scipy.special.rel_entr. Nothing is clipped, so that of two close distributions the value may be a
    rounding error below 0. torch.nn.functional.kl_div takes the arguments the other way round and its "mean" is over
    elements.

    References
    ----------
    .. [1] Kullback & Leibler, "On information and sufficiency", Ann. Math. Statist. 22(1), 1951.

    Examples
    --------
    >>> log_p = np.asarray([math.log(0.5), math.log(0.5), -math.inf])
    >>> log_q = np.log([0.25, 0.25, 0.5])
    >>> round(float(kl_divergence(log_p, log_q)), 4)
    0.6931
    >>> float(kl_divergence(log_p, log_q, direction="reverse"))
    inf
    """
    log_p = log_probabilities(log_p, axis=axis, temperature=temperature, from_logits=from_logits)
    log_q = log_probabilities(log_q, axis=axis, temperature=temperature, from_logits=from_logits)
    return kl(log_p, log_q, direction=direction, axis=axis)


def kl(log_p: Any, log_q: Any, *, direction: str, axis: int) -> Any:
    """`kl_divergence` of log-probabilities, for each row."""
    if direction == "symmetric":
        return symmetric_kl(log_p, log_q, axis=axis)
    if direction == "reverse":
        log_p, log_q = log_q, log_p
    xp = namespace(log_p, log_q)
    # with the minus outside, the gradient by log q, the student's where P is a teacher, is a product and no more
    return 0.0 - xp.sum(xp.exp(log_p) * supported(log_q - log_p, log_p), axis=axis)


def symmetric_kl(log_p: Any, log_q: Any, *, axis: int) -> Any:
    """(KL(P||Q) + KL(Q||P)) / 2 of log-probabilities, for each row."""
    xp = namespace(log_p, log_q)
    p, q = xp.exp(log_p), xp.exp(log_q)
    log_ratio = supported(log_p - log_q, log_p, log_q)
    return xp.sum(0.5 * (p - q) * log_ratio, axis=axis)  # each summand >= 0


@penalty(terms="rows", reduction="mean")
def js_divergence(
    log_p: Array,
    log_q: Array,
    /,
    *,
    beta: UnitInterval = 0.5,
    temperature: Positive = 1.0,
    axis: int = -1,
    from_logits: bool = False,
    **shared: Unpack[Shared],
) -> Array:
    r"""Generalised Jensen-Shannon divergence of two distributions over classes.

    :math:`\beta KL(P\|M) + (1 - \beta) KL(Q\|M)` with :math:`M = \beta P + (1 - \beta) Q`.

    Parameters
    ----------
    log_p, log_q : array, shape (..., classes)
        Log-probabilities, or logits with `from_logits`. Same shape.
    beta : float, default 0.5
        Weight of P, in [0, 1]. The divergence is 0 at both ends.
    temperature : float, default 1.0
        Both become softmax(log / temperature); > 0.
    axis : int, default -1
        The axis of the classes.
    from_logits : bool, default False
        Normalise the inputs first.

    Returns
    -------
    array, shape () or with ``reduction="none"`` that of the inputs without `axis`
        In nats, between 0 and log 2 but for rounding, float32 at least.

    Notes
    -----
    Finite for any two distributions, disjoint ones too. Not the divergence that some distillation code calls
    generalised JSD, which becomes a KL divergence at ``beta`` 0 and 1.

    References
    ----------
    .. [1] Lin, "Divergence measures based on the Shannon entropy", IEEE Trans. Inf. Theory 37(1), 1991.

    Examples
    --------
    >>> log_p, log_q = np.asarray([0.0, -np.inf]), np.asarray([-np.inf, 0.0])
    >>> float(js_divergence(log_p, log_q)) == math.log(2)
    True
    """
    log_p = log_probabilities(log_p, axis=axis, temperature=temperature, from_logits=from_logits)
    log_q = log_probabilities(log_q, axis=axis, temperature=temperature, from_logits=from_logits)
    return jensen_shannon(log_p, log_q, beta=beta, axis=axis)


@penalty(terms="rows", reduction="mean")
def entropy(
    log_p: Array,
    /,
    *,
    mode: Literal["penalty", "bonus"] = "penalty",
    normalize: bool = False,
    temperature: Positive = 1.0,
    axis: int = -1,
    from_logits: bool = False,
    **shared: Unpack[Shared],
) -> Array:
    r"""Shannon entropy of a distribution over classes, signed for a loss that is minimised.

    :math:`H = -\sum_i p_i \log p_i`; "penalty" is :math:`+H` and sharpens, "bonus" is :math:`-H` and rewards
    exploration.

    Parameters
    ----------
    log_p : array, shape (..., classes)
        Log-probabilities, or logits with `from_logits`.
    mode : {"penalty", "bonus"}, default "penalty"
        The sign.
    normalize : bool, default False
        Divide by the log of the number of classes, so that H is in [0, 1].
    temperature : float, default 1.0
        The distribution becomes softmax(log_p / temperature); > 0.
    axis : int, default -1
        The axis of the classes.
    from_logits : bool, default False
        Normalise the input first.

    Returns
    -------
    array, shape () or with ``reduction="none"`` that of the input without `axis`
        In nats, or a share of the maximum with `normalize`; float32 at least.

    Notes
    -----
    A class of log-probability -inf adds 0 but is counted by `normalize`. With one class the entropy is 0.

    References
    ----------
    .. [1] Shannon, "A mathematical theory of communication", Bell Syst. Tech. J. 27, 1948.

    Examples
    --------
    >>> float(entropy(np.log(np.full(4, 0.25)), mode="bonus", normalize=True))
    -1.0
    """
    log_p = log_probabilities(log_p, axis=axis, temperature=temperature, from_logits=from_logits)
    negative = negative_entropy(log_p, normalize=normalize, axis=axis)
    return negative if mode == "bonus" else -negative


def negative_entropy(log_p: Any, *, normalize: bool, axis: int) -> Any:
    """-H of log-probabilities, for each row."""
    xp = namespace(log_p)
    negative = xp.sum(xp.exp(log_p) * supported(log_p, log_p), axis=axis)
    classes = log_p.shape[axis]
    return negative / math.log(classes) if normalize and classes > 1 else negative


_LOGITS = 256.0  # of up to this size, `z - logsumexp(z)` is as exact as topk_kl_divergence takes it to be


@penalty(terms="rows", reduction="mean", extras=("eps",))
def topk_kl_divergence(
    log_p: Array,
    log_q: Array,
    /,
    *,
    tail: Literal["bucket", "renormalize", "truncate"] = "bucket",
    axis: int = -1,
    **shared: Unpack[Shared],
) -> Array:
    r"""KL divergence from the log-probabilities of the same k classes, as a teacher's API gives them.

    :math:`\sum_{i \le k} p_i (\log p_i - \log q_i)`, and for the classes not given what `tail` says.

    Parameters
    ----------
    log_p, log_q : array, shape (..., k)
        Log-probabilities of the same k classes, out of more. Same shape.
    tail : {"bucket", "renormalize", "truncate"}, default "bucket"
        The rest is one more class; or the k are renormalised to sum to 1; or the rest is left out.
    axis : int, default -1
        The axis of the k classes.

    Returns
    -------
    array, shape () or with ``reduction="none"`` that of the inputs without `axis`
        In nats, float32 at least. A lower bound of the KL divergence over all classes with "bucket".

    Notes
    -----
    A rest of P that is no more than what rounding the k log-probabilities may leave, eps (1 + log k) with the eps of
    the dtype given, is none. Where Q's k classes sum to 1 or more, and P has a rest, "bucket" is +inf, as KL is where
    q = 0; there a rest of P is also none up to 256 eps of the dtype computed in, 3e-5 in float32, which is what
    `z - logsumexp(z)` may leave. "renormalize" is finite there, "truncate" may be negative. In half precision a rest
    of a few percent is within rounding: compute the log-probabilities in float32.

    References
    ----------
    .. [1] Cover & Thomas, "Elements of information theory", 2nd ed., Wiley 2006, section 2.7 (log-sum inequality).

    Examples
    --------
    >>> log_p, log_q = np.log([0.5, 0.25]), np.log([0.25, 0.25])
    >>> round(float(topk_kl_divergence(log_p, log_q)), 4)
    0.1733
    """
    if tail == "renormalize":
        log_p = log_probabilities(log_p, axis=axis, temperature=1.0, from_logits=True)
        log_q = log_probabilities(log_q, axis=axis, temperature=1.0, from_logits=True)
    given = kl(log_p, log_q, direction="forward", axis=axis)
    if tail != "bucket":
        return given
    xp = namespace(log_p, log_q)
    rest_p, rest_q = 1 - xp.sum(xp.exp(log_p), axis=axis), 1 - xp.sum(xp.exp(log_q), axis=axis)
    rounding = shared["eps"] * (1 + math.log(log_p.shape[axis]))  # type: ignore[typeddict-item]
    some_q = rest_q > 0
    none_q = xp.astype(~some_q, rest_p.dtype)
    has_rest = rest_p > rounding + none_q * (_LOGITS * xp.finfo(log_p.dtype).eps)
    log_rest_p = xp.log(xp.where(has_rest, rest_p, 1.0))
    log_rest_q = xp.where(some_q, xp.log(xp.where(some_q, rest_q, 1.0)), -math.inf)
    return given + rest_p * xp.where(has_rest, log_rest_p - log_rest_q, 0.0)


@penalty(terms="elements", reduction="mean")
def sampled_kl(
    log_p: Array,
    log_q: Array,
    /,
    *,
    estimator: Literal["k1", "k2", "k3"] = "k3",
    gradient: Literal["value", "k2"] = "value",
    **shared: Unpack[Shared],
) -> Array:
    r"""Monte Carlo estimate of KL(P||Q) from the log-probabilities of tokens drawn from P.

    With :math:`r = \log q - \log p`: k1 is :math:`-r`, k2 :math:`r^2 / 2`, k3 :math:`e^r - 1 - r`.

    Parameters
    ----------
    log_p, log_q : array, shape (...)
        Log-probabilities of the drawn tokens, under the policy and under the reference. Same shape.
    estimator : {"k1", "k2", "k3"}, default "k3"
        k1 is unbiased, k2 has less variance and a bias, k3 is unbiased and >= 0.
    gradient : {"value", "k2"}, default "value"
        Differentiate the estimator itself, or give its value the gradient of k2: on policy the only one of the three
        whose expected gradient is that of the KL divergence.

    Returns
    -------
    array, shape () or with ``reduction="none"`` that of the inputs
        In nats, float32 at least.

    Notes
    -----
    Tokens of log-probability -inf in both (masked ones) add 0; of -inf in one, what the formula says: -inf or inf.

    References
    ----------
    .. [1] Schulman, "Approximating KL divergence", 2020, http://joschu.net/blog/kl-approx.html

    Examples
    --------
    >>> log_p, log_q = np.log([0.5, 0.5]), np.log([0.25, 0.5])
    >>> round(float(sampled_kl(log_p, log_q, estimator="k1")), 4)
    0.3466
    """
    xp = namespace(log_p, log_q)
    masked = is_log_zero(log_p) & is_log_zero(log_q)
    r = xp.where(masked, 0.0, log_q - log_p)
    if estimator == "k2":
        return 0.5 * r * r
    if estimator == "k1":
        value = -r
    else:
        impossible = r == math.inf  # inf - inf would be NaN
        finite_r = xp.where(impossible, 0.0, r)
        value = xp.where(impossible, math.inf, xp.expm1(finite_r) - finite_r)
    if gradient == "value":
        return value
    r = xp.where(value == -math.inf, 0.0, r)  # minimising would follow a value of -inf: no gradient
    k2 = 0.5 * r * r
    finite = xp.isfinite(k2)  # inf - inf would be NaN
    finite_r = xp.where(finite, r, 0.0)
    finite_k2 = 0.5 * finite_r * finite_r
    return xp.where(finite, stop_gradient(value) + (finite_k2 - stop_gradient(finite_k2)), k2)


@penalty(terms="rows", reduction="mean")
def z_loss(logits: Array, /, *, axis: int = -1, **shared: Unpack[Shared]) -> Array:
    r"""Squared log-partition function, which keeps logits from drifting.

    :math:`(\log \sum_i e^{z_i})^2`.

    Parameters
    ----------
    logits : array, shape (..., classes)
        Unnormalised.
    axis : int, default -1
        The axis of the classes.

    Returns
    -------
    array, shape () or with ``reduction="none"`` that of the input without `axis`
        Float32 at least.

    Notes
    -----
    No factor; PaLM weights it by 1e-4. Logits of -inf add nothing to the sum; a row of nothing else has the value +inf.

    References
    ----------
    .. [1] Chowdhery et al., "PaLM: scaling language modeling with pathways", JMLR 24, 2023.

    Examples
    --------
    >>> round(float(z_loss(np.zeros(4))), 4) == round(math.log(4) ** 2, 4)
    True
    """
    log_partition = logsumexp(logits, axis=axis)
    return log_partition * log_partition
