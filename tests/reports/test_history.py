"""Reports over a run: which are kept, and how they are read."""

from __future__ import annotations

import contextlib
import csv
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.harness import Framework, framework
from tests.helpers.histories import history_of, report_of
from tests.helpers.resources import full_disk
from tests.helpers.samples import L1, L2, X
from xpenalties import Penalty, PenaltyReport, Pipeline, Report
from xpenalties._reports.history import GradientHistory
from xpenalties.backends import backend_of


class Unreadable(np.ndarray):
    """A number that must not be read."""

    def _read(self, *args: Any) -> Any:
        raise AssertionError("a figure was read")

    __float__ = __int__ = __index__ = __bool__ = __lt__ = __gt__ = item = tolist = _read


# which are kept


def test_every_kth_step(fw: Framework) -> None:
    history, report = GradientHistory(every=3), report_of({"a": fw.array(np.asarray(3.0))})
    for step in (0, 1, np.int64(2), fw.array(np.asarray(3)), 4, 6):
        assert history.wants(step) == (int(step) % 3 == 0)
        history.append(report, step)
    assert history.steps == [0, 3, 6] and {type(step) for step in history.steps} == {int}
    assert [step for step, _ in history] == [0, 3, 6] and len(history) == 3


def test_calls_are_counted() -> None:
    history = GradientHistory(every=2)
    for _ in range(5):
        history.append(report_of({}))
    assert history.steps == [0, 2, 4]
    history.append(report_of({}), 8)  # does not count
    history.append(report_of({}))
    history.append(report_of({}))
    assert history.steps == [0, 2, 4, 8, 6]


def test_the_oldest_goes() -> None:
    history = GradientHistory(maxlen=2)
    for step in range(4):
        history.append(report_of({"a": float(step)}), step)
        assert len(history.rows()) == min(step + 1, 2)  # reading keeps the bound
    assert [row["a/contribution"] for row in history.rows()] == [2.0, 3.0] and history.steps == [2, 3]
    for maxlen, arguments in ((1000, {}), (1002, {"maxlen": None})):
        bound = GradientHistory(**arguments)  # type: ignore[arg-type]
        for step in range(1002):
            bound.append(report_of({}), step)
        assert len(bound) == maxlen and bound.steps[-1] == 1001


def test_a_run_that_starts_again_and_clear() -> None:
    history = GradientHistory(every=2)
    for step in (4, 6, 4, 2):
        history.append(report_of({}), step)
    history.append(report_of({}))
    assert history.steps == [4, 6, 4, 2, 0]
    history.clear()
    assert len(history) == 0 and history.steps == [] and history.rows() == [] and list(history) == []
    history.append(report_of({}))
    assert history.steps == [0]


def test_kept_while_iterated_over() -> None:
    history = history_of(report_of({}), report_of({}))
    for _ in history:
        history.append(report_of({}))
    assert len(history) == 4


@pytest.mark.parametrize("name", ["every", "maxlen"])
def test_bounds(name: str) -> None:
    end = ". Pass a Python int" + (r"\." if name == "every" else r", or None to keep all\.")
    for value in (0, -3, np.int64(0)):
        with pytest.raises(ValueError, match=rf"^GradientHistory: `{name}` must be a positive integer, got .*{end}"):
            GradientHistory(**{name: value})
    for value in (True, 2.0, "2", np.asarray([1, 2])):
        with pytest.raises(TypeError, match=rf"^GradientHistory: `{name}` must be a positive integer, got .*{end}"):
            GradientHistory(**{name: value})
    GradientHistory(**{name: np.int64(1)})
    with pytest.raises(TypeError, match=r"^GradientHistory: `every` must be a positive integer, got None"):
        GradientHistory(every=None)  # type: ignore[arg-type]


def test_wrong_reports_and_steps() -> None:
    history = GradientHistory(every=2)
    for report in (None, {"a": 1.0}, Pipeline({"l1": 1.0}).compute(X)):
        with pytest.raises(
            TypeError, match=r"^GradientHistory.append: `report` must be a Report, got .* Pass the second"
        ):
            history.append(report, 1)  # type: ignore[arg-type]
    for step in (True, 2.0, "2", np.asarray(2.0), np.asarray([2])):
        with pytest.raises(
            TypeError, match=r"^GradientHistory.append: `step` must be an integer or a 0-d array of one"
        ):
            history.append(report_of({}), step)
        with pytest.raises(TypeError, match=r"^GradientHistory.wants: `step` must be an integer or a 0-d array of one"):
            history.wants(step)
    with pytest.raises(TypeError, match=r"^GradientHistory.wants: .* got None"):  # there is no default step
        history.wants(None)
    assert len(history) == 0 and history.rows() == []


