"""Errors of configurations and their files, which name the place, and pipelines that cannot be written."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.configs import REFUSED, anything, entry, same
from tests.helpers.harness import Framework
from tests.helpers.samples import X
from xpenalties import Penalty, Pipeline, schedules
from xpenalties._core.registry import REGISTERED
from xpenalties._pipeline.config.reader import load_or_errors

pytestmark = pytest.mark.usefixtures("custom_names")


@pytest.mark.parametrize("name", REFUSED)
def test_errors_say_where(name: str) -> None:
    config, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        Pipeline.from_config(config)


def test_without_registered_names() -> None:
    REGISTERED.clear()
    with pytest.raises(ValueError, match=r"no function is named 'f'\. None is registered\. Register your own function"):
        Pipeline.from_config(entry(inputs={"function": "f"}))


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("a.toml", "version = 1\npenalties = [", ValueError, r"a\.toml: .*\(at (line 2|end of document)"),
        ("a.toml", "version = 1\nversion = 1", ValueError, r"a\.toml: Cannot overwrite a value \(at "),
        ("a.json", '[{"penalty": ]', ValueError, r"a\.json: Expecting value: line 1 column 14"),
        ("a.json", '[{"penalty": "l1", "penalty": "l2"}]', ValueError, r"a\.json: the key 'penalty' occurs twice in o"),
        ("a.json", '[{"penalty": "l1", "weight": NaN}]', ValueError, r"a\.json: penalties\[0\]\.weight: .* got nan"),
        ("a.json", b"\xff", ValueError, r"a\.json: 'utf-8' codec can't decode"),
        ("a.json", '{"version": 3}', ValueError, r"a\.json: `version` must be 1"),
        ("a.json", '[{"penalty": "l1", "weight": 1e999}]', ValueError, r"a\.json: penalties\[0\]\.weight: .* got inf"),
        ("a.toml", "[[penalties]]\na=1", ValueError, r"a\.toml: `version` is missing"),
        ("a.toml", "version = 1\n[penalties]\nanything = {options = {a = 1979-05-27}}", TypeError,
         r"a\.toml: penalties\.anything\.options\.a: must be a number, a string or a boolean, got datetime"),
        ("a.toml", "version = 1\n[penalties]\nl1 = {options = {reduktion = 'sum'}}", ValueError,
         r"a\.toml: penalties\.l1\.options: unknown key 'reduktion'\. The .* Did you mean 'reduction'\?$"),
        ("a.toml", "version = 1\n[penalties]\nhuber = {delta = 2.0}", ValueError,
         r"a\.toml: penalties\.huber: unknown key 'delta'\. .* `delta` is an option of huber: write options = "),
        ("a.json", '[{"penalty": "huber", "delta": 2.0}]', ValueError, r"`delta` is an option of huber: write"),
        ("a.yaml", "", ValueError, r"a\.yaml: a configuration file must end in \.toml or \.json, got '\.yaml'"),
        ("a", "", ValueError, r"a: a configuration file must end in \.toml or \.json, got ''"),
    ],
)  # fmt: skip
def test_errors_of_files(tmp_path: Path, name: str, content: Any, error: type[Exception], message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(error, match=message) as caught:
        Pipeline.from_config(str(path))
    assert str(caught.value).startswith(str(path))


def test_patterns_of_trees() -> None:
    for pattern, error, message in (
        ({"path": None}, TypeError, r"\.path: must not be null\. Leave it out"),
        ({"ndim": -1}, ValueError, r": Pattern: `ndim` must be at least 0, got -1"),
        ({"dim": 2}, ValueError, r": unknown key 'dim'\. The keys are path, ndim, shape, optional\."),
        (3, TypeError, r": must be a string, got 3"),
    ):
        with pytest.raises(error, match=rf"^from_config: penalties\[0\]\.tree\.match\[1\]{message}"):
            Pipeline.from_config([{"penalty": "l2", "tree": {"match": ["a", pattern]}}])


def test_integers_that_no_counter_reaches() -> None:
    weight = {"schedule": "linear", "start": 0, "end": 1, "steps": 10**400}
    for key, value, place in (("weight", weight, r"\.weight\.steps:"), ("every", 10**400, ": Penalty: `every`")):
        message = rf"^from_config: penalties\[0\]{place} must be below 2\*\*63, got an integer of 1329 bits\."
        with pytest.raises(ValueError, match=message):
            Pipeline.from_config([{"penalty": "l1", key: value}])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.toml"):
        Pipeline.from_config(tmp_path / "missing.toml")


def test_files_of_windows_editors(tmp_path: Path) -> None:
    for name, content in (
        ("a.toml", "version = 1\r\n[penalties]\r\nl1 = 1\r\n"),
        ("a.JSON", '[{"penalty": "l1"}]\r\n'),
    ):
        (tmp_path / name).write_bytes(content.encode("utf-8-sig"))
        assert same(Pipeline.from_config(tmp_path / name), Pipeline({"l1": 1}))


def test_pipelines_that_cannot_be_written(fw: Framework) -> None:
    unnamed, x = lambda *args: args[0], fw.array(X)
    cases: list[tuple[Penalty, type[Exception], str]] = [
        (Penalty(unnamed, name="p"), TypeError, r"^penalty 'p': `fn` must have a name .*`register`\.$"),
        (Penalty("l1", weight=unnamed), TypeError, r"^penalty 'l1': `weight` must have a name"),
        (Penalty("l1", weight=schedules.warmup(unnamed, steps=1)), TypeError, r"penalty 'l1': `weight` must have a na"),
        (Penalty("l1", inputs=unnamed), TypeError, r"^penalty 'l1': `inputs` must have a name"),
        (Penalty("l2", options={"center": x}), TypeError, r"^penalty 'l2': `options.center` must be a number, a strin"),
        (Penalty("l2", options={"center": [1]}), TypeError, r"`options.center` must be a number, .*, got \[1\]"),
        (Penalty("l1", options={"where": x > 0}), TypeError, r"^penalty 'l1': `options.where` must be a number"),
        (Penalty(anything, options={"a": [unnamed]}), TypeError, r"`options.a\[0\]` must be a number, .*`register`\.$"),
        (Penalty(anything, options={"a": {3: 1}}), TypeError, r"`options.a` must be a number, .*, got \{3: 1\}"),
        (Penalty(anything, options={"a": fw.array(np.asarray(1j))}), TypeError, r"`options.a` must be a number"),
        (Penalty(anything, options={"a": {"b": math.inf}}), ValueError, r"`options.a.b` must be finite to be in"),
        (Penalty("l1", weight=fw.array(np.asarray(-0.5))), ValueError, r"^penalty 'l1': `weight` must be in \[0, inf"),
        (Penalty("l1", weight=fw.array(np.asarray(math.nan))), ValueError, r"^penalty 'l1': `weight` must be finite"),
    ]  # fmt: skip
    for each, error, message in cases:
        with pytest.raises(error, match=message):
            Pipeline([each]).to_config()


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, path = Pipeline({"l1": 1}), tmp_path / "a.toml"
    with pytest.raises(ValueError, match=r"a\.yaml: a configuration file must end in \.toml or \.json"):
        pipe.to_config(tmp_path / "a.yaml")
    none = Pipeline([Penalty(anything, options={"a": None})])
    with pytest.raises(TypeError, match="None"):
        none.to_config(path)
    assert none.to_config(tmp_path / "a.json") and same(Pipeline.from_config(tmp_path / "a.json"), none)
    monkeypatch.setitem(sys.modules, "tomli_w", None)  # imports of it fail
    with pytest.raises(
        ModuleNotFoundError, match=r"needs tomli-w to write TOML\. Install it: pip install tomli-w, or write a"
    ):
        pipe.to_config(path)
    assert not path.exists()


def test_an_unknown_name_or_a_missing_version_hides_no_other_mistake() -> None:
    unknown = {"penalty": "hubr", "every": 0, "weight": "1", "options": {"delta": [1]}, "tree": {"match": "("}}
    pipeline, errors = load_or_errors({"penalties": [unknown, {"every": -1}]}, Pipeline)
    assert pipeline is None
    expected = [
        r"from_config: `version` is missing",
        r"from_config: penalties\[0\]\.penalty: no penalty is named 'hubr'",
        r"from_config: penalties\[0\]\.weight: must be a number, got '1'",
        r"from_config: penalties\[0\]\.tree: over_tree: `match` must be a regular expression, got '\('",
        r"from_config: penalties\[0\]: Penalty: `every` must be at least 1, got 0",
        r"from_config: penalties\[1\]: `penalty` is missing",
        r"from_config: penalties\[1\]: Penalty: `every` must be at least 1, got -1",
    ]
    assert len(errors) == len(expected), errors
    for error, message in zip(errors, expected, strict=True):
        assert re.match(message, str(error)), error
    for table in ({"penalty": "hubr"}, {"weight": 1}):
        assert len(load_or_errors([table, table], Pipeline)[1]) == 2  # nothing about names that occur twice
