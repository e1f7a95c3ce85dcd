"""What a configuration may hold, as a JSON Schema for editors: made of signatures, annotations and docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from ..._core.checks import AtLeast, Interval, NonNegative
from ..._core.registry import MAKERS, OWN, REGISTRY, RESERVED, penalty_names
from ...trees._over_tree import over_tree
from ..penalty import Penalty
from .reader import FIELDS, SHARED, VERSION

__all__ = ["config_schema"]

_TYPES = {float: "number", int: "integer", bool: "boolean", str: "string", NoneType: "null"}
_PARAMETERS = re.compile(r"^(\w+(?:, \w+)*)(?: : .*)?\n((?:    .*\n?)+)", re.MULTILINE)  # as numpydoc has them


def config_schema() -> dict[str, Any]:
    """The JSON Schema of `Pipeline.from_config`, for editors: completion, descriptions, and errors while one types.

    Made of the functions' signatures, and with the names that `register` has given so far. It does not know of what
    depends on two values at once, such as names that occur twice, or steps that must go up.

    Returns
    -------
    dict
        Of draft 2020-12. In a JSON file, ``"$schema"`` may name the file that it was written to; in TOML, editors take
        the comment ``#:schema pipeline.schema.json``.

    Examples
    --------
    >>> schema = config_schema()
    >>> schema["$defs"]["options_huber"]["properties"]["delta"]
    {'description': 'Where the square ends, > 0, in units of `x`.',
     'default': 1.0, 'type': 'number', 'exclusiveMinimum': 0}
    >>> import json
    >>> text = json.dumps(schema, indent=2)
    """
    parameters = _parameters()
    own = {name: _own(name, function) for name, function in REGISTRY.items()}
    by_name = [_where("penalty", name, {"properties": properties}) for name, properties in own.items()]
    nameless = {key: schema for key, schema in parameters.items() if key != "name"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A pipeline of xpenalties",
        "anyOf": [
            _table(
                {
                    "$schema": {"type": "string"},
                    "version": {"const": VERSION, "description": "Of the format."},
                    "name": {"type": "string", "description": "Of the pipeline, for messages and reports."},
                    "penalties": {"anyOf": [_ref("penalties"), _ref("penalties_by_name")]},
                },
                "version",
                "penalties",
            ),
            _ref("penalties"),
        ],
        "$defs": {
            "penalties": {"type": "array", "items": _ref("penalty")},
            "penalties_by_name": {
                "type": "object",
                "propertyNames": _ref("name"),
                "properties": {
                    name: {"anyOf": [_ref("weight"), _unless_named(own.get(name, {}))]} for name in penalty_names()
                },
                "additionalProperties": {**_ref("named_penalty"), "required": ["penalty"]},
            },
            "penalty": _table(parameters, "penalty") | {"allOf": by_name},
            "named_penalty": _table(nameless) | {"allOf": by_name},
            "name": {"type": "string", "minLength": 1, "not": {"anyOf": [{"pattern": "^<"}, {"enum": [*RESERVED]}]}},
            "weight": {"anyOf": [_schema_of(NonNegative), _ref("schedule")]},
            "inputs": _inputs(),
            "schedule": {
                "type": "object",
                "properties": {"schedule": {"enum": [*MAKERS, *OWN]}},
                "required": ["schedule"],
                "allOf": [
                    *(_where("schedule", name, _ref(f"schedule_{name}")) for name in MAKERS),
                    *(_where("schedule", name, {"maxProperties": 1}) for name in [*OWN]),
                ],
            },
            **{f"options_{name}": _options(function) for name, function in REGISTRY.items()},
            **{f"schedule_{name}": _schedule(make) for name, make in MAKERS.items()},
        },
    }


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


def _table(properties: Mapping[str, Any], *required: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


def _where(key: str, value: str, then: dict[str, Any]) -> dict[str, Any]:
    return {"if": {"properties": {key: {"const": value}}, "required": [key]}, "then": then}


def _own(name: str, function: Any) -> dict[str, Any]:
    """What the parameters are of one of this package's penalties; those of functions are not for trees."""
    return {"options": _ref(f"options_{name}"), **({"tree": False} if function.spec.functions else {})}


def _unless_named(properties: dict[str, Any]) -> dict[str, Any]:
    """A table of parameters whose name is the penalty's, if it does not say another."""
    nameless = {"not": {"required": ["penalty"]}}
    return {**_ref("named_penalty"), "if": nameless, "then": {"properties": properties}}


