"""Chain gradient transforms, and apply updates to parameters."""

from __future__ import annotations

import operator
import sys
from functools import cache
from typing import Any

from ..backends import flatten_with_paths_of, is_array, namespace, paths_of_none
from ..trees._selection import Selected, as_nest, check_visible
from ._base import (
    GradientTransformation,
    accepts_keyword,
    applied_to,
    check_state,
    check_transform,
    in_working_dtype,
    remember_call,
    with_params,
)

__all__ = ["apply_updates", "chain"]


@remember_call
def chain(*transforms: Any) -> GradientTransformation:
    """Apply transforms one after the other.

    Parameters
    ----------
    *transforms : GradientTransformation
        Transforms of this package, or of Optax, which take JAX arrays only.

    Returns
    -------
    GradientTransformation
        Its state is the tuple of the transforms' states. Its `update` takes extra keyword arguments, such as `value`,
        and passes each to the transforms that accept it. Optax's wrappers pass theirs to a chain, too.

    Raises
    ------
    TypeError
        If a transform lacks `init` or `update`. `update` raises it if the state is not a tuple.
    ValueError
        `update` raises it if the state belongs to another number of transforms.

    Examples
    --------
    >>> both = transforms.chain(transforms.centralize(), transforms.clip_by_global_norm(1.0))
    >>> both.init({"w": np.ones((2, 2))})
    ((), ())
    """
    for i, transform in enumerate(transforms):
        check_transform("chain", f"transforms[{i}]", transform)
    accept = [accepts_keyword(transform.update) for transform in transforms]

    def init(params: Any) -> tuple[Any, ...]:
        return tuple(transform.init(params) for transform in transforms)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, tuple[Any, ...]]:
        check_state("chain", tuple, state)
        if len(state) != len(transforms):
            raise ValueError(
                f"chain: `state` must have a part for each of {len(transforms)} transforms, got {len(state)}. Call "
                "`init` first."
            )
        next_states = []
        for transform, its_state, accepts in zip(transforms, state, accept, strict=True):
            its_extra = {name: value for name, value in extra.items() if accepts(name)}
            updates, next_state = transform.update(updates, its_state, params, **its_extra)
            next_states.append(next_state)
        return updates, tuple(next_states)

    vars(update)["accepts"] = lambda name: any(accepts(name) for accepts in accept)
    places = {place for transform in transforms for place in getattr(transform.update, "applies_to", ())}
    return applied_to(_with_extra_args()(init, update), *places)


def _with_extra_args() -> type[GradientTransformation]:
    """Return the class of transforms that take extra arguments. Optax's wrappers check for their own base class."""
    optax = sys.modules.get("optax")
    base = getattr(optax, "GradientTransformationExtraArgs", None)
    return GradientTransformation if base is None else _subclass(base)


@cache
def _subclass(base: type) -> type[GradientTransformation]:
    return type("GradientTransformationExtraArgs", (GradientTransformation, base), {"__slots__": ()})


def apply_updates(params: Any, updates: Any) -> Any:
    """Add updates to parameters, and keep the parameters' dtypes.

    Parameters
    ----------
    params, updates : pytrees of arrays
        A parameter whose update is None or missing is returned unchanged. None in place of a parameter stays None.

    Returns
    -------
    pytree of arrays, as `params`

    Raises
    ------
    TypeError, ValueError
        If updates are of another framework, or have paths that `params` lacks.

    Examples
    --------
    >>> transforms.apply_updates({"w": np.asarray([1.0]), "b": np.asarray([2.0])}, {"w": np.asarray([0.5]), "b": None})
    {'w': array([1.5]), 'b': array([2.])}
    """
    leaves, rebuild, paths = flatten_with_paths_of(as_nest(params))
    changes, _, change_paths = flatten_with_paths_of(as_nest(updates))
    for change, path in zip(changes, change_paths, strict=True):
        check_visible("apply_updates", "updates", change, path)
    # JAX's float0 has no itemsize: it stands for no update
    indices = [i for i, x in enumerate(changes) if is_array(x) and getattr(x.dtype, "itemsize", True)]
    present = {path for path, leaf in zip(paths, leaves, strict=True) if leaf is not None}
    if not present.issuperset(change_paths[i] for i in indices):
        nones = paths_of_none(as_nest(params))
        indices = [i for i in indices if not any(f"{change_paths[i]}.".startswith(f"{none}.") for none in nones)]
    pairs = with_params("apply_updates", Selected(changes, iter, change_paths, indices), params)
    targets = indices if change_paths == paths else [paths.index(change_paths[i]) for i in indices]
    for i, (update, param) in zip(targets, pairs, strict=True):
        new = in_working_dtype("apply_updates", operator.add, [param, update])
        leaves[i] = new if new.dtype == param.dtype else namespace(new).astype(new, param.dtype)
    return rebuild(iter(leaves))
