"""Make pipelines from configurations. Data is checked key by key, so that errors can name the place.

A place is a string: "a.toml: penalties[1].weight". Arguments that `Penalty` or a schedule checks are not checked here.
After an error, the rest of the configuration is still checked, so that all errors can be listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from os import PathLike, fspath
from typing import Any, TypeVar

from ..._core.registry import PENALTIES
from ..._core.shown import shown
from ..._penalties.spec import Spec, spec_of
from ...trees._over_tree import over_tree
from ..penalty import Penalty
from .error_places import Mistakes, checked_string, checked_table, errors_at, key_errors, not_too_deep, place_of_key
from .fields import FIELDS, VERSION, Field
from .misplaced_keys import hint_in_document, hint_in_penalty
from .toml_and_json import read

__all__ = ["load", "load_or_errors"]

_DOCUMENT_KEYS = ("$schema", "version", "name", "penalties")
_PENALTY_KEYS = tuple(field.name for field in FIELDS)

T = TypeVar("T")


def load(source: Any, make: Callable[..., T]) -> T:
    """Read `source`, data or a file, and return `make(penalties, name=...)`. Raise the first error."""
    pipeline, errors = load_or_errors(source, make)
    if pipeline is None:
        raise errors[0]
    return pipeline


def load_or_errors(source: Any, make: Callable[..., T]) -> tuple[T | None, list[Exception]]:
    """Read `source` like `load`. Return the pipeline, or None and all errors."""
    mistakes = Mistakes()
    pipeline = None
    with mistakes.caught():
        if isinstance(source, (str, PathLike)):
            place, data = str(fspath(source)), read(source)
        else:
            place, data = "from_config", source
        pipeline = _pipeline(place, data, make, mistakes)
    return None if mistakes.errors else pipeline, mistakes.errors


def _pipeline(place: str, data: Any, make: Callable[..., T], mistakes: Mistakes) -> T:
    if isinstance(data, (list, tuple)):
        data = {"version": VERSION, "penalties": data}
    document = checked_table(place, data)
    if "version" in document:
        _check_version(place, document["version"])
    else:
        mistakes.add([ValueError(f"{place}: `version` is missing. Add version {VERSION}.")])
    hint = partial(hint_in_document, document)
    mistakes.add(key_errors(place, document, _DOCUMENT_KEYS, "penalties", hint=hint))
    for key in ("$schema", "name"):
        with mistakes.caught():
            checked_string(f"{place}: {key}", document.get(key, ""))
    penalties = list(_penalties(f"{place}: penalties", document.get("penalties", []), mistakes))
    name = {"name": document["name"]} if isinstance(document.get("name"), str) else {}
    with errors_at(place):
        return make(penalties, **name)


def _check_version(place: str, version: Any) -> None:
    if type(version) is not int or version != VERSION:
        raise ValueError(
            f"{place}: `version` must be {VERSION}, the only one that is read, got {shown(version)}. "
            f"Write {VERSION}, or "
            "upgrade xpenalties for a later one."
        )


def _penalties(place: str, value: Any, mistakes: Mistakes) -> Iterator[Penalty]:
    """Return the penalties that have no mistakes."""
    if isinstance(value, Mapping):
        tables = (_table_by_name(place, name, entry, mistakes) for name, entry in value.items())
    elif isinstance(value, (list, tuple)):
        tables = (_table(f"{place}[{i}]", entry, mistakes) for i, entry in enumerate(value))
    else:
        raise TypeError(f"{place}: must be a list or a table of penalties, got {shown(value)}. Write [] for none.")
    for at, table in filter(None, tables):
        before = len(mistakes.errors)
        penalty = _penalty(at, table, mistakes)
        if penalty is not None and len(mistakes.errors) == before:
            yield penalty


def _table(place: str, entry: Any, mistakes: Mistakes) -> tuple[str, Mapping[str, Any]] | None:
    """Return the place and the table of a penalty in a list."""
    with mistakes.caught():
        table = checked_table(place, entry)
        hint = partial(hint_in_penalty, table.get("penalty"))
        mistakes.add(key_errors(place, table, _PENALTY_KEYS, "penalty", hint=hint))
        return place, table
    return None


def _table_by_name(place: str, name: Any, entry: Any, mistakes: Mistakes) -> tuple[str, Mapping[str, Any]] | None:
    """Return the place and the table of the penalty called `name`. Its entry is a weight, or a table without a name."""
    with mistakes.caught():
        place = place_of_key(place, checked_string(f"{place}: name", name))
        is_weight = not isinstance(entry, Mapping) or "schedule" in entry
        table = {"weight": entry} if is_weight else entry
        keys = [*(key for key in _PENALTY_KEYS if key != "name"), "schedule"]
        mistakes.add(key_errors(place, table, keys, hint=partial(hint_in_penalty, table.get("penalty", name))))
        return place, {"penalty": name, **table, "name": name}
    return None


def _penalty(place: str, table: Mapping[str, Any], mistakes: Mistakes) -> Penalty | None:
    """Return the penalty, or None after a mistake."""
    name = table.get("penalty")
    spec = spec_of(PENALTIES.get(name)) if isinstance(name, str) else None  # a wrong name is refused below
    args: dict[str, Any] = {}
    for field in FIELDS:
        if field.name in table:
            _read_field(f"{place}.{field.name}", field, table[field.name], spec, args, mistakes)
    is_known = "penalty" in args
    function: Any = args.pop("penalty", _any_penalty)
    if "tree" in args or not is_known:
        args.setdefault("name", function if is_known else "penalty")
    if "tree" in args:
        tree = {**args.pop("tree"), "options": args.pop("options", {})}
        function = _called(f"{place}.tree", partial(over_tree, function), tree, mistakes)
    penalty = _called(place, partial(Penalty, function or _any_penalty), args, mistakes)
    return penalty if is_known and function else None


def _any_penalty(*inputs: Any, **options: Any) -> Any:
    """Stand in for a penalty whose name or tree is wrong, so that the other keys of its table are checked."""


def _read_field(
    place: str, field: Field, value: Any, spec: Spec | None, args: dict[str, Any], mistakes: Mistakes
) -> None:
    """Read a field into `args`. After an error, read its keys one by one, and go on with those that are right."""
    with mistakes.caught(), not_too_deep(place):
        try:
            args[field.name] = field.read(place, value, spec)
        except (TypeError, ValueError) as error:
            mistakes.add([error])
            parts: dict[str, Any] = {}
            for key in value if field.by_key and isinstance(value, Mapping) else ():
                with mistakes.caught():
                    part = field.read(place, {key: value[key]}, spec)
                    parts.update(part if field.name != "inputs" else {})  # some parameters need an input
            args.update({field.name: parts} if parts else {})


def _called(place: str, make: Callable[..., T], args: dict[str, Any], mistakes: Mistakes) -> T | None:
    """Return `make(**args)`. After an error, pass the arguments one by one, to find the other errors."""
    with mistakes.caught(), errors_at(place):
        return make(**args)
    named = {"name": args["name"]} if "name" in args else {}
    for name, value in args.items():
        values = [{key: value[key]} for key in value] if name == "options" else [value]
        for each in values:
            with mistakes.caught(), errors_at(place):
                make(**{**named, name: each})
    return None
