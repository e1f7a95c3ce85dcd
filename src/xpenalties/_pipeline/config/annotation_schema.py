"""Build parts of a JSON Schema from annotations, signatures and docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from ..._core.checks import AtLeast, Axes, Interval

__all__ = [
    "JSONSchema",
    "described_parameter",
    "first_line",
    "if_equal",
    "parameter_texts",
    "reference",
    "schema_of",
    "table_schema",
]

JSONSchema = dict[str, Any]

_TYPES = {float: "number", int: "integer", bool: "boolean", str: "string", NoneType: "null"}
_PARAMETERS = re.compile(r"^(\w+(?:, \w+)*)(?: : .*)?\n((?:    .*\n?)+)", re.MULTILINE)  # a numpydoc section


def reference(name: str) -> JSONSchema:
    """Refer to one of the schema's definitions."""
    return {"$ref": f"#/$defs/{name}"}


def table_schema(properties: Mapping[str, Any], *required: str) -> JSONSchema:
    """Describe a table that has these keys and no others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


def if_equal(key: str, value: str, then: JSONSchema) -> JSONSchema:
    """Apply `then` to tables whose `key` is `value`."""
    return {"if": {"properties": {key: {"const": value}}, "required": [key]}, "then": then}


def schema_of(hint: Any) -> JSONSchema:
    """Describe the values that `checks_of` accepts for an annotation. A callable is described as a schedule."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        parts = [schema_of(arg) for arg in args if get_origin(arg) is not Mapping]  # its keys are not strings
        return parts[0] if len(parts) == 1 else {"anyOf": parts}
    if origin is Literal:
        return {"enum": [*args]}
    if origin is Annotated and isinstance(args[1], Axes):
        return {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "integer"}, "minItems": 1}]}
    if origin is Annotated:
        return schema_of(args[0]) | _bounds(args[1])
    if origin is Callable:
        return reference("schedule")
    if origin is Iterable:
        return {"type": "array", "items": schema_of(args[0])}
    if origin is tuple:
        parts = [schema_of(arg) for arg in args]
        return {"type": "array", "prefixItems": parts, "minItems": len(parts), "maxItems": len(parts)}
    return {"type": ["number", "string", "boolean", "null"] if hint is Any else _TYPES[hint]}


def _bounds(domain: Interval | AtLeast) -> JSONSchema:
    if isinstance(domain, AtLeast):
        return {"minimum": domain.low}
    low = {"exclusiveMinimum" if domain.low_open else "minimum": domain.low}
    return low if domain.high == float("inf") else {**low, "maximum": domain.high}


def described_parameter(
    schema: JSONSchema, name: str, signature: Mapping[str, inspect.Parameter], texts: Mapping[str, str]
) -> JSONSchema:
    """Add a parameter's docstring text and its default, which editors show, to its schema."""
    shown: JSONSchema = {"description": texts[name]} if name in texts else {}
    default = signature[name].default if name in signature else None
    if isinstance(default, (bool, int, float, str)) and default != "":
        shown["default"] = default
    return {**shown, **schema}


def parameter_texts(function: Any) -> dict[str, str]:
    """Return the text of each parameter in a docstring."""
    sections = _PARAMETERS.findall(inspect.getdoc(function) or "")
    return {name: " ".join(text.split()) for names, text in sections for name in names.split(", ")}


def first_line(function: Any) -> str:
    """Return the first line of a docstring."""
    return (inspect.getdoc(function) or "").partition("\n")[0]
