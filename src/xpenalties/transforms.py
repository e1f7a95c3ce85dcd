"""Gradient transforms: what is done to gradients, or to an optimizer's updates, on their way to the parameters.

The protocol is Optax's: ``init(params)`` makes a state and ``update(updates, state, params)`` returns the transformed
updates and the next state, both without side effects; the transforms go into `optax.chain` as they are. Trees are taken
of any framework's arrays, as `xpenalties.trees` describes them. Leaves that are no floating-point arrays, such as None
for a parameter without a gradient, stay as they are. Half precision is computed in float32 and returned as it came.

    transform = transforms.chain(transforms.clip_by_global_norm(1.0), transforms.add_l2_decay(1e-4))
    state = transform.init(params)
    updates, state = transform.update(gradients, state, params)

The weight of a decay is a number >= 0, a 0-d array, or a schedule: a callable of the number of updates so far. A decay
that is not `decoupled` adds to the gradient, before the optimizer sees it. One that is works on what comes out of the
optimizer and is added to the parameters, learning rate and sign included; the learning rate does not multiply its
weight (Loshchilov & Hutter, "Decoupled weight decay regularization", ICLR 2019). PyTorch users who do not differentiate
through the updates call them under `torch.no_grad`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from inspect import signature
from numbers import Real
from typing import Any, NamedTuple

from ._numerics import global_norm, safe_norm, soft_threshold
from ._options import NON_NEGATIVE, POSITIVE, Interval, integer, named, number
from ._selection import Patterns, Selected, as_nest
from ._transform import (
    GradientTransformation,
    StepState,
    changed,
    counted,
    figure,
    in_working_dtype,
    initial_step,
    with_params,
)
from .backends import backend_of, common_backend, flatten_with_paths_of, is_array, namespace

__all__ = [
    "GradientTransformation",
    "NoiseState",
    "StepState",
    "adaptive_gradient_clipping",
    "add_elastic_net_decay",
    "add_l1_decay",
    "add_l2_decay",
    "add_noise",
    "apply_updates",
    "centralize",
    "chain",
    "clip_by_global_norm",
    "proximal",
]

Given = str | Iterable[str] | None
_SHARE = number(Interval(0, 1))
_AXIS = integer()


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
        For a weight or pattern of a wrong kind or value; by `init` and `update` for a pattern that matches nothing, and
        by `update` where `params` are not given.

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
    l1_ratio = figure("add_elastic_net_decay", _SHARE, "l1_ratio", l1_ratio)
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


def clip_by_global_norm(max_norm: Any) -> GradientTransformation:
    """Scale all updates together, so that their L2 norm is `max_norm` at most.

    Parameters
    ----------
    max_norm : float or 0-d array
        > 0.

    Returns
    -------
    GradientTransformation

    Raises
    ------
    TypeError, ValueError
        For a norm of a wrong kind or value.

    Notes
    -----
    As `optax.clip_by_global_norm`, also where there is a NaN: all is NaN then. The norm is right where its square would
    overflow.

    Examples
    --------
    >>> clip = transforms.clip_by_global_norm(1.0)
    >>> clip.update([np.asarray([3.0]), np.asarray([4.0])], ())[0]
    [array([0.6]), array([0.8])]
    """
    name = "clip_by_global_norm"
    max_norm = figure(name, POSITIVE, "max_norm", max_norm)
    everything = Patterns.of(name, None, None)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        selected = everything.find(name, "updates", updates)
        if not selected.places:
            return updates, state
        norm = global_norm(selected.chosen())

        def clip(update: Any, norm: Any, max_norm: Any) -> Any:
            xp = namespace(update, norm, *filter(is_array, [max_norm]))
            short = norm < max_norm
            return xp.where(short, update, update / xp.where(short, 1.0, norm) * max_norm)

        return selected.replaced([in_working_dtype(name, clip, [x], norm, max_norm) for x in selected.chosen()]), state

    return GradientTransformation(lambda params: (), update)


def adaptive_gradient_clipping(
    clipping: Any, *, eps: Any = 1e-3, unit_axis: int | None = None, match: Given = None, exclude: Given = None
) -> GradientTransformation:
    r"""Scale each unit's update, so that its L2 norm is at most a share of the norm of the unit's parameters.

    :math:`u \min(1, \lambda \max(\|p\|, \epsilon) / \|u\|)` for each unit: what feeds one output of a layer.

    Parameters
    ----------
    clipping : float or 0-d array
        :math:`\lambda`, > 0.
    eps : float or 0-d array, default 1e-3
        :math:`\epsilon`, > 0: the least norm of parameters, so that those at 0 can move.
    unit_axis : int, optional
        The axis along which the units lie; norms are over all others. By default the first of PyTorch's arrays, whose
        layers are [out, in, ...], and of others as Optax has it: the last, but all except the first of three axes.
        Arrays with one axis longer than 1 are a unit.
    match, exclude : str or iterable of str, optional
        Regular expressions of paths, as for `trees.over_tree`. Brock et al. leave the last layer out.

    Returns
    -------
    GradientTransformation

    Raises
    ------
    TypeError, ValueError
        For options of a wrong kind or value, patterns that match nothing, and where `update` is not given `params`.

    Notes
    -----
    As `optax.adaptive_grad_clip`.

    References
    ----------
    .. [1] Brock et al., "High-performance large-scale image recognition without normalization", ICML 2021.

    Examples
    --------
    >>> clip = transforms.adaptive_gradient_clipping(0.5)
    >>> params, gradients = np.asarray([3.0, 4.0]), np.asarray([0.0, 10.0])
    >>> clip.update(gradients, clip.init(params), params)[0].tolist()
    [0.0, 2.5]
    """
    name = "adaptive_gradient_clipping"
    clipping = figure(name, POSITIVE, "clipping", clipping)
    eps = figure(name, POSITIVE, "eps", eps)
    unit_axis = None if unit_axis is None else named(name, _AXIS, "unit_axis", unit_axis)

    def clip(update: Any, param: Any, clipping: Any, eps: Any) -> Any:
        xp = namespace(update, param, *filter(is_array, [clipping, eps]))
        axes = _axes_of_a_unit(name, update, unit_axis)
        norm, least = (xp.reshape(safe_norm(x, axis=axes), _kept_shape(x, axes)) for x in (update, param))
        most = clipping * xp.where(least < eps, eps, least)
        return xp.where(norm < most, update, update * (most / xp.where(norm == 0, 1.0, norm)))

    return changed(name, clip, Patterns.of(name, match, exclude), clipping, eps)


def _axes_of_a_unit(name: str, x: Any, unit_axis: int | None) -> tuple[int, ...]:
    """The axes that the norm of a unit is over."""
    axes = tuple(range(x.ndim))
    if sum(size != 1 for size in x.shape) <= 1:
        return axes
    if unit_axis is None:
        backend = backend_of(x)
        assert backend is not None
        if backend.name != "torch":
            return axes[:1] if x.ndim == 3 else axes[:-1]
        unit_axis = 0
    return axes[: (at := _checked_axis(name, unit_axis, x))] + axes[at + 1 :]


def _kept_shape(x: Any, axes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of `x` with these axes reduced."""
    return tuple(1 if i in axes else size for i, size in enumerate(x.shape))


