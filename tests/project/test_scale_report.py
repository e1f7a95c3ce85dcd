"""The table that backend_matrix/scale.py makes of results that tests record."""

from __future__ import annotations

import os
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.scale_results import record

ROOT = Path(__file__).parents[2]
NOON = 1_767_268_800  # 2026-01-01 12:00 UTC
REASON = "refused: its rows lie across processes"

main: Callable[[list[str]], int] = runpy.run_path(str(ROOT / "backend_matrix/scale.py"))["main"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XPENALTIES_SCALE_RESULTS", str(tmp_path))
    return tmp_path


def run(folder: Path) -> tuple[int, str]:
    for file in folder.glob("*.jsonl"):
        os.utime(file, (NOON, NOON))
    status = main(["--results", str(folder), "--output", str(folder / "SCALE.md")])
    return status, (folder / "SCALE.md").read_text("utf-8")


def test_checks_are_added_up(folder: Path) -> None:
    record("l1", "DTensor", "rows", moved=0.25)
    record("l1", "DTensor", "rows", moved=0.5)
    record("l1", "DTensor", "classes", REASON)
    record("l2", "DTensor", "classes", REASON)
    record("l2", "Dask", "rows")
    status, text = run(folder)
    assert status == 0
    assert "Results of 2026-01-01." in text
    assert "## Dask\n\n|  | rows |\n| --- | --- |\n| `l2` | ✓ 1 |\n" in text
    assert (
        "|  | classes | rows |\n| --- | --- | --- |\n| `l1` | refused (1) | ✓ 2 |\n| `l2` | refused (1) | - |" in text
    )
    assert text.endswith("## Reasons\n\n1. its rows lie across processes\n")


def test_a_failure_fails(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record("l1", "DTensor", "rows")
    record("l1", "DTensor", "rows", "wrong")
    status, text = run(folder)
    assert status == 1
    assert "✗ 1/2" in text
    assert capsys.readouterr().err == "wrong: l1, DTensor, rows\n"


def test_no_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--results", str(tmp_path), "--output", str(tmp_path / "SCALE.md")])
    assert "run `nox -s scale` first" in capsys.readouterr().err


def test_without_a_folder_nothing_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XPENALTIES_SCALE_RESULTS", raising=False)
    monkeypatch.chdir(tmp_path)
    record("l1", "DTensor", "rows")
    assert not list(tmp_path.iterdir())


def test_unknown_results(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"^`result` must be 'right', 'wrong' or 'refused: \.\.\.', got 'maybe'$"):
        record("l1", "DTensor", "rows", "maybe")