def test_stacked_reports(fw: Framework) -> None:
    history = GradientHistory()
    with pytest.raises(
        ValueError, match=r"^GradientHistory.append: figures must be 0-d, got shape \(3,\). Append stack"
    ):
        history.append(report_of({"a": fw.array(np.ones(3))}))
    assert len(history) == 0 and history.rows() == []


@pytest.mark.mixed
@pytest.mark.only("jax", reason="is about reports that JAX traces")
def test_traced_reports() -> None:
    jax = framework("jax").module
    history, pipe = GradientHistory(), Pipeline({"l1": 0.5})

    def loss(x: Any, step: Any) -> Any:
        total, report = pipe.compute(x)
        history.append(report, step)
        return total

    with pytest.raises(
        TypeError, match=r"^GradientHistory.append: `report` must have values, got .* Return it from the"
    ):
        jax.jit(loss, static_argnums=1)(X, 0)
    with pytest.raises(TypeError, match=r"^GradientHistory.append: `step` must be an integer .* outside functions"):
        jax.jit(loss)(X, 0)
    assert len(history) == 0
    _, report = jax.jit(pipe.compute)(jax.numpy.asarray(X))
    history.append(report)
    assert next(copied for _, copied in history).loss_total is report.loss_total  # immutable
    assert history.rows()[0]["l1/contribution"] == 0.5 * L1


# when reports are read


def test_appending_reads_nothing() -> None:
    figure = np.asarray(3.0).view(Unreadable)
    with pytest.raises(AssertionError, match="a figure was read"):
        float(figure)
    history = GradientHistory()
    history.append(
        report_of({"a": figure}, {"a": figure}, base=figure, total_norm=figure, cosines={"a": {"a": figure}})
    )
    assert len(history) == 1 and history.steps == [0]
    [(step, report)] = history
    assert step == 0 and isinstance(report.total_grad_norm, np.ndarray)


def test_what_is_no_array_stays() -> None:
    figure = object()
    [(_, report)] = history_of(report_of({"a": figure}, cosines={"a": {"a": figure}}))
    assert report.regularizers["a"].contribution is figure and report.gradient_conflicts == {"a": {"a": figure}}


@pytest.mark.mixed
@pytest.mark.only("torch", reason="is about PyTorch's graphs")
def test_no_graph_is_kept() -> None:
    torch = framework("torch").module
    x = torch.ones(3, requires_grad=True)
    [(_, report)] = history_of(report_of({"a": (x * x).sum()}))
    assert not report.regularizers["a"].contribution.requires_grad


def test_one_transfer_for_all(fw: Framework, monkeypatch: pytest.MonkeyPatch) -> None:
    x = fw.array(np.asarray(3.0))
    backend = backend_of(x)
    transfers: list[int] = []
    to_floats = type(backend).to_floats

    def counted(self: Any, scalars: Sequence[Any]) -> list[float]:
        transfers.append(len(scalars))
        return to_floats(self, scalars)

    monkeypatch.setattr(type(backend), "to_floats", counted)
    history = GradientHistory()
    for _ in range(3):
        history.append(report_of({"a": x, "b": 2.0 * x}, {"a": x}, cosines={"a": {"a": x}}))
    assert [type(report.regularizers["a"].contribution) for _, report in history] == [type(x)] * 3 and transfers == []
    rows = history.rows()
    assert transfers == [12]  # two contributions, a norm and a cosine, of three reports
    assert history.rows() == rows and transfers == [12] and rows[2]["b/contribution"] == 6.0
    history.append(report_of({"a": x}))
    assert len(history.rows()) == 4 and transfers == [12, 1]
    assert [type(report.regularizers["a"].contribution) for _, report in history] == [float] * 4


def test_what_changes_in_place_is_kept_as_it_was(fw: Framework) -> None:
    weight = fw.array(np.asarray(0.5))
    history = GradientHistory()
    _, report = Pipeline([Penalty("l1", weight=weight), Penalty("l2")]).compute(fw.array(X))
    history.append(report)
    with contextlib.suppress(TypeError):  # JAX's arrays are immutable
        weight[...] = 7.0
    assert history.rows()[0]["l1/weight"] == 0.5 and history.rows()[0]["l2/value"] == L2


def test_rows_are_the_reports(fw: Framework) -> None:
    history = GradientHistory(every=5)
    pipe = Pipeline([Penalty("l1", weight=lambda step: 0.5 * step), Penalty("l2", weight=2)])
    flat = []
    for step in range(11):
        _, report = pipe.compute(fw.array(X), step=step)
        history.append(report, step)
        flat.append(report.flat())
    assert history.rows() == [{"step": step, **flat[step]} for step in (0, 5, 10)]
    assert next(iter(history.rows()[0])) == "step" and type(history.rows()[0]["step"]) is int


