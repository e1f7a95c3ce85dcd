"""Penalties of Dask arrays take a few chunks of memory, whatever the arrays' size, in a process and on a cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import integration

integration("dask", "distributed", backends=("dask",), session="scale")
pytestmark = [
    pytest.mark.scale,
    pytest.mark.only("dask", reason="is about Dask"),
    pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's report on a process"),
]
CHUNKS = 3  # of each array, for each worker


def run(module: str, *arguments: str) -> dict[str, Any]:
    """Run a script beside this one. Returns what it writes."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", f"tests.scale.{module}", *arguments],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1200,  # far more than it takes on a busy machine
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("cut", ["rows", "rows and classes"])
def test_arrays_of_four_times_the_memory(cut: str) -> None:
    peaks = run("dask_memory_processes", cut)
    assert len(peaks) >= 13
    assert peaks.pop("Pipeline") <= 5  # the tasks of several penalties wait for a worker
    assert {name: peak for name, peak in peaks.items() if peak > CHUNKS} == {}


def test_a_cluster() -> None:
    peaks = run("dask_cluster_processes")
    assert len(peaks) == 5
    early = 1  # a worker of a cluster makes its next chunk early
    assert {name: peak for name, peak in peaks.items() if peak > CHUNKS + early} == {}


def test_the_example() -> None:
    """A file of 0.5 GiB, with 0.25 GiB of memory more than the interpreter's."""
    done = subprocess.run(
        [sys.executable, "examples/larger_than_memory.py", "--gigabytes", "0.5", "--memory", "0.25"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1200,  # far more than it takes on a busy machine
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "0.50 GiB on disk" in done.stdout and "numpy.load: MemoryError" in done.stdout
    (total,) = [line for line in done.stdout.splitlines() if line.startswith("total")]
    assert float(total.split()[-1]) == pytest.approx(0.5873, abs=2e-3)
