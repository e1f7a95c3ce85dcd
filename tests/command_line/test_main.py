"""`python -m xpenalties` as a program: files of pipelines, the schema, usage."""

from __future__ import annotations

import io
import json
import os
import runpy
import subprocess
import sys
import tomllib
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from xpenalties import __version__, config_schema, register
from xpenalties.__main__ import main
from xpenalties._core.registry import REGISTERED

bare = pytest.mark.bare
GOOD = """
version = 1
name = "training"

[penalties.l1]
inputs = "weights"

[penalties.smooth]
penalty = "huber"
weight = { schedule = "linear", start = 0.0, end = 0.5, steps = 10 }
options = { delta = 2.0 }
"""


@pytest.fixture
def good(tmp_path: Path) -> str:
    path = tmp_path / "good.toml"
    path.write_text(GOOD)
    return str(path)


# files


@bare
def test_a_file_is_shown(good: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", good]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0] == f"{good}: training"
    assert lines[2].split() == ["name", "penalty", "weight", "inputs", "options"]
    assert lines[4].split() == ["l1", "l1", "1", "weights"]
    assert " ".join(lines[5].split()) == "smooth huber linear(start=0.0, end=0.5, steps=10, begin=0) all delta=2.0"
    assert max(map(len, lines[1:])) <= 100


@bare
def test_files_as_json(good: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["check", "--json", good, "nowhere.toml"], ["--json", "check", good, "nowhere.toml"]):
        assert main(arguments) == 1
        out, err = capsys.readouterr()
        assert err == ""
        first, second = json.loads(out)["files"]
        assert first["file"] == good and first["name"] == "training"
        assert first["penalties"] == [
            {"name": "l1", "weight": 1.0, "penalty": "l1", "inputs": "weights"},
            {
                "name": "smooth",
                "weight": {"schedule": "linear", "start": 0.0, "end": 0.5, "steps": 10},
                "penalty": "huber",
                "options": {"delta": 2.0},
            },
        ]
        assert second == {"file": "nowhere.toml", "errors": ["nowhere.toml: No such file or directory"]}


@bare
@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "version = 1\n[penalties.l1]\nwieght = 1", "{}: penalties.l1: unknown key 'wieght'. The keys are "),
        (
            "a.toml",
            "version = 1\n[penalties]\nl3 = 1.0",
            "{}: penalties.l3.penalty: no penalty is named 'l3'. The names are ",
        ),
        ("a.toml", "version = ", "{}: Invalid value"),
        ("a.json", '[{"penalty": "l1", "weight": "1"}]', "{}: penalties[0].weight: must be a number"),
        (
            "a.json",
            '{"version": 1, "penalties": {"l\\n3": 1}}',
            "{}: penalties.l 3.penalty: no penalty is named 'l\\n3'",
        ),
        ("a.yaml", "", "{}: a configuration file must end in .toml or .json, got '.yaml'. For another format, read"),
    ],
)
def test_errors_in_a_file(
    name: str, text: str, message: str, good: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line for each, and the other files are still read."""
    path = tmp_path / name
    path.write_text(text)
    assert main(["check", str(path), good]) == 1
    out, err = capsys.readouterr()
    assert err.startswith(message.format(path)) and err.count("\n") == 1
    assert out.startswith(f"{good}: training")


@bare
def test_all_errors_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each with its place, in the order of the file, and each once."""
    path = tmp_path / "a.toml"
    path.write_text("""
naem = "training"
name = 3

[penalties.l1]
wieght = 1
wehn = 2
inputs = { x = 1, where = 2 }

[penalties.l3]
weight = -1.0
every = 0
inputs = { x = 3 }

[penalties.huber]
every = 0
enabled = "yes"
timeout = 3.0
options = { delta = -1.0, dleta = 2.0, reduction = "none" }

[penalties.kl]
penalty = "kl_divergence"
inputs = { log_p = "teacher", log_r = "student" }
options = { direction = "forwards", temperature = 0.0 }

[penalties.decay]
penalty = "l2"
tree = { match = "(", exclude = ")" }
options = { clip = "x" }
every = -2

[penalties.good]
penalty = "l1"
""")
    assert main(["check", str(path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    expected = [
        ": `version` is missing. Add version 1.",
        ": unknown key 'naem'. The keys are $schema, version, name, penalties. Did you mean 'name'?",
        ": name: must be a string, got 3.",
        ": penalties.l1: unknown key 'wieght'. The keys are",
        ": penalties.l1: unknown key 'wehn'. The keys are",
        ": penalties.l1.inputs.x: must be a string, got 1.",
        ": penalties.l1.inputs.where: must be a string, got 2.",
        ": penalties.l3.penalty: no penalty is named 'l3'. The names are",
        ": penalties.l3.weight: `weight` must be in [0, inf), got -1.0.",
        ": penalties.l3.inputs.x: must be a string, got 3.",
        ": penalties.l3: Penalty: `every` must be at least 1, got 0.",
        ": penalties.huber.options: unknown key 'dleta'. The keys are delta, reduction, normalizer. Did you mean",
        ": penalties.huber.enabled: must be true or false, got 'yes'. Write true or false, without quotes.",
        ": penalties.huber: Penalty: `every` must be at least 1, got 0.",
        ": penalties.huber: huber: `delta` must be in (0, inf), got -1.0.",
        ": penalties.huber: huber: `reduction` must be one of 'sum', 'mean', got 'none'.",
        ": penalties.kl: kl_divergence: `direction` must be one of 'forward', 'reverse', 'symmetric', got 'forwards'.",
        ": penalties.kl: penalty 'kl': the keys of `inputs` must be parameters of kl_divergence, got 'log_r'",
        ": penalties.kl: kl_divergence: `temperature` must be in (0, inf), got 0.0.",
        ": penalties.decay.options.clip: must be a number, got 'x'. Write a number, without quotes.",
        ": penalties.decay.tree: over_tree: `match` must be a regular expression, got '('",
        ": penalties.decay.tree: over_tree: `exclude` must be a regular expression, got ')'",
        ": penalties.decay: Penalty: `every` must be at least 1, got -2.",
    ]
    lines = err.splitlines()
    for line, part in zip(lines, expected, strict=True):
        assert line.startswith(f"{path}{part}"), line
    path.write_text("version = 1\nname =\n")
    assert main(["check", str(path)]) == 1
    assert capsys.readouterr().err == f"{path}: Invalid value (at line 2, column 7)\n"
    assert main(["check", "--json", str(path)]) == 1
    assert json.loads(capsys.readouterr().out)["files"][0]["errors"] == [f"{path}: Invalid value (at line 2, column 7)"]


@bare
def test_a_file_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "folder.toml"
    folder.mkdir()
    assert main(["check", str(folder), str(tmp_path / "no.json")]) == 1
    out, err = capsys.readouterr()
    first, second = err.splitlines()
    assert out == "" and first.startswith(f"{folder}: ")
    assert second == f"{tmp_path / 'no.json'}: No such file or directory"


@bare
def test_names_that_a_terminal_cannot_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Characters that the encoding lacks, control characters, and characters of two columns."""
    path = tmp_path / "a.json"
    names = ["\u7f5a" * 3, "a\x1b[31m\u202e", "\ud800", "e\u0301"]
    path.write_text(json.dumps([{"penalty": "l1", "name": name, "weight": 0.5} for name in names]))
    shown = {}
    for encoding in ("utf-8", "ascii"):
        raw = io.BytesIO()
        stdout = io.TextIOWrapper(raw, encoding=encoding)
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main(["check", str(path)]) == 0
        shown[encoding] = raw.getvalue().decode(encoding).splitlines()[2:]
    assert shown["utf-8"] == [
        "name    penalty  weight  inputs  options",
        "-" * 40,
        "\u7f5a" * 3 + "  l1       0.5     all",
        "a[31m   l1       0.5     all",
        "        l1       0.5     all",
        "e\u0301       l1       0.5     all",
        "",
    ]
    assert shown["ascii"][2].startswith("\\u7f5a" * 3)


@bare
def test_an_error_of_any_kind_leaves_the_other_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each file has its error or its penalties, also if a registered function has a bug."""

    class Odd:
        def __call__(self, x: Any) -> Any:
            return x

        @property
        def __signature__(self) -> Any:
            raise KeyError("odd")

    texts = {
        "pattern.json": '[{"penalty": "l1", "tree": {"match": "x{99999999999}"}}]',
        "groups.json": json.dumps([{"penalty": "l1", "tree": {"match": "(" * 900 + ")" * 900}}]),
        "digits.toml": "version = " + "1" * 5000,
        "odd.json": '[{"penalty": "odd", "options": {"a": 1}}]',
        "good.json": '[{"penalty": "l1"}]',
    }
    paths = [tmp_path / name for name in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        path.write_text(text)
    register("odd", Odd())
    try:
        assert main(["check", *map(str, paths)]) == 1
    finally:
        del REGISTERED["odd"]
    out, err = capsys.readouterr()
    assert out.startswith(f"{paths[-1]}: pipeline")
    lines = err.splitlines()
    assert len(lines) == 4 and all(line.startswith(f"{path}: ") for line, path in zip(lines, paths, strict=False))
    assert lines[3] == f"{paths[3]}: KeyError: 'odd'"


@bare
def test_files_that_are_nested_too_deeply(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.json"
    path.write_text("[" * 100_000)
    assert main(["check", str(path)]) == 1
    assert capsys.readouterr().err == f"{path}: must not be nested this deeply. Use fewer levels.\n"


@bare
def test_registered_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    before = dict(REGISTERED)
    (tmp_path / "of_my_own.py").write_text('import xpenalties\nxpenalties.register("roughness", lambda x: x)\n')
    (tmp_path / "in_need.py").write_text("import what_is_not_there\n")
    path = tmp_path / "a.json"
    path.write_text('[{"penalty": "roughness"}]')
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["check", str(path)]) == 1
    assert "no penalty is named 'roughness'" in capsys.readouterr().err
    try:
        assert main(["check", str(path), "--import", "of_my_own"]) == 0
        assert "roughness  1       all\n" in capsys.readouterr().out
        assert main(["schema", "--import", "of_my_own"]) == 0
        assert "roughness" in capsys.readouterr().out
    finally:
        REGISTERED.clear()
        REGISTERED.update(before)
        sys.modules.pop("of_my_own", None)
    for name in ("of_my_onw", "of_my_own.more", "json.of_my_own"):
        with pytest.raises(SystemExit) as stopped:
            main(["check", str(path), "--import", name])
        assert stopped.value.code == 2
        assert f"--import must name a module that can be imported, got '{name}' (" in capsys.readouterr().err
        sys.modules.pop("of_my_own", None)
    for name in ("", ".of_my_own", "of_my_own.", "of my own"):
        with pytest.raises(SystemExit) as stopped:
            main(["check", str(path), "--import", name])
        assert stopped.value.code == 2
        assert f"--import must name a module by its full name, got '{name}'." in capsys.readouterr().err
    with pytest.raises(ModuleNotFoundError, match="what_is_not_there"):  # with a traceback: it is the user's program
        main(["schema", "--import", "in_need"])
    REGISTERED.clear()
    REGISTERED.update(before)


@bare
def test_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out) == config_schema()
    assert out.startswith('{\n  "$schema": ')
    with redirect_stdout(io.StringIO()) as again:  # not a terminal
        main(["schema"])
    assert again.getvalue() == out


# the program


@bare
@pytest.mark.parametrize("arguments", [["nothing"], ["--what"], ["check"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("usage: python -m xpenalties")


@bare
def test_as_a_console_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has its own name in messages, and finds modules in the working directory too."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["scripts"] == {"xpenalties": f"{main.__module__}:{main.__name__}"}
    monkeypatch.setattr(sys, "argv", ["/some/bin/xpenalties"])
    with pytest.raises(SystemExit):
        main(["nothing"])
    assert capsys.readouterr().err.startswith("usage: xpenalties [")
    (tmp_path / "of_the_script.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    assert main(["schema", "--import", "of_the_script"]) == 0
    assert sys.path[0] == str(tmp_path)


@bare
def test_as_a_module(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delitem(sys.modules, "xpenalties.__main__")
    monkeypatch.setattr(sys, "argv", ["xpenalties", "--version"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("xpenalties", run_name="__main__")
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"xpenalties {__version__}\n"


@bare
@pytest.mark.smoke
def test_as_a_program(tmp_path: Path) -> None:
    """Modules are found in the working directory, frameworks are left alone, and the status is passed on."""
    modules = "import atexit, sys, xpenalties\nxpenalties.register('roughness', lambda x: x)\n"
    report = "atexit.register(lambda: print({'numpy', 'torch', 'jax'} & set(sys.modules), file=sys.stderr))\n"
    (tmp_path / "of_my_own.py").write_text(modules + report)
    (tmp_path / "a.json").write_text('[{"penalty": "roughness"}]')
    command = [sys.executable, "-m", "xpenalties", "check", "a.json"]
    done = subprocess.run(
        [*command, "--import", "of_my_own"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "set()\n")
    assert done.stdout.startswith("a.json: pipeline\n")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1


def test_a_reader_who_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `head` does: no traceback, now or at exit."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main(["schema"]) == 1
        print("and what else there is", flush=True)
