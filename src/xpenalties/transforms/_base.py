"""Shared parts of gradient transforms: the protocol, schedules, and working dtypes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from inspect import signature
from numbers import Real
from typing import Any, NamedTuple, ParamSpec

from .._arrays.numerics import at_least_float32, stop_gradient
from .._arrays.scalars import check_weight, scalar
from .._core.checks import NON_NEGATIVE
from .._core.shown import shown
from ..backends import backend_of, backend_of_shapes, common_backend, flatten_of, is_array, namespace
from ..trees._selection import Patterns, Selected, as_nest, leaves_at

__all__ = [
    "GradientTransformation",
    "StepState",
    "accepts_keyword",
    "applied_to",
    "check_state",
    "check_transform",
    "in_working_dtype",
    "incremented",
    "initial_step",
    "leafwise",
    "on_stored_elements",
    "remember_call",
    "stored",
    "with_params",
]

P = ParamSpec("P")

_MAX_STEP = 2**31 - 1


class GradientTransformation(NamedTuple):
    """A pair of pure functions, as in Optax."""

    #: ``init(params)`` returns the first state, a pytree of arrays.
    init: Callable[[Any], Any]
    #: ``update(updates, state, params=None)`` returns the transformed updates and the next state.
    update: Callable[..., tuple[Any, Any]]

    def __reduce__(self) -> Any:
        """Copy or pickle the call that made the transform, because `init` and `update` are local functions."""
        made_by = getattr(self.update, "made_by", None)
        return (GradientTransformation, tuple(self)) if made_by is None else (made_by, ())


def remember_call(make: Callable[P, GradientTransformation]) -> Callable[P, GradientTransformation]:
    """Decorate a function that makes a transform, so that the transform can be copied and pickled."""

    @wraps(make)
    def remembering(*args: P.args, **kwargs: P.kwargs) -> GradientTransformation:
        transform = make(*args, **kwargs)
        vars(transform.update)["made_by"] = partial(remembering, *args, **kwargs)
        return transform

    return remembering


def applied_to(transform: GradientTransformation, *places: str) -> GradientTransformation:
    """Mark that a transform works only on "gradients" or only on "updates". A chain has the marks of its parts."""
    vars(transform.update)["applies_to"] = places
    return transform


class StepState(NamedTuple):
    """The state of a transform whose weight is a schedule: the number of updates so far, a 0-d array."""

    step: Any


def check_transform(caller: str, name: str, transform: Any) -> None:
    """Check that `transform` has the two functions of the protocol."""
    if not (callable(getattr(transform, "init", None)) and callable(getattr(transform, "update", None))):
        raise TypeError(
            f"{caller}: `{name}` must have `init` and `update`, got {type(transform).__qualname__}. Call the "
            "function that makes it."
        )


def accepts_keyword(function: Callable[..., Any], positional: int = 3) -> Callable[[str], bool]:
    """Return a function that says whether `function` accepts a keyword, apart from its first arguments."""
    own: Callable[[str], bool] | None = getattr(function, "accepts", None)  # `chain` sets it
    if own is not None:
        return own
    parameters = list(signature(function).parameters.values())
    by_position = {p.name for p in parameters[:positional] if p.kind is not p.KEYWORD_ONLY}
    by_keyword = {p.name for p in parameters} - by_position
    any_keyword = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return lambda name: name in by_keyword or (any_keyword and name not in by_position)


def check_state(name: str, kind: type, state: Any) -> None:
    """Check that `state` belongs to this transform."""
    if not isinstance(state, kind):
        raise TypeError(f"{name}: `state` must be what `init` or `update` returned, got {shown(state)}. Pass that.")


def leafwise(
    name: str,
    change: Callable[..., Any],
    patterns: Patterns,
    *options: Any,
    weight: Any = None,
    takes_params: bool = True,
    check: Callable[[str, Any], Any] = check_weight,
    takes_learning_rate: bool = False,
    sparse: bool = False,
) -> GradientTransformation:
    """Make a transform that calls ``change(update, parameter, weight, *options)`` for each selected leaf.

    Parameters
    ----------
    *options : number or 0-d array
        Arrays are cast to the working dtype, see `in_working_dtype`.
    weight : number, array, callable or None
        Checked by `check`, then passed to `change`. A schedule is evaluated first. If None, `change` takes no weight.
    takes_params : bool
        If True, `change` takes the parameter, and the result has the common dtype of update and parameter.
    check : callable
        Takes `name`, for errors, and the weight. Returns the weight to use.
    takes_learning_rate : bool
        If True and there is a weight, `update` takes a `learning_rate` that multiplies it, see `_rates`.
    sparse : bool
        If True, apply `change` to the stored elements of sparse updates. `change` must treat each element alone, and
        keep 0 at 0.
    """
    if weight is not None:
        weight = check(name, weight)

    def init(params: Any) -> Any:
        patterns.check(name, "params", params)
        return StepState(initial_step(name, params)) if callable(weight) else ()

    def transformed(updates: Any, state: Any, params: Any, learning_rate: Any) -> tuple[Any, Any]:
        selected = patterns.find(name, "updates", updates, sparse=sparse)
        current = weight
        if callable(weight):
            check_state(name, StepState, state)
            current = check(name, weight(state.step))
            state = StepState(incremented(state.step))
        rows = with_params(name, selected, params) if takes_params else [[x] for x in selected.arrays()]
        if learning_rate is None:
            scalars = options if current is None else (current, *options)
            return selected.replaced([on_stored_elements(name, change, row, *scalars) for row in rows]), state
        rates = _rates(name, selected, learning_rate)
        changed = [
            on_stored_elements(name, change, row, current * rate, *options)
            for row, rate in zip(rows, rates, strict=True)
        ]
        return selected.replaced(changed), state

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return transformed(updates, state, params, None)

    def update_at(updates: Any, state: Any, params: Any = None, *, learning_rate: Any = None) -> tuple[Any, Any]:
        return transformed(updates, state, params, learning_rate)

    return GradientTransformation(init, update_at if takes_learning_rate and weight is not None else update)


def _rates(name: str, selected: Selected, learning_rate: Any) -> list[Any]:
    """Return the learning rate of each selected leaf. It may be a number, a 0-d array, or a mapping by path."""
    if not isinstance(learning_rate, Mapping):
        return [scalar(name, NON_NEGATIVE, "learning_rate", learning_rate)] * len(selected.indices)
    missing = next((path for path in selected.array_paths() if path not in learning_rate), None)
    if missing is not None:
        raise ValueError(
            f"{name}: `learning_rate` must have a number for each selected path, got none for {missing!r}. Add it."
        )
    return [scalar(name, NON_NEGATIVE, "learning_rate", learning_rate[path]) for path in selected.array_paths()]


def with_params(name: str, selected: Selected, params: Any) -> list[list[Any]]:
    """Pair each selected update with its parameter."""
    if params is None:
        raise ValueError(f"{name}: `params` must be given to `update`, got None. Pass the parameters.")
    parameters = leaves_at(name, selected, params, "params")
    for path, update, param in zip(selected.array_paths(), selected.arrays(), parameters, strict=True):
        common_backend(name, ["updates", f"params, at {path!r},"], [update, param])
        if tuple(update.shape) != tuple(param.shape):
            raise ValueError(
                f"{name}: `updates` and `params` must have the same shapes, got {tuple(update.shape)} and "
                f"{tuple(param.shape)} at {path!r}. Broadcast them explicitly."
            )
    return [[update, param] for update, param in zip(selected.arrays(), parameters, strict=True)]


def initial_step(name: str, params: Any) -> Any:
    """Return step 0, on the device of the parameters. Without arrays (only shapes, or nothing), JAX's if possible."""
    arrays = [leaf for leaf in flatten_of(as_nest(params))[0] if is_array(leaf)]
    if arrays:
        constant = stop_gradient(arrays[0])  # autograd's boxes have no device
        backend = backend_of(constant)
        assert backend is not None
        return backend.xp.zeros((), dtype=backend.xp.int32, device=backend.device(constant))
    backend = backend_of_shapes()
    if backend is not None:
        return backend.xp.zeros((), dtype=backend.xp.int32)
    raise ValueError(f"{name}: `params` must hold at least one array, got none. Pass the parameters.")


