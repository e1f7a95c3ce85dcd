"""A report's figures: right, constant, in every form they are read in."""

from __future__ import annotations

import json
import math
import unicodedata
from fractions import Fraction
from html.parser import HTMLParser
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


def test_a_table_where_one_has_a_grad_norm(fw: Framework) -> None:
    some, none = xp.PenaltyReport(1.0, 2.0, 2.0, grad_norm=3.0), xp.PenaltyReport(1.0, 2.0, 2.0)
    lines = str(xp.Report(4.0, None, {"a": some, "b": none}, 4.0)).splitlines()
    assert lines[0].endswith("grad norm") and lines[2].split()[-1] == "3" and lines[3].split()[-1] == "-"


def test_what_norms_are_with_respect_to(fw: Framework) -> None:
    """In the table's header. A norm that does not exist is a dash, with its reason below the table."""
    part = xp.PenaltyReport(1.0, 2.0, 2.0, 3.0, 6.0)
    free = xp.PenaltyReport(1.0, 2.0, 2.0, error="does not depend on wrt (params <1>)")
    report = xp.Report(6.0, xp.PenaltyReport(2.0, 1.0, 2.0), {"a": part, "free": free}, 4.0, None, None, "params <1>")
    assert str(report).splitlines() == [
        "penalty    value  weight  contribution  grad norm (params <1>)  grad norm weighted",
        "----------------------------------------------------------------------------------",
        "base loss      2                                             -",
        "a              1       2             2                       3                   6",
        "free           1       2             2                       -                   -",
        "total                                6                                           -",
        "free: does not depend on wrt (params <1>)",
    ]
    html = report._repr_html_()
    assert "grad norm (params &lt;1&gt;)" in html and html.count("<td>-</td>") == 4
    assert "<p>free: does not depend on wrt (params &lt;1&gt;)</p>" in html
    figures = report.to_dict()
    assert figures["regularizers"]["free"]["grad_norm"] is None and figures["total_grad_norm"] is None
    assert "free/grad_norm" not in report.flat() and '"grad_norm": null' in report.to_json()
    assert str(xp.Report(1.0, None, {"a": free}, 1.0, wrt="params <1>")).splitlines()[2].split()[-2:] == ["-", "-"]
    nothing = xp.Report(1.0, None, {"a": xp.PenaltyReport(1.0, 1.0, 1.0)}, 1.0)
    assert "grad norm" not in str(nothing)


def test_a_base_loss(fw: Framework) -> None:
    base = xp.PenaltyReport(2.0, None, None, grad_norm=3.0, metrics={"m": 5.0})
    report = xp.Report(2.0, base, {}, 0.0)
    assert report.to_dict()["base_loss"] == {"value": 2.0, "grad_norm": 3.0, "custom": {"m": 5.0}}


