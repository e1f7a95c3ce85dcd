"""The JSON Schema of configurations compared with the loader: both accept and refuse the same."""

from __future__ import annotations

import inspect
import json
import keyword
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.configs import LINEAR, REFUSED, VALIDATOR, entry, loads, weight
from tests.helpers.samples import mine
from xpenalties import config_schema, register
from xpenalties._core.registry import PENALTIES, REGISTERED, SCHEDULES

pytestmark = pytest.mark.usefixtures("custom_names")


# not refused by the schema: numbers that JSON does not have, and rules about two values
NOT_IN_SCHEMA = {"pattern", "names", "weight nan", "weight too long", "argument nan", "own option", "own option inf"}
NOT_JSON = {"weight callable", "argument callable", "inputs callable", "own option of a kind", "own option's key"}
NOT_JSON |= {"by name, 3", "inputs by parameter, key 3"}


@pytest.mark.parametrize("name", [name for name in REFUSED if name not in NOT_JSON])
def test_the_schema_refuses_what_the_loader_does(name: str) -> None:
    assert VALIDATOR().is_valid(REFUSED[name][0]) == (name in NOT_IN_SCHEMA)


@pytest.mark.parametrize(
    ("config", "loaded"),
    [
        (entry(every=2.0), False),  # to JSON Schema an integer
        ({"version": 1.0, "penalties": []}, False),
        (weight("exponential", start=1.0, rate=2.0), False),  # without an end
        (weight("piecewise", pieces=[]), False),
        (weight("piecewise", pieces=[[1, 0.5]]), False),
        (weight("piecewise", pieces=[[0, {"schedule": "halving"}]], interpolate=True), False),
        (entry(penalty="mine", options={"a": 1}), False),
    ],
)
def test_rules_that_are_not_in_the_schema(config: Any, loaded: bool) -> None:
    assert VALIDATOR().is_valid(config) and loads(config) == loaded


VALUES = [0, 1, -1, 0.5, 1.5, True, None, "x", "mean", [], ["a"], [[0, 0.5]], {}, {"schedule": "halving"}]
CHOICES = ["forward", "bonus", "bucket", "k2", "value", "hard", "rows", "cosine", "kl", "rms", "hold", "linear"]
CHOICES += ["sum", "none"]


@pytest.mark.parametrize("name", PENALTIES)
def test_options_in_schema_and_loader(name: str) -> None:
    spec = PENALTIES[name].spec  # type: ignore[attr-defined]
    for option in (*spec.checks, "reduction", "normalizer", "where", "weights", "typo"):
        for value in (*VALUES, *CHOICES):
            table = {"options": {option: value}}
            for config in (entry(penalty=name, **table), {"version": 1, "penalties": {name: table}}):
                assert VALIDATOR().is_valid(config) == loads(config), config


SMALLEST: dict[str, dict[str, Any]] = {
    "constant": {"value": 0.5}, "linear": LINEAR, "warmup": {"after": 0.5, "steps": 3},
    "polynomial": {"start": 1.0, "power": 2.0, "steps": 3}, "inverse_time": {"start": 1.0},
    "exponential": {"start": 1.0, "rate": 0.5}, "cosine": {"start": 1.0, "steps": 3},
    "cyclic": {"low": 0.0, "high": 1.0, "period": 3}, "piecewise": {"pieces": [[0, 0.5]]},
}  # fmt: skip


ACROSS: list[Any] = [("exponential", "end", 1.5), ("exponential", "rate", 1.5), ("piecewise", "pieces", [])]


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_in_schema_and_loader(name: str) -> None:
    arguments = SMALLEST[name]
    for argument in (*inspect.signature(SCHEDULES[name]).parameters, "typo"):
        for value in (*VALUES, *CHOICES):
            if (name, argument, value) not in ACROSS:
                config = weight(name, **arguments | {argument: value})
                assert VALIDATOR().is_valid(config) == loads(config), config
    for missing in arguments:
        config = weight(name, **{key: value for key, value in arguments.items() if key != missing})
        assert not VALIDATOR().is_valid(config) and not loads(config)


PATTERNS: list[Any] = [  # the tables of trees
    {"match": {"path": "a", "ndim": 2, "shape": [-1, 3], "optional": True}},
    {"match": ["a", {"ndim": [0, 1]}], "exclude": {"shape": []}},
    *(
        {"match": pattern}
        for pattern in ({}, {"optional": True}, {"ndim": -1}, {"ndim": []}, {"ndim": 1.5}, {"path": 3})
    ),
    *(
        {"exclude": [pattern]}
        for pattern in ({"shape": [-2]}, {"shape": 3}, {"path": None}, {"typo": 1}, {"ndim": "1"})
    ),
    {"match": {"ndim": 1, "optional": 1}},
]


