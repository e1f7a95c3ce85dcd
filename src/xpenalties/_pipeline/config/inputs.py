"""Inputs in a configuration: names, attributes of the pipeline's argument, a function, or any by parameter."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any

from ..._core.registry import PENALTIES, REGISTERED
from ..._core.shown import shown
from ..._penalties.parameters import call_parameters_of
from ..._penalties.spec import Spec
from .annotation_schema import JSONSchema, reference, table_schema
from .error_places import check_keys, checked_name, checked_string, place_of_key
from .plain_values import registered_name

__all__ = ["inputs_definitions", "narrowed_inputs", "read_inputs", "write_inputs"]

_PICKS = ("attributes", "function")  # a table with one of these keys is no mapping from parameters


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
    if any(key in value for key in _PICKS):
        return _read_pick(place, value)
    if not value:
        raise ValueError(f"{place}: must not be empty. Write parameter = name, or leave it out.")
    return {key: _read_source(place_of_key(place, checked_string(place, key)), each) for key, each in value.items()}


def _read_source(place: str, value: Any) -> Any:
    """Convert the input of one parameter: a name, or a table that picks it."""
    return _read_pick(place, value) if isinstance(value, Mapping) else checked_string(place, value)


def _read_pick(place: str, table: Mapping[str, Any]) -> Any:
    check_keys(place, table, _PICKS)
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
    if isinstance(inputs, Mapping):
        ambiguous = next((key for key in _PICKS if key in inputs), None)
        if ambiguous is not None:
            raise ValueError(
                f"{caller}: `inputs` must not have the key {ambiguous!r} in a configuration, where it picks inputs. "
                "Rename the parameter."
            )
        return {key: write_inputs(caller, source) for key, source in inputs.items()}
    if isinstance(inputs, attrgetter):
        paths: Any = inputs.__reduce__()[1]
        return {"attributes": paths[0] if len(paths) == 1 else list(paths)}
    if callable(inputs):
        return {"function": registered_name(caller, "inputs", inputs)}
    return list(inputs) if isinstance(inputs, tuple) else inputs


def inputs_definitions() -> dict[str, JSONSchema]:
    """Describe inputs, for any penalty and for each built-in one. "function" exists only if one is registered."""
    text = {"type": "string"}
    texts = {"type": "array", "items": text}
    function = {"function": {"enum": [*REGISTERED], "description": "A registered function."}} if REGISTERED else {}
    attributes = {
        "description": "Attributes of the pipeline's only argument, such as batch.images.",
        "anyOf": [text, {**texts, "minItems": 1}],
    }
    picked = table_schema({"attributes": attributes, **function}) | {"minProperties": 1, "maxProperties": 1}
    by_parameter = {
        "type": "object",
        "propertyNames": {"not": {"enum": [*_PICKS]}},
        "additionalProperties": reference("input"),
        "minProperties": 1,
    }
    several = [text, texts, reference("picked_inputs"), {"type": "null"}]
    return {
        "inputs": {"anyOf": [*several, by_parameter]},
        "input": {"anyOf": [text, reference("picked_inputs")]},
        "picked_inputs": picked,
        **{f"inputs_{name}": {"anyOf": [*several, _by_parameter_of(function)]} for name, function in PENALTIES.items()},
    }


def narrowed_inputs(spec: Spec) -> JSONSchema:
    """Describe the inputs of a built-in penalty."""
    return reference(f"inputs_{spec.name}")


def _by_parameter_of(function: Any) -> JSONSchema:
    """Describe a mapping from the parameters of a built-in penalty to inputs."""
    parameters = call_parameters_of(function)
    return table_schema({name: reference("input") for name in parameters.of_inputs()}, *parameters.required)
