"""Define each field of a penalty's table in one place: how it is read, written and described in the schema.

Reader, writer and schema loop over `FIELDS`. An argument of `Penalty` that is plain data needs no entry here: its
annotation is enough. Any other argument needs one entry in `_SPECIAL`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import cache
from typing import Any, NamedTuple, get_type_hints

from ..._core.registry import RESERVED, penalty_names
from ..._penalties.spec import Spec, spec_of
from ...trees._over_tree import OverTree
from ..penalty import Penalty
from .annotation_schema import JSONSchema, reference, schema_of
from .error_places import checked_name, checked_string
from .inputs import inputs_definitions, narrowed_inputs, read_inputs, write_inputs
from .options import options_definitions, read_options, write_options
from .plain_values import registered_name
from .scalar_types import check_scalar_type
from .trees import read_patterns, tree_schema, write_patterns
from .weights import read_weight, weight_definitions, write_weight

__all__ = ["FIELDS", "VERSION", "Field"]

VERSION = 1  # of the format; files of other versions are refused


def _no_definitions() -> dict[str, JSONSchema]:
    return {}


def _not_narrowed(spec: Spec) -> JSONSchema | None:
    return None


class Field(NamedTuple):
    """One key of a penalty's table.

    read
        Takes the place, for errors, the key's value, and the spec of the table's penalty, which is None for a
        registered function. Returns the argument of `Penalty`.
    write
        Takes the caller, for errors, and a penalty. Returns the key's value, or None to leave the key out.
    schema
        Returns the schema of the key's value.
    definitions
        Returns the definitions that `schema` and `narrowed` refer to.
    narrowed
        Takes the spec of a built-in penalty. Returns a narrower schema for it, False to forbid the key, or None to add
        nothing.
    by_key
        Whether `read` also takes a part of a table, so that each key's error can be found.
    """

    name: str
    read: Callable[[str, Any, Spec | None], Any]
    write: Callable[[str, Penalty], Any]
    schema: Callable[[], JSONSchema]
    definitions: Callable[[], dict[str, JSONSchema]] = _no_definitions
    narrowed: Callable[[Spec], JSONSchema | bool | None] = _not_narrowed
    by_key: bool = False


def _data_field(name: str) -> Field:
    """Return the field of an argument that is plain data. `Penalty` checks its value."""
    return Field(
        name,
        read=lambda place, value, spec: _typed(place, value, name),
        write=lambda caller, penalty: getattr(penalty, name),
        schema=lambda: schema_of(_penalty_hints()[name]),
    )


def _typed(place: str, value: Any, name: str) -> Any:
    check_scalar_type(place, value, _penalty_hints()[name])
    return value


@cache
def _penalty_hints() -> dict[str, Any]:
    return get_type_hints(Penalty, include_extras=True)


def _function_of(penalty: Penalty) -> Callable[..., Any]:
    """Return the penalty's function. For a penalty over trees, return the function that it applies to each leaf."""
    return penalty.fn.fn if isinstance(penalty.fn, OverTree) else penalty.fn  # type: ignore[return-value]


def _write_penalty(caller: str, penalty: Penalty) -> str:
    function = _function_of(penalty)
    spec = spec_of(function)
    return spec.name if spec else registered_name(caller, "fn", function)


def _read_name(place: str, value: Any) -> str:
    if not checked_string(place, value):
        raise ValueError(f"{place}: must not be empty. Leave it out.")
    return value


def _write_name(caller: str, penalty: Penalty) -> str | None:
    return None if penalty.name == _write_penalty(caller, penalty) else penalty.name


def _write_options(caller: str, penalty: Penalty) -> dict[str, Any] | None:
    options = dict(penalty.fn.options) if isinstance(penalty.fn, OverTree) else penalty.options
    return write_options(caller, options, spec_of(_function_of(penalty))) or None


_SPECIAL = (
    Field(
        "penalty",
        read=lambda place, value, spec: checked_name(place, value, "penalty", penalty_names()),
        write=_write_penalty,
        schema=lambda: {"description": "What to compute.", "enum": [*penalty_names()]},
    ),
    Field(
        "tree",
        read=lambda place, value, spec: read_patterns(place, value),
        write=lambda caller, penalty: write_patterns(penalty.fn) if isinstance(penalty.fn, OverTree) else None,
        schema=tree_schema,
        narrowed=lambda spec: False if spec.functions else None,  # penalties of functions cannot go over trees
        by_key=True,
    ),
    Field(
        "name",
        read=lambda place, value, spec: _read_name(place, value),
        write=_write_name,
        schema=lambda: reference("name"),
        definitions=lambda: {
            "name": {"type": "string", "minLength": 1, "not": {"anyOf": [{"pattern": "^<"}, {"enum": [*RESERVED]}]}}
        },
    ),
    Field(
        "weight",
        read=lambda place, value, spec: read_weight(place, value),
        write=lambda caller, penalty: write_weight(caller, penalty.weight),
        schema=lambda: reference("weight"),
        definitions=weight_definitions,
    ),
    Field(
        "inputs",
        read=lambda place, value, spec: read_inputs(place, value),
        write=lambda caller, penalty: write_inputs(caller, penalty.inputs),
        schema=lambda: reference("inputs"),
        definitions=inputs_definitions,
        narrowed=narrowed_inputs,
        by_key=True,
    ),
    Field(
        "options",
        read=read_options,
        write=_write_options,
        schema=lambda: {"type": "object"},
        definitions=options_definitions,
        narrowed=lambda spec: reference(f"options_{spec.name}"),
        by_key=True,
    ),
)


def _all_fields() -> tuple[Field, ...]:
    """Return the fields in the order of a table's keys. `penalty` and `tree` stand for the argument `fn`."""
    special = {field.name: field for field in _SPECIAL}
    names = ("penalty", "tree", *(argument.name for argument in fields(Penalty) if argument.name != "fn"))
    return tuple(special.get(name) or _data_field(name) for name in names)


FIELDS = _all_fields()
