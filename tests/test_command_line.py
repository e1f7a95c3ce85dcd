"""`python -m xpenalties`: what is installed, the self-check and its stored values, files of pipelines, the schema."""

from __future__ import annotations

import io
import json
import math
import os
import runpy
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conftest import ROWS, SELECTED, selected
from xpenalties import __main__ as command_line
from xpenalties import __version__, _self_check, config_schema, namespace
from xpenalties.__main__ import main
from xpenalties._register import OWN
from xpenalties._self_check import FRAMEWORKS, Framework, Installed, look
from xpenalties._spec import REGISTRY

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


def only(monkeypatch: pytest.MonkeyPatch, *frameworks: Framework) -> None:
    """As if there were these alone."""
    monkeypatch.setattr(command_line, "FRAMEWORKS", frameworks)


def missing(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """As if these were not installed."""
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)


def of_module(module: str) -> Framework:
    return next(each for each in FRAMEWORKS if each.name == module.partition(".")[0])


def rows(monkeypatch: pytest.MonkeyPatch, *penalties: str) -> None:
    """Only the stored rows of some penalties."""
    kept = [row for row in _self_check._reference() if row["penalty"] in penalties]
    monkeypatch.setattr(_self_check, "_reference", lambda: kept)


@pytest.fixture
def good(tmp_path: Path) -> str:
    path = tmp_path / "good.toml"
    path.write_text(GOOD)
    return str(path)


# the stored values


def test_stored_values_are_those_of_the_definitions() -> None:
    """`python tests/reference.py` writes them again."""
    from reference import computed

    def flat(x: Any) -> list[float]:
        return [each for part in x for each in flat(part)] if isinstance(x, list) else [x]

    for row, again in zip(_self_check._reference(), computed(), strict=True):
        assert repr({**row, "value": 0, "gradient": 0}) == repr({**again, "value": 0, "gradient": 0})  # of NaN too
        assert row["value"] == pytest.approx(again["value"], abs=2e-12)
        assert list(row["gradient"]) == list(row["arrays"])
        for name, gradient in row["gradient"].items():
            assert flat(gradient) == pytest.approx(flat(again["gradient"][name]), abs=1e-11), (row["penalty"], name)


def test_every_penalty_has_a_stored_value() -> None:
    assert {row["penalty"] for row in _self_check._reference()} == set(REGISTRY)


@bare
def test_every_backend_of_the_matrix_is_looked_for() -> None:
    assert {framework.name for framework in FRAMEWORKS} == {row["module"].partition(".")[0] for row in ROWS}


# the self-check