def _checked_axis(name: str, axis: int, x: Any) -> int:
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(
            f"{name}: `unit_axis` must be an axis of each array, got {axis} for shape {tuple(x.shape)}. "
            "Leave some out by `exclude`."
        )
    return axis % x.ndim


def centralize(*, unit_axis: int = 0, match: Given = None, exclude: Given = None) -> GradientTransformation:
    """Take off each unit's update its mean. Arrays of less than two axes stay as they are.

    Parameters
    ----------
    unit_axis : int, default 0
        The axis along which the units lie; means are over all others. 0 for PyTorch's layers, [out, in, ...], -1 for
        those of Flax and Keras, [..., in, out].
    match, exclude : str or iterable of str, optional
        Regular expressions of paths, as for `trees.over_tree`.

    Returns
    -------
    GradientTransformation

    Raises
    ------
    TypeError, ValueError
        For options of a wrong kind or value, and patterns that match nothing.

    Notes
    -----
    With the default as `optax.centralize`.

    References
    ----------
    .. [1] Yong et al., "Gradient centralization: a new optimization technique for deep neural networks", ECCV 2020.

    Examples
    --------
    >>> center = transforms.centralize()
    >>> center.update(np.asarray([[1.0, 3.0], [5.0, 5.0]]), ())[0].tolist()
    [[-1.0, 1.0], [0.0, 0.0]]
    """
    unit_axis = named("centralize", _AXIS, "unit_axis", unit_axis)

    def center(update: Any) -> Any:
        if update.ndim < 2 or 0 in update.shape:
            return update
        at = _checked_axis("centralize", unit_axis, update)
        axes = tuple(i for i in range(update.ndim) if i != at)
        return update - namespace(update).mean(update, axis=axes, keepdims=True)

    return changed("centralize", center, Patterns.of("centralize", match, exclude), params=False)


