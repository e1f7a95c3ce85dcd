"""Make pipelines from configurations. Data is checked key by key, so that errors can name the place.

A place is a string: "a.toml: penalties[1].weight". Arguments that `Penalty` or a schedule checks are not checked here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from os import PathLike, fspath
from typing import Any, TypeVar

from ..._core.registry import PENALTIES
from ..._core.shown import shown
from ..._penalties.spec import spec_of
from ...trees._over_tree import over_tree
from ..penalty import Penalty
from .error_places import check_keys, checked_string, checked_table, errors_at, not_too_deep, place_of_key
from .fields import FIELDS, VERSION
from .toml_and_json import read

__all__ = ["load"]

_DOCUMENT_KEYS = ("$schema", "version", "name", "penalties")
_PENALTY_KEYS = tuple(field.name for field in FIELDS)

T = TypeVar("T")


def load(source: Any, make: Callable[..., T]) -> T:
    """Read `source`, data or a file, and return `make(penalties, name=...)`."""
    if isinstance(source, (str, PathLike)):
        place, data = str(fspath(source)), read(source)
    else:
        place, data = "from_config", source
    if isinstance(data, (list, tuple)):
        data = {"version": VERSION, "penalties": data}
    document = checked_table(place, data)
    _check_version(place, document)
    check_keys(place, document, _DOCUMENT_KEYS, "penalties")
    for key in ("$schema", "name"):
        checked_string(f"{place}: {key}", document.get(key, ""))
    penalties = list(_penalties(f"{place}: penalties", document["penalties"]))
    name = {"name": document["name"]} if "name" in document else {}
    with errors_at(place):
        return make(penalties, **name)


def _check_version(place: str, document: Mapping[str, Any]) -> None:
    if "version" not in document:
        raise ValueError(f"{place}: `version` is missing. Add version {VERSION}.")
    version = document["version"]
    if type(version) is not int or version != VERSION:
        raise ValueError(
            f"{place}: `version` must be {VERSION}, the only one that is read, got {shown(version)}. "
            f"Write {VERSION}, or "
            "upgrade xpenalties for a later one."
        )


def _penalties(place: str, value: Any) -> Iterator[Penalty]:
    if isinstance(value, Mapping):
        for name, entry in value.items():
            checked_string(f"{place}: name", name)
            yield _penalty_by_name(place_of_key(place, name), entry, name)
    elif isinstance(value, (list, tuple)):
        for i, entry in enumerate(value):
            table = checked_table(f"{place}[{i}]", entry)
            check_keys(f"{place}[{i}]", table, _PENALTY_KEYS, "penalty")
            yield _penalty(f"{place}[{i}]", table)
    else:
        raise TypeError(f"{place}: must be a list or a table of penalties, got {shown(value)}. Write [] for none.")


def _penalty_by_name(place: str, entry: Any, name: str) -> Penalty:
    """Return the penalty called `name`. Its entry is a weight, or a table without the key `name`."""
    is_weight = not isinstance(entry, Mapping) or "schedule" in entry
    table = {"weight": entry} if is_weight else entry
    check_keys(place, table, [*(key for key in _PENALTY_KEYS if key != "name"), "schedule"])
    return _penalty(place, {"penalty": name, **table, "name": name})


def _penalty(place: str, table: Mapping[str, Any]) -> Penalty:
    name = table["penalty"]
    spec = spec_of(PENALTIES.get(name)) if isinstance(name, str) else None  # a wrong name is refused below
    args = {}
    for field in FIELDS:
        if field.name in table:
            field_place = f"{place}.{field.name}"
            with not_too_deep(field_place):
                args[field.name] = field.read(field_place, table[field.name], spec)
    function: Any = args.pop("penalty")
    if "tree" in args:
        with errors_at(f"{place}.tree"):
            function = over_tree(function, **args.pop("tree"), options=args.pop("options", None))
    with errors_at(place):
        return Penalty(function, **args)
