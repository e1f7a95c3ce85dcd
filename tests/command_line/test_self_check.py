"""The frameworks that `python -m xpenalties` reports, and its checks of every penalty against stored values."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import ROWS, SELECTED, selected
from xpenalties import __version__, namespace
from xpenalties.__main__ import main
from xpenalties._command_line import commands
from xpenalties._command_line import self_check as _self_check
from xpenalties._command_line.self_check import FRAMEWORKS, Framework, Installed, look
from xpenalties._core.registry import PENALTIES

bare = pytest.mark.bare


def only(monkeypatch: pytest.MonkeyPatch, *frameworks: Framework) -> None:
    """Check only these frameworks."""
    monkeypatch.setattr(commands, "FRAMEWORKS", frameworks)


def missing(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Make imports of these fail."""
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)


def of_module(module: str) -> Framework:
    return next(each for each in FRAMEWORKS if each.name == module.partition(".")[0])


def rows(monkeypatch: pytest.MonkeyPatch, *penalties: str) -> None:
    """Keep only the stored rows of these penalties."""
    selected_rows = [row for row in _self_check._reference() if row["penalty"] in penalties]
    monkeypatch.setattr(_self_check, "_reference", lambda: selected_rows)


# the stored values


def test_stored_values_are_those_of_the_definitions() -> None:
    """`python -m tests.command_line.reference` writes them again."""
    from tests.command_line.reference import computed

    def flat(x: Any) -> list[float]:
        return [each for part in x for each in flat(part)] if isinstance(x, list) else [x]

    for row, again in zip(_self_check._reference(), computed(), strict=True):
        assert repr({**row, "value": 0, "gradient": 0}) == repr({**again, "value": 0, "gradient": 0})  # of NaN too
        assert row["value"] == pytest.approx(again["value"], abs=2e-12)
        assert list(row["gradient"]) == list(row["arrays"])
        for name, gradient in row["gradient"].items():
            assert flat(gradient) == pytest.approx(flat(again["gradient"][name]), abs=1e-11), (row["penalty"], name)


def test_every_penalty_has_a_stored_value() -> None:
    assert {row["penalty"] for row in _self_check._reference()} == set(PENALTIES)


@bare
def test_every_backend_of_the_matrix_is_looked_for() -> None:
    assert {framework.name for framework in FRAMEWORKS} == {row["module"].partition(".")[0] for row in ROWS}


# the self-check


