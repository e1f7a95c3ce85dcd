"""The commands of `python -m xpenalties` and their arguments."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from .commands import VERSION, check_files, check_penalties, write_schema
from .self_check import FRAMEWORKS

__all__ = ["parser"]


def parser() -> argparse.ArgumentParser:
    """Return the parser. Its result `args` has the command as `args.run`, which takes `args` and returns the status."""
    main = argparse.ArgumentParser(
        prog="xpenalties" if Path(sys.argv[0]).stem == "xpenalties" else "python -m xpenalties",
        description="Show what is installed, and check every penalty on it. Exit status 1 if a check fails.",
    )
    main.add_argument("--version", action="version", version=f"xpenalties {VERSION}")
    main.add_argument("--json", action="store_true", help="print one JSON document instead of text")
    main.add_argument(
        "--require",
        action="append",
        default=[],
        choices=[framework.name for framework in FRAMEWORKS],
        metavar="FRAMEWORK",
        help="fail if this framework is not installed or has no device; may be repeated",
    )
    main.set_defaults(run=check_penalties)
    commands = main.add_subparsers(metavar="{check,schema}")
    check = _command(commands, "check", check_files, "check configuration files, and show their penalties")
    check.add_argument("files", nargs="+", metavar="FILE", help="a TOML or JSON file")
    check.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document")
    _command(commands, "schema", write_schema, "print the JSON Schema of configuration files")
    return main


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
) -> argparse.ArgumentParser:
    """Add a command with the option `--import`."""
    command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    command.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="import this module first, for the names that it registers; may be repeated",
    )
    command.set_defaults(run=run, parser=command)
    return command
