"""A pipeline as a table, in a terminal and in a notebook."""

from __future__ import annotations

from functools import partial
from html.parser import HTMLParser
from operator import attrgetter
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework
from tests.helpers.samples import mine, pair
from xpenalties import Penalty, Pipeline, RegularizedLoss, schedules, trees
from xpenalties._pipeline import pipeline_table


def made(weight: Any = 0.25) -> Pipeline:
    inputs = ("teacher", "student")
    sparse = trees.over_tree("l2", match="weight$", exclude=["norm", trees.Pattern(ndim=1)], options={"clip": 2.0})
    return Pipeline(
        [
            Penalty("l1"),
            Penalty("kl_divergence", name="distill", inputs=inputs, weight=0.5, options={"temperature": 2.0}),
            Penalty(sparse, name="sparse", inputs="params", every=16, weight=1e-5),
            Penalty(partial(pair, scale=2.0), inputs=lambda data: data, weight=schedules.constant(1.0)),
            Penalty(mine, weight=weight, enabled=False, differentiable=False, timeout=2.0, on_error="drop"),
        ],
        name="training",
    )


def test_a_nested_pipeline() -> None:
    inner = made()
    outer = Pipeline([Penalty(inner, name="inner", weight=0.5)])
    assert repr(outer["inner"]) == "Penalty(Pipeline 'training', name='inner', weight=0.5)"
    assert repr(outer).splitlines()[-1].split() == ["inner", "Pipeline", "'training'", "0.5", "all"]
    with pytest.raises(
        TypeError, match=r"must have a name to be in a configuration, got Pipeline 'training'\. Name it"
    ):
        outer.to_config()
    loss = Penalty(RegularizedLoss(mine, inner), name="loss", inputs="x")
    assert repr(loss).startswith("Penalty(RegularizedLoss of mine and Pipeline 'training', name='loss'")


def test_the_table() -> None:
    assert repr(made()) == str(made())
    assert repr(made()).splitlines() == [
        "Pipeline 'training'",
        "",
        "name     penalty         weight               inputs            options",
        "-" * 100,
        "l1       l1              1                    all",
        "distill  kl_divergence   0.5                  teacher, student  temperature=2.0",
        "sparse   l2 over a tree  1e-05                params            match='weight$', exclude=['norm',",
        "                                                                Pattern(ndim=1)], clip=2.0, every=16",
        "pair     pair            constant(value=1.0)  <lambda>",
        "mine     mine            0.25                 all               enabled=False, differentiable=False,",
        "                                                                timeout=2.0, on_error='drop'",
    ]


def test_a_table_without_a_column_that_repeats() -> None:
    assert repr(Pipeline({"l1": 1e-3, "l2": 1})).splitlines()[2:] == [
        "name  weight  inputs  options",
        "-----------------------------",
        "l1    0.001   all",
        "l2    1       all",
    ]
    assert repr(Pipeline(name="none")) == "Pipeline 'none' without penalties"


def test_a_weight_that_is_an_array(fw: Framework) -> None:
    weight = fw.array(np.asarray(0.25))
    assert any(line.startswith("mine") and repr(weight)[:5] in line for line in repr(made(weight)).splitlines())


def test_wide_tables_are_wrapped() -> None:
    names = ["encoder.layers.11.attention" * 6, "正則化" * 30, "two\nlines\x1b[31m"]
    options = {"center": "a" * 500}
    pipe = Pipeline([Penalty(lambda x, center: x, name=name, inputs=name, options=options) for name in names])
    lines = repr(pipe).splitlines()
    assert max(map(len, lines)) <= 100 and all(map(str.isprintable, lines))
    assert "center='aaaa" in repr(pipe) and repr(pipe).count("a") < 500


def test_inputs_by_parameter() -> None:
    assert pipeline_table._inputs({"log_p": "teacher", "where": attrgetter("mask")}) == (
        "log_p=teacher, where=operator.attrgetter('mask')"
    )


class Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows:
            self.rows[-1][-1] += data


def test_html() -> None:
    pipe = Pipeline([Penalty("l1", name="a<b>&"), Penalty("l2", weight=0.5, options={"center": 1.0})], name="<i>")
    html = pipe._repr_html_()
    assert "<b>" not in html and "<i>" not in html and "http" not in html and "#" not in html.replace("&#x27;", "")
    page = Cells()
    page.feed(html)
    assert page.tags == {"div", "p", "table", "thead", "tbody", "tr", "th", "td"}
    assert page.rows == [
        ["name", "penalty", "weight", "inputs", "options"],
        ["a<b>&", "l1", "1", "all", ""],
        ["l2", "l2", "0.5", "all", "center=1.0"],
    ]


def test_a_loss_shows_its_base_loss() -> None:
    pipe = Pipeline({"l1": 1.0})
    loss = RegularizedLoss(mine, pipe)
    assert repr(loss) == f"RegularizedLoss of mine and {pipe!r}"
    assert loss._repr_html_() == pipe._repr_html_().replace("<p>", "<p>RegularizedLoss of mine and ")


def test_a_partial_has_the_name_of_its_function() -> None:
    penalty = Penalty(partial(partial(pair, scale=2.0), np.zeros(2)), inputs=attrgetter("x"))
    assert penalty.name == "pair"
    assert repr(penalty) == "Penalty(partial(pair, array([0., 0.]), scale=2.0), inputs=operator.attrgetter('x'))"
    assert repr(Penalty(partial(mine), name="other")) == "Penalty(partial(mine), name='other')"


def test_penalties_over_trees_show_their_pattern() -> None:
    tree = trees.over_tree(xp.l1, match=["a", "b"], options={"reduction": "mean"})
    assert repr(tree) == "over_tree('l1', match=['a', 'b'], options={'reduction': 'mean'})"
    assert repr(trees.over_tree(partial(mine))) == "over_tree(partial(mine))"
    assert repr(Penalty(tree, name="sparse")) == f"Penalty({tree!r}, name='sparse')"
    assert repr(Penalty(tree)) == f"Penalty({tree!r})"
    assert trees.over_tree(partial(mine)).__name__ == "mine_over_tree"
