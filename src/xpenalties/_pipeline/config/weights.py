"""Weights in a configuration: a number, or the table of a schedule."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, get_type_hints

from ..._core.checks import NON_NEGATIVE, NonNegative, check_argument
from ..._core.registry import REGISTERED, SCHEDULES
from ..._core.shown import listed
from ..._core.suggestions import did_you_mean
from ...schedules._definition import Schedule
from .annotation_schema import (
    JSONSchema,
    described_parameter,
    first_line,
    if_equal,
    parameter_texts,
    reference,
    schema_of,
    table_schema,
)
from .error_places import check_keys, checked_name, checked_scalar, errors_at
from .plain_values import plain, registered_name
from .scalar_types import check_scalar_type

__all__ = ["read_weight", "weight_definitions", "write_weight"]


def read_weight(place: str, value: Any) -> Any:
    """Convert data to a weight: a number or a schedule."""
    if isinstance(value, Mapping):
        return _read_schedule(place, value)
    check_scalar_type(place, value, NonNegative)
    return check_argument(place, NON_NEGATIVE, "weight", value)


def _read_schedule(place: str, table: Mapping[str, Any]) -> Any:
    if "schedule" not in table:
        hint = next(filter(None, (did_you_mean(key, ["schedule"]) for key in table)), " Pieces are a list of pairs.")
        raise ValueError(f"{place}: a table is a schedule and must have the key `schedule`, got {listed(table)}.{hint}")
    name = checked_name(f"{place}.schedule", table["schedule"], "schedule", (*SCHEDULES, *REGISTERED))
    if name in REGISTERED:
        check_keys(place, table, ["schedule"])
        return REGISTERED[name]
    make = SCHEDULES[name]
    check_keys(place, table, ["schedule", *inspect.signature(make).parameters])
    arguments = {key: _read_argument(f"{place}.{key}", value) for key, value in table.items() if key != "schedule"}
    hints = get_type_hints(make.__wrapped__, include_extras=True)  # type: ignore[attr-defined]
    for key, argument in arguments.items():
        check_scalar_type(f"{place}.{key}", argument, hints[key])
    with errors_at(place):
        return make(**arguments)


def _read_argument(place: str, value: Any) -> Any:
    """Convert data to a schedule's argument: a scalar, a schedule, or a list of these."""
    if isinstance(value, Mapping):
        return _read_schedule(place, value)
    if isinstance(value, (list, tuple)):
        return [_read_argument(f"{place}[{i}]", item) for i, item in enumerate(value)]
    return checked_scalar(place, value)


def write_weight(caller: str, weight: Any) -> Any:
    """Convert a weight to data."""
    if callable(weight):
        return _write_schedule(caller, weight)
    return check_argument(caller, NON_NEGATIVE, "weight", plain(caller, "weight", weight))


def _write_schedule(caller: str, schedule: Any) -> dict[str, Any]:
    if not isinstance(schedule, Schedule):
        return {"schedule": registered_name(caller, "weight", schedule)}
    defaults = {key: p.default for key, p in inspect.signature(SCHEDULES[schedule.name]).parameters.items()}
    arguments = {key: value for key, value in schedule.arguments if value != defaults[key]}
    return {"schedule": schedule.name} | {key: _write_argument(caller, value) for key, value in arguments.items()}


def _write_argument(caller: str, value: Any) -> Any:
    """Convert a schedule's argument to data. All except schedules and tuples already are."""
    if isinstance(value, tuple):
        return [_write_argument(caller, item) for item in value]
    return _write_schedule(caller, value) if callable(value) else value


def weight_definitions() -> dict[str, JSONSchema]:
    """Describe weights and each schedule."""
    return {
        "weight": {"anyOf": [schema_of(NonNegative), reference("schedule")]},
        "schedule": {
            "type": "object",
            "properties": {"schedule": {"enum": [*SCHEDULES, *REGISTERED]}},
            "required": ["schedule"],
            "allOf": [
                *(if_equal("schedule", name, reference(f"schedule_{name}")) for name in SCHEDULES),
                *(if_equal("schedule", name, {"maxProperties": 1}) for name in [*REGISTERED]),
            ],
        },
        **{f"schedule_{name}": _schedule_schema(make) for name, make in SCHEDULES.items()},
    }


def _schedule_schema(make: Any) -> JSONSchema:
    hints = get_type_hints(make.__wrapped__, include_extras=True)
    signature, texts = inspect.signature(make).parameters, parameter_texts(make)
    arguments = {name: described_parameter(schema_of(hints[name]), name, signature, texts) for name in signature}
    required = [name for name, parameter in signature.items() if parameter.default is parameter.empty]
    return {"description": first_line(make), **table_schema({"schedule": True, **arguments}, "schedule", *required)}
