"""Start the scripts beside this file as processes, and read the checks that they report."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests.helpers.processes import on_devices_of_jax, run_together
from tests.helpers.scale_results import record
from tests.scale.over_cases import family, is_refused, layouts_of

__all__ = ["on_devices", "on_processes", "verify", "verify_matrix"]

Check = dict[str, Any]


def on_processes(count: int, module: str, folder: Path, *arguments: str) -> list[Check]:
    """Run a script of tests.scale on several processes, which get their rank, their number and a file to meet at.

    Returns the checks that the first process reports.
    """
    command = [sys.executable, "-W", "ignore", "-m", f"tests.scale.{module}"]
    commands = [[*command, rank, count, folder / "store", *arguments] for rank in range(count)]
    return _checks(run_together(commands)[0])


def on_devices(module: str, *arguments: str) -> list[Check]:
    """Run a script of tests.scale on eight devices of JAX. Returns the checks that it reports."""
    return _checks(on_devices_of_jax(8, f"scale.{module}", *arguments))


def _checks(output: str) -> list[Check]:
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


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
    cells = [(case, layout) for case in family(name) for layout in layouts if layout in layouts_of(case)]
    refused = Counter(is_refused(case, layout) is not None for case, layout in cells)
    verify(checks, refused[True] + variants * refused[False])
