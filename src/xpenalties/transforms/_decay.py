"""Gradient transforms that pull parameters towards 0, or onto a set."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

from .._arrays.numerics import soft_threshold
from .._arrays.scalars import scalar
from .._core.checks import Interval, number
from ..backends import is_array, namespace
from ..trees._selection import Given, Patterns
from ._base import GradientTransformation, changed

__all__ = ["add_elastic_net_decay", "add_l1_decay", "add_l2_decay", "proximal"]

_SHARE = number(Interval(0, 1))


def add_l2_decay(
    weight: Any, *, match: Given = None, exclude: Given = None, decoupled: bool = False
) -> GradientTransformation:
    r"""Weight decay: :math:`g + w p`, the gradient of :math:`\frac{w}{2} \|p\|^2`.

    Parameters
    ----------
    weight : float, 0-d array or callable
        :math:`w`, >= 0. The penalty `l2` has no factor 1/2: a weight of `w` here is one of ``w / 2`` there.
    match, exclude : str or iterable of str, optional
        Regular expressions of paths, as for `trees.over_tree`.
    decoupled : bool, default False
        Of updates :math:`u` make :math:`u - w p`.

    Returns
    -------
    GradientTransformation

    Raises
    ------
    TypeError, ValueError
        For a weight or pattern of a wrong kind or value; by `init` for a pattern that matches nothing, and by
        `update` where `params` are not given.

    Notes
    -----
    As `optax.add_decayed_weights`.

    Examples
    --------
    >>> params, gradients = {"w": np.asarray([1.0, -2.0])}, {"w": np.asarray([0.5, 0.5])}
    >>> decay = transforms.add_l2_decay(0.25)
    >>> updates, state = decay.update(gradients, decay.init(params), params)
    >>> updates["w"].tolist()
    [0.75, 0.0]
    """
    return _decay("add_l2_decay", weight, 0.0, match, exclude, decoupled)


def add_l1_decay(
    weight: Any, *, match: Given = None, exclude: Given = None, decoupled: bool = False
) -> GradientTransformation:
    r"""Decay towards sparse weights: :math:`g + w \, \mathrm{sign}(p)`, the gradient of :math:`w \|p\|_1`.

    Parameters
    ----------
    weight, match, exclude
        As for `add_l2_decay`.
    decoupled : bool, default False
        Make of updates those that lead to the soft threshold of what they would lead to, `prox.l1` with a scale of
        :math:`w`: parameters become exactly 0.

    Returns
    -------
    GradientTransformation

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


def add_elastic_net_decay(
    weight: Any, *, l1_ratio: Any = 0.5, match: Given = None, exclude: Given = None, decoupled: bool = False
) -> GradientTransformation:
    r"""Both decays: :math:`g + w (\alpha \, \mathrm{sign}(p) + (1 - \alpha) p)`, :math:`\alpha` = `l1_ratio`.

    Parameters
    ----------
    weight, match, exclude
        As for `add_l2_decay`.
    l1_ratio : float or 0-d array, default 0.5
        Share of the L1 part, in [0, 1].
    decoupled : bool, default False
        The L2 part first, as `add_l2_decay` has it, then the soft threshold, as `add_l1_decay` has it.

    Returns
    -------
    GradientTransformation

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
    name: str, weight: Any, l1_ratio: Any, match: Given, exclude: Given, decoupled: bool
) -> GradientTransformation:
    if not isinstance(decoupled, bool):
        raise TypeError(f"{name}: `decoupled` must be True or False, got {decoupled!r}. Pass a bool.")

    only_l1, only_l2 = (isinstance(l1_ratio, Real) and l1_ratio == share for share in (1, 0))

    def coupled(gradient: Any, param: Any, weight: Any, l1_ratio: Any) -> Any:
        if not only_l1:
            gradient = gradient + (1 - l1_ratio) * weight * param
        return gradient if only_l2 else gradient + l1_ratio * weight * namespace(param).sign(param)

    def of_update(update: Any, param: Any, weight: Any, l1_ratio: Any) -> Any:
        if not only_l1:
            update = update - (1 - l1_ratio) * weight * param
        if only_l2:
            return update
        scale = l1_ratio * weight
        xp = namespace(update, param, *filter(is_array, [scale]))
        return soft_threshold(xp, param + update, scale) - param

    change, patterns = of_update if decoupled else coupled, Patterns.of(name, match, exclude)
    return changed(name, change, patterns, l1_ratio, weight=weight)


def proximal(
    operator: Callable[..., Any], *, scale: Any = None, match: Given = None, exclude: Given = None, **options: Any
) -> GradientTransformation:
    """Make of updates those that lead to the proximal operator of what they would lead to.

    It stands after the optimizer, whose updates are added to the parameters: proximal gradient descent.

    Parameters
    ----------
    operator : callable
        One of `xpenalties.prox`.
    scale : float, 0-d array or callable, optional
        The operator's `scale`, the learning rate times the weight, or a schedule of it; for those that take one.
    match, exclude : str or iterable of str, optional
        Regular expressions of paths, as for `trees.over_tree`.
    **options
        More of the operator's.

    Returns
    -------
    GradientTransformation

    Raises
    ------
    TypeError, ValueError
        As `add_l2_decay`; for an operator that is no callable; and what the operator raises.

    Examples
    --------
    >>> nonnegative = transforms.proximal(prox.box, low=0.0)
    >>> params, updates = np.asarray([1.0, 0.25]), np.asarray([-0.5, -0.5])
    >>> updates, _ = nonnegative.update(updates, nonnegative.init(params), params)
    >>> transforms.apply_updates(params, updates).tolist()
    [0.5, 0.0]
    """
    if not callable(operator):
        raise TypeError(f"proximal: `operator` must be a callable, got {operator!r}. Pass for example `prox.l1`.")

    def of_update(update: Any, param: Any, scale: Any = None) -> Any:
        scaled = options if scale is None else {**options, "scale": scale}
        return operator(param + update, **scaled) - param

    return changed("proximal", of_update, Patterns.of("proximal", match, exclude), weight=scale, named="scale")
