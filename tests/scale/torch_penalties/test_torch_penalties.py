"""Penalties of PyTorch's DTensors on two and four processes: values, gradients of both orders, and what is moved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import selected
from tests.helpers.processes import on_processes
from tests.helpers.scale_results import record

pytestmark = pytest.mark.scale
HERE = "scale.torch_penalties"


@pytest.fixture(autouse=True)
def torch() -> Any:
    return selected("torch", reason="needs the backend torch")


def failures(folder: Path) -> list[str]:
    return [failure for file in sorted(folder.glob("*.json")) for failure in json.loads(file.read_text())]


@pytest.mark.parametrize("count", [2, 4])
def test_every_row_of_the_matrix(count: int, tmp_path: Path) -> None:
    on_processes(count, f"{HERE}.matrix_processes", count, tmp_path)
    assert len(list(tmp_path.glob("*.json"))) == count
    assert failures(tmp_path) == []


def test_edges(tmp_path: Path) -> None:
    on_processes(2, f"{HERE}.edges_processes", tmp_path)
    assert len(list(tmp_path.glob("*.json"))) == 2
    assert failures(tmp_path) == []


def all_reduces(calls: list[list[Any]]) -> list[tuple[str, int]]:
    """Return collectives with one all-reduce for each that PyTorch made of two: on a mesh of 2 x 2, in the backward."""
    result: list[tuple[str, int]] = []
    for name, size in calls:
        if name == "all_gather_into_tensor" and result and result[-1] == ("reduce_scatter_tensor", 2 * size):
            result[-1] = ("all_reduce", 2 * size)
        else:
            result.append((name, size))
    return result


@pytest.mark.parametrize("count", [2, 4])
def test_what_is_moved(count: int, tmp_path: Path) -> None:
    on_processes(count, f"{HERE}.moved_processes", count, tmp_path)
    cells = json.loads((tmp_path / "moved.json").read_text())
    problems = []
    for cell in cells:
        calls = all_reduces(cell["calls"])
        parts = [size for name, size in calls if name == "exchange"]
        others = [(name, size) for name, size in calls if name != "exchange"]
        too_large = [call for call in others if call[1] > cell["most"] or "gather" in call[0]]
        too_large += [size for size in parts if size > cell["shard"]]
        if cell["result"] != "right" or too_large or len(parts) > cell["exchanges"]:
            problems.append((cell["function"], cell["sharding"], cell["result"], too_large, len(parts)))
        moved = max([size for _, size in others], default=0) / cell["size"]
        name = cell["function"].partition("(")[0].partition(" ")[0]
        record(name, "DTensor", cell["sharding"], cell["result"], moved=moved)
    assert problems == []
    assert any(size for cell in cells for _, size in cell["calls"])
