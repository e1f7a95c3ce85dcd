"""Choose the tests of a session by their markers and by the variables that noxfile.py sets.

Nothing here imports NumPy, which the session `bare` lacks.

- `only(*names, reason=...)` and `without(*names, reason=...)` say which backends a test is about. The fixture `fw` gets
  no others. A session without any of them deselects the test.
- `once` is set on each test that does not depend on the session's backends: it does not take `fw`, names no backends,
  and its module does not use `SELECTED`, `selected` or `integration`. XPENALTIES_TEST_ONCE names the session that runs
  these tests, and the others leave them out.
- `representative` is for tests of code that all rows of cases.py share. On a backend that is marked `slow` in
  backends.toml, the rows that stand for others run, and the rest are `full`.
- `full` tests are left out by the default sessions (`-m "not full"`) and run by the sessions `rows`, see noxfile.py.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

__all__ = ["MARKERS", "ROWS", "SELECTED", "Leftovers", "deselect", "frameworks"]

ROWS: list[dict[str, Any]] = tomllib.loads(
    (Path(__file__).parents[2] / "backend_matrix/backends.toml").read_text("utf-8")
)["backend"]
NAMES = [row["name"] for row in ROWS]
SLOW = {row["name"] for row in ROWS if row.get("slow", False)}
MARKERS = (
    "column(name): the column of the matrix's table that a test fills",
    "needs(what): autodiff, jit: skipped, with the reason from backends.toml, if a backend lacks it",
    "only(*names, reason): is about these backends",
    "without(*names, reason): is about all backends but these",
    "once: does not depend on the session's backends, so one session runs it; set at collection",
    "representative: tests code that all rows share: on slow backends the rows that stand for others suffice",
    "full: too slow for the default sessions",
    "docs: runs the examples of docstrings and pages",
    "integrations: needs the packages of the integrations, in one environment",
    "trainers: needs TRL",
    "scale: arrays that are cut into parts: several processes, several devices, or Dask",
    "mixed: needs several frameworks in one environment",
    "newest: is about this package's own code only, and runs at the newest versions",
    "bare: runs with the runtime dependency only",
    "smoke: a few seconds, for an installed wheel",
)


def _selected() -> list[str]:
    named = os.environ.get("XPENALTIES_TEST_BACKENDS")
    there = [row["name"] for row in ROWS if find_spec(row["module"].partition(".")[0]) is not None]
    if named is None:
        return there
    chosen = [name.strip() for name in named.split(",") if name.strip()]
    if unknown := [name for name in chosen if name not in NAMES]:
        raise pytest.UsageError(f"XPENALTIES_TEST_BACKENDS names {unknown}, backends.toml has {NAMES}")
    if missing := [row["module"] for row in ROWS if row["name"] in chosen and row["name"] not in there]:
        raise pytest.UsageError(f"XPENALTIES_TEST_BACKENDS asks for {missing}, which cannot be imported")
    return chosen


SELECTED = _selected()


def allowed(node: pytest.Item | Any) -> set[str]:
    """Return the names of the backends that a test's markers allow."""
    names = set(NAMES)
    for mark in (*node.iter_markers("only"), *node.iter_markers("without")):
        if not mark.kwargs.get("reason") or not mark.args or not set(mark.args) <= set(NAMES):
            raise pytest.UsageError(
                f"{node.nodeid}: `{mark.name}` must have backends of {NAMES} and a `reason`, got {mark}"
            )
        names = names & set(mark.args) if mark.name == "only" else names - set(mark.args)
    return names


def frameworks(definition: Any) -> list[Any]:
    """Return the values of `fw` for a test. If its markers allow no backend here, it is deselected later."""
    rows = {row["name"]: row for row in ROWS}
    names = allowed(definition)
    return [
        pytest.param(
            name,
            id=name,
            marks=[
                pytest.mark.skip(reason=rows[name][f"no_{what}"])
                for mark in definition.iter_markers("needs")
                for what in mark.args
                if not rows[name][what]
            ],
        )
        for name in [name for name in SELECTED if name in names] or SELECTED
    ]


def deselect(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark items as `once` and `full`, and deselect those that another session runs."""
    leftovers = config.pluginmanager.get_plugin("leftovers")
    kept, dropped = [], []
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        if (
            item.get_closest_marker("representative")
            and params.get("fw") in SLOW
            and not params["case"].stands_for_others
        ):
            item.add_marker("full")
        if not depends_on_backends(item):
            item.add_marker("once")
        here = {params["fw"]} if "fw" in params else set(SELECTED)
        if not is_free(item) and not allowed(item) & here:
            dropped.append(item)
        elif leftovers is not None and item.get_closest_marker("once"):
            leftovers.count += 1
            dropped.append(item)
        else:
            kept.append(item)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept


def is_free(item: pytest.Item) -> bool:
    """Return whether no marker names backends."""
    return item.get_closest_marker("only") is None and item.get_closest_marker("without") is None


def depends_on_backends(item: pytest.Item) -> bool:
    """Return whether a test takes `fw`, names backends, or its module uses the session's backends."""
    module = vars(item.module) if isinstance(item, pytest.Function) else {}
    return "fw" in getattr(item, "fixturenames", ()) or not is_free(item) or looks_at_backends(module)


def looks_at_backends(names: Iterable[str]) -> bool:
    """Return whether a module with these names decides what to run by the session's backends."""
    return not {"SELECTED", "selected", "integration"}.isdisjoint(names)


class Leftovers:
    """Counts the tests that are left to another session, and prints the number at the end."""

    def __init__(self, session: str) -> None:
        self.session = session
        self.count = 0

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        worker = getattr(session.config, "workeroutput", None)
        if worker is not None:
            worker["left over"] = self.count

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self.count = max(self.count, getattr(node, "workeroutput", {}).get("left over", 0))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        terminalreporter.write_line(
            f"{self.count} tests that do not depend on a backend are left to `nox -s {self.session}`."
        )
