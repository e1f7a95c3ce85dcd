"""Measure ours and the peers, and write RESULTS.md: `nox -s benchmarks`, or `python benchmarks/run.py`.

Times are measured in one process for each group of rows, and memory in one process for each measurement. The exit
status is 1 if something did not run. A missed goal is a result, not an error.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from results import Entry, render, verdicts
from table import FULL, GROUPS, QUICK, Scale

HERE = Path(__file__).parent
DISTRIBUTIONS = ("xpenalties", "numpy", "scipy", "autograd", "torch", "keras", "jax", "jaxlib", "optax")


def times_of(group: str, options: list[str], machine: dict[str, Any]) -> tuple[list[Entry], list[str]]:
    """Time the rows of a group. Returns them, and what did not run. Fills `machine` with pytest-benchmark's facts."""
    with tempfile.TemporaryDirectory() as folder:
        timed, outcomes = Path(folder) / "times.json", Path(folder) / "outcomes.xml"
        command = [sys.executable, "-m", "pytest", str(HERE), "--group", group, *options, "-q", "--benchmark-quiet"]
        command += ["-p", "no:cacheprovider", "--durations=5", f"--benchmark-json={timed}", f"--junit-xml={outcomes}"]
        subprocess.run(command, check=False, cwd=HERE.parent)
        failures = [
            f"{case.get('name')} ({group}): {(trouble.get('message') or '').splitlines()[0]}"
            for case in ET.parse(outcomes).iter("testcase")
            for trouble in (*case.findall("failure"), *case.findall("error"))
        ]
        content = json.loads(timed.read_text()) if timed.exists() and timed.stat().st_size else {"benchmarks": []}
    machine.update(content.get("machine_info", {}))
    entries = []
    for each in content["benchmarks"]:
        info = each["extra_info"]
        number = info.pop("number")
        seconds = {"ours": each["stats"]["min"], **info.pop("seconds")}
        entries.append(Entry(seconds={way: s / number for way, s in seconds.items()}, **info))
    return entries, failures


def add_memory(entries: list[Entry], group: str, options: list[str]) -> list[str]:
    """Add memory to the entries of a group. Returns what did not run."""
    command = [sys.executable, str(HERE / "memory.py"), group, *options]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    rows = {entry.row: entry for entry in entries}
    failures = [f"memory ({group}): exit status {done.returncode}"] if done.returncode else []
    for line in done.stdout.splitlines():
        found = json.loads(line)
        entry, way = rows.get(found.pop("row")), found.pop("way")
        if entry is not None and "error" not in found:
            entry.memory[way] = found
        elif entry is not None:
            failures.append(f"{entry.framework}: memory of {entry.work}, {way}: {found['error']}")
    return failures


def facts_of(machine: dict[str, Any], load: float, scale: Scale) -> list[str]:
    """Return lines about date, machine, arrays and versions."""
    cpu = machine.get("cpu", {}).get("brand_raw") or platform.processor()
    date = datetime.now(UTC).date().isoformat()
    versions = [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in DISTRIBUTIONS)]
    return [
        f"{date}, with a load average of {load:.1f} at the start",
        f"{platform.system()} on {platform.machine()}, {cpu}, {os.cpu_count()} cores",
        scale.description,
        ", ".join(versions),
    ]


def main() -> int:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small shapes, to see that it runs: says nothing of goals")
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=GROUPS)
    parser.add_argument("--output", type=Path, help="default: RESULTS.md, and with --quick or --groups nothing")
    given = parser.parse_args()
    whole = not given.quick and tuple(given.groups) == GROUPS
    output = given.output or (HERE / "RESULTS.md" if whole else None)

    options = ["--quick"] if given.quick else []
    load, machine = os.getloadavg()[0], {}
    entries, failures = [], []
    for group in given.groups:
        timed, failed = times_of(group, options, machine)
        failures += failed + add_memory(timed, group, options)
        entries += timed
    text = render(entries, facts_of(machine, load, QUICK if given.quick else FULL), failures)
    print(text)
    if output is not None:
        output.write_text(text, "utf-8")
    missed = [verdict.goal for verdict in verdicts(entries) if not verdict.met]
    print(f"{len(missed)} goals missed, {len(failures)} measurements did not run")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
