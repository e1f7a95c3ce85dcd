"""Write REPORT.md, the tables of what works on which backend, from the results of the test sessions.

Each session writes one file in results/, see tests/helpers/results.py. The sessions of a backend are added up. A cell
without a result is a hole, unless backends.toml says that the framework lacks the feature. If there are holes, the
tables are still written, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
# column of the results: its heading, and the key in backends.toml that is "" if a framework lacks it
COLUMNS = {
    "eager": ("Eager", ""),
    "jit": ("Compiled", "jit"),
    "gradient": ("Gradient", "autodiff"),
    "second gradient": ("Second gradient", "autodiff"),
    "dtypes": ("Dtypes", ""),
}
HOLE = "**hole**"

Row = dict[str, Any]


class Count(NamedTuple):
    """The outcomes of the checks in one cell."""

    passed: int = 0
    failed: int = 0

    def __str__(self) -> str:
        return f"✗ {self.failed}/{self.passed + self.failed}" if self.failed else f"✓ {self.passed}"


class Matrix:
    """The cells of all sessions, added up for each backend."""

    def __init__(self, rows: Sequence[Row], sessions: Sequence[Row]) -> None:
        self.rows = {row["name"]: row for row in rows}
        self.cells: dict[tuple[str, str, str], Count] = {}
        for session in sessions:
            for cell in session["cells"]:
                key = cell["function"], cell["backend"], cell["column"]
                before = self.cells.get(key, Count())
                self.cells[key] = Count(before.passed + cell["passed"], before.failed + cell["failed"])
        self.functions = sorted({function for function, _, _ in self.cells})
        self.backends = {backend for _, backend, _ in self.cells}

    def lacks(self, backend: str, column: str) -> str:
        """Return the key in backends.toml of the feature that `backend` lacks for `column`, or ""."""
        key = COLUMNS[column][1]
        return key if key and not self.rows[backend][key] else ""

    def cell(self, function: str, backend: str, column: str) -> str:
        """Return the text of one cell."""
        count = self.cells.get((function, backend, column), Count())
        if sum(count):
            return str(count)
        return "n/a" if self.lacks(backend, column) else HOLE

    def reasons(self, backends: Iterable[str], column: str) -> list[str]:
        """Return a line for each backend that lacks the feature of a column."""
        lacking = [(name, self.lacks(name, column)) for name in backends]
        return [f"- n/a on `{name}`: {self.rows[name][f'no_{key}']}." for name, key in lacking if key]

    def holes(self, backends: Iterable[str]) -> list[str]:
        """Return the cells of `backends` that should have a result and have none."""
        return [
            f"{function}, {backend}, {column}"
            for function in self.functions
            for backend in backends
            for column in COLUMNS
            if self.cell(function, backend, column) == HOLE
        ]


def render(rows: Sequence[Row], sessions: Sequence[Row], matrix: Matrix, shown: Sequence[str], date: str) -> str:
    """Return the text of REPORT.md."""
    lines = [
        "# Backend matrix",
        "",
        f"Results of {date}. Written by `nox`, do not edit.",
        "",
        "**✓ n**: all n checks in the backend's sessions passed. **✗ f/n**: f of n failed.",
        f"**n/a**: the framework lacks it, for the reason below the table. {HOLE}: no check ran.",
    ]
    for column, (heading, _) in COLUMNS.items():
        cells = [[f"`{name}`", *(matrix.cell(name, backend, column) for backend in shown)] for name in matrix.functions]
        lines += ["", f"## {heading}", "", *table(["", *shown], cells)]
        if reasons := matrix.reasons(shown, column):
            lines += ["", *reasons]
    ran = [[f"`{each['session']}`", versions(each), total(each, "passed"), total(each, "failed")] for each in sessions]
    lines += ["", "## Sessions", "", *table(["", "versions", "passed", "failed"], ran)]
    lines += ["", "## Did not run", "", *did_not_run(rows, {each["session"] for each in sessions})]
    return "\n".join(lines) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table. Numbers are aligned to the right."""
    rule = ["---", *["---:" if cell != "versions" else "---" for cell in header[1:]]]
    return [f"| {' | '.join(cells)} |" for cells in (header, rule, *rows)]


def total(session: Row, outcome: str) -> str:
    """Count the checks of a session with this outcome."""
    return str(sum(cell[outcome] for cell in session["cells"]))


def versions(session: Row) -> str:
    """Return the versions as text, such as `python 3.11.7, numpy 2.4.6`."""
    return ", ".join(f"{name} {version}" for name, version in session["versions"].items())


def did_not_run(rows: Sequence[Row], ran: set[str]) -> list[str]:
    """Return a line with the reason for each session in backends.toml that has no results."""
    lines = []
    for row in rows:
        name = row["name"]
        names = [name] if len(row["python"]) == 1 else [f"{name}-{python}" for python in row["python"]]
        reason = f"needs {row['needs']}" if "needs" in row else "no results in this run"
        lines += [f"- `{session}`: {reason}" for session in names if session not in ran]
        if f"oldest-{name}" not in ran:
            lines.append(f"- `oldest({name})`: {row.get('no_oldest', 'no results in this run')}")
    return lines or ["Everything ran."]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report. Return 1 if it has holes."""
    parser = argparse.ArgumentParser(description="Write the tables of what works on which backend.")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder with a JSON file per session")
    parser.add_argument("--output", type=Path, default=HERE / "REPORT.md")
    parser.add_argument(
        "--require",
        help="backends that must have no holes, separated by commas; default: those that backends.toml requires",
    )
    args = parser.parse_args(arguments)

    rows: list[Row] = tomllib.loads((HERE / "backends.toml").read_text("utf-8"))["backend"]
    names = [row["name"] for row in rows]
    required = [row["name"] for row in rows if row["required"]] if args.require is None else args.require.split(",")
    if unknown := [name for name in required if name not in names]:
        parser.error(f"--require names {', '.join(unknown)}, backends.toml has {', '.join(names)}")
    files = sorted(args.results.glob("*.json"))
    if not files:
        parser.error(f"no results in {args.results}, run the tests with nox first")

    sessions: list[Row] = [json.loads(file.read_text("utf-8")) for file in files]
    matrix = Matrix(rows, sessions)
    shown = [name for name in names if name in matrix.backends or name in required]
    date = datetime.fromtimestamp(max(file.stat().st_mtime for file in files), UTC).date().isoformat()
    args.output.write_text(render(rows, sessions, matrix, shown, date), "utf-8")

    holes = matrix.holes(required)
    for hole in holes:
        print(f"no result: {hole}", file=sys.stderr)
    if not matrix.functions:
        print("no result: the sessions have no cells", file=sys.stderr)
    return int(bool(holes) or not matrix.functions)


if __name__ == "__main__":
    sys.exit(main())
