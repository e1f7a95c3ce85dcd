"""Print the results of the commands: as JSON, or as text of at most 100 columns."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from textwrap import fill
from typing import Any

from .._core.registry import PENALTIES
from .._core.terminal_text import printable, table
from .._pipeline.pipeline_table import as_text
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
    print(f"\n{table(rows)}\n")
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
        print(f"\n{table(rows)}\n")


def print_failures(failures: list[str]) -> None:
    """Print the failures, wrapped."""
    for failure in failures:
        print(fill(f"FAILED {failure}", _WIDTH, subsequent_indent="  "))


def print_file(file: dict[str, Any]) -> None:
    """Print the penalties of a file, or its error to stderr."""
    if "error" in file:
        print(printable(file["error"]), file=sys.stderr)
        return
    print(as_text(f"{file['file']}: {file['name']}", file["pipeline"]), end="\n\n")
