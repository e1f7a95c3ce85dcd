"""Pipelines from configurations: data as TOML and JSON have it, checked place by place so that errors can say where.

What a `Penalty` or a schedule checks is left to it. A place is a string: "a.toml: penalties[1].weight".
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from operator import attrgetter
from os import PathLike, fspath
from typing import Any, Literal, TypeVar

from ..._core.checks import NON_NEGATIVE, Positive, named, nearest
from ..._core.registry import MAKERS, OWN, REGISTRY, penalty_names
from ..._penalties.spec import spec_of
from ...trees._over_tree import over_tree
from ..penalty import Penalty
from .files import read, write
from .writer import entry_of

__all__ = ["FIELDS", "SHARED", "VERSION", "load", "save"]

VERSION = 1  # of the format; a file of another one is refused
_TOP = ("$schema", "version", "name", "penalties")
FIELDS = ("penalty", "tree", *(each.name for each in fields(Penalty)[1:]))
_INPUTS = ("attributes", "function")
_PATTERNS = ("match", "exclude")
SHARED: dict[str, Any] = {
    "reduction": Literal["sum", "mean"],
    "normalizer": Positive | None,
}  # those that are no arrays
_SCALARS = (bool, int, float, str, type(None))

T = TypeVar("T")


def load(source: Any, make: Callable[..., T]) -> T:
    """`make(penalties, name=)` of what `source` holds."""
    if isinstance(source, (str, PathLike)):
        place, data = str(fspath(source)), read(source)
    else:
        place, data = "from_config", source
    if isinstance(data, (list, tuple)):
        data = {"version": VERSION, "penalties": data}
    data = _table(place, data)
    if "version" not in data:
        raise ValueError(f"{place}: `version` is missing. Add version {VERSION}.")
    version = data["version"]
    if type(version) is not int or version != VERSION:
        raise ValueError(f"{place}: `version` must be {VERSION}, the only one that is read, got {version!r}.")
    _check_keys(place, data, _TOP, "penalties")
    for key in ("$schema", "name"):
        _string(f"{place}: {key}", data.get(key, ""))
    penalties = list(_penalties(f"{place}: penalties", data["penalties"]))
    with _at(place):
        return make(penalties, **({"name": data["name"]} if "name" in data else {}))


def save(penalties: Iterable[Penalty], name: str, path: str | PathLike[str] | None) -> dict[str, Any]:
    """What `load` makes these of; written to a file too, if there is a path."""
    data: dict[str, Any] = {"version": VERSION}
    if name != "pipeline":
        data["name"] = name
    data["penalties"] = [entry_of(penalty) for penalty in penalties]
    if path is not None:
        write(path, data)
    return data


@contextmanager
def _at(place: str) -> Iterator[None]:
    """Errors from here say where."""
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{place}: {error}") from None


def _table(place: str, given: Any) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise TypeError(f"{place}: must be a table, got {given!r}.")
    return given


def _check_keys(place: str, given: Mapping[str, Any], keys: Iterable[str], *needed: str) -> None:
    keys = tuple(keys)
    for key in given:
        if key not in keys:
            listed = ", ".join(keys) or "none"
            raise ValueError(f"{place}: unknown key {key!r}, the keys are {listed}.{nearest(key, keys)}")
    for key in needed:
        if key not in given:
            raise ValueError(f"{place}: `{key}` is missing. Add it.")


def _string(place: str, given: Any) -> str:
    if not isinstance(given, str):
        raise TypeError(f"{place}: must be a string, got {given!r}.")
    return given


def _one_of(place: str, given: Any, what: str, names: Iterable[str]) -> str:
    names = tuple(names)
    if _string(place, given) not in names:
        known = f"there are {', '.join(names)}" if names else "none is registered"
        hint = nearest(given, names) or " One of your own must be registered first, with `register`."
        raise ValueError(f"{place}: no {what} is named {given!r}, {known}.{hint}")
    return given


def _penalties(place: str, given: Any) -> Iterator[Penalty]:
    if isinstance(given, Mapping):
        for name, each in given.items():
            _string(f"{place}: name", name)
            is_weight = not isinstance(each, Mapping) or "schedule" in each
            yield _penalty(f"{place}.{name}", {"weight": each} if is_weight else each, name)
    elif isinstance(given, (list, tuple)):
        for i, each in enumerate(given):
            yield _penalty(f"{place}[{i}]", each)
    else:
        raise TypeError(f"{place}: must be a list or a table of penalties, got {given!r}.")


def _penalty(place: str, given: Any, name: str | None = None) -> Penalty:
    """The penalty of a table of parameters; where it has a name already, they do not give another."""
    given = _table(place, given)
    if name is None:
        _check_keys(place, given, FIELDS, "penalty")
    else:
        _check_keys(place, given, [*(key for key in FIELDS if key != "name"), "schedule"])  # which makes it a weight
        given = {"penalty": name, **given, "name": name}
    fn = _one_of(f"{place}.penalty", given["penalty"], "penalty", penalty_names())
    found = {key: value for key, value in given.items() if key not in ("penalty", "tree")}
    if "name" in found and not _string(f"{place}.name", found["name"]):
        raise ValueError(f"{place}.name: must not be empty. Leave it out.")
    for key, read_value in (("weight", _weight), ("inputs", _inputs)):
        if key in found:
            found[key] = read_value(f"{place}.{key}", found[key])
    if "options" in found:
        found["options"] = _options(f"{place}.options", REGISTRY.get(fn), found["options"])
    function: Any = fn
    if "tree" in given:
        patterns = _tree(f"{place}.tree", given["tree"])
        with _at(f"{place}.tree"):
            function = over_tree(fn, **patterns, options=found.pop("options", None))
    with _at(place):
        return Penalty(function, **found)


def _tree(place: str, given: Any) -> dict[str, Any]:
    """The patterns of `over_tree`."""
    given = _table(place, given)
    _check_keys(place, given, _PATTERNS)
    return {
        key: [_string(f"{place}.{key}[{i}]", each) for i, each in enumerate(value)]
        if isinstance(value, (list, tuple))
        else _string(f"{place}.{key}", value)
        for key, value in given.items()
    }


def _weight(place: str, given: Any) -> Any:
    return _schedule(place, given) if isinstance(given, Mapping) else named(place, NON_NEGATIVE, "weight", given)


def _schedule(place: str, given: Mapping[str, Any]) -> Any:
    if "schedule" not in given:
        listed = ", ".join(map(repr, given)) or "none"
        hint = next(filter(None, (nearest(key, ["schedule"]) for key in given)), " Pieces are a list of pairs.")
        raise ValueError(f"{place}: a table is a schedule and must have the key `schedule`, got {listed}.{hint}")
    name = _one_of(f"{place}.schedule", given["schedule"], "schedule", (*MAKERS, *OWN))
    if name in OWN:
        _check_keys(place, given, ["schedule"])
        return OWN[name]
    make = MAKERS[name]
    _check_keys(place, given, ["schedule", *inspect.signature(make).parameters])
    arguments = {key: _argument(f"{place}.{key}", value) for key, value in given.items() if key != "schedule"}
    with _at(place):
        return make(**arguments)


def _argument(place: str, given: Any) -> Any:
    """A schedule's argument: a value, a schedule, or a list of them."""
    if isinstance(given, Mapping):
        return _schedule(place, given)
    if isinstance(given, (list, tuple)):
        return [_argument(f"{place}[{i}]", each) for i, each in enumerate(given)]
    return _scalar(place, given)


