"""The commands: check the installation, check configuration files, print their schema. Each returns an exit status."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from functools import partial
from importlib import import_module
from importlib.metadata import version
from typing import Any

from .._core.shown import shorten, shown
from .._pipeline.config.reader import load_or_errors
from .._pipeline.config.schema import config_schema
from .._pipeline.pipeline import Pipeline
from .output import print_checks, print_failures, print_file, print_installed, print_json, print_versions, show_status
from .self_check import FRAMEWORKS, Check, Framework, Installed, check, look

__all__ = ["VERSION", "check_files", "check_penalties", "write_schema"]

VERSION = version("xpenalties")


def check_penalties(args: argparse.Namespace) -> int:
    """Show which frameworks are installed, and check every penalty on each."""
    start = time.perf_counter()
    versions = {
        "xpenalties": VERSION,
        "Python": platform.python_version(),
        "array-api-compat": version("array-api-compat"),
    }
    with_text = not args.json
    if with_text:
        print_versions(versions)
    present = [framework for framework in FRAMEWORKS if framework.is_installed()]
    installed = [_look(framework) for framework in present]
    if with_text:
        print_installed(installed)
    checks: list[Check] = []
    for framework, one in zip(present, installed, strict=True):
        results = check(framework, one, partial(_show_progress, framework.name))
        show_status("")
        if with_text:
            print_checks(results, with_header=not checks)
        checks += results
    seconds = round(time.perf_counter() - start, 1)
    failures = _failures(args.require, installed, checks)
    if with_text:
        print_failures(failures)
        print(f"\n{len(checks)} checks in {seconds} s, {len(failures)} failures.")
    else:
        document = {
            "versions": versions,
            "frameworks": [framework.as_dict() for framework in installed],
            "checks": [result.as_dict() for result in checks],
            "failures": failures,
            "seconds": seconds,
        }
        print_json(document)
    return 1 if failures else 0


def _look(framework: Framework) -> Installed:
    show_status(f"Importing {framework.name} ...")
    installed = look(framework)
    show_status("")
    return installed


def _show_progress(name: str, done: int, total: int) -> None:
    show_status(f"Checking {name}: {done} of {total} ...")


def _failures(required: list[str], installed: list[Installed], checks: list[Check]) -> list[str]:
    """Describe broken frameworks, required frameworks that cannot be used, and failed checks."""
    usable = [framework.name for framework in installed if framework.devices]
    return [
        *(
            f"{framework.name} must work if it is installed, got {framework.error}"
            for framework in installed
            if framework.error
        ),
        *(f"{name} is required, but it or a device for it is missing." for name in required if name not in usable),
        *(str(result) for result in checks if not result.passed),
    ]


def check_files(args: argparse.Namespace) -> int:
    """Show the pipelines in configuration files, and their errors."""
    _import_modules(args)
    files = [_read(path) for path in args.files]
    if args.json:
        print_json({"files": [{key: value for key, value in file.items() if key != "pipeline"} for file in files]})
    else:
        for file in files:
            print_file(file)
    return 1 if any("errors" in file for file in files) else 0


def _read(path: str) -> dict[str, Any]:
    """Return the pipeline in a file and its configuration, or its errors."""
    try:
        pipeline, errors = load_or_errors(path, Pipeline)
    except OSError as error:
        return {"file": path, "errors": [f"{path}: {error.strerror or error}"]}
    except Exception as error:  # noqa: BLE001 - from a module that --import names; the other files are read too
        return {"file": path, "errors": [f"{path}: {type(error).__qualname__}: {shorten(str(error))}"]}
    if pipeline is None:
        return {"file": path, "errors": [" ".join(str(error).split()) for error in errors]}
    entries = zip(pipeline, pipeline.to_config()["penalties"], strict=True)
    penalties = [{"name": penalty.name, "weight": 1.0, **entry} for penalty, entry in entries]
    return {"file": path, "name": pipeline.name, "penalties": penalties, "pipeline": pipeline}


def write_schema(args: argparse.Namespace) -> int:
    """Print the JSON Schema of configuration files."""
    _import_modules(args)
    print_json(config_schema())
    return 0


def _import_modules(args: argparse.Namespace) -> None:
    """Import the modules of `--import`. Exit with the usage message if a module does not exist."""
    if os.getcwd() not in sys.path:  # `python -m` adds it, the console script does not
        sys.path.insert(0, os.getcwd())
    for name in args.modules:
        if not all(part.isidentifier() for part in name.split(".")):
            args.parser.error(f"--import must name a module by its full name, got {shown(name)}.")
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # the module exists, but imports one that does not
            args.parser.error(f"--import must name a module that can be imported, got {shown(name)} ({error}).")
