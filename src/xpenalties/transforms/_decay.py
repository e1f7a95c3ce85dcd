"""Gradient transforms that pull parameters toward 0, or onto a set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from numbers import Real
from typing import Any

from .._arrays.numerics import soft_threshold
from .._arrays.scalars import scalar
from .._core.checks import NON_NEGATIVE, Interval, check_argument, number_in
from .._core.shown import shown
from .._core.suggestions import did_you_mean
from ..backends import is_array, namespace
from ..trees._selection import Patterns, PatternsLike
from ._base import GradientTransformation, accepts_keyword, applied_to, leafwise, remember_call

__all__ = ["add_elastic_net_decay", "add_l1_decay", "add_l2_decay", "proximal"]

_SHARE = number_in(Interval(0, 1))


@remember_call
def add_l2_decay(
    weight: Any, *, match: PatternsLike = None, exclude: PatternsLike = None, decoupled: bool = False
) -> GradientTransformation:
    r"""Add weight decay to gradients: :math:`g + w p`.

    :math:`w p` is the gradient of :math:`\frac{w}{2} \|p\|^2`.

    Parameters
    ----------
    weight : float, 0-d array or callable
        :math:`w`, >= 0. The penalty `l2` has no factor 1/2: a weight `w` here corresponds to ``w / 2`` there.
    match, exclude : str, Pattern or iterable of these, optional
        Patterns of leaves, as in `trees.over_tree`.
    decoupled : bool, default False
        If True, change the optimizer's updates :math:`u` instead, to :math:`u - w p`.

    Returns
    -------
    GradientTransformation
        If `decoupled`, its `update` also takes `learning_rate`, and multiplies :math:`w` by it. Pass a number, a 0-d
        array, or a mapping from paths to these.

    Raises
    ------
    TypeError, ValueError
        If a weight or pattern has the wrong type or value. `init` raises it if a pattern matches nothing, `update` if
        it gets no `params`.

    Notes
    -----
    Same as `optax.add_decayed_weights`.

    Examples
    --------
    >>> params, gradients = {"w": np.asarray([1.0, -2.0])}, {"w": np.asarray([0.5, 0.5])}
    >>> decay = transforms.add_l2_decay(0.25)
    >>> updates, state = decay.update(gradients, decay.init(params), params)
    >>> updates["w"].tolist()
    [0.75, 0.0]
    """
    return _decay("add_l2_decay", weight, 0.0, match, exclude, decoupled)


@remember_call
def add_l1_decay(
    weight: Any, *, match: PatternsLike = None, exclude: PatternsLike = None, decoupled: bool = False
) -> GradientTransformation:
    r"""Add L1 decay to gradients, which makes parameters sparse: :math:`g + w \, \mathrm{sign}(p)`.

    :math:`w \, \mathrm{sign}(p)` is the gradient of :math:`w \|p\|_1`.

    Parameters
    ----------
    weight, match, exclude
        As for `add_l2_decay`.
    decoupled : bool, default False
        If True, apply `prox.l1` with scale :math:`w` to the updated parameters instead, so that small parameters become
        exactly 0.

    Returns
    -------
    GradientTransformation
        As for `add_l2_decay`.

    Raises
    ------
    TypeError, ValueError
        As `add_l2_decay`.

    Examples
    --------
    >>> params, updates = np.asarray([1.0, 0.25]), np.asarray([-0.5, 0.0])
    >>> decay = transforms.add_l1_decay(0.25, decoupled=True)
    >>> updates, _ = decay.update(updates, decay.init(params), params)
    >>> transforms.apply_updates(params, updates).tolist()
    [0.25, 0.0]
    """
    return _decay("add_l1_decay", weight, 1.0, match, exclude, decoupled)


@remember_call
def add_elastic_net_decay(
    weight: Any,
    *,
    l1_ratio: Any = 0.5,
    match: PatternsLike = None,
    exclude: PatternsLike = None,
    decoupled: bool = False,
) -> GradientTransformation:
    r"""Add L1 and L2 decay to gradients: :math:`g + w (\alpha \, \mathrm{sign}(p) + (1 - \alpha) p)`.

    :math:`\alpha` is `l1_ratio`.

    Parameters
    ----------
    weight, match, exclude
        As for `add_l2_decay`.
    l1_ratio : float or 0-d array, default 0.5
        Fraction of the L1 decay, in [0, 1].
    decoupled : bool, default False
        If True, change the optimizer's updates instead: first as `add_l2_decay` does, then as `add_l1_decay` does.

    Returns
    -------
    GradientTransformation
        As for `add_l2_decay`.

    Raises
    ------
    TypeError, ValueError
        As `add_l2_decay`.

    Examples
    --------
    >>> params, gradients = np.asarray([1.0, -2.0]), np.asarray([0.0, 0.0])
    >>> decay = transforms.add_elastic_net_decay(1.0)
    >>> decay.update(gradients, decay.init(params), params)[0].tolist()
    [1.0, -1.5]
    """
    l1_ratio = scalar("add_elastic_net_decay", _SHARE, "l1_ratio", l1_ratio)
    return _decay("add_elastic_net_decay", weight, l1_ratio, match, exclude, decoupled)


def _decay(
    name: str, weight: Any, l1_ratio: Any, match: PatternsLike, exclude: PatternsLike, decoupled: bool
) -> GradientTransformation:
    if not isinstance(decoupled, bool):
        raise TypeError(f"{name}: `decoupled` must be True or False, got {shown(decoupled)}. Pass a bool.")
    only_l1, only_l2 = (isinstance(l1_ratio, Real) and l1_ratio == share for share in (1, 0))

    def to_gradient(gradient: Any, param: Any, weight: Any, l1_ratio: Any) -> Any:
        if not only_l1:
            gradient = gradient + (1 - l1_ratio) * weight * param
        return gradient if only_l2 else gradient + l1_ratio * weight * namespace(param).sign(param)

    def to_update(update: Any, param: Any, weight: Any, l1_ratio: Any) -> Any:
        if not only_l1:
            update = update - (1 - l1_ratio) * weight * param
        if only_l2:
            return update
        scale = l1_ratio * weight
        xp = namespace(update, param, *filter(is_array, [scale]))
        return soft_threshold(xp, param + update, scale) - param

    change, patterns = to_update if decoupled else to_gradient, Patterns.of(name, match, exclude)
    transform = leafwise(name, change, patterns, l1_ratio, weight=weight, takes_learning_rate=decoupled)
    return applied_to(transform, "updates" if decoupled else "gradients")


@remember_call
def proximal(
    operator: Callable[..., Any],
    *,
    scale: Any = None,
    match: PatternsLike = None,
    exclude: PatternsLike = None,
    **options: Any,
) -> GradientTransformation:
    """Replace the updates so that applying them gives the proximal operator of the updated parameters.

    Chain it after the optimizer: this is proximal gradient descent.

    Parameters
    ----------
    operator : callable
        An operator of `xpenalties.prox`.
    scale : float, array or callable, optional
        The operator's `scale`: the learning rate times the penalty's weight, or a schedule of that. An array must
        broadcast as the operator requires, for each selected parameter. None if the operator takes no scale.
    match, exclude : str, Pattern or iterable of these, optional
        Patterns of leaves, as in `trees.over_tree`.
    **options
        Other options of the operator.

    Returns
    -------
    GradientTransformation
        If there is a `scale`, its `update` also takes `learning_rate`, as for a decoupled `add_l2_decay`, and
        multiplies the scale by it.

    Raises
    ------
    TypeError, ValueError
        As `add_l2_decay`. Also if `operator` is not callable, does not take an option, or needs one that you did not
        pass. Errors of the operator are passed on.

    Examples
    --------
    >>> nonnegative = transforms.proximal(prox.box, low=0.0)
    >>> params, updates = np.asarray([1.0, 0.25]), np.asarray([-0.5, -0.5])
    >>> updates, _ = nonnegative.update(updates, nonnegative.init(params), params)
    >>> transforms.apply_updates(params, updates).tolist()
    [0.5, 0.0]
    """
    if not callable(operator):
        raise TypeError(f"proximal: `operator` must be a callable, got {shown(operator)}. Pass for example `prox.l1`.")

    _check_options(operator, options if scale is None else {"scale": scale, **options})

    def change(update: Any, param: Any, scale: Any = None) -> Any:
        all_options = options if scale is None else {**options, "scale": scale}
        return operator(param + update, **all_options) - param

    patterns = Patterns.of("proximal", match, exclude)
    transform = leafwise("proximal", change, patterns, weight=scale, check=_checked_scale, takes_learning_rate=True)
    return applied_to(transform, "updates")


def _check_options(operator: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Check that an operator takes these options, and needs no others."""
    try:
        _, *parameters = signature(operator).parameters.values()
    except ValueError:  # of a function that is not written in Python
        return
    name = getattr(operator, "__name__", type(operator).__qualname__)
    accepts = accepts_keyword(operator, 1)
    unknown = next((option for option in options if not accepts(option)), None)
    if unknown is not None:
        names = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
        raise TypeError(
            f"proximal: `operator` must take the options, got {name}, which does not take {unknown!r}. Its options are "
            f"{', '.join(names) or 'none'}.{did_you_mean(unknown, names)}"
        )
    kinds = (Parameter.KEYWORD_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p.name for p in parameters if p.kind in kinds and p.default is p.empty and p.name not in options]
    if needed:
        remedy = "the learning rate times the penalty's weight" if needed[0] == "scale" else "it"
        raise TypeError(f"proximal: `{needed[0]}` must be given for {name}, got nothing. Pass {remedy}.")


def _checked_scale(name: str, scale: Any) -> Any:
    """Check a scale. It may be an array of any shape, because the operator checks shapes."""
    if callable(scale) or (is_array(scale) and not isinstance(scale, Real)):
        return scale
    return check_argument(name, NON_NEGATIVE, "scale", scale)