@pytest.mark.smoke
def test_every_penalty_is_checked(fw: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    framework = of_module(fw.row["module"])
    only(monkeypatch, framework)
    status = main(["--json", "--require", framework.name])
    document = json.loads(capsys.readouterr().out)
    assert document["failures"] == [] and status == 0
    assert document["versions"]["xpenalties"] == __version__
    (installed,) = document["frameworks"]
    assert installed["name"] == framework.name and installed["version"] and installed["devices"]
    assert installed["error"] == ""
    assert installed["dtypes"] == fw.row["dtypes"]
    expected = {"numpy": "autograd", "torch": "torch.autograd, torch.func", "jax": "jax.vjp", "dask": ""}
    assert installed["autodiff"] == expected.get(fw.name, "borrowed from torch")
    checks = document["checks"]
    assert all(check["passed"] for check in checks)
    assert {check["dtype"] for check in checks} == set(fw.row["dtypes"])
    stored = [row for row in _self_check._reference() if installed["autodiff"] or not row["function"]]
    stored = [row for row in stored if row["lazy"] or fw.name != "dask"]
    expected = [(row["penalty"], row["case"], "value") for row in stored]
    if installed["autodiff"]:
        of = "gradient with respect to "
        expected += [(row["penalty"], row["case"], of + name) for row in stored for name in row["arrays"]]
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
    assert line.split()[2:] == [widest, "2", "of", str(len(PENALTIES)), "3" if fw.name == "dask" else "6", "0"]
    assert lines[-1].endswith(" s, 0 failures.")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda x: 2.0 * namespace(x).sum(x * x), "value must be 5.25, got 15.125"),
        (lambda x: math.nan * namespace(x).sum(x), "value must be 5.25, got nan"),
        (lambda x: x, "the call must not raise, got ValueError: "),
        (lambda x: x.nothing, "the call must not raise, got AttributeError: "),
    ],
    ids=["wrong", "nan", "shape", "error"],
)
def test_a_wrong_penalty_fails(
    fw: Any, broken: Any, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    framework = of_module(fw.row["module"])
    only(monkeypatch, framework)
    first = _self_check._reference()[:1]
    monkeypatch.setattr(_self_check, "_reference", lambda: first)
    monkeypatch.setitem(PENALTIES, "l1", broken)
    assert main(["--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    failed = [check for check in document["checks"] if not check["passed"]]
    assert failed and len(failed) == len(document["failures"])
    assert message in document["failures"][0]
    assert main([]) == 1
    text = capsys.readouterr().out
    assert f"FAILED {framework.name}, " in text and text.endswith(f" {len(failed)} failures.\n")


def test_rows_do_not_look_like_failures(
    fw: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the widest dtype has all penalties. In the others, one stands for all."""
    framework = of_module(fw.row["module"])
    only(monkeypatch, framework)
    assert main([]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    (head,) = (i for i, line in enumerate(lines) if line[:1] == ["self-check"])
    rows = {line[2]: line[3:-2] for line in lines[head + 2 :] if len(line) > 4 and line[0] == framework.name}
    of_arrays = [function for function in PENALTIES.values() if not function.spec.functions]  # type: ignore[attr-defined]
    count = str(len(PENALTIES))
    everything = [str(len(of_arrays)), "of", count] if fw.name == "dask" else ["all", count]
    assert rows == {dtype: everything if dtype == fw.row["dtypes"][-1] else ["l1"] for dtype in fw.row["dtypes"]}


def test_progress_on_a_terminal(fw: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    framework = of_module(fw.row["module"])
    only(monkeypatch, framework)
    rows(monkeypatch, "l1")
    assert main([]) == 0
    assert capsys.readouterr().err == ""  # not a terminal
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for arguments in ([], ["--json"]):
        assert main(arguments) == 0
        out, err = capsys.readouterr()
        runs = len(_self_check._reference()) + len(fw.row["dtypes"]) - 1
        wanted = [
            f"Importing {framework.name} ...",
            "",
            *(f"Checking {framework.name}: {i} of {runs} ..." for i in range(1, runs + 1)),
            "",
        ]
        assert err.split("\r\x1b[K")[1:] == wanted and "Checking" not in out
    monkeypatch.setattr(sys, "stderr", None)  # as in a program without a console
    assert main([]) == 0


def test_a_wrong_gradient_fails(fw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the array, and has the element with the largest error."""
    framework = of_module(fw.row["module"])
    row = next(row for row in _self_check._reference() if row["penalty"] == "sampled_kl")
    wrong = {**row["gradient"], "log_q": [[0.0, 0.0, 0.0], row["gradient"]["log_q"][1]]}
    monkeypatch.setattr(_self_check, "_reference", lambda: [{**row, "gradient": wrong}])
    installed = look(framework)
    failed = [check for check in _self_check.check(framework, installed) if not check.passed]
    if fw.name == "dask":
        assert not failed
        return
    assert {check.of for check in failed} == {"gradient with respect to log_q"}
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
    for module, model in ((named, "a model of cpu:0"), (SimpleNamespace(), "accelerator")):
        monkeypatch.setattr(torch, "get_device_module", lambda device_module=module: device_module)
        installed = look(of_module("torch"))
        assert installed.devices == ["cpu", f"cpu:0 ({model})"] and installed.accelerator == "cpu"
    rows(monkeypatch, "l1", "l2")
    checks = _self_check.check(of_module("torch"), installed)
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
    """Dask computes a masked -inf - -inf later. Its tasks silence NumPy's warnings themselves."""
    dask = selected("dask", reason="is about dask's NumPy")
    rows(monkeypatch, "kl_divergence")
    with dask.config.set(scheduler="synchronous"):
        checks = _self_check.check(of_module("dask"), look(of_module("dask")))
    assert checks and all(check.passed for check in checks)


@pytest.mark.mixed
def test_a_key_goes_along_with_what_jax_lends(monkeypatch: pytest.MonkeyPatch) -> None:
    missing(monkeypatch, "autograd", "torch")
    rows(monkeypatch, "jacobian_penalty", "interpolated_gradient_penalty")
    installed = look(of_module("numpy"))
    assert installed.autodiff == "borrowed from jax"
    checks = [check for check in _self_check.check(of_module("numpy"), installed) if check.dtype == "float64"]
    assert len(checks) == 5 and all(check.passed for check in checks)


@bare
def test_without_any_framework(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    missing(monkeypatch, *(framework.name for framework in FRAMEWORKS))
    assert main([]) == 0
    out, err = capsys.readouterr()
    assert "No framework is installed. Install one, for example with pip install 'xpenalties[numpy]'.\n" in out
    assert out.endswith("\n0 checks in 0.0 s, 0 failures.\n") and err == ""
    assert main(["--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document) == ["versions", "frameworks", "checks", "failures", "seconds"]
    assert document["frameworks"] == document["checks"] == document["failures"] == []


@bare
def test_what_is_required_is_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    missing(monkeypatch, *(framework.name for framework in FRAMEWORKS))
    assert main(["--require", "numpy", "--require", "torch"]) == 1
    assert "FAILED numpy is required, but it or a device for it is missing.\nFAILED torch" in capsys.readouterr().out
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
    message = "broken_framework must work if it is installed, got ImportError: libcuda.so: cannot open shared object"
    assert f"FAILED {message}\n" in text.replace("\n  ", " ")
    assert main(["--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["failures"] == [message]
    assert document["frameworks"][0]["error"] == "ImportError: libcuda.so: cannot open shared object"


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


@bare
def test_a_folder_is_no_framework(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("of_no_account", "with_a_file"):
        (tmp_path / name).mkdir()
    (tmp_path / "with_a_file" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    are_installed = [
        Framework(name, name, lambda: Installed([]), needs=()).is_installed()
        for name in ("of_no_account", "with_a_file", "nowhere")
    ]
    assert are_installed == [False, True, False]


@pytest.mark.mixed
def test_all_that_is_installed() -> None:
    command = [sys.executable, "-m", "xpenalties", "--json", *(f"--require={of_module(name).name}" for name in NAMED)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    document = json.loads(done.stdout)
    assert done.returncode == 0, document["failures"]
    assert [framework["name"] for framework in document["frameworks"] if framework["error"]] == []


NAMED = [row["module"] for row in ROWS if row["name"] in SELECTED]
