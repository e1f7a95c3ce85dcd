"""Parametrize tests with the rows of the table: `pytest benchmarks --group torch --quick -k entropy`."""

from __future__ import annotations

import pytest
from table import FULL, GROUPS, QUICK, rows_of


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--group", choices=GROUPS, default="numpy", help="rows to measure: %(choices)s (%(default)s)")
    parser.addoption("--quick", action="store_true", help="on small shapes, to see that everything runs")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "default")  # peers warn, the project's tests do not


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "row" in metafunc.fixturenames:
        scale = QUICK if metafunc.config.getoption("quick") else FULL
        rows = rows_of(metafunc.config.getoption("group"), scale)
        metafunc.parametrize(("row", "scale", "number"), [(row, scale, i) for i, row in enumerate(rows)], ids=_id)


def _id(value: object) -> str | None:
    return getattr(value, "id", "")
