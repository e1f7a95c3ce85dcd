"""Print the results of the commands: as JSON, or as text of at most 100 columns."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from textwrap import fill
from typing import Any

from .._core.registry import PENALTIES
from .._core.terminal_text import padded, printable, shortened, table
from .._pipeline.pipeline_table import as_text
from .self_check import Check, Installed

__all__ = [
    "print_checks",
    "print_failures",
    "print_file",
    "print_installed",
    "print_json",
    "print_versions",
    "show_status",
]

_WIDTH = 100
_WIDTHS = (16, 22, 8, 16, 6, 6)  # of the columns of the self-check, which is printed row by row


def print_json(document: dict[str, Any]) -> None:
    """Print a document as JSON."""
    print(json.dumps(document, indent=2, allow_nan=False))


def print_versions(versions: Mapping[str, str]) -> None:
    """Print versions on one line."""
    print(", ".join(f"{name} {version}" for name, version in versions.items()), flush=True)


def print_installed(installed: list[Installed]) -> None:
    """Print a table of frameworks, then their notes."""
    if not installed:
        print("No framework is installed. Install one, for example with pip install 'xpenalties[numpy]'.")
        return
    rows = [("framework", "version", "devices", "autodiff", "dtypes")]
    for framework in installed:
        devices = "broken, see below" if framework.error else ", ".join(framework.devices) or "no device"
        autodiff, dtypes = framework.autodiff or "none", ", ".join(framework.dtypes)
        rows.append((framework.name, framework.version, devices, autodiff, dtypes))
    print(f"\n{table(rows)}\n")
    for framework in installed:
        if framework.note:
            print(fill(f"{framework.name}: {framework.note}", _WIDTH, subsequent_indent="  "))


def print_checks(checks: list[Check], *, with_header: bool) -> None:
    """Print the rows of a table, one for each device and dtype of a framework, with or without its header."""
    groups: dict[tuple[str, str, str], list[Check]] = {}
    for check in checks:
        groups.setdefault((check.backend, check.device, check.dtype), []).append(check)
    if checks and with_header:
        print()
        _print_row("self-check", "device", "dtype", "penalties", "checks", "failed")
        print("-" * (sum(_WIDTHS) + 2 * len(_WIDTHS) - 2))
    for place, group in groups.items():
        failed = sum(not check.passed for check in group)
        _print_row(*place, _penalties({check.penalty for check in group}), str(len(group)), str(failed))


def _penalties(names: set[str]) -> str:
    """Say which penalties were checked. One stands for all in dtypes that differ in precision only."""
    if len(names) == 1:
        return names.pop()
    return f"all {len(names)}" if len(names) == len(PENALTIES) else f"{len(names)} of {len(PENALTIES)}"


def _print_row(*cells: str) -> None:
    row = (padded(shortened(printable(cell), width), width) for cell, width in zip(cells, _WIDTHS, strict=True))
    print("  ".join(row).rstrip(), flush=True)  # before the next framework, which may take seconds


def show_status(text: str) -> None:
    """Show a line of progress on a terminal. It replaces the last one; an empty text removes it."""
    if sys.stderr is not None and sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


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
    print(as_text(f"{file['file']}: {file['name']}", file["pipeline"]), end="\n\n")
