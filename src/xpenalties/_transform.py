"""What gradient transforms have in common: the protocol, weights that are schedules, and updates beside parameters."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any, NamedTuple

from ._numerics import wide
from ._selection import Patterns, as_nest, beside
from ._weighted import checked_weight
from .backends import backend_of, common_backend, flatten_of, is_array, namespace

__all__ = ["GradientTransformation", "StepState", "changed", "counted", "in_working_dtype", "initial_step"]

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


def changed(
    name: str, change: Callable[..., Any], patterns: Patterns, *, weight: Any = None, params: bool = True
) -> GradientTransformation:
    """A transform of leaves: of each that is selected, ``change(update, parameter, weight)`` in float32 at least.

    Parameters
    ----------
    weight : number, 0-d array, callable or None
        Checked, and given to `change`; of a schedule its value.
    params : bool
        Whether `change` takes the parameter.
    """
    if weight is not None:
        weight = checked_weight(name, weight)

    def init(params: Any) -> Any:
        patterns.select(name, "params", params, required=False)
        return StepState(initial_step(name, params)) if callable(weight) else ()

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        selected = patterns.select(name, "updates", updates, required=False)
        current = weight
        if callable(weight):
            current, state = checked_weight(name, weight(state.step)), StepState(counted(state.step))
        rows = [selected.chosen()]
        if takes_params:
            if params is None:
                raise ValueError(f"{name}: `params` must be given to `update`, got None. Pass the parameters.")
            rows.append(beside(name, selected, params, "params"))
        figures = () if current is None else (current,)
        columns = zip(*rows, strict=True)
        return selected.replaced(in_working_dtype(name, change, list(arrays), *figures) for arrays in columns), state

    takes_params = params
    return GradientTransformation(init, update)


def initial_step(name: str, params: Any) -> Any:
    """0, where the parameters are."""
    arrays = [leaf for leaf in flatten_of(as_nest(params))[0] if is_array(leaf)]
    if not arrays:
        raise ValueError(f"{name}: `params` must hold an array to count beside, got none. Pass the parameters.")
    backend = backend_of(arrays[0])
    assert backend is not None
    return backend.xp.zeros((), dtype=backend.xp.int32, device=backend.device(arrays[0]))


def counted(step: Any) -> Any:
    """One more, as long as there are numbers for it."""
    return namespace(step).where(step < _MOST_STEPS, step + 1, step)


def in_working_dtype(name: str, change: Callable[..., Any], arrays: list[Any], *figures: Any) -> Any:
    """What `change` makes of arrays and of numbers or 0-d arrays, in float32 at least, in the first array's dtype."""
    traced = [x for x in figures if is_array(x) and not isinstance(x, Real)]
    backend = common_backend(name, [f"array {i}" for i in range(len(arrays) + len(traced))], [*arrays, *traced])
    xp, widened = backend.xp, [wide(x) for x in arrays]
    dtype = xp.real(widened[0]).dtype if xp.isdtype(widened[0].dtype, "complex floating") else widened[0].dtype
    figures = tuple(xp.astype(x, dtype) if any(x is each for each in traced) else x for x in figures)
    found = backend.run(change, (*widened, *figures), {})
    return found if found.dtype == arrays[0].dtype else xp.astype(found, arrays[0].dtype)
