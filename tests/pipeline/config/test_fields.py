"""The fields of a penalty's table: one for each argument of `Penalty`, with all that their schemas refer to."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers.configs import entry
from xpenalties import Penalty, Pipeline, config_schema
from xpenalties._core.registry import PENALTIES
from xpenalties._pipeline.config.fields import FIELDS

pytestmark = pytest.mark.usefixtures("custom_names")


def test_every_argument_of_a_penalty_has_a_field() -> None:
    # `fn` is `penalty`, and the keywords are `options`
    arguments = [name for name in inspect.signature(Penalty).parameters if name not in ("fn", "tree", "keywords")]
    assert [field.name for field in FIELDS] == ["penalty", "tree", *arguments]
    assert list(config_schema()["$defs"]["penalty"]["properties"]) == ["penalty", "tree", *arguments]


def test_defaults_are_left_out() -> None:
    for name in PENALTIES:
        assert Pipeline([Penalty(name)]).to_config()["penalties"] == [{"penalty": name}]


def test_the_schema_refers_only_to_what_it_defines() -> None:
    schema = config_schema()
    references = set(references_in(schema))
    assert {f"#/$defs/{name}" for name in schema["$defs"]} == references


def references_in(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"]
        for part in schema.values():
            yield from references_in(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from references_in(part)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_wrong_values_are_refused_at_the_field(field: Any) -> None:
    with pytest.raises(TypeError, match=rf"^from_config: penalties\[0\](\.{field.name}: |: Penalty: `{field.name}` )"):
        Pipeline.from_config(entry(**{field.name: {1j}}))
