"""Penalties of parts on the processes of PyTorch's groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scale.over_cases import FAMILIES, LAYOUTS
from tests.scale.over_runs import on_processes, verify, verify_matrix

pytestmark = pytest.mark.scale


@pytest.mark.parametrize("name", FAMILIES)
def test_values_and_derivatives_are_those_of_the_whole(name: str, tmp_path: Path) -> None:
    checks = on_processes(4, "over_torch_processes", tmp_path, name)
    verify_matrix(checks, "over, PyTorch", name, LAYOUTS, variants=2)


@pytest.mark.parametrize("name", ["partial divergences", "linear"])
def test_two_processes(name: str, tmp_path: Path) -> None:
    checks = on_processes(2, "over_torch_processes", tmp_path, name)
    verify_matrix(checks, "over, PyTorch", name, ("classes", "batch"), variants=2)


@pytest.mark.parametrize(("of", "count"), [("layers", 22), ("everything else", 22)])
def test_uses(of: str, count: int, tmp_path: Path) -> None:
    """Masks, blocks, pipelines, communication, errors, compilers: see the script."""
    verify(on_processes(4, "over_torch_uses_processes", tmp_path, of), count)