def _parameters() -> dict[str, Any]:
    """Those of `Penalty`."""
    hints = get_type_hints(Penalty, include_extras=True)
    own = {
        "penalty": {"enum": [*penalty_names()]},
        "tree": _tree(),
        "name": _ref("name"),
        "weight": _ref("weight"),
        "inputs": _ref("inputs"),
        "options": {"type": "object"},
    }
    signature = inspect.signature(Penalty).parameters
    described = {
        "penalty": "What to compute.",
        "tree": "The input is a tree, whose leaves are summed over, as by `over_tree`.",
        **_described(Penalty),
    }
    return {
        key: _documented(own[key] if key in own else _schema_of(hints[key]), key, signature, described)
        for key in FIELDS
    }


def _inputs() -> dict[str, Any]:
    text = {"type": "string"}
    texts = {"type": "array", "items": text}
    functions = {"function": {"enum": [*OWN], "description": "A function of `register`."}} if OWN else {}
    attributes = {
        "description": "Of the pipeline's one argument: as batch.images.",
        "anyOf": [text, {**texts, "minItems": 1}],
    }
    picked = _table({"attributes": attributes, **functions}) | {"minProperties": 1, "maxProperties": 1}
    return {"anyOf": [text, texts, picked, {"type": "null"}]}


def _tree() -> dict[str, Any]:
    described = _described(over_tree)
    text = {"type": "string"}
    patterns = {"anyOf": [text, {"type": "array", "items": text, "minItems": 1}]}
    return _table({key: {"description": described[key], **patterns} for key in ("match", "exclude")})


def _options(function: Any) -> dict[str, Any]:
    hints = get_type_hints(function.spec.formula, include_extras=True) | SHARED
    signature, described = inspect.signature(function).parameters, _described(function)
    names = (*function.spec.checks, *SHARED)
    found = {name: _documented(_schema_of(hints[name]), name, signature, described) for name in names}
    return {"description": _first_line(function), **_table(found)}


def _schedule(make: Any) -> dict[str, Any]:
    hints = get_type_hints(make.__wrapped__, include_extras=True)
    signature, described = inspect.signature(make).parameters, _described(make)
    found = {name: _documented(_schema_of(hints[name]), name, signature, described) for name in signature}
    required = [name for name, parameter in signature.items() if parameter.default is parameter.empty]
    return {"description": _first_line(make), **_table({"schedule": True, **found}, "schedule", *required)}


def _schema_of(hint: Any) -> dict[str, Any]:
    """The values that `_options.checks_of` lets through, and of functions schedules."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        parts = [_schema_of(each) for each in args if get_origin(each) is not Mapping]  # whose keys are no strings
        return parts[0] if len(parts) == 1 else {"anyOf": parts}
    if origin is Literal:
        return {"enum": [*args]}
    if origin is Annotated:
        return _schema_of(args[0]) | _bounds(args[1])
    if origin is Callable:
        return _ref("schedule")
    if origin is Iterable:
        return {"type": "array", "items": _schema_of(args[0])}
    if origin is tuple:
        parts = [_schema_of(each) for each in args]
        return {"type": "array", "prefixItems": parts, "minItems": len(parts), "maxItems": len(parts)}
    return {"type": ["number", "string", "boolean", "null"] if hint is Any else _TYPES[hint]}


def _bounds(domain: Interval | AtLeast) -> dict[str, Any]:
    if isinstance(domain, AtLeast):
        return {"minimum": domain.low}
    low = {"exclusiveMinimum" if domain.low_open else "minimum": domain.low}
    return low if domain.high == float("inf") else {**low, "maximum": domain.high}


def _documented(
    schema: dict[str, Any], name: str, signature: Mapping[str, inspect.Parameter], described: Mapping[str, str]
) -> dict[str, Any]:
    """`schema` with what editors show: the docstring's words, and the default."""
    found: dict[str, Any] = {"description": described[name]} if name in described else {}
    default = signature[name].default if name in signature else None
    if isinstance(default, (bool, int, float, str)) and default != "":
        found["default"] = default
    return {**found, **schema}


def _described(function: Any) -> dict[str, str]:
    """The text of each parameter in a docstring."""
    found = _PARAMETERS.findall(inspect.getdoc(function) or "")
    return {name: " ".join(text.split()) for names, text in found for name in names.split(", ")}


def _first_line(function: Any) -> str:
    return (inspect.getdoc(function) or "").partition("\n")[0]
