"""The command line: what is installed and whether it works, pipelines' files, and their schema."""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from itertools import zip_longest
from textwrap import fill
from typing import Any

from . import Pipeline, __version__, config_schema
from ._command_line.self_check import FRAMEWORKS, Check, Installed, check, look
from ._core.registry import REGISTRY
from ._core.text import padded, printable, width_of, wrapped

__all__ = ["main"]

WIDTH = 100


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; by default those of the process.

    Returns
    -------
    int
        The exit status: 0, or 1 where something failed or nobody reads what is printed. argparse exits with 2 where
        arguments are wrong.
    """
    parser = argparse.ArgumentParser(
        prog="python -m xpenalties",
        description="Show what is installed, and check every penalty on it. Exit status 1 if a check fails.",
    )
    parser.add_argument("--version", action="version", version=f"xpenalties {__version__}")
    parser.add_argument("--json", action="store_true", help="one JSON document in place of text")
    parser.add_argument(
        "--require",
        action="append",
        default=[],
        choices=[framework.name for framework in FRAMEWORKS],
        metavar="FRAMEWORK",
        help="fail if it is not installed, or has no device; may be repeated",
    )
    parser.set_defaults(run=_check_penalties)
    commands = parser.add_subparsers(metavar="{check,schema}")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = commands.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}."
        )
        added.add_argument(
            "--import",
            dest="modules",
            action="append",
            default=[],
            metavar="MODULE",
            help="import it first, for the names that it registers; may be repeated",
        )
        added.set_defaults(run=run, parser=added)
        return added

    of_files = command("check", _check_files, "check files of pipelines, and show what is in them")
    of_files.add_argument("files", nargs="+", metavar="FILE", help="a TOML or JSON file")
    of_files.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="one JSON document")
    command("schema", _print_schema, "print the JSON Schema of pipelines' files")
    args = parser.parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name may be what the terminal's encoding lacks
    try:
        status: int = args.run(args)
        sys.stdout.flush()  # so that a reader who left shows here
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is not written at exit either
        return 1
    return status


def _check_penalties(args: argparse.Namespace) -> int:
    start = time.perf_counter()
    present = [framework for framework in FRAMEWORKS if framework.is_installed()]
    installed = [look(framework) for framework in present]
    checks = [each for pair in zip(present, installed, strict=True) for each in check(*pair)]
    seconds = round(time.perf_counter() - start, 1)
    usable = [found.name for found in installed if found.devices]
    failures = [
        f"{found.name} must work where it is installed, got {found.error}" for found in installed if found.error
    ]
    failures += [
        f"{name} is required, and it or a device for it is missing." for name in args.require if name not in usable
    ]
    failures += [str(each) for each in checks if not each.passed]
    if args.json:
        document = {
            "versions": _versions(),
            "frameworks": [found.as_dict() for found in installed],
            "checks": [each.as_dict() for each in checks],
            "failures": failures,
            "seconds": seconds,
        }
        _print_json(document)
    else:
        print(", ".join(f"{name} {number}" for name, number in _versions().items()))
        _print_installed(installed)
        _print_checks(checks)
        for line in failures:
            print(fill(f"FAILED {line}", WIDTH, subsequent_indent="  "))
        print(f"{len(checks)} checks in {seconds} s, {len(failures)} failures.")
    return 1 if failures else 0


def _versions() -> dict[str, str]:
    compat = version("array-api-compat")
    return {"xpenalties": __version__, "Python": platform.python_version(), "array-api-compat": compat}


def _print_installed(installed: list[Installed]) -> None:
    if not installed:
        print("No framework was found. Install one, such as pip install 'xpenalties[numpy]'.")
        return
    rows = [("framework", "version", "devices", "autodiff", "dtypes")]
    for found in installed:
        devices = "broken, see below" if found.error else ", ".join(found.devices) or "no device"
        rows.append((found.name, found.version, devices, found.autodiff or "none", ", ".join(found.dtypes)))
    print(f"\n{_table(rows, (16, 14, 22, 18, 22))}\n")
    for found in installed:
        if found.note:
            print(fill(f"{found.name}: {found.note}", WIDTH, subsequent_indent="  "))


def _print_checks(checks: list[Check]) -> None:
    """A line for each framework, device and dtype."""
    rows = [("self-check", "device", "dtype", "penalties", "checks", "failed")]
    for place in dict.fromkeys((each.backend, each.device, each.dtype) for each in checks):
        here = [each for each in checks if (each.backend, each.device, each.dtype) == place]
        penalties = f"{len({each.penalty for each in here})} of {len(REGISTRY)}"
        rows.append((*place, penalties, str(len(here)), str(sum(not each.passed for each in here))))
    if checks:
        print(f"\n{_table(rows, (16, 22, 8, 9, 6, 6))}\n")


def _check_files(args: argparse.Namespace) -> int:
    _import(args)
    found: list[dict[str, Any]] = []
    for path in args.files:
        try:
            pipeline = Pipeline.from_config(path)
        except OSError as error:
            found.append({"file": path, "error": f"{path}: {error.strerror}"})
        except (TypeError, ValueError) as error:
            found.append({"file": path, "error": " ".join(str(error).split())})
        else:
            entries = zip(pipeline, pipeline.to_config()["penalties"], strict=True)
            penalties = [{"name": penalty.name, "weight": 1.0, **entry} for penalty, entry in entries]
            found.append({"file": path, "name": pipeline.name, "penalties": penalties})
    if args.json:
        _print_json({"files": found})
    else:
        for each in found:
            _print_file(each)
    return 1 if any("error" in each for each in found) else 0


def _print_file(found: dict[str, Any]) -> None:
    if "error" in found:
        print(printable(found["error"]), file=sys.stderr)
        return
    rows = [("name", "weight", "more")]
    for penalty in found["penalties"]:
        more = [
            f"{key} = {json.dumps(value)}"
            for key, value in penalty.items()
            if key not in ("name", "weight") and (key, value) != ("penalty", penalty["name"])
        ]
        rows.append((penalty["name"], json.dumps(penalty["weight"]), ", ".join(more)))
    print(f"{printable(found['file'])}: {printable(found['name'])}\n\n{_table(rows, (24, 30, 42))}\n")


def _print_schema(args: argparse.Namespace) -> int:
    _import(args)
    _print_json(config_schema())
    return 0


def _import(args: argparse.Namespace) -> None:
    for name in args.modules:
        if not all(part.isidentifier() for part in name.split(".")):
            args.parser.error(f"--import must name a module by its full name, got {name!r}.")
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # of what the module imports in its turn
            args.parser.error(f"--import must name a module that can be imported, got {name!r} ({error}).")


def _print_json(document: dict[str, Any]) -> None:
    print(json.dumps(document, indent=2, allow_nan=False))


def _table(rows: Sequence[tuple[str, ...]], widest: tuple[int, ...]) -> str:
    """Rows as aligned text, a line under the first; a cell that is wider goes on below."""
    cells = [[wrapped(printable(cell), width) or [""] for cell, width in zip(row, widest, strict=True)] for row in rows]
    widths = [max(width_of(line) for cell in column for line in cell) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(padded(part, width) for part, width in zip(parts, widths, strict=True)).rstrip()
        for row in cells
        for parts in zip_longest(*row, fillvalue="")
    ]
    lines.insert(1, "-" * (sum(widths) + 2 * len(widths) - 2))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