@pytest.mark.smoke
def test_every_penalty_is_checked(fw: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    framework = of_module(fw.row["module"])
    only(monkeypatch, framework)
    status = main(["--json", "--require", framework.name])
    found = json.loads(capsys.readouterr().out)
    assert found["failures"] == [] and status == 0
    assert found["versions"]["xpenalties"] == __version__
    (installed,) = found["frameworks"]
    assert installed["name"] == framework.name and installed["version"] and installed["devices"]
    assert installed["error"] == ""
    assert installed["dtypes"] == fw.row["dtypes"]
    own = {"numpy": "autograd", "torch": "torch.autograd, torch.func", "jax": "jax.vjp", "dask": ""}
    assert installed["autodiff"] == own.get(fw.name, "borrowed from torch")
    checks = found["checks"]
    assert all(check["passed"] for check in checks)
    assert {check["dtype"] for check in checks} == set(fw.row["dtypes"])
    stored = [row for row in _self_check._reference() if installed["autodiff"] or not row["function"]]
    expected = [(row["penalty"], row["case"], "value") for row in stored]
    if installed["autodiff"]:
        expected += [(row["penalty"], row["case"], f"gradient by {name}") for row in stored for name in row["arrays"]]
    widest = [check for check in checks if check["dtype"] == fw.row["dtypes"][-1]]
    assert sorted((check["penalty"], check["case"], check["of"]) for check in widest) == sorted(expected)


def test_text_is_a_table(fw: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    framework = of_module(fw.row["module"])
    named = replace(look(framework), devices=["cpu", "cuda:0 (NVIDIA GeForce RTX 4090 Laptop GPU)"])
    only(monkeypatch, replace(framework, look=lambda: named))
    rows(monkeypatch, "l1", "huber")
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"xpenalties {__version__}, Python 3.")
    assert max(map(len, lines)) <= 100
    widest = fw.row["dtypes"][-1]
    (line,) = [line for line in lines if line.startswith(framework.name) and f" {widest} " in f"{line} "][-1:]
    assert line.split()[2:] == [widest, "2", "of", str(len(REGISTRY)), "3" if fw.name == "dask" else "6", "0"]
    assert lines[-1].endswith(" s, 0 failures.")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda x: 2.0 * namespace(x).sum(x * x), "value must be 5.25, got 15.125"),
        (lambda x: math.nan * namespace(x).sum(x), "value must be 5.25, got nan"),
        (lambda x: x, "the call must not raise, got ValueError: "),
        (lambda x: x.nothing, "the call must not raise, got AttributeError: "),
    ],
    ids=["wrong", "nan", "shape", "error"],
)
def test_a_wrong_penalty_fails(
    fw: Any, broken: Any, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    framework = of_module(fw.row["module"])
    only(monkeypatch, framework)
    first = _self_check._reference()[:1]
    monkeypatch.setattr(_self_check, "_reference", lambda: first)
    monkeypatch.setitem(REGISTRY, "l1", broken)
    assert main(["--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    failed = [check for check in found["checks"] if not check["passed"]]
    assert failed and len(failed) == len(found["failures"])
    assert said in found["failures"][0]
    assert main([]) == 1
    text = capsys.readouterr().out
    assert f"FAILED {framework.name}, " in text and text.endswith(f" {len(failed)} failures.\n")


def test_a_wrong_gradient_fails(fw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the array that it is of, at the element that is the furthest off."""
    framework = of_module(fw.row["module"])
    row = next(row for row in _self_check._reference() if row["penalty"] == "sampled_kl")
    wrong = {**row["gradient"], "log_q": [[0.0, 0.0, 0.0], row["gradient"]["log_q"][1]]}
    monkeypatch.setattr(_self_check, "_reference", lambda: [{**row, "gradient": wrong}])
    found = look(framework)
    failed = [check for check in _self_check.check(framework, found) if not check.passed]
    if fw.name == "dask":
        assert not failed
        return
    assert {check.of for check in failed} == {"gradient by log_q"}
    assert {check.expected for check in failed} == {0.0}
    assert failed[0].got == pytest.approx(max(row["gradient"]["log_q"][0], key=abs), rel=1e-9)


def test_float64_of_jax_is_a_switch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    jax = selected("jax", reason="is about JAX's switch")
    assert not jax.config.jax_enable_x64
    only(monkeypatch, of_module("jax"))
    rows(monkeypatch, "l1")
    assert main([]) == 0
    assert "jax: float64 needs jax_enable_x64, which is off.\n" in capsys.readouterr().out
    assert look(of_module("jax")).dtypes == ["float16", "bfloat16", "float32"]
    assert not jax.config.jax_enable_x64


def test_an_accelerator_of_torch_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = selected("torch", reason="is about PyTorch's accelerators")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cpu"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    named = SimpleNamespace(get_device_name=lambda place: f"a model of {place}")
    for module, said in ((named, "a model of cpu:0"), (SimpleNamespace(), "accelerator")):
        monkeypatch.setattr(torch, "get_device_module", lambda found=module: found)
        found = look(of_module("torch"))
        assert found.devices == ["cpu", f"cpu:0 ({said})"] and found.accelerator == "cpu"
    rows(monkeypatch, "l1", "l2")
    checks = _self_check.check(of_module("torch"), found)
    assert all(check.passed for check in checks)
    assert {check.penalty for check in checks if check.dtype == "float32"} == {"l1", "l2"}


def test_without_autodiff_values_are_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    selected("numpy", reason="is about NumPy without autograd")
    missing(monkeypatch, "autograd", "torch", "jax")
    only(monkeypatch, of_module("numpy"))
    assert main([]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "none float16, float32," in text
    assert "numpy: numpy arrays have no automatic differentiation without autograd, and there is neither" in text
    assert f"float64 {len({row['penalty'] for row in _self_check._reference() if not row['function']})} of" in text


def test_dask_warns_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a -inf - -inf that is masked, which its NumPy computes later than it is silenced."""
    dask = selected("dask", reason="is about dask's NumPy")
    rows(monkeypatch, "kl_divergence")
    with dask.config.set(scheduler="synchronous"):
        checks = _self_check.check(of_module("dask"), look(of_module("dask")))
    assert checks and all(check.passed for check in checks)


@pytest.mark.mixed
def test_a_key_goes_along_with_what_jax_lends(monkeypatch: pytest.MonkeyPatch) -> None:
    missing(monkeypatch, "autograd", "torch")
    rows(monkeypatch, "jacobian_penalty", "interpolated_gradient_penalty")
    found = look(of_module("numpy"))
    assert found.autodiff == "borrowed from jax"
    checks = [check for check in _self_check.check(of_module("numpy"), found) if check.dtype == "float64"]
    assert len(checks) == 5 and all(check.passed for check in checks)


@bare
def test_without_any_framework(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    missing(monkeypatch, *(framework.name for framework in FRAMEWORKS))
    assert main([]) == 0
    out, err = capsys.readouterr()
    assert "No framework was found. Install one, such as pip install 'xpenalties[numpy]'.\n" in out
    assert out.endswith("0 checks in 0.0 s, 0 failures.\n") and err == ""
    assert main(["--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["versions", "frameworks", "checks", "failures", "seconds"]
    assert found["frameworks"] == found["checks"] == found["failures"] == []


@bare
def test_what_is_required_is_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    missing(monkeypatch, *(framework.name for framework in FRAMEWORKS))
    assert main(["--require", "numpy", "--require", "torch"]) == 1
    assert "FAILED numpy is required, and it or a device for it is missing.\nFAILED torch" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(["--require", "nunpy"])
    assert stopped.value.code == 2
    assert "invalid choice: 'nunpy'" in capsys.readouterr().err


@bare
def test_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask may be there without NumPy, for other things than arrays."""
    standing_in = Framework("json", "json", lambda: Installed(["float64"]), needs=())
    assert standing_in.is_installed()
    assert not replace(standing_in, needs=("what_is_not_there",)).is_installed()
    missing(monkeypatch, "numpy")
    assert not Framework("json", "json", standing_in.look).is_installed()


@bare
def test_a_framework_that_is_broken_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken_framework.py").write_text('raise ImportError("libcuda.so:\\n  cannot open shared object")')
    monkeypatch.syspath_prepend(tmp_path)
    only(monkeypatch, Framework("broken_framework", "json", lambda: Installed(["float64"]), needs=()))
    assert main([]) == 1
    text = capsys.readouterr().out
    assert "broken, see below" in text
    said = "broken_framework must work where it is installed, got ImportError: libcuda.so: cannot open shared object"
    assert f"FAILED {said}\n" in text.replace("\n  ", " ")
    assert main(["--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["failures"] == [said]
    assert found["frameworks"][0]["error"] == "ImportError: libcuda.so: cannot open shared object"


@bare
def test_cupy_without_a_device_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class CUDARuntimeError(RuntimeError):
        pass

    def count() -> int:
        raise CUDARuntimeError("cudaErrorNoDevice")

    runtime = SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError, getDeviceCount=count, getDeviceProperties=lambda i: {"name": b"H200"}
    )
    cupy = SimpleNamespace(__version__="14.0.0", cuda=SimpleNamespace(runtime=runtime))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    only(monkeypatch, replace(of_module("cupy"), needs=()))
    monkeypatch.setattr(Framework, "is_installed", lambda self: True)  # find_spec wants a module
    assert main([]) == 0
    assert "cupy       14.0.0   no device  none" in capsys.readouterr().out
    assert main(["--require", "cupy"]) == 1
    capsys.readouterr()
    runtime.getDeviceCount = lambda: 2
    assert of_module("cupy").look().devices == ["cuda:0 (H200)", "cuda:1 (H200)"]


# files


@bare
def test_a_file_is_shown(good: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", good]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0] == f"{good}: training"
    assert lines[2].split() == ["name", "weight", "more"]
    assert lines[4].split(maxsplit=2) == ["l1", "1.0", 'inputs = "weights"']
    assert 'penalty = "huber", options = {"delta":' in lines[5]
    assert '"schedule": "linear",' in lines[5]
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
        assert second == {"file": "nowhere.toml", "error": "nowhere.toml: No such file or directory"}


@bare
@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.toml", "version = 1\n[penalties.l1]\nwieght = 1", "{}: penalties.l1: unknown key 'wieght', the keys are "),
        ("a.toml", "version = 1\n[penalties]\nl3 = 1.0", "{}: penalties.l3.penalty: no penalty is named 'l3', there "),
        ("a.toml", "version = ", "{}: Invalid value"),
        ("a.json", '[{"penalty": "l1", "weight": "1"}]', "{}: penalties[0].weight: `weight` must be a number"),
        (
            "a.json",
            '{"version": 1, "penalties": {"l\\n3": 1}}',
            "{}: penalties.l 3.penalty: no penalty is named 'l\\n3'",
        ),
        ("a.yaml", "", "{}: a configuration's file must end in .toml or .json, got '.yaml'."),
    ],
)
def test_what_is_wrong_in_a_file(
    name: str, text: str, said: str, good: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, and the other files are read all the same."""
    path = tmp_path / name
    path.write_text(text)
    assert main(["check", str(path), good]) == 1
    out, err = capsys.readouterr()
    assert err.startswith(said.format(path)) and err.count("\n") == 1
    assert out.startswith(f"{good}: training")


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
    """What its encoding lacks, what it would act on, and what has two columns."""
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
        "name    weight  more",
        "-" * 30,
        "\u7f5a" * 3 + '  0.5     penalty = "l1"',
        'a[31m   0.5     penalty = "l1"',
        '        0.5     penalty = "l1"',
        'e\u0301       0.5     penalty = "l1"',
        "",
    ]
    assert shown["ascii"][2].startswith("\\u7f5a" * 3)


@bare
def test_files_that_are_nested_too_deeply(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.json"
    path.write_text("[" * 100_000)
    assert main(["check", str(path)]) == 1
    assert capsys.readouterr().err == f"{path}: it must not be nested as deeply as this.\n"


@bare
def test_a_folder_is_no_framework(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("of_no_account", "with_a_file"):
        (tmp_path / name).mkdir()
    (tmp_path / "with_a_file" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    found = [
        Framework(name, name, lambda: Installed([]), needs=()).is_installed()
        for name in ("of_no_account", "with_a_file", "nowhere")
    ]
    assert found == [False, True, False]


@bare
def test_names_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    before = dict(OWN)
    (tmp_path / "of_my_own.py").write_text('import xpenalties\nxpenalties.register("roughness", lambda x: x)\n')
    (tmp_path / "in_need.py").write_text("import what_is_not_there\n")
    path = tmp_path / "a.json"
    path.write_text('[{"penalty": "roughness"}]')
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["check", str(path)]) == 1
    assert "no penalty is named 'roughness'" in capsys.readouterr().err
    try:
        assert main(["check", str(path), "--import", "of_my_own"]) == 0
        assert "roughness  1.0\n" in capsys.readouterr().out
        assert main(["schema", "--import", "of_my_own"]) == 0
        assert "roughness" in capsys.readouterr().out
    finally:
        OWN.clear()
        OWN.update(before)
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
    OWN.clear()
    OWN.update(before)


@bare
def test_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out) == config_schema()
    assert out.startswith('{\n  "$schema": ')
    with redirect_stdout(io.StringIO()) as again:  # not what a terminal is
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


@pytest.mark.mixed
def test_all_that_is_installed() -> None:
    command = [sys.executable, "-m", "xpenalties", "--json", *(f"--require={of_module(name).name}" for name in NAMED)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    assert done.returncode == 0, found["failures"]
    assert [each["name"] for each in found["frameworks"] if each["error"]] == []


NAMED = [row["module"] for row in ROWS if row["name"] in SELECTED]
