"""Gradient transforms: what is done to gradients, or to an optimizer's updates, on their way to the parameters.

The protocol is Optax's: ``init(params)`` makes a state and ``update(updates, state, params)`` returns the transformed
updates and the next state, both without side effects; the transforms go into `optax.chain` as they are. Trees are taken
of any framework's arrays, as `xpenalties.trees` describes them. Leaves that are no floating-point arrays, such as None
for a parameter without a gradient, stay as they are. Half precision is computed in float32 and returned as it came::

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
from inspect import signature
from typing import Any, NamedTuple

from .._arrays.scalars import scalar
from .._core.checks import NON_NEGATIVE
from ..backends import common_backend, flatten_with_paths_of, is_array, namespace
from ..trees._selection import Patterns, Selected, as_nest
from ._base import (
    GradientTransformation,
    StepState,
    checked_state,
    checked_transform,
    counted,
    in_working_dtype,
    initial_step,
    with_params,
)
from ._clipping import adaptive_gradient_clipping, centralize, clip_by_global_norm
from ._decay import add_elastic_net_decay, add_l1_decay, add_l2_decay, proximal

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
    eta = scalar("add_noise", NON_NEGATIVE, "eta", eta)
    gamma = scalar("add_noise", NON_NEGATIVE, "gamma", gamma)
    everything = Patterns.of("add_noise", None, None)

    def init(params: Any) -> NoiseState:
        return NoiseState(initial_step("add_noise", params), rng)

    def update(updates: Any, state: NoiseState, params: Any = None) -> tuple[Any, NoiseState]:
        checked_state("add_noise", NoiseState, state)
        selected = everything.find("add_noise", "updates", updates)
        arrays = selected.chosen()
        if not arrays:
            return updates, state._replace(step=counted(state.step))
        backend = common_backend("add_noise", [selected.paths[i] for i in selected.places], arrays)
        following, *rngs = backend.random.split("add_noise", state.rng, len(arrays) + 1)
        drawn = iter(rngs)

        def noisy(update: Any, time: Any, eta: Any, gamma: Any) -> Any:
            if backend.dtype(update.dtype).kind != "real":
                raise TypeError(f"add_noise: `updates` must be real, got {update.dtype}. Split it into its parts.")
            deviation = (eta / (1 + time) ** gamma) ** 0.5
            return update + deviation * backend.random.normal("add_noise", next(drawn), tuple(update.shape), update)

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
        checked_transform("chain", f"transforms[{i}]", each)

    def init(params: Any) -> tuple[Any, ...]:
        return tuple(each.init(params) for each in transforms)

    more = [any(p.kind is p.VAR_KEYWORD for p in signature(each.update).parameters.values()) for each in transforms]

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, tuple[Any, ...]]:
        checked_state("chain", tuple, state)
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
