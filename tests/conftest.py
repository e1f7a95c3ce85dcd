"""Which backends run, the fixtures that tests take them from, and the results that the matrix's table is made of.

XPENALTIES_TEST_BACKENDS says what must run, separated by commas; without it, whatever of backends.toml is installed.
A backend that is named and does not import is an error. Nothing here imports NumPy, for the session `bare` lacks it.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tomllib
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module, metadata
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import pytest

ROWS = tomllib.loads((Path(__file__).parents[1] / "backend_matrix/backends.toml").read_text("utf-8"))["backend"]
# the tests compile thousands of tiny programs and run each once: spend nothing on optimising them
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")
_uses_of_jax = count(1)
_states: dict[str, Any] = {}  # of each module's RNG, as its import left it
if find_spec("hypothesis") is not None:  # the session `bare` lacks it
    from hypothesis import settings

    settings.register_profile("the same each time", deadline=None, derandomize=True, database=None)
    settings.load_profile("the same each time")
COLUMNS = ("eager", "jit", "gradient", "second gradient", "dtypes")


def _selected() -> list[str]:
    named = os.environ.get("XPENALTIES_TEST_BACKENDS")
    names = [row["name"] for row in ROWS]
    if named is None:
        return [row["name"] for row in ROWS if find_spec(row["module"].partition(".")[0]) is not None]
    chosen = [name.strip() for name in named.split(",") if name.strip()]
    unknown = [name for name in chosen if name not in names]
    if unknown:
        raise pytest.UsageError(f"XPENALTIES_TEST_BACKENDS names {unknown}, backends.toml has {names}")
    missing = [
        row["module"] for row in ROWS if row["name"] in chosen and find_spec(row["module"].partition(".")[0]) is None
    ]
    if missing:
        raise pytest.UsageError(f"XPENALTIES_TEST_BACKENDS asks for {missing}, which cannot be imported")
    return chosen


SELECTED = _selected()


def selected(module: str, *, reason: str) -> Any:
    """A framework for a test that is about it alone: skipped where it is not to run, never where it is broken."""
    if module not in SELECTED:
        pytest.skip(reason)
    return import_module(module)


def integration(*modules: str, backends: tuple[str, ...] = ("torch",)) -> None:
    """Skip a module of tests where what it is about is not there; in the session `integrations` all of it must be."""
    if not set(backends) <= set(SELECTED):
        pytest.skip(f"needs {' and '.join(backends)}", allow_module_level=True)
    if os.environ.get("XPENALTIES_TEST_INTEGRATIONS") is None:
        for module in modules:
            if find_spec(module) is None:
                pytest.skip(f"needs {module}: the session `integrations` has it", allow_module_level=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Without what the integrations' packages warn of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning|transformers|accelerate|torch.utils.data")
        warnings.filterwarnings("ignore", message=".*(does not have many workers|LeafSpec|isinstance).*")
        yield


if find_spec("numpy") is None:
    collect_ignore = sorted(
        str(path)
        for path in Path(__file__).parent.rglob("test_*.py")
        if path.parent.name != "command_line" and path.name != "test_bare.py"
    )


def pytest_configure(config: pytest.Config) -> None:
    for line in (
        "column(name): the column of the matrix's table that a test fills",
        "needs(what): autodiff, jit: skipped, with the reason from backends.toml, where a backend lacks it",
        "docs: runs the examples of docstrings and pages",
        "integrations: needs the packages of the integrations, in one environment",
        "mixed: needs several frameworks in one environment",
        "newest: is about this package's own code only, and runs at the newest versions",
        "bare: runs with the runtime dependency only",
        "smoke: a few seconds, for an installed wheel",
    ):
        config.addinivalue_line("markers", line)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "fw" in metafunc.fixturenames:
        lacks = {row["name"]: row for row in ROWS}
        values = []
        for name in SELECTED:
            marks = [
                pytest.mark.skip(reason=lacks[name][f"no_{what}"])
                for mark in metafunc.definition.iter_markers("needs")
                for what in mark.args
                if not lacks[name][what]
            ]
            values.append(pytest.param(name, id=name, marks=marks))
        metafunc.parametrize("fw", values, indirect=True)


@pytest.fixture
def quietly() -> Iterator[None]:
    with quiet():
        yield


@pytest.fixture(autouse=True)
def seeded(request: pytest.FixtureRequest) -> None:
    """Let PyTorch and a module's RNG draw the same numbers each time, whichever tests ran before."""
    rng = getattr(request.module, "RNG", None)
    if rng is not None:
        rng.bit_generator.state = _states.setdefault(request.module.__name__, rng.bit_generator.state)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)


