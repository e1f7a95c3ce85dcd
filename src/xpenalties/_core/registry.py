"""The names of penalties, schedules and registered callables."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, overload

from .shown import shown

__all__ = ["SCHEDULES", "REGISTERED", "PENALTIES", "RESERVED", "name_of", "penalty_names", "register"]

F = TypeVar("F", bound=Callable[..., Any])

PENALTIES: dict[str, Callable[..., Any]] = {}  # this package's penalties, by name
SCHEDULES: dict[str, Callable[..., Any]] = {}  # the functions that make this package's schedules, by name
RESERVED = ("base_loss", "loss_total", "regularizer_total", "total_grad_norm")  # names of a report's other entries
REGISTERED: dict[str, Callable[..., Any]] = {}  # registered callables; changed by single assignments, so thread-safe


@overload
def register(name: str, /) -> Callable[[F], F]: ...
@overload
def register(name: str, fn: F, /) -> F: ...


def register(name: str, fn: Any = None, /) -> Any:
    """Register a callable under a name, for `Penalty`, `Pipeline` and configurations. Also works as a decorator.

    In a configuration, the name can stand for a penalty, ``{"penalty": name}``, a schedule, ``{"schedule": name}``, or
    a function that selects a penalty's inputs, ``{"function": name}``. `Pipeline.to_config` writes the name.

    Parameters
    ----------
    name : str
        Must differ from the names of this package's penalties and schedules.
    fn : callable
        Leave it out to use `register` as a decorator.

    Returns
    -------
    callable
        `fn`, unchanged.

    Raises
    ------
    TypeError
        If `name` is not a string or `fn` is not callable.
    ValueError
        If `name` is empty or names another callable. You may register the same callable again. A function that is
        defined again, as in a notebook, replaces the earlier one.

    Examples
    --------
    >>> @register("distance")
    ... def distance(x, *, target=0.0):
    ...     return l1(x - target, reduction="mean")
    >>> pipe = Pipeline([Penalty("distance", weight=0.1, target=2.0)])
    >>> float(pipe(np.asarray([1.0, 3.0])))
    0.1
    >>> pipe.to_config()
    {'version': 1, 'penalties': [{'penalty': 'distance', 'weight': 0.1, 'options': {'target': 2.0}}]}
    """
    if not isinstance(name, str):
        raise TypeError(f"register: `name` must be a string, got {shown(name)}. Pass it before the function.")
    if not name or name.startswith("<") or name in (*PENALTIES, *SCHEDULES, *RESERVED):
        raise ValueError(
            f"register: `name` must not be empty, begin with <, or be one of this package's, got {shown(name)}. "
            "Pass another."
        )
    if fn is None:
        return lambda fn: register(name, fn)
    if not callable(fn):
        raise TypeError(f"register: `fn` must be callable, got {type(fn).__qualname__}. Pass a function.")
    earlier = REGISTERED.setdefault(name, fn)
    if not (_is_same(earlier, fn) or _is_defined_again(earlier, fn)):
        raise ValueError(f"register: `name` must be new, got {shown(name)}, which is {shown(earlier)}. Pass another.")
    REGISTERED[name] = fn
    return fn


def _is_same(a: object, b: object) -> bool:
    return a is b or (inspect.isroutine(a) and a == b)  # each access to a method makes a new object


def _is_defined_again(earlier: object, fn: object) -> bool:
    """Return True if both come from the same `def` at the top level of a module or class.

    Closures and wrappers do not count: one `def` makes many of them.
    """
    for function in (earlier, fn):
        if not inspect.isfunction(function) or function.__closure__ or hasattr(function, "__wrapped__"):
            return False
    places = [(getattr(f, "__module__", None), getattr(f, "__qualname__", "<")) for f in (earlier, fn)]
    return places[0] == places[1] and "<" not in places[0][1]


def name_of(fn: object) -> str | None:
    """Return the name that `fn` is registered under, or None."""
    return next((name for name, registered in list(REGISTERED.items()) if _is_same(registered, fn)), None)


def penalty_names() -> tuple[str, ...]:
    """Return the names that `Penalty` accepts."""
    return *PENALTIES, *REGISTERED