def test_figures_of_one_name(fw: Framework) -> None:
    one, other = (lambda x: (xp.l1(x), {"value": 7.0})), xp.l2
    _, report = Pipeline([Penalty(one, name="a"), Penalty(other, name="a/custom")]).compute(fw.array(X))
    with pytest.raises(
        ValueError, match=r"^Report.flat: two figures must not have one name, got 'a/custom/value' twice"
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


def test_as_text(fw: Framework) -> None:
    name = "a name so long that a table of a hundred columns has no room for it <b>"
    _, report = Pipeline([Penalty("l1", weight=0.5), Penalty("l2", name=name)]).compute(fw.array(X))
    text = str(report)
    assert text.splitlines()[2].split() == ["l1", "7.5", "0.5", "3.75"] and "…" in text
    assert max(map(len, text.splitlines())) <= 100
    part = xp.PenaltyReport(1.0, 2.0, 2.0, grad_norm=3.0, grad_norm_weighted=6.0)
    full = xp.Report(4.0, xp.PenaltyReport(2.0, None, None), {"l1": part}, 2.0, 6.5)
    assert str(full).splitlines() == [
        "penalty    value  weight  contribution  grad norm  grad norm weighted",
        "---------------------------------------------------------------------",
        "base loss      2                                -",
        "l1             1       2             2          3                   6",
        "total                                4                            6.5",
    ]
    assert full.to_dict()["base_loss"] == {"value": 2.0, "grad_norm": None, "custom": {}}


def report_of(*parts: tuple[str, Any], total: Any = 1.0, norm: Any = None) -> xp.Report:
    """A report of names and contributions; where there is a norm, all have it."""
    made = {name: xp.PenaltyReport(value, 1.0, value, norm, norm, {"m" * 200: 1.0}) for name, value in parts}
    return xp.Report(total, None, made, total, norm)


def columns(line: str) -> int:
    """Of a terminal."""
    marks = sum(unicodedata.category(c) == "Mn" for c in line)
    return len(line) - marks + sum(unicodedata.east_asian_width(c) in "WF" for c in line)


NAMES = [
    "a" * 500,
    "encoder.layers.11.attention.weights",
    "two\nlines\tand\x1b[31m red",
    "正則化" * 40,
    "e\u0301" * 60,
    "🜂🙂" * 30,
]


@pytest.mark.parametrize("norm", [None, -1.23456789e-308])
@pytest.mark.parametrize("value", [1.0, -1.23456789e-308, 1e308, math.nan, math.inf, None])
def test_a_hundred_columns(value: Any, norm: Any) -> None:
    long = report_of(*((name, value) for name in NAMES), ("l1", value), total=value, norm=norm)
    errors = {
        "words": "no gradient: " + "a reason of several words, " * 20,
        "one word " * 30: "x" * 350,
        "宽": "正" * 300,
        "lines": "Error:\n    at once\x07",
    }
    failed = {name: xp.PenaltyReport(None, 1.0, 0.0, error=error) for name, error in errors.items()}
    base = xp.PenaltyReport(value, None, None, norm, error="not differentiable")
    lines = str(xp.Report(value, base, {**long.regularizers, **failed}, value, norm)).splitlines()
    assert max(map(columns, lines)) <= 100 and all(map(str.isprintable, lines))
    heads = lines[2 : 2 + 13]
    assert [line.split()[0] for line in (heads[0], heads[7], heads[12])] == ["base", "l1", "total"]
    assert heads[1].startswith("aaaaaaaa") and "…" in heads[1]  # a shortened name has its start and its end
    assert heads[3].startswith("two lines and[31m") and "正則化正" in heads[4] and "🙂" in heads[6]
    lefts = {columns(line[: line.index("  1  ") + 3]) for line in heads[1:8] if "  1  " in line}
    assert len(lefts) <= 1  # what is wide does not move the figures
    notes = " ".join(lines[15:])
    assert notes.startswith("base loss: not differentiable words: no gradient: a reason of several words, a")
    assert notes.endswith("lines: Error: at once") and "x" * 90 in notes and all(len(line) > 2 for line in lines[15:])


def test_a_shortened_name_has_its_start_and_its_end() -> None:
    name, tiny = "encoder.layers.11.attention.weights.group_lasso", -1.23456789e-308
    part, more = xp.PenaltyReport(tiny, tiny, tiny), xp.PenaltyReport(tiny, tiny, tiny, tiny, tiny)
    for given, room, width in ((part, 40, 85), (more, 20, 100)):
        line = str(xp.Report(tiny, None, {name: given}, tiny)).splitlines()[2]
        start, end = line.split()[0].split("…")
        assert name.startswith(start) and name.endswith(end) and 0 <= len(start) - len(end) <= 1
        assert len(start + end) == room - 1 and len(line) == width


def test_no_contribution_is_minus_nothing() -> None:
    assert str(report_of(("a", -0.0))).splitlines()[2].split() == ["a", "0", "1", "0"]


def test_short_tables_stay_as_they_are() -> None:
    some = xp.Report(1.0, None, {"l1": xp.PenaltyReport(None, 0.5, 0.0, error="why")}, 1.0)
    assert str(some).splitlines() == [
        "penalty  value  weight  contribution",
        "------------------------------------",
        "l1                 0.5             0",
        "total                              1",
        "l1: why",
    ]


def test_penalties_of_any_name() -> None:
    part = xp.PenaltyReport(1.0, 2.0, 2.0)
    report = xp.Report(
        9.0, xp.PenaltyReport(5.0, None, None), {"total": part, "base loss": part, "base_loss": part}, 6.0
    )
    rows = [line.split() for line in str(report).splitlines()[2:]]
    assert rows == [
        ["base", "loss", "5"],
        ["total", "1", "2", "2"],
        ["base", "loss", "1", "2", "2"],
        ["base_loss", "1", "2", "2"],
        ["total", "9"],
    ]
    assert [name for name, *_ in html_of(report).rows] == [
        "penalty",
        "base loss",
        "total",
        "base loss",
        "base_loss",
        "total",
    ]


class Page(HTMLParser):
    """The cells of a table, the bars in them, and all the tags and attributes there are."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.bars: list[tuple[float, float]] = []  # where each begins, and its width, in percent
        self.zeros: list[float] = []  # where its line is
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.notes: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "p":
            self.notes.append("")
        style = dict(rule.split(":") for rule in (dict(attrs).get("style") or "").split(";") if rule)
        if "left" in style and "background" in style:
            self.bars.append((float(style["left"][:-1]), float(style["width"][:-1])))
        elif "left" in style:
            self.zeros.append(float(style["left"][:-1]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        (self.notes if self.open[-1] == "p" else self.rows[-1])[-1] += data


def html_of(report: xp.Report) -> Page:
    page = Page()
    page.feed(report._repr_html_())
    assert page.open == []
    return page


def test_html(fw: Framework) -> None:
    _, report = Pipeline([Penalty("l1", weight=0.5), Penalty("l2", name="a<b>&")]).compute(fw.array(X))
    html = report._repr_html_()
    assert "a&lt;b&gt;&amp;" in html and "<td>7.5</td>" in html and "http" not in html
    page = html_of(report)
    assert page.tags == {"div", "table", "thead", "tbody", "tr", "th", "td"}  # no scripts, nothing from elsewhere
    assert page.attributes == {"cellpadding", "style", "scope", "aria-hidden"}
    assert page.rows == [
        ["penalty", "value", "weight", "contribution", ""],
        ["l1", "7.5", "0.5", "3.75", ""],
        ["a<b>&", f"{L2:.6g}", "1", f"{L2:.6g}", ""],
        ["total", "", "", f"{0.5 * L1 + L2:.6g}", ""],
    ]
    assert page.bars == [(0, pytest.approx(100 * 3.75 / L2, rel=1e-3)), (0, 100)] and page.zeros == [0, 0]
    assert "color:inherit" in html and "currentColor" in html and "#" not in html  # of light pages and of dark ones


def test_bars_of_both_signs() -> None:
    page = html_of(report_of(("a", 1.0), ("b", -4.0), ("c", 0.0), ("d", math.nan), ("e", -math.inf), ("f", None)))
    assert page.bars == [(50, 12.5), (0, 50)] and page.zeros == [50] * 6
    assert [row[3] for row in page.rows[1:]] == ["1", "-4", "0", "nan", "-inf", "", "1"]
    assert {len(row) for row in page.rows} == {5}


@pytest.mark.parametrize(
    ("values", "bars"),
    [
        ([], []),
        ([0.0, -0.0], []),
        ([math.nan, math.inf, None], []),
        ([-3.0], [(0, 50)]),
        ([1e308, -1e308], [(50, 50), (0, 50)]),
        ([5e-324], [(0, 100)]),
        ([1.0, math.inf], [(0, 100)]),
    ],
)
def test_bars_of_odd_values(values: list[Any], bars: list[tuple[float, float]]) -> None:
    page = html_of(report_of(*((str(i), value) for i, value in enumerate(values)), total=math.nan))
    assert page.bars == bars and len(page.zeros) == len(values) and page.rows[-1][0] == "total"


def test_html_of_all_there_is() -> None:
    part = xp.PenaltyReport(1.0, 2.0, 2.0, 3.0, 6.0, error='no "<i>value"</i>')
    base = xp.PenaltyReport(2.0, None, None, 4.0, error="& why")
    page = html_of(xp.Report(4.0, base, {"<l1": part}, 2.0, 6.5))
    assert page.rows == [
        ["penalty", "value", "weight", "contribution", "", "grad norm", "grad norm weighted"],
        ["base loss", "2", "", "", "", "4", ""],
        ["<l1", "1", "2", "2", "", "3", "6"],
        ["total", "", "", "4", "", "", "6.5"],
    ]
    assert page.bars == [(0, 100)] and page.notes == ["base loss: & why", '<l1: no "<i>value"</i>']
