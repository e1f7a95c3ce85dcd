"""Record results for the tables of backend_matrix/report.py: outcomes by function, backend and column."""

from __future__ import annotations

import json
import platform
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Results"]

COLUMNS = ("eager", "jit", "gradient", "second gradient", "dtypes")
PACKAGES = ("array-api-compat", "autograd", "numpy", "torch", "jax", "array-api-strict", "dask", "cupy-cuda13x")
OUTCOMES = ("passed", "failed", "skipped")
CELL = "cell of the matrix"


class Results:
    """Counts the outcomes of tests that fill a column.

    A test's cell is attached to its report, which pytest-xdist sends to the process that counts.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cells: Counter[tuple[str, str, str, str]] = Counter()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Any:
        report = yield
        column = item.get_closest_marker("column")
        params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        if column is not None and {"case", "fw"} <= set(params):
            report.user_properties.append((CELL, [params["case"].name, params["fw"], column.args[0]]))
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            for name, value in report.user_properties:
                if name == CELL:
                    function, backend, column = value
                    self.cells[function, backend, column, report.outcome] += 1

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not hasattr(session.config, "workerinput"):
            self.write()

    def write(self) -> None:
        """Write the counts, and the versions of the packages that are installed, as JSON."""
        keys = sorted({key[:3] for key in self.cells}, key=lambda key: (key[0], key[1], COLUMNS.index(key[2])))
        cells = [
            {
                "function": function,
                "backend": backend,
                "column": column,
                **{outcome: self.cells[function, backend, column, outcome] for outcome in OUTCOMES},
            }
            for function, backend, column in keys
        ]
        content = {"session": self.path.stem, "versions": versions(), "cells": cells}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(content, indent=1) + "\n")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that are installed."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return installed
