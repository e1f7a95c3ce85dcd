"""A report as an HTML table with bars."""

from __future__ import annotations

import math
from html.parser import HTMLParser
from typing import Any

import pytest

import xpenalties as xp
from tests.helpers.harness import Framework
from tests.helpers.made_reports import report_of
from tests.helpers.samples import L1, L2, X
from xpenalties import Penalty, Pipeline


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
    assert "a&lt;b&gt;&amp;" in html and ">7.5\u2007</td>" in html and "http" not in html
    page = html_of(report)
    assert page.tags == {"div", "table", "thead", "tbody", "tr", "th", "td"}  # no scripts, nothing from elsewhere
    assert page.attributes == {"cellpadding", "style", "scope", "aria-hidden"}
    assert page.rows == [
        ["penalty", "", "value", "weight", "contribution", "share"],
        ["l1", "", "7.5\u2007", "0.5", "3.75", "15.0 %"],
        ["a<b>&", "", "21.25", "1\u2008\u2007", "21.25", "85.0 %"],
        ["total", "", "", "", "25\u2008\u2007\u2007", ""],
    ]
    assert page.bars == [(0, pytest.approx(100 * 0.5 * L1 / L2, rel=1e-3)), (0, 100)] and page.zeros == [0, 0]
    assert "color:inherit" in html and "currentColor" in html and "#" not in html  # of light pages and of dark ones


def test_bars_of_both_signs() -> None:
    page = html_of(report_of(("a", 1.0), ("b", -4.0), ("c", 0.0), ("d", math.nan), ("e", -math.inf), ("f", None)))
    assert page.bars == [(50, 12.5), (0, 50)] and page.zeros == [50] * 6
    assert [row[4] for row in page.rows[1:]] == ["1", "-4", "0", "nan", "-inf", "", "1"]
    assert {len(row) for row in page.rows} == {6}


def test_the_base_loss_has_a_bar_so_that_the_bars_add_up() -> None:
    part = xp.PenaltyReport(2.0, 0.5, 1.0)
    page = html_of(xp.Report(5.0, xp.PenaltyReport(4.0, None, None), {"l1": part}, 1.0))
    assert page.bars == [(0, 100), (0, 25)]
    assert [row[5] for row in page.rows] == ["share", "80.0 %", "20.0 %", ""]


def test_bars_are_visible_on_a_narrow_screen() -> None:
    """They come right after the names, which shrink to 6em, so they need 14em: about 200 of 390 pixels."""
    html = report_of(("a" * 200, 1.0))._repr_html_()
    assert html.index('<div style="position:relative;width:8em') < html.index(">1</td>")
    assert "min-width:6em" in html and "overflow-wrap:anywhere" in html


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
        ["penalty", "", "value", "weight", "contribution", "share", "grad norm", "grad norm weighted"],
        ["base loss", "", "2", "1", "2", "50.0 %", "4", "4\u2008\u2007"],
        ["<l1", "", "1", "2", "2", "50.0 %", "3", "6\u2008\u2007"],
        ["total", "", "", "", "4", "", "", "6.5"],
    ]
    assert page.bars == [(0, 100), (0, 100)] and page.notes == ["base loss: & why", '<l1: no "<i>value"</i>']
