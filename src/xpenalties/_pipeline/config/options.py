"""Options in a configuration: checked by name for built-in penalties, any data for registered functions."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, get_type_hints

from ..._core.checks import AxisOrAxes, Positive
from ..._core.registry import PENALTIES
from ..._penalties.spec import Spec
from .annotation_schema import (
    JSONSchema,
    described_parameter,
    first_line,
    parameter_texts,
    schema_of,
    table_schema,
)
from .error_places import check_keys, checked_scalar, checked_string, checked_table, place_of_key
from .misplaced_keys import hint_in_penalty
from .plain_values import plain
from .scalar_types import check_scalar_type

__all__ = ["options_definitions", "read_options", "write_options"]

SHARED: dict[str, Any] = {
    "reduction": Literal["sum", "mean"],
    "normalizer": Positive | None,
}  # the options that all penalties share, except arrays


def read_options(place: str, value: Any, spec: Spec | None) -> dict[str, Any]:
    """Read the options of a penalty. `spec` is None if the penalty is a registered function."""
    table = checked_table(place, value)
    if spec is None:
        return {checked_string(place, key): _read_data(place_of_key(place, key), item) for key, item in table.items()}
    check_keys(place, table, (*spec.checks, *SHARED), hint=partial(hint_in_penalty, spec.name))
    hints = get_type_hints(spec.formula, include_extras=True) | SHARED
    return {key: _read_option(f"{place}.{key}", item, hints[key]) for key, item in table.items()}


def _read_option(place: str, value: Any, hint: Any) -> Any:
    """Read the option of a built-in penalty: a scalar, or several axes if it takes them."""
    if hint == AxisOrAxes and isinstance(value, (list, tuple)):
        return tuple(checked_scalar(f"{place}[{i}]", item) for i, item in enumerate(value))
    check_scalar_type(place, value, hint)
    return checked_scalar(place, value)


def _read_data(place: str, value: Any) -> Any:
    """Convert data to an option. Lists become tuples: options are compared, so they must not change."""
    if isinstance(value, Mapping):
        return {checked_string(place, key): _read_data(place_of_key(place, key), item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(_read_data(f"{place}[{i}]", item) for i, item in enumerate(value))
    return checked_scalar(place, value)


def write_options(caller: str, options: Mapping[str, Any], spec: Spec | None) -> dict[str, Any]:
    """Convert `options` to data.

    For built-in penalties, options that are None are left out: that means the same, and TOML has no None.
    """
    if spec is None:
        return {key: _write_data(caller, f"options.{key}", value) for key, value in options.items()}
    given = {key: value for key, value in options.items() if value is not None}
    return {
        key: list(value) if type(value) is tuple else plain(caller, f"options.{key}", value)  # a tuple of axes
        for key, value in given.items()
    }


def _write_data(caller: str, name: str, value: Any) -> Any:
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _write_data(caller, f"{name}.{key}", item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_write_data(caller, f"{name}[{i}]", item) for i, item in enumerate(value)]
    return plain(caller, name, value)


def options_definitions() -> dict[str, JSONSchema]:
    """Describe the options of each built-in penalty."""
    return {f"options_{name}": _options_schema(function) for name, function in PENALTIES.items()}


def _options_schema(function: Any) -> JSONSchema:
    hints = get_type_hints(function.spec.formula, include_extras=True) | SHARED
    signature, texts = inspect.signature(function).parameters, parameter_texts(function)
    names = (*function.spec.checks, *SHARED)
    options = {name: described_parameter(schema_of(hints[name]), name, signature, texts) for name in names}
    return {"description": first_line(function), **table_schema(options)}
