"""Divergences and entropies of distributions given as log-probabilities or logits, with natural logarithms."""

from __future__ import annotations

from typing import Literal, Unpack

from .._core.checks import Positive, UnitInterval
from .._core.types import Array
from .decorator import Shared, penalty
from .generalized_entropies import generalized_entropy
from .jensen_shannon import jensen_shannon
from .kullback_leibler import kl
from .log_probabilities import complete_unless_normalized, logsumexp, negative_entropy

__all__ = ["kl_divergence", "js_divergence", "entropy", "z_loss"]


@penalty(terms="rows", reduction="mean", distributions=complete_unless_normalized)
def kl_divergence(
    log_p: Array,
    log_q: Array,
    /,
    *,
    direction: Literal["forward", "reverse", "symmetric"] = "forward",
    skew: UnitInterval = 0.0,
    temperature: Positive = 1.0,
    axis: int = -1,
    from_logits: bool = False,
    **shared: Unpack[Shared],
) -> Array:
    r"""Kullback-Leibler divergence between two distributions over classes.

    .. warning:: Values are not checked. If you pass probabilities, or logits without ``from_logits=True``, the result
       is a plausible, wrong number. Use `set_value_checks` to find such calls.

    Each term is :math:`\mathrm{KL}(P\,\|\,Q) = \sum_i p_i (\log p_i - \log q_i)` for "forward",
    :math:`\mathrm{KL}(Q\,\|\,P)` for "reverse", and the mean of both for "symmetric".

    Parameters
    ----------
    log_p, log_q : array, shape (..., classes)
        Log-probabilities, or logits if `from_logits` is True. Real floating point, of the same shape.
    direction : {"forward", "reverse", "symmetric"}, default "forward"
        Direction of the divergence.
    skew : float, default 0.0
        Fraction of a distribution that the other one is mixed with, in [0, 1]: KL(P || skew P + (1 - skew) Q) for
        "forward", KL(Q || skew Q + (1 - skew) P) for "reverse", and the mean of both for "symmetric". If it is not 0,
        the divergence is at most -log(skew), also for disjoint distributions. At 1 it is 0.
    temperature : float, default 1.0
        Divides both inputs before a softmax normalizes them; > 0. The value is not multiplied by temperature**2.
    axis : int, default -1
        The axis of the classes.
    from_logits : bool, default False
        Normalize the inputs by a log-softmax first. If False and `temperature` is 1, the inputs are used as they are.

    Returns
    -------
    array, shape (), or that of the inputs without `axis` with ``reduction="none"``
        In nats, in float32 or wider.

    Raises
    ------
    TypeError
        If an input is not a real floating-point array, or an option has the wrong type.
    ValueError
        If the shapes differ, the inputs have no such axis, or an option is out of range.

    Notes
    -----
    A class with p = 0 adds 0, whatever q is. Probabilities below the dtype's smallest normal number count as 0. A class
    with p > 0 and q = 0 makes the value +inf, as in scipy.special.rel_entr, unless there is a `skew`. If the inputs are
    normalized here, q counts as 0 if log q is below -9e18 (in float32; -6e153 in float64).

    If both inputs are normalized here, by `from_logits` or a `temperature`, the value keeps its digits and is never
    below 0, even if the distributions are close. In float32, values down to 1e-9 then have 4 correct digits. Otherwise,
    the sum above has a rounding error of about 1e-6, of either sign. So if your log-probabilities sum to 1, pass
    ``from_logits=True`` with them too.

    torch.nn.functional.kl_div takes the two arguments in the other order, and its "mean" divides by the number of
    elements instead of rows.

    References
    ----------
    .. [1] Kullback & Leibler, "On information and sufficiency", Ann. Math. Statist. 22(1), 1951.
    .. [2] Lee, "Measures of distributional similarity", ACL 1999, for `skew`.
    .. [3] Ko et al., "DistiLLM: towards streamlined distillation for large language models", ICML 2024, for `skew`.

    Examples
    --------
    >>> log_p = np.asarray([math.log(0.5), math.log(0.5), -math.inf])
    >>> log_q = np.log([0.25, 0.25, 0.5])
    >>> round(float(kl_divergence(log_p, log_q)), 4)
    0.6931
    >>> float(kl_divergence(log_p, log_q, direction="reverse"))
    inf
    """
    return kl(log_p, log_q, direction=direction, skew=skew, axis=axis, temperature=temperature, from_logits=from_logits)


