"""Start the scripts beside this file as processes, and read the checks that they report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests.helpers.scale_results import record
from tests.scale.over_cases import family, is_refused

__all__ = ["checks_of", "on_processes", "verify", "verify_matrix"]

Check = dict[str, Any]
_TIMEOUT = 300  # seconds: far more than it takes on a busy machine


def on_processes(module: str, count: int, folder: Path, *arguments: str) -> list[Check]:
    """Run a script on several processes, which get their rank, their number and the path of a file to meet at."""
    return checks_of([[module, str(rank), str(count), str(folder / "store"), *arguments] for rank in range(count)])


def checks_of(commands: list[list[str]]) -> list[Check]:
    """Run modules of tests.scale at the same time. Returns the checks that the first of them reports."""
    runs = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", f"tests.scale.{module}", *arguments],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for module, *arguments in commands
    ]
    try:
        texts = [run.communicate(timeout=_TIMEOUT) for run in runs]
    finally:
        for run in runs:
            run.kill()
    assert [run.returncode for run in runs] == [0] * len(runs), "\n".join(errors for _, errors in texts)[-4000:]
    return [json.loads(line) for line in texts[0][0].splitlines() if line.startswith("{")]


def verify(checks: list[Check], count: int) -> None:
    """Fail with the names and errors of the checks that failed, or if some did not run."""
    failed = {check["check"]: check["error"] for check in checks if check["error"] is not None}
    assert not failed, "\n\n".join(f"{name}: {error}" for name, error in failed.items())
    assert len(checks) == count, [check["check"] for check in checks]


def verify_matrix(checks: list[Check], engine: str, name: str, layouts: tuple[str, ...], variants: int) -> None:
    """Record the checks of a family of penalties, and verify that each row of the matrix had one for each layout."""
    for check in checks:
        result = "wrong" if check["error"] else f"refused: {check['refused']}" if check["refused"] else "right"
        record(check["function"], engine, check["sharding"], result)
    refused = Counter(is_refused(case, layout) is not None for case in family(name) for layout in layouts)
    verify(checks, refused[True] + variants * refused[False])