@pytest.fixture
def own_names() -> Iterator[None]:
    """Functions of one's own by name, for configurations; what a test registers beside them is forgotten."""
    from tests.helpers.configs import NAMED
    from xpenalties import register
    from xpenalties._core.registry import OWN

    before = dict(OWN)
    for name, fn in NAMED.items():
        register(name, fn)
    yield
    OWN.clear()
    OWN.update(before)


@pytest.fixture
def fw(request: pytest.FixtureRequest) -> Any:
    """The backend under test, see harness.py. JAX computes in float64 where it is asked to, as the others do."""
    from tests.helpers.harness import framework

    found = framework(request.param)
    if found.name == "jax":
        before = found.module.config.jax_enable_x64
        found.module.config.update("jax_enable_x64", True)
        yield found
        found.module.config.update("jax_enable_x64", before)
        if next(_uses_of_jax) % 200 == 0:  # programs take maps of memory, of which Linux gives a process 65530
            found.module.clear_caches()
    elif found.name == "strict":
        before = found.module.get_array_api_strict_flags()
        found.module.set_array_api_strict_flags(boolean_indexing=False, data_dependent_shapes=False)
        yield found
        found.module.set_array_api_strict_flags(**before)
    elif found.name == "dask":  # its NumPy computes later, outside of what silences a -inf - -inf that is masked
        import dask

        with warnings.catch_warnings(), dask.config.set(scheduler="synchronous"):  # no threads that stay behind
            warnings.filterwarnings("ignore", "(invalid value|divide by zero|overflow) encountered", RuntimeWarning)
            yield found
    else:
        yield found


@pytest.fixture(autouse=True)
def _lacking(request: pytest.FixtureRequest) -> None:
    """Skip a row of cases.py, with its reason, on a backend that lacks what the row needs."""
    if {"case", "fw"} <= set(request.fixturenames):
        params = request.node.callspec.params
        reason = params["case"].lacking.get(params["fw"])
        if reason:
            pytest.skip(reason)


class Results:
    """Outcomes of the tests that fill a column, counted by function and backend."""

    def __init__(self) -> None:
        self.cells: Counter[tuple[str, str, str, str]] = Counter()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
        report = yield
        column = item.get_closest_marker("column")
        params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        if (
            column is not None
            and "case" in params
            and "fw" in params
            and (call.when == "call" or report.outcome != "passed")
        ):
            self.cells[params["case"].name, params["fw"], column.args[0], report.outcome] += 1
        return report

    def write(self, path: Path) -> None:
        keys = sorted({key[:3] for key in self.cells}, key=lambda key: (key[0], key[1], COLUMNS.index(key[2])))
        packages = ("array-api-compat", "autograd", "numpy", "torch", "jax", "array-api-strict", "dask", "cupy-cuda13x")
        found = {}
        for package in packages:
            try:
                found[package] = metadata.version(package)
            except metadata.PackageNotFoundError:
                continue
        path.parent.mkdir(parents=True, exist_ok=True)
        cells = [
            {
                "function": function,
                "backend": backend,
                "column": column,
                **{
                    outcome: self.cells[function, backend, column, outcome]
                    for outcome in ("passed", "failed", "skipped")
                },
            }
            for function, backend, column in keys
        ]
        content = {"session": path.stem, "versions": {"python": platform.python_version(), **found}, "cells": cells}
        path.write_text(json.dumps(content, indent=1) + "\n")


_results = Results()


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.pluginmanager.register(_results)


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = os.environ.get("XPENALTIES_MATRIX_RESULTS")
    if path:
        _results.write(Path(path))
