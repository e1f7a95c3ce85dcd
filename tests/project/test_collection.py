"""The markers that say which session runs a test, and the results that sessions write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.collection import Leftovers, allowed, deselect, looks_at_backends
from tests.helpers.results import CELL, Results


class Item:
    """What the rules look at in a test; `fw` is its backend."""

    nodeid = "tests/test_it.py::test_it"

    def __init__(self, *marks: pytest.MarkDecorator, fw: str | None = None, **params: Any) -> None:
        self.marks = [mark.mark for mark in marks]
        if fw is not None:
            self.fixturenames = ["fw"]
            self.callspec = type("Callspec", (), {"params": {"fw": fw, **params}})

    def iter_markers(self, name: str) -> list[pytest.Mark]:
        return [mark for mark in self.marks if mark.name == name]

    def get_closest_marker(self, name: str) -> pytest.Mark | None:
        return next(iter(self.iter_markers(name)), None)

    def add_marker(self, name: str) -> None:
        self.marks.append(getattr(pytest.mark, name).mark)


class Config:
    """Collects what is deselected."""

    def __init__(self, leftovers: Leftovers | None = None) -> None:
        self.dropped: list[Any] = []
        self.hook = self.pluginmanager = self
        self.leftovers = leftovers

    def get_plugin(self, name: str) -> Any:
        return getattr(self, name)

    def pytest_deselected(self, items: list[Any]) -> None:
        self.dropped += items


def collected(items: list[Any], leftovers: Leftovers | None = None) -> list[Any]:
    config, before = Config(leftovers), list(items)
    deselect(config, items)  # type: ignore[arg-type]
    assert [item for item in before if item not in items] == config.dropped
    return items


def only(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.only(*names, reason="is about them")


def without(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.without(*names, reason="is about others")


def test_markers_leave_backends() -> None:
    assert allowed(Item(only("torch", "jax"), without("jax"))) == {"torch"}
    assert allowed(Item(without("dask"))) == allowed(Item()) - {"dask"}


@pytest.mark.parametrize(
    "mark",
    [pytest.mark.only("torch"), pytest.mark.only(reason="none"), without("tensorflow")],
    ids=["no reason", "no backend", "unknown"],
)
def test_markers_have_backends_and_a_reason(mark: pytest.MarkDecorator) -> None:
    with pytest.raises(pytest.UsageError, match=rf"::test_it: `{mark.name}` must have backends of .* and a `reason`"):
        allowed(Item(mark))


def test_other_backends_are_deselected() -> None:
    mine, other = Item(only("torch"), fw="torch"), Item(only("torch"), fw="jax")
    assert collected([mine, other]) == [mine]


def test_what_does_not_depend_on_backends_is_left_to_one_session() -> None:
    free, about, dependent = Item(), Item(without("dask"), fw="numpy"), Item(fw="numpy")
    leftovers = Leftovers("numpy-3.11")
    assert collected([free, about, dependent], leftovers) == [about, dependent]
    assert leftovers.count == 1
    assert collected([free]) == [free] and free.get_closest_marker("once")


@pytest.mark.parametrize("name", ["SELECTED", "selected", "integration"])
def test_modules_that_look_at_backends_stay_in_their_session(name: str) -> None:
    """Else the session `once`, which has other backends, would skip them, and no session would run them."""
    assert looks_at_backends({"np", name}) and not looks_at_backends({"np", "pytest"})


@pytest.mark.parametrize("backend", ["numpy", "jax"])
@pytest.mark.parametrize("first", [True, False])
def test_slow_backends_leave_rows_to_another_session(backend: str, first: bool) -> None:
    row = type("Row", (), {"stands_for_others": first})
    shared, formula = (Item(*marks, fw=backend, case=row) for marks in ([pytest.mark.representative], []))
    collected([shared, formula])
    assert bool(shared.get_closest_marker("full")) == (backend == "jax" and not first)
    assert not formula.get_closest_marker("full")


def test_results_are_those_of_all_workers(tmp_path: Path) -> None:
    """They reach the process that writes as properties of reports."""
    results = Results(tmp_path / "results" / "torch.json")
    for when, outcome in (("setup", "passed"), ("call", "passed"), ("call", "failed"), ("setup", "skipped")):
        properties = [(CELL, ["l1", "torch", "jit"]), ("another", 1)]
        report: Any = pytest.TestReport(
            "nodeid",
            ("file", 1, "test"),
            {},
            outcome,
            None,
            when,
            user_properties=properties,  # type: ignore[arg-type]
        )
        results.pytest_runtest_logreport(report)
    results.write()
    written = json.loads(results.path.read_text())
    assert written["session"] == "torch" and "python" in written["versions"]
    cell = {"function": "l1", "backend": "torch", "column": "jit", "passed": 1, "failed": 1, "skipped": 1}
    assert written["cells"] == [cell]
