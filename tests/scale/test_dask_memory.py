"""Penalties of Dask arrays take a few chunks of memory, whatever the arrays' size, in a process and on a cluster."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from tests.conftest import integration
from tests.helpers.example_runs import EXAMPLES
from tests.helpers.processes import run_together

integration("dask", "distributed", backends=("dask",), session="scale")
pytestmark = [
    pytest.mark.scale,
    pytest.mark.only("dask", reason="is about Dask"),
    pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's report on a process"),
]
#: Of each array, for each worker. Measured: up to 3, and 4 on a cluster, whose workers make the next chunk early.
#: Twice as many are allowed, because threads of a busy machine wait for each other with a chunk in hand.
CHUNKS = 6


def run(module: str, *arguments: str) -> dict[str, Any]:
    """Run a script beside this one. Returns what it writes."""
    command = [sys.executable, "-W", "ignore", "-m", f"tests.scale.{module}", *arguments]
    (printed,) = run_together([command], OPENBLAS_NUM_THREADS="1")
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


@pytest.mark.parametrize("cut", ["rows", "rows and classes"])
def test_arrays_of_four_times_the_memory(cut: str) -> None:
    peaks = run("dask_memory_processes", cut)
    assert len(peaks) >= 13
    assert peaks.pop("Pipeline") <= 2 * CHUNKS  # the tasks of several penalties wait for a worker
    assert {name: peak for name, peak in peaks.items() if peak > CHUNKS} == {}


def test_a_cluster() -> None:
    peaks = run("dask_cluster_processes")
    assert len(peaks) == 5
    assert {name: peak for name, peak in peaks.items() if peak > CHUNKS + 2} == {}  # of 24


def test_the_example() -> None:
    """A file of 0.5 GiB, with 0.25 GiB of memory more than the interpreter's."""
    command = [sys.executable, EXAMPLES / "larger_than_memory.py", "--gigabytes", 0.5, "--memory", 0.25]
    (printed,) = run_together([command], OPENBLAS_NUM_THREADS="1")
    assert "0.50 GiB on disk" in printed and "numpy.load: MemoryError" in printed
    (total,) = [line for line in printed.splitlines() if line.startswith("total")]
    assert float(total.split()[-1]) == pytest.approx(0.5873, abs=2e-3)
