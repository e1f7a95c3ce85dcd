"""Penalties over trees in a configuration: the patterns of `over_tree`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...trees._over_tree import OverTree, over_tree
from ...trees._patterns import Pattern
from .annotation_schema import JSONSchema, parameter_texts, table_schema
from .error_places import check_keys, checked_string, checked_table, errors_at

__all__ = ["read_patterns", "tree_schema", "write_patterns"]

_KEYS = ("match", "exclude")
_CRITERIA = ("path", "ndim", "shape", "optional")


def read_patterns(place: str, value: Any) -> dict[str, Any]:
    """Convert a table of patterns to arguments of `over_tree`."""
    table = checked_table(place, value)
    check_keys(place, table, _KEYS)
    return {key: _read_several(f"{place}.{key}", patterns) for key, patterns in table.items()}


def _read_several(place: str, value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_read_pattern(f"{place}[{i}]", item) for i, item in enumerate(value)]
    return _read_pattern(place, value)


def _read_pattern(place: str, value: Any) -> str | Pattern:
    if not isinstance(value, Mapping):
        return checked_string(place, value)
    check_keys(place, value, _CRITERIA)
    for key, item in value.items():
        if item is None:
            raise TypeError(f"{place}.{key}: must not be null. Leave it out.")
    with errors_at(place):
        return Pattern(**value)


def write_patterns(tree: OverTree) -> dict[str, Any]:
    """Convert the patterns of a penalty over trees to data."""
    patterns = {"match": tree.patterns.match or (), "exclude": tree.patterns.exclude}
    data = {key: [_write_pattern(pattern) for pattern in several] for key, several in patterns.items() if several}
    return {key: several[0] if len(several) == 1 else several for key, several in data.items()}


def _write_pattern(pattern: Pattern) -> Any:
    simplest = pattern.simplest()
    if isinstance(simplest, str):
        return simplest
    pairs = zip(_CRITERIA, pattern.key(), strict=True)
    criteria = {key: value for key, value in pairs if value is not None and value is not False}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in criteria.items()}


def tree_schema() -> JSONSchema:
    """Describe the table of patterns."""
    texts = parameter_texts(over_tree)
    pattern = {"anyOf": [{"type": "string"}, _pattern_schema()]}
    patterns = {"anyOf": [*pattern["anyOf"], {"type": "array", "items": pattern, "minItems": 1}]}
    return {
        "description": "The input is a tree. The penalty is summed over its leaves, as by `over_tree`.",
        **table_schema({key: {"description": texts[key], **patterns} for key in _KEYS}),
    }


def _pattern_schema() -> JSONSchema:
    texts, count = parameter_texts(Pattern), {"type": "integer", "minimum": 0}
    schemas: dict[str, JSONSchema] = {
        "path": {"type": "string"},
        "ndim": {"anyOf": [count, {"type": "array", "items": count, "minItems": 1}]},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": -1}},
        "optional": {"type": "boolean"},
    }
    table = table_schema({key: {"description": texts[key], **schema} for key, schema in schemas.items()})
    return {**table, "anyOf": [{"required": [key]} for key in ("path", "ndim", "shape")]}
