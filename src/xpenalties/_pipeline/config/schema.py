"""The JSON Schema of configurations, for editors."""

from __future__ import annotations

import inspect
from typing import Any

from ..._core.registry import PENALTIES, penalty_names
from ..penalty import Penalty
from .fields import FIELDS, VERSION
from .json_schema import JSONSchema, described_parameter, if_equal, parameter_texts, reference, table_schema

__all__ = ["config_schema"]


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema of `Pipeline.from_config`: editors use it to complete, describe and check as you type.

    It is made from the functions' signatures and the names registered so far. It cannot check rules that involve two
    values, such as unique names or ascending steps.

    Returns
    -------
    dict
        JSON Schema, draft 2020-12. Write it to a file, and name that file in a JSON configuration under ``"$schema"``,
        or in a TOML configuration in the comment ``#:schema pipeline.schema.json``.

    Examples
    --------
    >>> schema = config_schema()
    >>> schema["$defs"]["options_huber"]["properties"]["delta"]
    {'description': 'Where the square ends, > 0, in units of `x`.',
     'default': 1.0, 'type': 'number', 'exclusiveMinimum': 0}
    >>> import json
    >>> text = json.dumps(schema, indent=2)
    """
    properties = _properties()
    nameless = {key: schema for key, schema in properties.items() if key != "name"}
    narrowed: dict[str, JSONSchema] = {name: _narrowed(function) for name, function in PENALTIES.items()}
    conditions = {"allOf": [if_equal("penalty", name, {"properties": schemas}) for name, schemas in narrowed.items()]}
    by_name = {
        name: {"anyOf": [reference("weight"), _unless_named(narrowed.get(name, {}))]} for name in penalty_names()
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A pipeline of xpenalties",
        "anyOf": [_document(), reference("penalties")],
        "$defs": {
            "penalties": {"type": "array", "items": reference("penalty")},
            "penalties_by_name": {
                "type": "object",
                "propertyNames": reference("name"),
                "properties": by_name,
                "additionalProperties": {**reference("named_penalty"), "required": ["penalty"]},
            },
            "penalty": table_schema(properties, "penalty") | conditions,
            "named_penalty": table_schema(nameless) | conditions,
            **{name: schema for field in FIELDS for name, schema in field.definitions().items()},
        },
    }


def _document() -> JSONSchema:
    return table_schema(
        {
            "$schema": {"type": "string"},
            "version": {"const": VERSION, "description": "Version of the format."},
            "name": {"type": "string", "description": "Name of the pipeline, for messages and reports."},
            "penalties": {"anyOf": [reference("penalties"), reference("penalties_by_name")]},
        },
        "version",
        "penalties",
    )


def _properties() -> dict[str, JSONSchema]:
    """Describe each key of a penalty's table."""
    signature, texts = inspect.signature(Penalty).parameters, parameter_texts(Penalty)
    return {field.name: described_parameter(field.schema(), field.name, signature, texts) for field in FIELDS}


def _narrowed(function: Any) -> JSONSchema:
    """Describe the keys that are narrower for a built-in penalty."""
    schemas = {field.name: field.narrowed(function.spec) for field in FIELDS}
    return {name: schema for name, schema in schemas.items() if schema is not None}


def _unless_named(schemas: JSONSchema) -> JSONSchema:
    """Describe a penalty's table. If it has no key `penalty`, the narrower `schemas` of its name apply."""
    nameless = {"not": {"required": ["penalty"]}}
    return {**reference("named_penalty"), "if": nameless, "then": {"properties": schemas}}
