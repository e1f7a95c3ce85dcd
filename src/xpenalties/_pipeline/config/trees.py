"""Penalties over trees in a configuration: the patterns of `over_tree`."""

from __future__ import annotations

from typing import Any

from ...trees._over_tree import OverTree, over_tree
from .json_schema import JSONSchema, parameter_texts, table_schema
from .places import check_keys, checked_string, checked_table

__all__ = ["read_patterns", "tree_schema", "write_patterns"]

_KEYS = ("match", "exclude")


def read_patterns(place: str, value: Any) -> dict[str, Any]:
    """Convert a table of patterns to arguments of `over_tree`."""
    table = checked_table(place, value)
    check_keys(place, table, _KEYS)
    return {key: _read_strings(f"{place}.{key}", patterns) for key, patterns in table.items()}


def _read_strings(place: str, value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [checked_string(f"{place}[{i}]", item) for i, item in enumerate(value)]
    return checked_string(place, value)


def write_patterns(tree: OverTree) -> dict[str, Any]:
    """Convert the patterns of a penalty over trees to data."""
    patterns = {"match": tree.patterns.match or (), "exclude": tree.patterns.exclude}
    return {key: value[0] if len(value) == 1 else list(value) for key, value in patterns.items() if value}


def tree_schema() -> JSONSchema:
    """Describe the table of patterns."""
    texts = parameter_texts(over_tree)
    text = {"type": "string"}
    patterns = {"anyOf": [text, {"type": "array", "items": text, "minItems": 1}]}
    return {
        "description": "The input is a tree. The penalty is summed over its leaves, as by `over_tree`.",
        **table_schema({key: {"description": texts[key], **patterns} for key in _KEYS}),
    }