def test_rows_have_each_pair_once(fw: Framework) -> None:
    x = {name: fw.array(np.asarray(value)) for name, value in {"one": 1.0, "ab": 0.25, "ac": -0.5, "bc": 0.0}.items()}
    cosines = {
        "a": {"a": x["one"], "b": x["ab"], "c": x["ac"]},
        "b": {"a": x["ab"], "b": x["one"], "c": x["bc"]},
        "c": {"a": x["ac"], "b": x["bc"], "c": x["one"]},
    }
    row = history_of(report_of({"a": 1.0}, cosines=cosines)).rows()[0]
    assert {name: value for name, value in row.items() if name.startswith("gradient_conflicts")} == {
        "gradient_conflicts/a/b": 0.25,
        "gradient_conflicts/a/c": -0.5,
        "gradient_conflicts/b/c": 0.0,
    }


def test_an_error_is_kept() -> None:
    history = history_of(Report(1.0, None, {"a": PenaltyReport(None, 1.0, 0.0, error="no value")}, 1.0))
    assert history.rows() == [
        {"step": 0, "loss_total": 1.0, "regularizer_total": 1.0, "a/weight": 1.0, "a/contribution": 0.0}
    ]
    assert next(iter(history))[1].regularizers["a"].error == "no value"


# to a file and to pandas


def test_csv(tmp_path: Path) -> None:
    history = history_of(
        report_of({"a": 0.1}), report_of({"ä, b": math.nan}, {"ä, b": 1e-300}, base=math.inf), report_of({"a": -1 / 3})
    )
    history.to_csv(tmp_path / "run.csv")
    history.to_csv(str(tmp_path / "run.csv"))  # overwrites
    with (tmp_path / "run.csv").open(newline="", encoding="utf-8") as file:
        header, *cells = csv.reader(file)
    rows = history.rows()
    assert header == list(dict.fromkeys(name for row in rows for name in row)) and header[0] == "step"
    assert header.index("base_loss/value") > header.index("a/contribution")
    for row, line in zip(rows, cells, strict=True):
        read = {name: float(cell) for name, cell in zip(header, line, strict=True) if cell != ""}
        assert read == pytest.approx(row, rel=0, abs=0, nan_ok=True)
    assert cells[0][header.index("step")] == "0" and cells[0][header.index("base_loss/value")] == ""
    assert cells[1][header.index("base_loss/value")] == "inf" and cells[1][header.index("ä, b/contribution")] == "nan"


def test_a_full_disk_leaves_the_csv_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    path.write_text("what was there")
    history = history_of(report_of({"a": 0.1}))
    with full_disk(64), pytest.raises(OSError, match="too large"):
        history.to_csv(path)
    assert path.read_text() == "what was there" and list(tmp_path.iterdir()) == [path]


def test_csv_of_nothing(tmp_path: Path) -> None:
    GradientHistory().to_csv(tmp_path / "run.csv")
    assert (tmp_path / "run.csv").read_text("utf-8").split() == ["step"]


@pytest.mark.mixed
def test_pandas() -> None:
    history = history_of(report_of({"a": 0.5}), report_of({"b": 2.0}))
    table = history.to_pandas()
    assert table.index.name == "step" and table.index.to_list() == [0, 1]
    assert table.columns.to_list() == list(dict.fromkeys(name for row in history.rows() for name in row))[1:]
    assert (
        table["a/contribution"][0] == 0.5
        and math.isnan(table["a/contribution"][1])
        and table["b/contribution"][1] == 2.0
    )
    assert GradientHistory().to_pandas().shape == (0, 0) and GradientHistory().to_pandas().index.name == "step"


def test_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pandas", "matplotlib"):
        monkeypatch.setitem(sys.modules, module, None)
    history = history_of(report_of({}))
    with pytest.raises(
        ModuleNotFoundError, match=r"^GradientHistory.to_pandas needs .*: pip install pandas\."
    ) as caught:
        history.to_pandas()
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    with pytest.raises(
        ModuleNotFoundError, match=r'^GradientHistory.plot needs .*install "xpenalties\[plot\]"\.'
    ) as caught:
        history.plot()
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_repr_shows_how_it_is_made() -> None:
    assert repr(GradientHistory(every=10)) == "GradientHistory(every=10, maxlen=1000)"
    assert repr(GradientHistory(maxlen=None)) == "GradientHistory(every=1, maxlen=None)"
