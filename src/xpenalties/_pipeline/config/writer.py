"""Penalties as data, or an error that says what a configuration cannot hold, and what to do about it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import fields
from numbers import Integral, Real
from operator import attrgetter
from typing import Any

from ..._core.checks import NON_NEGATIVE, named
from ..._core.registry import MAKERS, name_of
from ..._penalties.spec import spec_of
from ...backends import backend_of
from ...schedules._definition import Schedule
from ...trees._over_tree import OverTree
from ..penalty import Penalty

__all__ = ["entry_of"]


def entry_of(penalty: Penalty) -> dict[str, Any]:
    """The table that a penalty is made of, without what is so by default."""
    caller = f"penalty {penalty.name!r}"
    tree = penalty.fn if isinstance(penalty.fn, OverTree) else None
    function, options = (tree.fn, dict(tree.options)) if tree else (penalty.fn, penalty.options)
    spec = spec_of(function)
    fn = spec.name if spec else _name(caller, "fn", function)
    data = {
        "penalty": fn,
        "weight": _weight(caller, penalty.weight),
        "inputs": _inputs(caller, penalty.inputs),
        "options": {
            key: _data(caller, f"options.{key}", value, nested=spec is None)
            for key, value in options.items()
            if not (spec and value is None)  # which TOML cannot say, and is as if it were left out
        },
    }
    defaults = {each.name: each.default for each in fields(penalty)} | {
        "name": tree.__name__ if tree else fn,
        "options": {},
    }
    entry = {"penalty": fn} | ({"tree": _patterns(tree)} if tree else {})
    entry |= {name: data.get(name, getattr(penalty, name)) for name in defaults if name != "fn"}
    return {key: value for key, value in entry.items() if key not in defaults or value != defaults[key]}


def _patterns(tree: OverTree) -> dict[str, Any]:
    given = {"match": tree.patterns.match or (), "exclude": tree.patterns.exclude}
    return {key: value[0] if len(value) == 1 else list(value) for key, value in given.items() if value}


def _name(caller: str, what: str, function: object) -> str:
    name = name_of(function)
    if name is None:
        raise TypeError(
            f"{caller}: `{what}` is a callable without a name in configurations, {function!r}. Give it one with "
            "`register`."
        )
    return name


def _weight(caller: str, weight: Any) -> Any:
    if callable(weight):
        return _schedule(caller, weight)
    return named(caller, NON_NEGATIVE, "weight", _data(caller, "weight", weight))


def _schedule(caller: str, schedule: Any) -> dict[str, Any]:
    if not isinstance(schedule, Schedule):
        return {"schedule": _name(caller, "weight", schedule)}
    defaults = {key: p.default for key, p in inspect.signature(MAKERS[schedule.name]).parameters.items()}
    given = {key: value for key, value in schedule.arguments if value != defaults[key]}
    return {"schedule": schedule.name} | {key: _argument(caller, value) for key, value in given.items()}


def _argument(caller: str, value: Any) -> Any:
    """A schedule's argument: plain data already, but for schedules and tuples in it."""
    if isinstance(value, tuple):
        return [_argument(caller, each) for each in value]
    return _schedule(caller, value) if callable(value) else value


def _inputs(caller: str, inputs: Any) -> Any:
    if isinstance(inputs, attrgetter):
        paths: Any = inputs.__reduce__()[1]
        return {"attributes": paths[0] if len(paths) == 1 else list(paths)}
    if callable(inputs):
        return {"function": _name(caller, "inputs", inputs)}
    return list(inputs) if isinstance(inputs, tuple) else inputs


def _data(caller: str, what: str, value: Any, *, nested: bool = False) -> Any:
    """`value` as plain data; a 0-d array as a number."""
    if nested and isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _data(caller, f"{what}.{key}", each, nested=True) for key, each in value.items()}
    if nested and isinstance(value, (list, tuple)):
        return [_data(caller, f"{what}[{i}]", each, nested=True) for i, each in enumerate(value)]
    if value is None or isinstance(value, (bool, str)):
        return value
    kind = _kind(value)
    if kind is None:
        raise TypeError(
            f"{caller}: `{what}` must be a number, a string or a boolean to be in a configuration, got {value!r}. Set "
            "it in a function of your own, which has a name with `register`."
        )
    found = kind(value) if kind is not float or isinstance(value, Real) else _float(value)
    if kind is float and not math.isfinite(found):
        raise ValueError(f"{caller}: `{what}` must be finite to be in a configuration, got {found!r}.")
    return found


def _float(array: Any) -> float:
    backend = backend_of(array)
    assert backend is not None
    return backend.to_floats([array])[0]


def _kind(value: Any) -> type | None:
    """Python's kind of number that a number or a 0-d array is."""
    backend = backend_of(value)
    if backend is None:
        return int if isinstance(value, Integral) else float if isinstance(value, Real) else None
    kinds = {"real": float, "bool": bool, "other": int}
    return kinds.get(backend.dtype(value.dtype).kind) if tuple(value.shape) == () else None
