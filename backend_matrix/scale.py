"""Write SCALE.md, the table of what holds for arrays that are cut into parts, from the results of the session `scale`.

Its tests add a line for each check to files in results/scale/, see tests/helpers/scale_results.py. Checks of one
function on one kind of arrays are added up. If a check failed, the table is still written, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RIGHT = "right"
REFUSED = "refused: "

Row = dict[str, Any]


class Table:
    """The checks by function and column. A column is a kind of arrays and the way they are cut."""

    def __init__(self, checks: Sequence[Row]) -> None:
        self.cells: dict[tuple[str, tuple[str, str]], list[Row]] = {}
        for check in checks:
            key = check["function"], (check["engine"], check["sharding"])
            self.cells.setdefault(key, []).append(check)
        self.functions = sorted({function for function, _ in self.cells})
        self.engines = sorted({engine for _, (engine, _) in self.cells})
        self.reasons: list[str] = []

    def columns(self, engine: str) -> list[tuple[str, str]]:
        """Return the columns of an engine."""
        return sorted({column for _, column in self.cells if column[0] == engine})

    def cell(self, function: str, column: tuple[str, str]) -> str:
        """Return the text of one cell, and remember the reasons that it refers to."""
        checks = self.cells.get((function, column), [])
        results = [check["result"] for check in checks]
        if failed := len([result for result in results if result != RIGHT and not result.startswith(REFUSED)]):
            return f"✗ {failed}/{len(results)}"
        right = results.count(RIGHT)
        numbers = sorted({self._number(result) for result in results if result != RIGHT})
        text = [f"✓ {right}"] if right else []
        return " ".join([*text, *(f"refused ({number})" for number in numbers)]) or "-"

    def _number(self, result: str) -> int:
        reason = result.removeprefix(REFUSED)
        if reason not in self.reasons:
            self.reasons.append(reason)
        return self.reasons.index(reason) + 1

    def render(self, date: str) -> str:
        """Return the text of SCALE.md."""
        lines = [
            "# Arrays that are cut into parts",
            "",
            f"Results of {date}. Written by `nox -s scale`, do not edit.",
            "",
            "**✓ n**: in n checks, value and gradients equal those of whole arrays. **✗ f/n**: f of n checks failed.",
            "**refused (k)**: an error, for reason k below. **-**: not checked.",
        ]
        for engine in self.engines:
            columns = self.columns(engine)
            functions = [name for name in self.functions if any((name, column) in self.cells for column in columns)]
            rows = [[f"`{name}`", *(self.cell(name, column) for column in columns)] for name in functions]
            header = ["", *(sharding for _, sharding in columns)]
            lines += ["", f"## {engine}", "", *_table([header, ["---"] * len(header), *rows])]
        if self.reasons:
            lines += ["", "## Reasons", "", *(f"{i}. {reason}" for i, reason in enumerate(self.reasons, 1))]
        return "\n".join(lines) + "\n"

    def failures(self) -> list[str]:
        """Return the cells in which a check failed."""
        return [
            f"{function}, {engine}, {sharding}"
            for function, (engine, sharding) in self.cells
            if self.cell(function, (engine, sharding)).startswith("✗")
        ]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in rows]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table. Return 1 if a check failed."""
    parser = argparse.ArgumentParser(description="Write the table of what holds for arrays that are cut into parts.")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "scale", help="folder of .jsonl files")
    parser.add_argument("--output", type=Path, default=HERE / "SCALE.md")
    args = parser.parse_args(arguments)
    files = sorted(args.results.glob("*.jsonl"))
    if not files:
        parser.error(f"no results in {args.results}, run `nox -s scale` first")
    table = Table([json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()])
    date = datetime.fromtimestamp(max(file.stat().st_mtime for file in files), UTC).date().isoformat()
    args.output.write_text(table.render(date), "utf-8")
    failures = table.failures()
    for failure in failures:
        print(f"wrong: {failure}", file=sys.stderr)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