@penalty(terms="rows", reduction="mean", distributions=complete_unless_normalized)
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
    r"""Jensen-Shannon divergence between two distributions over classes, with adjustable weights.

    .. warning:: Values are not checked. If you pass probabilities, or logits without ``from_logits=True``, the result
       is a plausible, wrong number. Use `set_value_checks` to find such calls.

    Each term is :math:`\beta \mathrm{KL}(P\,\|\,M) + (1 - \beta) \mathrm{KL}(Q\,\|\,M)` with
    :math:`M = \beta P + (1 - \beta) Q`.

    Parameters
    ----------
    log_p, log_q : array, shape (..., classes)
        Log-probabilities, or logits if `from_logits` is True. Real floating point, of the same shape.
    beta : float, default 0.5
        Weight of P, in [0, 1]. At both ends the divergence is 0.
    temperature : float, default 1.0
        Divides both inputs before a softmax normalizes them; > 0.
    axis : int, default -1
        The axis of the classes.
    from_logits : bool, default False
        Normalize the inputs by a log-softmax first. If False and `temperature` is 1, the inputs are used as they are.

    Returns
    -------
    array, shape (), or that of the inputs without `axis` with ``reduction="none"``
        In nats, in float32 or wider. Each term is between 0 and log 2, up to rounding.

    Raises
    ------
    TypeError
        If an input is not a real floating-point array, or an option has the wrong type.
    ValueError
        If the shapes differ, the inputs have no such axis, or an option is out of range.

    Notes
    -----
    Finite for any two distributions, even disjoint ones. Some distillation code uses the name "generalized JSD" for a
    different divergence, which becomes a KL divergence at ``beta`` 0 and 1.

    References
    ----------
    .. [1] Lin, "Divergence measures based on the Shannon entropy", IEEE Trans. Inf. Theory 37(1), 1991.

    Examples
    --------
    >>> log_p, log_q = np.asarray([0.0, -np.inf]), np.asarray([-np.inf, 0.0])
    >>> float(js_divergence(log_p, log_q)) == math.log(2)
    True
    """
    return jensen_shannon(log_p, log_q, beta=beta, axis=axis, temperature=temperature, from_logits=from_logits)


