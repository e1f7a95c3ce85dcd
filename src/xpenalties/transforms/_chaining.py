"""Chain gradient transforms, and apply updates to parameters."""

from __future__ import annotations

import operator
from inspect import signature
from typing import Any

from ..backends import flatten_with_paths_of, is_array, namespace
from ..trees._selection import Selected, as_nest
from ._base import GradientTransformation, checked_state, checked_transform, in_working_dtype, with_params

__all__ = ["apply_updates", "chain"]


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
