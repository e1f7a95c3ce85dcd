"""Penalties, transforms and proximal operators of sharded parameters, on two processes and on a mesh of 2 x 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.gloo import run_cases

pytestmark = pytest.mark.scale


@pytest.mark.parametrize("processes", [2, 4])
def test_sharded_parameters_equal_those_of_one_process(processes: int, tmp_path: Path) -> None:
    run_cases("scale.torch_fsdp", processes, tmp_path)