class NoiseState(NamedTuple):
    """The state of `add_noise`."""

    #: The number of updates so far, a 0-d array.
    step: Any
    #: What to draw from next.
    rng: Any


def add_noise(eta: Any, *, gamma: Any = 0.55, rng: Any) -> GradientTransformation:
    r"""Add Gaussian noise that fades: with variance :math:`\eta / (1 + t)^\gamma` at step :math:`t`.

    Parameters
    ----------
    eta : float or 0-d array
        The variance at step 0, >= 0; Neelakantan et al. try 0.01, 0.3 and 1.
    gamma : float or 0-d array, default 0.55
        How fast it fades, >= 0.
    rng : generator
        A JAX key, which each state has another one of; or a `torch.Generator` or `numpy.random.Generator`, which
        drawing changes.

    Returns
    -------
    GradientTransformation

    Raises
    ------
    TypeError, ValueError
        For options of a wrong kind or value; by `update` for a generator that is not of the arrays' framework, and for
        complex arrays.

    Notes
    -----
    As `optax.add_noise`, of which it has not the very numbers.

    References
    ----------
    .. [1] Neelakantan et al., "Adding gradient noise improves learning for very deep networks", 2015.

    Examples
    --------
    >>> noise = transforms.add_noise(0.01, rng=np.random.default_rng(0))
    >>> gradients = np.zeros(3)
    >>> updates, state = noise.update(gradients, noise.init(gradients))
    >>> updates.shape, int(state.step)
    ((3,), 1)
    """
    eta = figure("add_noise", NON_NEGATIVE, "eta", eta)
    gamma = figure("add_noise", NON_NEGATIVE, "gamma", gamma)
    everything = Patterns.of("add_noise", None, None)

    def init(params: Any) -> NoiseState:
        return NoiseState(initial_step("add_noise", params), rng)

    def update(updates: Any, state: NoiseState, params: Any = None) -> tuple[Any, NoiseState]:
        if not isinstance(state, NoiseState):
            raise TypeError(f"add_noise: `state` must be what `init` or `update` returned, got {state!r}. Pass that.")
        selected = everything.find("add_noise", "updates", updates)
        arrays = selected.chosen()
        if not arrays:
            return updates, state._replace(step=counted(state.step))
        backend = common_backend("add_noise", [selected.paths[i] for i in selected.places], arrays)
        following, *rngs = backend.split("add_noise", state.rng, len(arrays) + 1)
        drawn = iter(rngs)

        def noisy(update: Any, time: Any, eta: Any, gamma: Any) -> Any:
            if backend.dtype(update.dtype).kind != "real":
                raise TypeError(f"add_noise: `updates` must be real, got {update.dtype}. Split it into its parts.")
            deviation = (eta / (1 + time) ** gamma) ** 0.5
            return update + deviation * backend.normal("add_noise", next(drawn), tuple(update.shape), update)

        figures = state.step, eta, gamma
        new = selected.replaced([in_working_dtype("add_noise", noisy, [x], *figures) for x in arrays])
        return new, NoiseState(counted(state.step), following)

    return GradientTransformation(init, update)


