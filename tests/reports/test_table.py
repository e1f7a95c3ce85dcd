"""A report as a table of text."""

from __future__ import annotations

import math
import unicodedata
from typing import Any

import pytest

import xpenalties as xp
from tests.helpers.harness import Framework
from tests.helpers.made_reports import report_of
from tests.helpers.samples import X
from xpenalties import Penalty, Pipeline


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
        "penalty    value  weight  contribution   share  grad norm (params <1>)  grad norm weighted",
        "------------------------------------------------------------------------------------------",
        "base loss      2       1             2  33.3 %                       -                   -",
        "a              1       2             2  33.3 %                       3                   6",
        "free           1       2             2  33.3 %                       -                   -",
        "total                                6                                                   -",
        "free: does not depend on wrt (params <1>)",
    ]
    html = report._repr_html_()
    assert "grad norm (params &lt;1&gt;)" in html and html.count(">-</td>") == 5
    assert "<p>free: does not depend on wrt (params &lt;1&gt;)</p>" in html
    figures = report.to_dict()
    assert figures["regularizers"]["free"]["grad_norm"] is None and figures["total_grad_norm"] is None
    assert "free/grad_norm" not in report.flat() and '"grad_norm": null' in report.to_json()
    assert str(xp.Report(1.0, None, {"a": free}, 1.0, wrt="params <1>")).splitlines()[2].split()[-2:] == ["-", "-"]
    nothing = xp.Report(1.0, None, {"a": xp.PenaltyReport(1.0, 1.0, 1.0)}, 1.0)
    assert "grad norm" not in str(nothing)


def test_as_text(fw: Framework) -> None:
    name = "a name so long that a table of a hundred columns has no room for it <b>"
    _, report = Pipeline([Penalty("l1", weight=0.5), Penalty("l2", name=name)]).compute(fw.array(X))
    text = str(report)
    assert text.splitlines()[2].split() == ["l1", "7.5", "0.5", "3.75", "15.0", "%"] and "…" in text
    assert max(map(len, text.splitlines())) <= 100
    part = xp.PenaltyReport(1.0, 2.0, 2.0, grad_norm=3.0, grad_norm_weighted=6.0)
    full = xp.Report(4.0, xp.PenaltyReport(2.0, None, None), {"l1": part}, 2.0, 6.5)
    assert str(full).splitlines() == [
        "penalty    value  weight  contribution   share  grad norm  grad norm weighted",
        "-----------------------------------------------------------------------------",
        "base loss      2       1             2  50.0 %          -                 -",
        "l1             1       2             2  50.0 %          3                 6",
        "total                                4                                    6.5",
    ]
    assert full.to_dict()["base_loss"] == {"value": 2.0, "grad_norm": None, "custom": {}}


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


@pytest.mark.parametrize("wrt", ["hidden, logits, prediction", "a" * 300, "正" * 40, "two\nlines " * 9])
def test_what_norms_are_with_respect_to_may_be_long(wrt: str) -> None:
    tiny = -1.23456789e-308
    part = xp.PenaltyReport(tiny, tiny, tiny, tiny, tiny)
    lines = str(xp.Report(tiny, None, {"encoder": part}, tiny, tiny, wrt=wrt)).splitlines()
    assert max(map(columns, lines)) <= 100 and all(map(str.isprintable, lines))
    assert lines[0].endswith("  grad norm  grad norm weighted")
    assert lines[2].startswith("encoder ") and lines[3].startswith("total")
    assert " ".join(map(str.strip, lines[4:])).startswith("grad norm: with respect to " + " ".join(wrt.split())[:20])


def test_what_norms_are_with_respect_to_may_be_wide() -> None:
    part = xp.PenaltyReport(1.0, 2.0, 2.0, 3.0, 6.0)
    lines = str(xp.Report(1.0, None, {"l1": part}, 1.0, 1.0, wrt="正則化")).splitlines()
    assert lines[0].endswith("  grad norm (正則化)  grad norm weighted") and len(set(map(columns, lines))) == 1


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
    for given, room, width in ((part, 40, 90), (more, 17, 100)):
        line = str(xp.Report(tiny, None, {name: given}, tiny)).splitlines()[2]
        start, end = line.split()[0].split("…")
        assert name.startswith(start) and name.endswith(end) and 0 <= len(start) - len(end) <= 1
        assert len(start + end) == room - 1 and len(line) == width


def test_no_contribution_is_minus_nothing() -> None:
    assert str(report_of(("a", -0.0))).splitlines()[2].split() == ["a", "0", "1", "0", "0.0", "%"]


def test_short_tables_stay_as_they_are() -> None:
    some = xp.Report(1.0, None, {"l1": xp.PenaltyReport(None, 0.5, 0.0, error="why")}, 1.0)
    assert str(some).splitlines() == [
        "penalty  value  weight  contribution  share",
        "-------------------------------------------",
        "l1                 0.5             0  0.0 %",
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
        ["base", "loss", "5", "1", "5", "45.5", "%"],
        ["total", "1", "2", "2", "18.2", "%"],
        ["base", "loss", "1", "2", "2", "18.2", "%"],
        ["base_loss", "1", "2", "2", "18.2", "%"],
        ["total", "9"],
    ]


def test_four_digits_with_the_points_below_each_other() -> None:
    values = (0.7, 12.5, -0.183259, 3.0, 123456.7, 1234567.8, 1.5e-5)
    lines = str(report_of(*((f"p{i}", value) for i, value in enumerate(values)))).splitlines()
    start = lines[0].index("value") + len("value")
    assert [line[:start].rstrip() for line in lines[2:-1]] == [
        "p0            0.7",
        "p1           12.5",
        "p2           -0.1833",
        "p3            3",
        "p4       123457",
        "p5            1.235e+06",
        "p6            1.5e-05",
    ]


def test_shares_are_of_the_sum_of_the_magnitudes() -> None:
    base = xp.PenaltyReport(3.0, None, None)
    parts = {"kl": xp.PenaltyReport(1.0, 4.0, 4.0), "bonus": xp.PenaltyReport(-3.0, 1.0, -3.0)}
    report = xp.Report(4.0, base, parts, 1.0)
    assert report.share == {"base_loss": 0.3, "kl": 0.4, "bonus": -0.3}
    assert [line[-7:] for line in str(report).splitlines()[2:5]] == [" 30.0 %", " 40.0 %", "-30.0 %"]


@pytest.mark.parametrize(
    ("values", "shares"),
    [
        ((0.0, -0.0), [0.0, 0.0]),
        ((1.5e308, -1.5e308), [0.5, -0.5]),
        ((5e-324,), [1.0]),
        ((math.nan, 1.0), [math.nan, math.nan]),
        ((math.inf, 1.0), [math.nan, math.nan]),
    ],
)
def test_shares_of_odd_values(values: tuple[float, ...], shares: list[float]) -> None:
    report = report_of(*((str(i), value) for i, value in enumerate(values)))
    assert list(report.share.values()) == pytest.approx(shares, nan_ok=True)
    cells = [line.split()[4] for line in str(report).splitlines()[2:-1]]
    assert cells == ["nan" if math.isnan(share) else f"{100 * share:z.1f}" for share in shares]