def _inputs(place: str, given: Any) -> Any:
    if given is None or isinstance(given, str):
        return given
    if isinstance(given, (list, tuple)):
        return tuple(_string(f"{place}[{i}]", each) for i, each in enumerate(given))
    given = _table(place, given)
    _check_keys(place, given, _INPUTS)
    if len(given) != 1:
        raise ValueError(f"{place}: must have one key, `attributes` or `function`, got {len(given)}.")
    ((key, value),) = given.items()
    if key == "function":
        return OWN[_one_of(f"{place}.function", value, "function", OWN)]
    paths = value if isinstance(value, (list, tuple)) else [value]
    if not paths:
        raise ValueError(f"{place}.attributes: must not be empty. Name one.")
    return attrgetter(*(_string(f"{place}.attributes", each) for each in paths))


def _options(place: str, function: Any, given: Any) -> dict[str, Any]:
    given = _table(place, given)
    spec = spec_of(function)
    if spec is None:  # of one's own
        return {_string(place, key): _value(f"{place}.{key}", value) for key, value in given.items()}
    _check_keys(place, given, (*spec.checks, *SHARED))
    return {key: _scalar(f"{place}.{key}", value) for key, value in given.items()}


def _value(place: str, given: Any) -> Any:
    """Data as a function is given it: what its options are compared by must not change, so lists are tuples."""
    if isinstance(given, Mapping):
        return {_string(place, key): _value(f"{place}.{key}", each) for key, each in given.items()}
    if isinstance(given, (list, tuple)):
        return tuple(_value(f"{place}[{i}]", each) for i, each in enumerate(given))
    return _scalar(place, given)


def _scalar(place: str, given: Any) -> Any:
    if not isinstance(given, _SCALARS):
        raise TypeError(f"{place}: must be a number, a string or a boolean, got {given!r}.")
    if isinstance(given, float) and not math.isfinite(given):
        raise ValueError(f"{place}: must be finite, got {given!r}.")
    return given