def chain(*transforms: Any) -> GradientTransformation:
    """One transform after the other.

    Parameters
    ----------
    *transforms : GradientTransformation
        Of this package, or of Optax, which takes JAX's arrays. `update` hands more arguments on to those that take any.

    Returns
    -------
    GradientTransformation
        Its state is the tuple of theirs.

    Raises
    ------
    TypeError
        For what has no `init` and `update`; by `update`, for a state that is no tuple.
    ValueError
        By `update`, for a state of another number of transforms.

    Examples
    --------
    >>> both = transforms.chain(transforms.centralize(), transforms.clip_by_global_norm(1.0))
    >>> both.init({"w": np.ones((2, 2))})
    ((), ())
    """
    for i, each in enumerate(transforms):
        if not (callable(getattr(each, "init", None)) and callable(getattr(each, "update", None))):
            raise TypeError(
                f"chain: each of `transforms` must have `init` and `update`, got {type(each).__qualname__} at {i}. "
                "Call what makes the transform."
            )

    def init(params: Any) -> tuple[Any, ...]:
        return tuple(each.init(params) for each in transforms)

    more = [any(p.kind is p.VAR_KEYWORD for p in signature(each.update).parameters.values()) for each in transforms]

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, tuple[Any, ...]]:
        if not isinstance(state, tuple):
            raise TypeError(f"chain: `state` must be what `init` or `update` returned, got {state!r}. Pass that.")
        if len(state) != len(transforms):
            raise ValueError(
                f"chain: `state` must have a part for each of {len(transforms)} transforms, got {len(state)}. Call "
                "`init` first."
            )
        following = []
        for each, part, takes_more in zip(transforms, state, more, strict=True):
            updates, after = each.update(updates, part, params, **(extra if takes_more else {}))
            following.append(after)
        return updates, tuple(following)

    return GradientTransformation(init, update)


def apply_updates(params: Any, updates: Any) -> Any:
    """The parameters after a step: their sums with the updates, in the parameters' dtypes.

    Parameters
    ----------
    params, updates : nests of arrays
        Where there is no update, such as None, a parameter stays as it is.

    Returns
    -------
    nest of arrays, as `params`

    Raises
    ------
    TypeError, ValueError
        For updates of another framework, and for those at paths that `params` lack.

    Examples
    --------
    >>> transforms.apply_updates({"w": np.asarray([1.0]), "b": np.asarray([2.0])}, {"w": np.asarray([0.5]), "b": None})
    {'w': array([1.5]), 'b': array([2.])}
    """
    leaves, rebuild, paths = flatten_with_paths_of(as_nest(params))
    new, _, new_paths = flatten_with_paths_of(as_nest(updates))
    places = [i for i, x in enumerate(new) if is_array(x) and getattr(x.dtype, "itemsize", True)]  # float0 is nothing
    pairs = with_params("apply_updates", Selected(new, iter, new_paths, places), params)
    where = places if new_paths == paths else [paths.index(new_paths[i]) for i in places]
    for i, (update, param) in zip(where, pairs, strict=True):
        moved = in_working_dtype("apply_updates", operator.add, [param, update])
        leaves[i] = moved if moved.dtype == param.dtype else namespace(moved).astype(moved, param.dtype)
    return rebuild(iter(leaves))
