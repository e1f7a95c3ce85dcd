"""Print the results of the commands: as JSON, or as text of at most 100 columns."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from textwrap import fill
from typing import Any

from .._core.registry import PENALTIES
from .._core.terminal_text import padded, printable, width_of, wrapped
from .self_check import Check, Installed

__all__ = ["print_checks", "print_failures", "print_file", "print_installed", "print_json", "print_versions"]

_WIDTH = 100


def print_json(document: dict[str, Any]) -> None:
    """Print a document as JSON."""
    print(json.dumps(document, indent=2, allow_nan=False))


def print_versions(versions: Mapping[str, str]) -> None:
    """Print versions on one line."""
    print(", ".join(f"{name} {version}" for name, version in versions.items()))


def print_installed(installed: list[Installed]) -> None:
    """Print a table of frameworks, then their notes."""
    if not installed:
        print("No framework was found. Install one, such as pip install 'xpenalties[numpy]'.")
        return
    rows = [("framework", "version", "devices", "autodiff", "dtypes")]
    for framework in installed:
        devices = "broken, see below" if framework.error else ", ".join(framework.devices) or "no device"
        autodiff, dtypes = framework.autodiff or "none", ", ".join(framework.dtypes)
        rows.append((framework.name, framework.version, devices, autodiff, dtypes))
    print(f"\n{_table(rows, (16, 14, 22, 18, 22))}\n")
    for framework in installed:
        if framework.note:
            print(fill(f"{framework.name}: {framework.note}", _WIDTH, subsequent_indent="  "))


def print_checks(checks: list[Check]) -> None:
    """Print a table with one line for each framework, device and dtype."""
    groups: dict[tuple[str, str, str], list[Check]] = {}
    for check in checks:
        groups.setdefault((check.backend, check.device, check.dtype), []).append(check)
    rows = [("self-check", "device", "dtype", "penalties", "checks", "failed")]
    for place, group in groups.items():
        penalties = f"{len({check.penalty for check in group})} of {len(PENALTIES)}"
        rows.append((*place, penalties, str(len(group)), str(sum(not check.passed for check in group))))
    if checks:
        print(f"\n{_table(rows, (16, 22, 8, 9, 6, 6))}\n")


def print_failures(failures: list[str]) -> None:
    """Print the failures, wrapped."""
    for failure in failures:
        print(fill(f"FAILED {failure}", _WIDTH, subsequent_indent="  "))


def print_file(file: dict[str, Any]) -> None:
    """Print the penalties of a file, or its errors to stderr, one on each line."""
    if "errors" in file:
        for error in file["errors"]:
            print(printable(error), file=sys.stderr)
        return
    rows = [("name", "weight", "more")]
    for penalty in file["penalties"]:
        more = [
            f"{key} = {json.dumps(value)}"
            for key, value in penalty.items()
            if key not in ("name", "weight") and (key, value) != ("penalty", penalty["name"])
        ]
        rows.append((penalty["name"], json.dumps(penalty["weight"]), ", ".join(more)))
    print(f"{printable(file['file'])}: {printable(file['name'])}\n\n{_table(rows, (24, 30, 42))}\n")


def _table(rows: Sequence[tuple[str, ...]], widest: tuple[int, ...]) -> str:
    """Align rows in columns, with a line under the first row. Cells that are too wide are wrapped."""
    cells = [[wrapped(printable(cell), width) or [""] for cell, width in zip(row, widest, strict=True)] for row in rows]
    widths = [max(width_of(line) for cell in column for line in cell) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(padded(part, width) for part, width in zip(parts, widths, strict=True)).rstrip()
        for row in cells
        for parts in zip_longest(*row, fillvalue="")
    ]
    lines.insert(1, "-" * (sum(widths) + 2 * len(widths) - 2))
    return "\n".join(lines)