def incremented(step: Any) -> Any:
    """Add 1, up to the largest int32."""
    return namespace(step).where(step < _MAX_STEP, step + 1, step)


def stored(x: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Return the elements that an array stores, and a function that replaces them. A dense array stores all."""
    backend = backend_of(x)
    assert backend is not None
    return backend.stored(x) if backend.is_sparse(x) else (x, lambda new: new)


def on_stored_elements(name: str, change: Callable[..., Any], arrays: Sequence[Any], *scalars: Any) -> Any:
    """Call `in_working_dtype` with the elements that the first array stores."""
    elements, replaced = stored(arrays[0])
    return replaced(in_working_dtype(name, change, [elements, *arrays[1:]], *scalars))


def in_working_dtype(name: str, change: Callable[..., Any], arrays: Sequence[Any], *scalars: Any) -> Any:
    """Call `change` in at least float32 and cast the result back to the arrays' dtype.

    Scalars are numbers or 0-d arrays, which are cast to the working dtype too.
    """
    are_arrays = [is_array(x) and not isinstance(x, Real) for x in scalars]
    traced = [x for x, is_one in zip(scalars, are_arrays, strict=True) if is_one]
    names = [*("updates", "params")[: len(arrays)], *["an option"] * len(traced)]
    backend = common_backend(name, names, [*arrays, *traced])
    xp, widened = backend.xp, [at_least_float32(x) for x in arrays]
    dtype = xp.real(widened[0]).dtype if xp.isdtype(widened[0].dtype, "complex floating") else widened[0].dtype
    cast = [
        backend.moved(xp.astype(x, dtype), arrays[0]) if is_one else x
        for x, is_one in zip(scalars, are_arrays, strict=True)
    ]
    result = backend.evaluation.run(change, (*widened, *cast), {})
    if backend.cut:
        result = backend.laid_out(result, arrays[0])
    dtype = arrays[0].dtype if len(arrays) == 1 else xp.result_type(*arrays)
    return result if result.dtype == dtype else xp.astype(result, dtype)
