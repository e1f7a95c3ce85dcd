"""Configurations that are made to break the reader: each error is short, and names the file and the place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import xpenalties._pipeline.config.toml_and_json as files
from tests.helpers.configs import anything, entry
from tests.helpers.resources import full_disk
from xpenalties import Penalty, Pipeline

pytestmark = pytest.mark.usefixtures("custom_names")

LONG = "x" * 200_000
DIGITS = "1" * 5000


def nested(levels: int, inner: Any = 1) -> Any:
    for _ in range(levels):
        inner = [inner]
    return inner


def schedules(levels: int) -> Any:
    weight: Any = 1.0
    for _ in range(levels):
        weight = {"schedule": "warmup", "after": weight, "steps": 3}
    return weight


DATA: dict[str, tuple[Any, str]] = {
    "repetitions": (entry(tree={"match": "x{99999999999}"}), "[0].tree: over_tree: `match` must be a regular expr"),
    "groups": (entry(tree={"match": "(" * 900 + ")" * 900}), "[0].tree: over_tree: `match` must be a regular expr"),
    "group's name": (entry(tree={"exclude": f"(?P<{LONG}>a)(?P<{LONG}>a)"}), "[0].tree: over_tree: `exclude` must"),
    "list": ([{"penalty": "anything", "options": {"a": nested(5000)}}], "[0].options: must not be nested this deeply"),
    "schedules": (entry(weight=schedules(5000)), "[0].weight: must not be nested this deeply. Use fewer levels."),
    "integer": (
        [{"penalty": "anything", "options": {"a": 10**5000}}],
        "[0].options.a: must be below 2**63, got an int",
    ),
    "start": (entry(weight={"schedule": "constant", "value": -(10**400)}), "[0].weight.value: must be below 2**63"),
    "steps": (entry(weight={"schedule": "linear", "start": 0, "end": 1, "steps": 10**400}), "[0].weight.steps: must"),
    "weight": (entry(weight=10**5000), "[0].weight: `weight` must be in [0, inf), got inf."),
    "every": (entry(every=10**5000), "[0]: Penalty: `every` must be below 2**63, got an integer of 16610 bits."),
    "name of a penalty": (entry(penalty=LONG), "[0].penalty: no penalty is named 'xxxx"),
    "penalty's integer": (entry(penalty=10**5000), "[0].penalty: must be a string, got an integer of 16610 bits."),
    "key": ([{"penalty": "l1", LONG: 1}], "[0]: unknown key 'xxxx"),
    "key by name": ({"version": 1, "penalties": {LONG: 1}}, ".xxxx"),
    "option's key": ([{"penalty": "anything", "options": {LONG: b""}}], "[0].options.xxxx"),
    "option's value": (
        [{"penalty": "huber", "options": {"delta": LONG}}],
        "[0].options.delta: must be a number, got",
    ),
    "pieces": (entry(weight={"schedule": "piecewise", "pieces": LONG}), "[0].weight: piecewise: `pieces` must map"),
    "schedule's key": (entry(weight={LONG: 1}), "[0].weight: a table is a schedule and must have the key `schedule`"),
}


@pytest.mark.parametrize("name", DATA)
def test_data(name: str) -> None:
    data, message = DATA[name]
    with pytest.raises((TypeError, ValueError)) as caught:
        Pipeline.from_config(data)
    assert str(caught.value).startswith(f"from_config: penalties{message}")
    assert len(str(caught.value)) < 2500


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", f'[{{"penalty": "l1", "weight": {DIGITS}}}]', "penalties[0].weight: `weight` must be in [0, inf)"),
        ("a.json", f'[{{"penalty": "l1", "every": -{DIGITS}}}]', "penalties[0]: Penalty: `every` must be an integer, "),
        ("a.json", '[{"penalty": "l1", "every": NaN}]', "penalties[0]: Penalty: `every` must be an integer, got nan"),
        ("a.toml", f"version = 1\n[penalties]\nl1 = {DIGITS}", "an integer must be below 2**63, got one of 5000 dig"),
        ("a.toml", f"version = 1\nx = 1_{DIGITS}", "an integer must be below 2**63, got one of 5002 digits (at "),
        ("a.json", "[" * 100_000, "must not be nested this deeply. Use fewer levels."),
        ("a.toml", "a = " + "[" * 100_000, "must not be nested this deeply. Use fewer levels."),
        ("a.json", json.dumps([{"penalty": "anything", "options": nested(300)}]), "penalties[0].options: must be"),
    ],
    ids=["weight", "every", "nan", "TOML", "TOML with _", "JSON nested", "TOML nested", "shown"],
)  # fmt: skip
def test_files(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises((TypeError, ValueError)) as caught:
        Pipeline.from_config(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert len(str(caught.value)) < 1000


def test_names_of_files() -> None:
    with pytest.raises(ValueError, match=r"^a\x00\.json: embedded null"):
        Pipeline.from_config("a\0.json")
    with pytest.raises(ValueError, match=r" must end in \.toml or \.json, got ''\. For another format") as caught:
        Pipeline.from_config("penalties = " + LONG)  # the text in place of the name
    assert len(str(caught.value)) < 1000


def test_duplicates_are_found_in_linear_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each key is looked at a few times."""
    looks = 0

    class Key(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            nonlocal looks
            looks += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    pairs = [(Key(f"key {i}"), i) for i in range(1000)]
    with pytest.raises(ValueError, match="the key 'key 999' occurs twice in one object"):
        files._without_duplicates([*pairs, (Key("key 999"), 1)])
    assert looks < 5000
    path = tmp_path / "a.json"
    path.write_text("{" + ", ".join(f'"{i}": 1' for i in range(20_000)) + ', "19999": 2}')
    with pytest.raises(ValueError, match=r"a\.json: the key '19999' occurs twice in one object"):
        Pipeline.from_config(path)


@pytest.mark.parametrize("name", ["a.json", "a.toml"])
def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("what was there")
    with full_disk(64), pytest.raises(OSError, match="too large") as caught:
        Pipeline({"l1": 0.25, "l2": 0.125, "huber": 0.5}).to_config(path)
    assert caught.value.filename == str(path)
    assert path.read_text() == "what was there" and [each.name for each in tmp_path.iterdir()] == [name]


def test_data_that_no_file_holds() -> None:
    pipe = Pipeline([Penalty(anything, options={"a": nested(5000)}, name="deep")])
    with pytest.raises(ValueError, match=r"^penalty 'deep': must not be nested this deeply\. Use fewer levels\.$"):
        pipe.to_config()
    pipe = Pipeline([Penalty(anything, options={"a": {"b": 2**63}})])
    with pytest.raises(
        ValueError, match=r"`options\.a\.b` must be below 2\*\*63 to be in a configuration, got an integer"
    ):
        pipe.to_config()
