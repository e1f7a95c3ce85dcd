"""What gradient transforms have in common: the protocol, figures that are schedules, and updates beside parameters."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, NamedTuple

from .._arrays.numerics import stop_gradient, wide
from .._arrays.scalars import checked_weight
from ..backends import backend_of, common_backend, flatten_of, is_array, namespace
from ..trees._selection import Patterns, Selected, as_nest, beside

__all__ = [
    "GradientTransformation",
    "StepState",
    "changed",
    "checked_state",
    "checked_transform",
    "counted",
    "in_working_dtype",
    "initial_step",
    "with_params",
]

_MOST_STEPS = 2**31 - 1


class GradientTransformation(NamedTuple):
    """A pair of pure functions, as Optax's of the same name."""

    #: ``init(params)`` returns the first state, a nest of arrays.
    init: Callable[[Any], Any]
    #: ``update(updates, state, params=None)`` returns the transformed updates, and the next state.
    update: Callable[..., tuple[Any, Any]]


class StepState(NamedTuple):
    """The state of a transform whose weight is a schedule: the number of updates so far, a 0-d array."""

    step: Any


def checked_transform(caller: str, name: str, given: Any) -> None:
    """An error for what has not the two functions of the protocol."""
    if not (callable(getattr(given, "init", None)) and callable(getattr(given, "update", None))):
        raise TypeError(
            f"{caller}: `{name}` must have `init` and `update`, got {type(given).__qualname__}. Call what makes it."
        )


def checked_state(name: str, kind: type, state: Any) -> None:
    """An error for what is no state of this transform's."""
    if not isinstance(state, kind):
        raise TypeError(f"{name}: `state` must be what `init` or `update` returned, got {state!r}. Pass that.")


def changed(
    name: str,
    change: Callable[..., Any],
    patterns: Patterns,
    *figures: Any,
    weight: Any = None,
    params: bool = True,
    named: str = "weight",
) -> GradientTransformation:
    """A transform of leaves: of each that is selected, ``change(update, parameter, weight, *figures)``.

    Parameters
    ----------
    *figures : number or 0-d array
        Of the working dtype where they are arrays, see `in_working_dtype`.
    weight : number, 0-d array, callable or None
        Checked, and given to `change`; of a schedule its value.
    params : bool
        Whether `change` takes the parameter. The result is then of the dtype that both have in common.
    named : str
        What the weight is called.
    """
    if weight is not None:
        weight = checked_weight(name, weight, named)

    def init(params: Any) -> Any:
        patterns.check(name, "params", params)
        return StepState(initial_step(name, params)) if callable(weight) else ()

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        selected = patterns.find(name, "updates", updates)
        current = weight
        if callable(weight):
            checked_state(name, StepState, state)
            current, state = checked_weight(name, weight(state.step), named), StepState(counted(state.step))
        given = figures if current is None else (current, *figures)
        columns = with_params(name, selected, params) if takes_params else [[x] for x in selected.chosen()]
        return selected.replaced([in_working_dtype(name, change, arrays, *given) for arrays in columns]), state

    takes_params = params
    return GradientTransformation(init, update)


def with_params(name: str, selected: Selected, params: Any) -> list[list[Any]]:
    """Each update with its parameter."""
    if params is None:
        raise ValueError(f"{name}: `params` must be given to `update`, got None. Pass the parameters.")
    found = []
    rows = zip(selected.places, selected.chosen(), beside(name, selected, params, "params"), strict=True)
    for place, update, param in rows:
        common_backend(name, ["updates", f"params, at {selected.paths[place]!r},"], [update, param])
        if tuple(update.shape) != tuple(param.shape):
            raise ValueError(
                f"{name}: `updates` and `params` must have the same shapes, got {tuple(update.shape)} and "
                f"{tuple(param.shape)} at {selected.paths[place]!r}. Broadcast them explicitly."
            )
        found.append([update, param])
    return found


def initial_step(name: str, params: Any) -> Any:
    """0, where the parameters are; JAX's where there are only shapes of them, or nothing."""
    arrays = [leaf for leaf in flatten_of(as_nest(params))[0] if is_array(leaf)]
    if arrays:
        constant = stop_gradient(arrays[0])  # autograd's boxes have no device
        backend = backend_of(constant)
        assert backend is not None
        return backend.xp.zeros((), dtype=backend.xp.int32, device=backend.device(constant))
    if sys.modules.get("jax") is not None:
        import jax.numpy as jnp

        return jnp.zeros((), jnp.int32)
    raise ValueError(f"{name}: `params` must hold an array to count beside, got none. Pass the parameters.")


def counted(step: Any) -> Any:
    """One more, as long as there are numbers for it."""
    return namespace(step).where(step < _MOST_STEPS, step + 1, step)


def in_working_dtype(name: str, change: Callable[..., Any], arrays: Sequence[Any], *figures: Any) -> Any:
    """What `change` makes of arrays and of numbers or 0-d arrays, in their dtype; computed in float32 at least."""
    own = [is_array(x) and not isinstance(x, Real) for x in figures]
    traced = [x for x, array in zip(figures, own, strict=True) if array]
    names = [*("updates", "params")[: len(arrays)], *["an option"] * len(traced)]
    backend = common_backend(name, names, [*arrays, *traced])
    xp, widened = backend.xp, [wide(x) for x in arrays]
    dtype = xp.real(widened[0]).dtype if xp.isdtype(widened[0].dtype, "complex floating") else widened[0].dtype
    given = [
        backend.moved(xp.astype(x, dtype), arrays[0]) if array else x for x, array in zip(figures, own, strict=True)
    ]
    found = backend.evaluation.run(change, (*widened, *given), {})
    dtype = arrays[0].dtype if len(arrays) == 1 else xp.result_type(*arrays)
    return found if found.dtype == dtype else xp.astype(found, dtype)
