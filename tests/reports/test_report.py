"""A report's figures: right, constant, in every form they are read in."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework
from tests.helpers.samples import L1, L2, X, mine, with_metrics
from xpenalties import Penalty, Pipeline


def test_metrics_of_a_callable(fw: Framework) -> None:
    _, report = Pipeline([Penalty(with_metrics), Penalty(mine)]).compute(fw.array(X))
    assert report.to_dict()["regularizers"]["with_metrics"]["custom"] == {"largest": 4.0, "note": 4.0}
    assert report.to_dict()["regularizers"]["mine"]["custom"] == {}
    assert float(Pipeline([Penalty(with_metrics)])(fw.array(X))) == L2


def test_an_array_as_weight(fw: Framework) -> None:
    total, report = Pipeline({"l1": fw.array(np.asarray(0.1))}).compute(fw.array(X, "float32"))
    assert report.regularizers["l1"].contribution.dtype == fw.dtype("float32")
    figures = report.to_dict()["regularizers"]["l1"]
    assert figures["weight"] == 0.1 and figures["contribution"] == float(total)


@pytest.mark.only("numpy", "torch", reason="needs arrays that change in place")
def test_a_weight_that_changes_in_place(fw: Framework) -> None:
    weight = fw.array(np.asarray(0.5))
    _, report = Pipeline({"l1": weight}).compute(fw.array(X))
    weight += 1  # as an optimizer does
    assert report.to_dict()["regularizers"]["l1"]["weight"] == 0.5


def test_flat_has_zeros(fw: Framework) -> None:
    flat = Pipeline({"l1": 0.0}).compute(fw.array(X))[1].flat()
    assert flat["l1/weight"] == 0.0 and flat["loss_total"] == 0.0


def test_a_base_loss(fw: Framework) -> None:
    base = xp.PenaltyReport(2.0, None, None, grad_norm=3.0, metrics={"m": 5.0})
    report = xp.Report(2.0, base, {}, 0.0)
    assert report.to_dict()["base_loss"] == {"value": 2.0, "grad_norm": 3.0, "custom": {"m": 5.0}}


def test_figures_of_one_name(fw: Framework) -> None:
    one, other = (lambda x: (xp.l1(x), {"value": 7.0})), xp.l2
    _, report = Pipeline([Penalty(one, name="a"), Penalty(other, name="a/custom")]).compute(fw.array(X))
    with pytest.raises(
        ValueError, match=r"^Report.flat: two figures must not have the same name, got 'a/custom/value' twice"
    ):
        report.flat("train/")


def test_stacked_figures(fw: Framework) -> None:
    part = xp.PenaltyReport(fw.array(np.ones(3)), 1.0, fw.array(np.ones(3)))
    report = xp.Report(fw.array(np.ones(3)), None, {"p": part}, 1.0)
    for read in (report.to_dict, report.flat, report.to_json, report.__str__):
        with pytest.raises(
            ValueError, match=r"^Report: figures must be 0-d to be read, got shape \(3,\). Index stacked"
        ):
            read()


def test_json_takes_any_option(fw: Framework) -> None:
    _, report = Pipeline({"l1": 1.0}).compute(fw.array(X))
    assert json.loads(report.to_json(allow_nan=True, indent=1)) == report.to_dict()


def test_metrics_that_are_numbers_are_floats(fw: Framework) -> None:
    numbers = {
        "bool": True,
        "int": 3,
        "half": Fraction(1, 2),
        "scalar": np.float32(0.25),
        "array": fw.array(X)[0, 0] > 0,
    }
    _, report = Pipeline([Penalty(lambda x: (xp.l1(x), numbers), name="p")]).compute(fw.array(X))
    got = report.to_dict()["regularizers"]["p"]["custom"]
    assert got == {"bool": 1.0, "int": 3.0, "half": 0.5, "scalar": 0.25, "array": 1.0}
    assert {type(value) for value in got.values()} == {float}
    assert json.loads(report.to_json())["regularizers"]["p"]["custom"] == got


def test_metrics_under_masks(fw: Framework) -> None:
    where = fw.array(np.asarray([[True, False], [True, False]]))
    weights = fw.array(np.asarray([[2.0, 1.0], [1.0, 1.0]]))
    nothing = fw.array(np.asarray(False))
    pipe = Pipeline(
        [
            Penalty("l1", options={"where": where, "weights": weights, "reduction": "mean"}),
            Penalty("l2", options={"where": nothing}),
        ]
    )
    custom = {name: part["custom"] for name, part in pipe.compute(fw.array(X))[1].to_dict()["regularizers"].items()}
    assert custom["l1"] == {"sum": 2.5, "mean": pytest.approx(2.5 / 3), "min": 0.5, "max": 1.0}
    assert custom["l2"]["sum"] == 0.0 and all(math.isnan(custom["l2"][name]) for name in ("mean", "min", "max"))
    empty = Pipeline({"l1": 1.0}).compute(fw.array(np.zeros((0, 2))))[1].to_dict()["regularizers"]["l1"]["custom"]
    assert empty["sum"] == 0.0 and all(math.isnan(empty[name]) for name in ("mean", "min", "max"))


@pytest.mark.needs("autodiff")
def test_a_dict_has_figures_only(fw: Framework) -> None:
    pipe = Pipeline([Penalty("l1"), Penalty(lambda x: 1.0, name="constant")])
    _, report = pipe.compute(fw.array(X), track_grad_norms=True)
    assert report.wrt == "inputs" and report["constant"].error is not None
    figures = report.to_dict()
    parts = figures.pop("regularizers")
    assert not {"wrt", "error"} & {*figures, *parts["constant"]}
    assert {type(value) for value in report.flat().values()} == {float}


@pytest.mark.needs("autodiff")
def test_the_report_is_detached(fw: Framework) -> None:
    def figures(report: Any) -> list[Any]:
        parts = report.regularizers.values()
        of_parts = [y for part in parts for y in (part.value, part.contribution, part.weight, *part.metrics.values())]
        return [report.loss_total, report.regularizer_total, *of_parts]

    where = fw.array(X > 0)
    pipes = (
        lambda w: Pipeline([Penalty("l1", weight=w), Penalty(with_metrics)]),
        lambda w: Pipeline([Penalty("l2", weight=w, options={"where": where, "weights": fw.array(np.abs(X))})]),
    )
    for make in pipes:
        for i in range(len(figures(make(1.0).compute(fw.array(X))[1]))):

            def through_the_report(nest: Any, make: Any = make, i: int = i) -> Any:
                total, report = make(nest["w"]).compute(nest["x"])
                return 0.0 * total + figures(report)[i]

            gradient = xp.grad(through_the_report)({"x": fw.array(X), "w": fw.array(np.asarray(0.5))})
            assert (fw.numpy(gradient["x"]) == 0).all() and float(gradient["w"]) == 0, i


def test_figures_keep_their_precision(fw: Framework) -> None:
    total, report = Pipeline([Penalty("l1", weight=0.1)]).compute(fw.array(np.asarray([0.3])))
    part = report.to_dict()["regularizers"]["l1"]
    assert part["value"] == 0.3 and part["weight"] == 0.1 and part["contribution"] == 0.1 * 0.3 == float(total)


def test_to_json(fw: Framework) -> None:
    x = fw.array(np.asarray([math.inf, math.nan]))
    _, report = Pipeline([Penalty("l1", name="bad"), Penalty(lambda x: -math.inf, name="low")]).compute(x)
    loaded = json.loads(report.to_json(indent=1), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert loaded["regularizers"]["bad"]["value"] == "NaN" and loaded["regularizers"]["low"]["value"] == "-Infinity"
    assert loaded["regularizers"]["bad"]["custom"]["sum"] == "NaN" and loaded["base_loss"] is None
    _, report = Pipeline({"l1": 1.0}).compute(fw.array(np.asarray([math.inf])))
    assert json.loads(report.to_json())["loss_total"] == "Infinity"


def test_flat(fw: Framework) -> None:
    _, report = Pipeline([Penalty("l1", weight=0.5), Penalty(with_metrics, name="m")]).compute(fw.array(X))
    assert report.flat("train/") == {
        "train/loss_total": 0.5 * L1 + L2,
        "train/regularizer_total": 0.5 * L1 + L2,
        "train/l1/value": L1,
        "train/l1/weight": 0.5,
        "train/l1/contribution": 0.5 * L1,
        "train/l1/custom/sum": L1,
        "train/l1/custom/mean": L1 / 4,
        "train/l1/custom/min": 0.5,
        "train/l1/custom/max": 4.0,
        "train/m/value": L2,
        "train/m/weight": 1.0,
        "train/m/contribution": L2,
        "train/m/custom/largest": 4.0,
        "train/m/custom/note": 4.0,
    }


def test_a_report_is_read_like_a_mapping(fw: Framework) -> None:
    pipe = Pipeline([Penalty("l1", weight=0.5), Penalty("l2")])
    _, report = pipe.compute(fw.array(X))
    assert report["l1"] is report.regularizers["l1"] and float(report["l2"].value) == L2
    assert list(report) == list(report.keys()) == ["l1", "l2"] and len(report) == 2
    assert dict(report) == report.regularizers == dict(report.items()) and next(iter(report.values())) is report["l1"]
    assert "l1" in report and "base_loss" not in report and "l3" not in report
    with pytest.raises(KeyError, match=r"Report: no penalty is named 'l3'. The names are 'l1', 'l2'\. Did you mean"):
        report["l3"]
    _, report = xp.RegularizedLoss(xp.l2, pipe).compute(fw.array(X))
    assert list(report) == ["base_loss", "l1", "l2"] and report["base_loss"] is report.base_loss
    assert bool(xp.Report(0.0, None, {}, 0.0)) and len(xp.Report(0.0, None, {}, 0.0)) == 0


def test_brief(fw: Framework) -> None:
    pipe = Pipeline([Penalty("l1", name="two\nlines", weight=0.5), Penalty(lambda x: -xp.l1(x), name="bonus")])
    _, report = xp.RegularizedLoss(xp.l2, pipe).compute(fw.array(X))
    assert report.brief() == "loss 17.5 two lines 12% bonus -23%"
    assert (
        xp.Report(math.nan, None, {"p": xp.PenaltyReport(math.nan, 1.0, math.nan)}, math.nan).brief()
        == "loss nan p nan%"
    )
    assert report.share == pytest.approx({"base_loss": 21.25 / 32.5, "two\nlines": 3.75 / 32.5, "bonus": -7.5 / 32.5})


@pytest.mark.only("jax", "torch", reason="traces functions")
def test_a_report_that_is_traced(fw: Framework) -> None:
    texts: list[str] = []

    def read_inside(x: Any) -> Any:
        total, report = Pipeline({"l1": 1.0}).compute(x)
        texts.extend((str(report), report._repr_html_()))
        for read in (report.to_dict, report.flat, report.to_json, report.brief, lambda: report.share):
            with pytest.raises(TypeError, match=rf"^Report: this Report is traced by {fw.name}, so it has no"):
                read()
        with pytest.raises(TypeError, match=r"^Report: this Report is traced"):
            xp.Report.mean([report])
        return total

    if fw.name == "jax":
        fw.module.jit(read_inside)(fw.array(X))
    else:
        fw.module.func.vmap(read_inside)(fw.array(X))
        read_inside(fw.module.zeros(2, device="meta"))
    assert set(texts) == {f"This Report is traced by {fw.name}: return it from the function to read it."}
    assert str(Pipeline({"l1": 1.0}).compute(fw.array(X))[1]).startswith("penalty")


@pytest.mark.only("torch", reason="is about the tensors of torch.func")
def test_a_report_under_grad_has_numbers(fw: Framework) -> None:
    def total(x: Any) -> Any:
        value, report = Pipeline({"l1": 1.0}).compute(x)
        assert report.flat()["l1/value"] == L1
        return value

    fw.module.func.grad(total)(fw.array(X))