@penalty(terms="rows", reduction="mean", distributions=complete_unless_normalized)
def entropy(
    log_p: Array,
    /,
    *,
    mode: Literal["penalty", "bonus"] = "penalty",
    kind: Literal["shannon", "tsallis", "renyi"] = "shannon",
    alpha: Positive = 2.0,
    normalize: bool = False,
    temperature: Positive = 1.0,
    axis: int = -1,
    from_logits: bool = False,
    **shared: Unpack[Shared],
) -> Array:
    r"""Entropy of a distribution over classes, as a penalty or a bonus to add to a loss: Shannon, Tsallis or Renyi.

    .. warning:: Values are not checked. If you pass probabilities, or logits without ``from_logits=True``, the result
       is a plausible, wrong number. Use `set_value_checks` to find such calls.

    Each term is :math:`H` for "penalty", which sharpens the distribution, and :math:`-H` for "bonus", which rewards
    exploration. With sums over the classes, :math:`H` is

    - :math:`-\sum p \log p` for "shannon";
    - :math:`(1 - \sum p^\alpha) / (\alpha - 1)` for "tsallis";
    - :math:`\log(\sum p^\alpha) / (1 - \alpha)` for "renyi".

    Parameters
    ----------
    log_p : array, shape (..., classes)
        Log-probabilities, or logits if `from_logits` is True. Real floating point.
    mode : {"penalty", "bonus"}, default "penalty"
        The sign: +H or -H.
    kind : {"shannon", "tsallis", "renyi"}, default "shannon"
        The entropy.
    alpha : float, default 2.0
        Power of "tsallis" and "renyi", > 0. "shannon" does not use it. At 1, both are Shannon's entropy, without a
        jump. The larger it is, the less do rare classes count.
    normalize : bool, default False
        Divide by the largest H, so that it is in [0, 1]. For n classes, that is log n, or
        :math:`(1 - n^{1 - \alpha}) / (\alpha - 1)` for "tsallis".
    temperature : float, default 1.0
        Divides the input before a softmax normalizes it; > 0.
    axis : int, default -1
        The axis of the classes.
    from_logits : bool, default False
        Normalize the input by a log-softmax first. If False and `temperature` is 1, the input is used as it is.

    Returns
    -------
    array, shape (), or that of the input without `axis` with ``reduction="none"``
        In nats or, with `normalize`, as a fraction of the largest entropy. ("tsallis" has no unit.) In float32 or
        wider.

    Raises
    ------
    TypeError
        If `log_p` is not a real floating-point array, or an option has the wrong type.
    ValueError
        If `log_p` has no such axis, or an option is out of range.

    Notes
    -----
    A class with log-probability -inf adds 0, but `normalize` counts it. The entropy of a single class is 0.

    With ``alpha=2``, "tsallis" is the Gini impurity :math:`1 - \sum p^2`, and "renyi" the collision entropy
    :math:`-\log \sum p^2`. With a large alpha, such as 1e4, "renyi" is about the min-entropy, :math:`-\log \max p`.
    An alpha of 0 would count the classes with p > 0, which has no slope, so it is refused.

    "tsallis" and "renyi" keep their digits for each alpha, and if one class is nearly certain. "tsallis" uses
    :math:`\sum p` in place of the 1 of its formula, and "renyi" always normalizes its input. With alpha < 1, a
    probability too small for the dtype counts with the power of its logarithm.

    References
    ----------
    .. [1] Shannon, "A mathematical theory of communication", Bell Syst. Tech. J. 27, 1948.
    .. [2] Renyi, "On measures of entropy and information", 4th Berkeley Symposium on Mathematical Statistics and
       Probability, 1961.
    .. [3] Tsallis, "Possible generalization of Boltzmann-Gibbs statistics", J. Stat. Phys. 52, 1988.

    Examples
    --------
    >>> float(entropy(np.log(np.full(4, 0.25)), mode="bonus", normalize=True))
    -1.0
    >>> round(float(entropy(np.log([0.5, 0.25, 0.25]), kind="tsallis")), 4)  # 1 - 3/8
    0.625
    """
    if kind != "shannon" and alpha != 1.0:
        value = generalized_entropy(
            log_p,
            kind=kind,
            alpha=alpha,
            normalize=normalize,
            axis=axis,
            temperature=temperature,
            from_logits=from_logits,
        )
        return -value if mode == "bonus" else value
    from_logits = from_logits or kind == "renyi"
    negative = negative_entropy(log_p, normalize=normalize, axis=axis, temperature=temperature, from_logits=from_logits)
    return negative if mode == "bonus" else -negative


@penalty(terms="rows", reduction="mean")
def z_loss(logits: Array, /, *, axis: int = -1, **shared: Unpack[Shared]) -> Array:
    r"""Squared log-partition function, which keeps logits from drifting.

    Each term is :math:`(\log \sum_i e^{z_i})^2`.

    Parameters
    ----------
    logits : array, shape (..., classes)
        Logits :math:`z`, which a softmax would normalize. Real floating point.
    axis : int, default -1
        The axis of the classes.

    Returns
    -------
    array, shape (), or that of the input without `axis` with ``reduction="none"``
        In float32 or wider.

    Raises
    ------
    TypeError
        If `logits` is not a real floating-point array, or `axis` is not an integer.
    ValueError
        If `logits` has no such axis.

    Notes
    -----
    Natural logarithm, no factor; PaLM weights it by 1e-4. Logits of -inf add nothing to the sum. If all logits of a
    row are -inf, its term is +inf.

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