BY_PARAMETER: list[Any] = [  # the tables of inputs
    {"attributes": "a"},
    {"attributes": []},
    {"function": "both"},
    {"function": "l"},
    {"function": "both", "x": "a"},
    {},
    {"x": "a"},
    {"x": "a", "where": {"attributes": "batch.mask"}, "weights": "w", "normalizer": {"function": "both"}},
    {"x": ["a"]},
    {"x": 3},
    {"x": "a", "reduction": "b"},
    {"where": "a"},
    {"x": {"attributes": []}},
    {"fn": "a", "x": "b", "projections": "c", "rng": "key"},
]


def tables_of(**keys: list[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Draw a table with any of these keys, each with one of its values."""
    return st.fixed_dictionaries({}, optional={key: st.sampled_from(values) for key, values in keys.items()})


weights: list[Any] = [0.5, 2, -1, "x", None, {}, {"schedule": "halving"}, {"schedule": "linear", **LINEAR}, [0.5]]
tables = tables_of(
    penalty=["l1", "huber", "anything", "jacobian_penalty", "l3", None],
    name=["a", "", "<a>", "loss_total", 3],
    weight=weights,
    inputs=[None, "a", ["a"], [3], 3, *BY_PARAMETER],
    options=[{}, {"delta": 2}, {"reduction": "mean"}, {"where": None}, None],
    tree=[{}, {"match": "a"}, {"match": ["a", "b"], "exclude": "c"}, {"match": []}, {"typo": "a"}, None, *PATTERNS],
    differentiable=[True, 1],
    enabled=[False, None],
    every=[4, 0, 0.5, True],
    timeout=[None, 3, 0, "x"],
    on_error=[None, "drop", "x"],
    typo=[1],
)
entries = tables.map(lambda table: {"penalty": "l1", **table}) | tables | st.sampled_from(weights)
of_names = st.dictionaries(
    st.sampled_from(["l1", "huber", "jacobian_penalty", "a", "", "<a>", "base_loss"]), entries, max_size=2
)
documents = st.fixed_dictionaries(
    {"version": st.sampled_from([1, 1, 1, 2, "1", True, None]), "penalties": st.lists(entries, max_size=1) | of_names},
    optional={"name": st.sampled_from(["a", "", 3]), "$schema": st.sampled_from(["a", 3])},
)


@settings(max_examples=300)
@given(documents | st.lists(entries, max_size=1) | entries)
def test_schema_and_loader_agree(config: Any) -> None:
    assert VALIDATOR().is_valid(config) == loads(config)


def keys_of(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from schema.get("properties", ())
        for each in schema.values():
            yield from keys_of(each)
    elif isinstance(schema, list):
        for each in schema:
            yield from keys_of(each)


def test_no_key_is_a_word_of_python() -> None:
    REGISTERED.clear()
    register("own", mine)
    keys = set(keys_of(config_schema()))
    assert {"penalty", "weight", "inputs", "schedule", "attributes", "function", "delta", "steps"} <= keys
    assert [key for key in keys if not key.isidentifier() or keyword.iskeyword(key)] == ["$schema"]


def test_the_schema_describes_and_has_the_defaults() -> None:
    definitions = config_schema()["$defs"]
    for name, function in PENALTIES.items():
        options = definitions[f"options_{name}"]
        assert options["description"] == (inspect.getdoc(function) or "").splitlines()[0]
        assert all(option["description"] for option in options["properties"].values())
        assert options["properties"]["reduction"]["default"] == function.spec.reduction  # type: ignore[attr-defined]
    for name in SCHEDULES:
        properties = definitions[f"schedule_{name}"]["properties"]
        assert all(key == "schedule" or argument["description"] for key, argument in properties.items())
    assert definitions["penalty"]["properties"]["every"]["default"] == 1


def test_the_schema_without_registered_names() -> None:
    REGISTERED.clear()
    assert "function" not in json.dumps(config_schema()["$defs"]["picked_inputs"])
    assert not VALIDATOR().is_valid(entry(inputs={"function": "both"}))
    assert VALIDATOR().is_valid(entry(inputs={"attributes": ["a.b", "c"]}))
