"""Inputs in a configuration: names, attributes of the pipeline's argument, or a registered function."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any

from ..._core.registry import REGISTERED
from ..._core.shown import shown
from .annotation_schema import JSONSchema, table_schema
from .error_places import check_keys, checked_name, checked_string
from .plain_values import registered_name

__all__ = ["inputs_definitions", "read_inputs", "write_inputs"]


def read_inputs(place: str, value: Any) -> Any:
    """Convert `value` to the `inputs` of a `Penalty`."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)):
        return tuple(checked_string(f"{place}[{i}]", name) for i, name in enumerate(value))
    if not isinstance(value, Mapping):
        raise TypeError(
            f"{place}: must be a name, a list of names or a table, got {shown(value)}. Put names in quotes."
        )
    table = value
    check_keys(place, table, ("attributes", "function"))
    if len(table) != 1:
        raise ValueError(
            f"{place}: must have one key, `attributes` or `function`, got {len(table)}. Write one of them."
        )
    if "function" in table:
        return REGISTERED[checked_name(f"{place}.function", table["function"], "function", REGISTERED)]
    return _read_attributes(f"{place}.attributes", table["attributes"])


def _read_attributes(place: str, value: Any) -> attrgetter[Any]:
    paths = value if isinstance(value, (list, tuple)) else [value]
    if not paths:
        raise ValueError(f"{place}: must not be empty. Name one.")
    return attrgetter(*(checked_string(place, path) for path in paths))


def write_inputs(caller: str, inputs: Any) -> Any:
    """Convert `inputs` to data."""
    if isinstance(inputs, attrgetter):
        paths: Any = inputs.__reduce__()[1]
        return {"attributes": paths[0] if len(paths) == 1 else list(paths)}
    if callable(inputs):
        return {"function": registered_name(caller, "inputs", inputs)}
    return list(inputs) if isinstance(inputs, tuple) else inputs


def inputs_definitions() -> dict[str, JSONSchema]:
    """Describe inputs. The key "function" exists only if a function is registered."""
    text = {"type": "string"}
    texts = {"type": "array", "items": text}
    function = {"function": {"enum": [*REGISTERED], "description": "A registered function."}} if REGISTERED else {}
    attributes = {
        "description": "Attributes of the pipeline's only argument, such as batch.images.",
        "anyOf": [text, {**texts, "minItems": 1}],
    }
    picked = table_schema({"attributes": attributes, **function}) | {"minProperties": 1, "maxProperties": 1}
    return {"inputs": {"anyOf": [text, texts, picked, {"type": "null"}]}}
