"""The tables that backend_matrix/report.py makes, and the list of backends that they and the sessions come from."""

from __future__ import annotations

import json
import os
import re
import runpy
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ROWS: dict[str, dict[str, Any]] = {
    row["name"]: row for row in tomllib.loads((ROOT / "backend_matrix/backends.toml").read_text("utf-8"))["backend"]
}
COLUMNS = ("eager", "jit", "gradient", "second gradient", "dtypes")
NOON = 1_767_268_800  # 2026-01-01 12:00 UTC

main: Callable[[list[str]], int] = runpy.run_path(str(ROOT / "backend_matrix/report.py"))["main"]


def cell(backend: str, column: str, passed: int = 1, failed: int = 0, skipped: int = 0) -> dict[str, Any]:
    return {
        "function": "l1",
        "backend": backend,
        "column": column,
        "passed": passed,
        "failed": failed,
        "skipped": skipped,
    }


def full(backend: str) -> list[dict[str, Any]]:
    """A result in each cell that the framework can fill, skips in the others."""
    lacking = {"jit": "jit", "gradient": "autodiff", "second gradient": "autodiff"}
    can = {column: bool(ROWS[backend].get(lacking.get(column, ""), True)) for column in COLUMNS}
    return [cell(backend, column, passed=int(can[column]), skipped=int(not can[column])) for column in COLUMNS]


class Reported:
    """A folder of results and the report made of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, session: str, cells: list[dict[str, Any]]) -> None:
        content = {"session": session, "versions": {"python": "3.11.7", "numpy": "2.4.6"}, "cells": cells}
        path = self.folder / f"{session}.json"
        path.write_text(json.dumps(content), "utf-8")
        os.utime(path, (NOON, NOON))

    def run(self, require: str) -> int:
        output = str(self.folder / "REPORT.md")
        return main(["--results", str(self.folder), "--output", output, "--require", require])

    @property
    def text(self) -> str:
        return (self.folder / "REPORT.md").read_text("utf-8")

    def row(self, heading: str, name: str) -> dict[str, str]:
        """The cells of a row by column, from the table below a heading."""
        section = self.text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
        lines = [[each.strip() for each in line.split("|")[1:-1]] for line in section.splitlines() if line[:1] == "|"]
        found = next(line for line in lines if line[0] == f"`{name}`")
        return dict(zip(lines[0], found, strict=True))


@pytest.fixture
def reported(tmp_path: Path) -> Reported:
    return Reported(tmp_path)


def test_sessions_of_a_backend_are_added_up(reported: Reported) -> None:
    reported.add("numpy-3.11", full("numpy"))
    reported.add("oldest-numpy", full("numpy"))
    reported.add("jax", full("jax"))
    assert reported.run("numpy,jax") == 0
    assert reported.row("Eager", "l1") == {"": "`l1`", "numpy": "✓ 2", "jax": "✓ 1"}
    assert reported.row("Sessions", "jax")["versions"] == "python 3.11.7, numpy 2.4.6"


def test_a_failure_shows_in_its_cell(reported: Reported) -> None:
    reported.add("numpy-3.11", full("numpy"))
    reported.add("numpy-3.12", [cell("numpy", "gradient", passed=3, failed=2)])
    assert reported.run("numpy") == 0  # the session has failed already
    assert reported.row("Gradient", "l1")["numpy"] == "✗ 2/6"


def test_what_a_framework_lacks_has_a_reason(reported: Reported) -> None:
    reported.add("strict", full("strict"))
    assert reported.run("strict") == 0
    assert reported.row("Compiled", "l1")["strict"] == "n/a"
    assert reported.row("Gradient", "l1")["strict"] == "n/a"
    compiled, gradient = (
        reported.text.partition(f"## {name}\n")[2].partition("## ")[0] for name in ("Compiled", "Gradient")
    )
    assert f"|\n\n- n/a on `strict`: {ROWS['strict']['no_jit']}.\n" in compiled
    assert f"|\n\n- n/a on `strict`: {ROWS['strict']['no_autodiff']}.\n" in gradient


@pytest.mark.parametrize("skipped", [0, 4], ids=["no cell", "all skipped"])
def test_a_hole_is_named_and_fails(reported: Reported, capsys: pytest.CaptureFixture[str], skipped: int) -> None:
    cells = [each for each in full("torch") if each["column"] != "jit"]
    reported.add("torch", cells + [cell("torch", "jit", passed=0, skipped=skipped)] * bool(skipped))
    assert reported.run("torch") == 1
    assert capsys.readouterr().err == "no result: l1, torch, jit\n"
    assert reported.row("Compiled", "l1")["torch"] == "**hole**"


def test_a_required_backend_without_results_fails(reported: Reported, capsys: pytest.CaptureFixture[str]) -> None:
    reported.add("numpy-3.11", full("numpy"))
    assert reported.run("numpy,torch") == 1
    assert capsys.readouterr().err.splitlines() == [f"no result: l1, torch, {column}" for column in COLUMNS]


def test_an_optional_backend_may_have_holes(reported: Reported) -> None:
    reported.add("numpy-3.11", full("numpy"))
    reported.add("dask", [cell("dask", "eager")])
    assert reported.run("numpy") == 0
    assert reported.row("Dtypes", "l1")["dask"] == "**hole**"


def test_sessions_without_cells_fail(reported: Reported, capsys: pytest.CaptureFixture[str]) -> None:
    reported.add("numpy-3.11", [])
    assert reported.run("numpy") == 1
    assert "no cells" in capsys.readouterr().err


def test_what_did_not_run_has_a_reason(reported: Reported) -> None:
    reported.add("numpy-3.11", full("numpy"))
    reported.run("numpy")
    listed = reported.text.partition("## Did not run\n")[2]
    assert "- `cupy`: needs a CUDA device\n" in listed
    assert f"- `oldest(cupy)`: {ROWS['cupy']['no_oldest']}\n" in listed
    assert "- `numpy-3.13`: no results in this run\n" in listed
    assert "- `numpy-3.11`" not in listed


def test_the_report_depends_on_the_results_only(reported: Reported) -> None:
    reported.add("numpy-3.11", full("numpy"))
    reported.run("numpy")
    first = reported.text
    assert "Results of 2026-01-01." in first
    reported.run("numpy")
    assert reported.text == first


@pytest.mark.parametrize(
    ("require", "message"), [("numppy", "--require names numppy"), ("numpy", "run the tests with nox first")]
)
def test_bad_calls_are_refused(
    reported: Reported, capsys: pytest.CaptureFixture[str], require: str, message: str
) -> None:
    with pytest.raises(SystemExit):
        reported.run(require)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ROWS)
def test_what_a_row_lacks_has_a_reason(name: str) -> None:
    for key in ("autodiff", "jit", "oldest"):
        assert bool(ROWS[name][key]) != bool(ROWS[name].get(f"no_{key}")), key


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row["oldest"]])
def test_oldest_versions_are_those_that_the_package_claims(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    claims = [*project["dependencies"], *project["optional-dependencies"].get(name, [])]
    claimed = dict(re.fullmatch(r"([\w-]+)>=([\d.]+)(?:,<\d+)?", claim).groups() for claim in claims)  # type: ignore[union-attr]
    pinned = dict(pin.split("==") for pin in ROWS[name]["oldest"])
    for package, version in claimed.items():
        assert release(pinned[package]) == release(version), package


def release(version: str) -> tuple[int, ...]:
    """2.0 and 2.0.0 are the same."""
    parts = [int(part) for part in version.split(".")]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)
