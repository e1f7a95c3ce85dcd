"""Means of reports: over an epoch, with weights, over processes."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework
from tests.helpers.made_reports import WEIGHTS, report_of, reports_of
from tests.helpers.processes import on_processes, on_processes_of_jax
from tests.helpers.samples import L1, L2, X
from xpenalties import Penalty, Pipeline, RegularizedLoss, Report


def test_the_mean_adds_up(fw: Framework) -> None:
    pipe = Pipeline([Penalty("l1", weight=0.5), Penalty("l2", weight=2.0, every=2)])
    loss = RegularizedLoss(lambda x: (xp.l2(x), {"seen": 4.0}), pipe)
    reports = [loss.compute(fw.array(X * (1 + step)), step=step)[1] for step in range(4)]
    mean = Report.mean(iter(reports))
    factors = np.asarray([1.0, 2.0, 3.0, 4.0])
    l1, l2 = mean["l1"], mean["l2"]
    assert (l1.value, l1.weight, l1.contribution) == pytest.approx((L1 * 2.5, 0.5, 0.5 * L1 * 2.5))
    # on two of four steps, with twice the weight
    assert (l2.value, l2.weight) == pytest.approx((L2 * (1 + 9) / 2, 2.0))
    assert l2.contribution == pytest.approx(4.0 * L2 * (1 + 9) / 4)
    assert mean.base_loss is not None and mean.base_loss.value == pytest.approx(L2 * np.mean(factors**2))
    assert mean.base_loss.metrics == {"seen": 4.0}
    assert l1.metrics == pytest.approx({"sum": L1 * 2.5, "mean": L1 * 2.5 / 4, "min": 0.5, "max": 16.0})
    assert mean.regularizer_total == pytest.approx(l1.contribution + l2.contribution)
    assert mean.loss_total == pytest.approx(mean.base_loss.contribution + mean.regularizer_total)
    assert list(mean) == ["base_loss", "l1", "l2"] and mean.total_grad_norm is None and mean.gradient_conflicts is None
    assert {type(x) for x in (mean.loss_total, l1.value, l1.weight, l1.contribution)} == {float}
    assert pickle.loads(pickle.dumps(mean)) == mean
    assert xp.GradientHistory(every=1).append(mean) is None and "share" in str(mean)


def test_weights(fw: Framework) -> None:
    reports = [Pipeline({"l1": 1.0}).compute(fw.array(X * factor))[1] for factor in (1.0, 2.0)]
    reports.append(Pipeline({"l1": 1.0}).compute(fw.array(X * math.nan))[1])
    for weights in ([1.0, 3.0, 0.0], np.asarray([1.0, 3.0, 0.0]), fw.array(np.asarray([1.0, 3.0, 0.0])), (1, 3, 0)):
        mean = Report.mean(reports, weights)
        assert mean.loss_total == mean["l1"].value == pytest.approx(L1 * 7 / 4)
    assert math.isnan(Report.mean(reports).loss_total)


@pytest.mark.needs("autodiff")
def test_gradients_are_means_over_the_reports_that_have_them(fw: Framework) -> None:
    pipe = Pipeline({"l1": 0.5, "l2": 2.0})
    tracked, other = pipe.compute(fw.array(X), gradient_conflicts=True)[1], pipe.compute(fw.array(X))[1]
    mean = Report.mean([other, tracked, other])
    want = tracked.to_dict()
    assert mean["l1"].grad_norm == pytest.approx(want["regularizers"]["l1"]["grad_norm"])
    assert mean["l2"].grad_norm_weighted == pytest.approx(want["regularizers"]["l2"]["grad_norm_weighted"])
    assert mean.total_grad_norm == pytest.approx(want["total_grad_norm"])
    assert mean.conflicts() == {a: pytest.approx(row) for a, row in tracked.conflicts().items()}


def test_a_penalty_that_was_dropped(fw: Framework) -> None:
    def fails(x: Any) -> Any:
        if float(xp.l1(x)) > 2 * L1:
            raise ValueError("too large")
        return xp.l1(x)

    pipe = Pipeline([Penalty(fails, weight=2.0, on_error="drop")])
    reports = [pipe.compute(fw.array(X))[1]]
    with pytest.warns(RuntimeWarning, match="was dropped"):
        reports.append(pipe.compute(fw.array(3 * X))[1])
    part = Report.mean(reports)["fails"]
    assert (part.value, part.contribution) == (L1, L1) and part.error == "dropped: ValueError: too large"


def test_extrema_of_batches_that_are_all_masked() -> None:
    def report(least: float, name: str = "min") -> Report:
        return Report(1.0, None, {"p": xp.PenaltyReport(1.0, 1.0, 1.0, metrics={name: least})}, 1.0)

    assert Report.mean([report(math.nan), report(2.0), report(1.0), report(math.nan)])["p"].metrics == {"min": 1.0}
    assert Report.mean([report(2.0, "max"), report(math.nan, "max"), report(3.0, "max")])["p"].metrics == {"max": 3.0}
    assert math.isnan(Report.mean([report(math.nan)])["p"].metrics["min"])
    assert Report.mean([report(1.0, "mine"), report(2.0, "mine")])["p"].metrics == {"mine": 1.5}


def test_what_is_refused() -> None:
    report = report_of(("a", 1.0))
    with pytest.raises(
        TypeError, match=r"^Report.mean: each of `reports` must be a Report, got tuple. Pass the second"
    ):
        Report.mean([(1.0, report)])  # type: ignore[list-item]
    with pytest.raises(
        TypeError, match=r"^Report.mean: `reports` must be several reports, got one Report\. Pass a list"
    ):
        Report.mean(report)  # type: ignore[arg-type]
    for reports, weights in (([], None), ([report, report], [0.0, 0.0])):
        with pytest.raises(
            ValueError, match=r"^Report.mean: at least one report must have a weight above 0, got none in"
        ):
            Report.mean(reports, weights)
    with pytest.raises(ValueError, match=r"^Report.mean: `weights` must have a number for each report, got 1 for 2."):
        Report.mean([report, report], [1.0])
    with pytest.raises(ValueError, match=r"^Report.mean: `weights` must be in \[0, inf\), got -1.0."):
        Report.mean([report], [-1.0])
    with pytest.raises(TypeError, match=r"^Report.mean: `weights` must be a number for each report, got 2.0. Pass a"):
        Report.mean([report], 2.0)  # type: ignore[arg-type]
    for gathered in (None, [1.0]):
        with pytest.raises(TypeError, match=r"^Report.mean: `gather` must return a list of what each process passed"):
            Report.mean([report], gather=lambda state, gathered=gathered: gathered)


def test_gathering_is_the_mean_of_all_reports() -> None:
    """A process may have no report, or penalties that another lacks."""
    here, there = report_of(("a", 1.0), ("b", 2.0), total=3.0), report_of(("a", 5.0), ("c", 3.0), total=8.0)
    for report, least in ((here, 2.0), (there, 1.0)):
        report["a"].metrics["min"] = least  # type: ignore[index]
    states: list[Any] = []
    for reports in ([here], [there, there], []):
        with pytest.raises(TypeError):
            Report.mean(reports, gather=states.append)  # type: ignore[arg-type]
    mean = Report.mean([], gather=lambda _: pickle.loads(pickle.dumps(states)))
    want = Report.mean([here, there, there])
    assert mean == want and list(mean) == ["a", "b", "c"]
    assert mean["b"].contribution == pytest.approx(2 / 3) and mean["b"].value == 2.0
    assert mean["a"].metrics == {"m" * 200: 1.0, "min": 1.0}


@pytest.mark.only("torch", "jax", reason="is about their processes")
def test_two_processes(fw: Framework, tmp_path: Path) -> None:
    if fw.name == "torch":
        on_processes(2, "reports.mean_processes", tmp_path)
        reports = [report for rank in (0, 1) for report in reports_of(fw.module.tensor, rank)]
    else:
        on_processes_of_jax(2, "reports.mean_processes_jax", tmp_path)
        reports = [report for rank in (0, 1) for report in reports_of(fw.module.numpy.asarray, rank)]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text("utf-8")) for rank in (0, 1))
    assert first == second == Report.mean(reports, [*WEIGHTS[0], *WEIGHTS[1]]).to_dict()
    assert first["regularizers"]["l1"]["value"] == pytest.approx((1 * 3 + 2 * 3 + 3 * 3 + 4 * 7) / 10)


@pytest.mark.only("jax", reason="is about collectives inside a compiled function")
def test_a_mean_over_devices(fw: Framework) -> None:
    """A report is a pytree, so jax.lax.pmean takes it."""
    import jax

    def mean(x: Any) -> Any:
        return jax.lax.pmean(Pipeline({"l1": 0.5}).compute(x)[1], "devices")

    report = jax.jit(jax.vmap(mean, axis_name="devices", out_axes=None))(fw.array(np.stack([X, 3 * X])))
    assert report.to_dict()["regularizers"]["l1"]["contribution"] == pytest.approx(0.5 * 2 * L1)


def test_what_the_norms_of_a_mean_are_with_respect_to() -> None:
    """A report without norms does not count. If reports differ, all of it is named."""
    part = xp.PenaltyReport(1.0, 1.0, 1.0, 2.0, 2.0)
    by_params, by_hidden = (xp.Report(1.0, None, {"a": part}, 1.0, 2.0, wrt=wrt) for wrt in ("params", "hidden"))
    without = xp.Report(1.0, None, {"a": xp.PenaltyReport(1.0, 1.0, 1.0)}, 1.0)
    assert Report.mean([by_params, without]).wrt == "params" and Report.mean([without]).wrt is None
    assert Report.mean([by_params, by_hidden]).wrt == "hidden or params"
    gathered = Report.mean([by_params], gather=lambda sums: [sums, pickle.loads(pickle.dumps(sums))])
    assert gathered.wrt == "params" and "grad norm (params)" in str(gathered)
