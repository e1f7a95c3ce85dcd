"""Callables of one's own under names, as pipelines and configurations find this package's."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, overload

__all__ = ["MAKERS", "OWN", "REGISTRY", "RESERVED", "name_of", "penalty_names", "register"]

F = TypeVar("F", bound=Callable[..., Any])

REGISTRY: dict[str, Callable[..., Any]] = {}  # this package's penalties by name
MAKERS: dict[str, Callable[..., Any]] = {}  # the functions that make its schedules
RESERVED = ("base_loss", "loss_total", "regularizer_total", "total_grad_norm")  # names of a report's own figures
OWN: dict[str, Callable[..., Any]] = {}  # changed by one assignment at a time, so by any thread


@overload
def register(name: str, /) -> Callable[[F], F]: ...
@overload
def register(name: str, fn: F, /) -> F: ...


def register(name: str, fn: Any = None, /) -> Any:
    """Give a callable a name, to be found by `Penalty`, `Pipeline` and configurations.

    A configuration takes it for a penalty, ``{"penalty": name}``, a schedule, ``{"schedule": name}``, or what picks a
    penalty's inputs, ``{"function": name}``, and `Pipeline.to_config` writes its name. A function or a decorator.

    Parameters
    ----------
    name : str
        None that a penalty or a schedule of this package has.
    fn : callable
        Without it, what is returned takes it.

    Returns
    -------
    callable
        `fn` as it is.

    Raises
    ------
    TypeError
        For a name that is not a string, or what cannot be called.
    ValueError
        For a name that is empty, or another callable's. The same one may be registered again, and a function that is
        defined again, as in a notebook, takes the place of the one before.

    Examples
    --------
    >>> @register("distance")
    ... def distance(x, *, target=0.0):
    ...     return l1(x - target, reduction="mean")
    >>> pipe = Pipeline([Penalty("distance", weight=0.1, options={"target": 2.0})])
    >>> float(pipe(np.asarray([1.0, 3.0])))
    0.1
    >>> pipe.to_config()
    {'version': 1, 'penalties': [{'penalty': 'distance', 'weight': 0.1, 'options': {'target': 2.0}}]}
    """
    if not isinstance(name, str):
        raise TypeError(f"register: `name` must be a string, got {name!r}. Pass it before the function.")
    if not name or name.startswith("<") or name in (*REGISTRY, *MAKERS, *RESERVED):
        raise ValueError(
            f"register: `name` must not be empty, begin with <, nor one of this package's, got {name!r}. Pass another."
        )
    if fn is None:
        return lambda fn: register(name, fn)
    if not callable(fn):
        raise TypeError(f"register: `fn` must be callable, got {type(fn).__qualname__}. Pass a function.")
    before = OWN.setdefault(name, fn)
    if not (_same(before, fn) or _defined_again(before, fn)):
        raise ValueError(f"register: `name` must be new, got {name!r}, which is {before!r}. Pass another.")
    OWN[name] = fn
    return fn


def _same(a: object, b: object) -> bool:
    return a is b or (inspect.isroutine(a) and a == b)  # a method is another object each time


def _defined_again(before: object, fn: object) -> bool:
    """Whether these are from one `def` of a module; what remembers other things may be from several places."""
    for each in (before, fn):
        if not inspect.isfunction(each) or each.__closure__ or hasattr(each, "__wrapped__"):
            return False
    places = [(getattr(each, "__module__", None), getattr(each, "__qualname__", "<")) for each in (before, fn)]
    return places[0] == places[1] and "<" not in places[0][1]


def name_of(fn: object) -> str | None:
    """The name that `fn` is registered under."""
    return next((name for name, own in list(OWN.items()) if _same(own, fn)), None)


def penalty_names() -> tuple[str, ...]:
    """What `Penalty` finds."""
    return *REGISTRY, *OWN
