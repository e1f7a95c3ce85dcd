"""The picture of a GradientHistory: its lines, colours, panels, names and widths."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.histories import COSINES, history_of, report_of
from tests.helpers.resources import full_disk
from xpenalties._reports.history import GradientHistory


def lines_of(ax: Any) -> dict[str, Sequence[float]]:
    return {line.get_label(): [*line.get_ydata()] for line in ax.get_lines()}


@pytest.mark.mixed
def test_the_lines_are_the_figures() -> None:
    history = GradientHistory(every=10)
    for i in range(3):
        history.append(
            report_of(
                {"a": 1.0 + i, "b": -2.0}, {"a": 0.1 * i, "b": 3.0}, base=5.0 - i, base_norm=7.0, total_norm=8.0 + i
            ),
            10 * i,
        )
    contributions, norms = history.plot().axes
    assert lines_of(contributions) == {"base loss": [5.0, 4.0, 3.0], "a": [1.0, 2.0, 3.0], "b": [-2.0] * 3}
    drawn = lines_of(norms)
    assert drawn.pop("a") == pytest.approx([math.nan, 0.1, 0.2], nan_ok=True)  # no logarithm of 0
    assert drawn == {"base loss": [7.0] * 3, "b": [3.0] * 3, "total": [8.0, 9.0, 10.0]}
    assert all([*line.get_xdata()] == [0, 10, 20] for ax in (contributions, norms) for line in ax.get_lines())
    assert norms.get_yscale() == "log" and contributions.get_yscale() == "linear"
    assert [text.get_text() for text in contributions.get_legend().get_texts()] == ["base loss", "a", "b", "total"]
    assert contributions.get_lines()[0].get_linestyle() == "--" and norms.get_xlabel() == "step"
    assert contributions.get_xlim() == norms.get_xlim() and (norms.get_xticks() % 1 == 0).all()
    contributions.set_xlim(3, 4)
    assert norms.get_xlim() == (3, 4)


@pytest.mark.mixed
def test_a_penalty_has_one_colour() -> None:
    names = [f"penalty {i}" for i in range(12)]
    first = report_of(dict.fromkeys(names, 1.0), dict.fromkeys(names[6:], 2.0), base=1.0, base_norm=1.0)
    contributions, norms = history_of(first, first).plot().axes
    looks = {line.get_label(): (line.get_color(), line.get_linestyle()) for line in contributions.get_lines()}
    assert len(set(looks.values())) == 13
    assert {line.get_label(): (line.get_color(), line.get_linestyle()) for line in norms.get_lines()} == {
        name: looks[name] for name in ("base loss", *names[6:])
    }
    entries = contributions.get_legend().get_lines()
    assert [(entry.get_color(), entry.get_linestyle()) for entry in entries] == [*looks.values()]


@pytest.mark.mixed
@pytest.mark.parametrize(
    ("cycle", "looks"),
    [
        ({"color": ["#ff0000", "#777777", "#0000ff"]}, [("#ff0000", "-"), ("#0000ff", "-"), ("#ff0000", ":")]),
        ({"color": ["#ff0000", "#0000ff"], "linestyle": [":", "-."]}, [("#ff0000", ":"), ("#0000ff", "-.")]),
        ({"color": ["0.2", "0.6"]}, [("0.2", "-"), ("0.6", "-"), ("0.2", ":")]),
        ({"linestyle": ["-", ":"]}, [("C0", "-"), ("C0", ":")]),
        ({"color": ["r"]}, [("r", style) for style in ("-", ":", "-.", "--", "-")]),
    ],
)
def test_the_users_colours(cycle: dict[str, list[Any]], looks: list[tuple[Any, Any]]) -> None:
    import matplotlib
    from matplotlib.colors import to_hex
    from matplotlib.rcsetup import cycler

    names = [f"penalty {i}" for i in range(len(looks))]
    with matplotlib.rc_context({"axes.prop_cycle": cycler(**cycle)}):
        lines = history_of(report_of(dict.fromkeys(names, 1.0))).plot().axes[0].get_lines()
        if "color" in cycle:
            assert [(to_hex(line.get_color()), line.get_linestyle()) for line in lines] == [
                (to_hex(color), style) for color, style in looks
            ]
        assert [line.get_linestyle() for line in lines] == [style for _, style in looks]


@pytest.mark.mixed
@pytest.mark.parametrize("name", ["run.png", "run.svg", "run"])
def test_a_full_disk_leaves_the_figure_as_it_was(tmp_path: Path, name: str) -> None:
    path, history = tmp_path / (name if "." in name else "run.png"), history_of(report_of({"a": 1.0}))
    history.plot(tmp_path / name)
    before = path.read_bytes()
    with full_disk(64), pytest.raises(OSError, match="too large"):
        history.plot(tmp_path / name, title="another")
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.mixed
def test_gaps_in_the_lines(tmp_path: Path) -> None:
    cells: list[tuple[Any, Any]] = [(1.0, 1.0), (None, None), (2.0, 3.0), (math.nan, 0.0), (4.0, math.inf), (5.0, 2.0)]
    reports = [report_of({} if value is None else {"a": value}, {"a": norm}) for value, norm in cells]
    figure = history_of(*reports).plot(tmp_path / "gaps.png")
    [values], [norms] = (ax.get_lines() for ax in figure.axes)
    nan = math.nan
    assert [*values.get_ydata()] == pytest.approx([1.0, nan, 2.0, nan, 4.0, 5.0], nan_ok=True)
    assert [*norms.get_ydata()] == pytest.approx([1.0, nan, 3.0, nan, nan, 2.0], nan_ok=True)
    assert values.get_markevery() == [0, 2] and norms.get_markevery() == [0, 2, 5]  # points without a line
    [line] = history_of(report_of({"a": 1.0}), report_of({"a": 2.0})).plot().axes[0].get_lines()
    assert line.get_marker() == "None"


@pytest.mark.mixed
def test_nothing_to_show_is_no_warning(tmp_path: Path) -> None:
    for reports in ([report_of({})], [report_of({"a": math.nan}, {"a": 0.0}, total_norm=math.nan)]):
        figure = history_of(*reports).plot(tmp_path / "empty.png")
        assert all(math.isnan(y) for ax in figure.axes for line in ax.get_lines() for y in line.get_ydata())


@pytest.mark.mixed
def test_small_contributions_are_seen() -> None:
    for small, scale in ((0.03, "linear"), (0.01, "symlog"), (0.0, "linear")):
        reports = [report_of({"a": value}, base=base) for value, base in ((math.nan, 0.5), (-small, -1.0), (0.0, 0.0))]
        assert history_of(*reports).plot().axes[0].get_yscale() == scale, small
    falling = [report_of({"a": value}, base=1.0) for value in (1.0, 0.01, 0.01)]  # large at first only
    rest = ((0.01, "log"), (0.0, "symlog"), (-0.01, "symlog"), (math.nan, "log"), (1.0, "linear"))
    for value, scale in rest:
        reports = [*falling, report_of({"a": value}), report_of({"a": value})]
        assert history_of(*reports).plot().axes[0].get_yscale() == scale, value
    for small, threshold in ((1e-4, 1e-4), (5e-4, 1e-4), (1e-12, 1e-6)):  # no more than six decades
        axis = history_of(report_of({"a": small, "b": -small}, base=1.0)).plot().axes[0].yaxis
        assert axis.get_scale() == "symlog" and axis.get_transform().linthresh == pytest.approx(threshold)
    for small, large in ((1e-12, 1.0), (1e-322, 1e-318)):
        assert history_of(report_of({"a": small}, base=large)).plot().axes[0].get_yscale() == "symlog"


@pytest.mark.mixed
def test_the_mean_of_the_cosines() -> None:
    other = {name: dict(row) for name, row in COSINES.items()}
    other["a"]["base_loss"] = other["base_loss"]["a"] = 0.1
    new = {"a": {"a": 1.0, "b": math.nan}, "b": {"a": math.nan, "b": 1.0}}
    reports = [report_of({"a": 1.0}, cosines=cosines) for cosines in (COSINES, None, other, new)]
    figure = history_of(*reports).plot()
    contributions, matrix, colours = figure.axes
    image = matrix.get_images()[0]
    nan = math.nan
    assert np.ma.filled(image.get_array(), nan) == pytest.approx(
        np.asarray([[1.0, -0.2, nan], [-0.2, 1.0, nan], [nan, nan, 1.0]]), nan_ok=True
    )
    assert image.get_clim() == (-1, 1) and image.get_cmap().name == "RdBu"
    assert colours.get_ylabel() == "cosine (unitless)" and [*colours.get_yticks()] == [-1, -0.5, 0, 0.5, 1]
    assert matrix.get_title() == "mean cosine between gradients"
    for axis in (matrix.xaxis, matrix.yaxis):
        assert [label.get_text() for label in axis.get_ticklabels()] == ["base loss", "a", "b"]
    assert [(text.get_position(), text.get_text()) for text in matrix.texts] == [
        ((0, 0), "1.00"),
        ((1, 0), "-0.20"),
        ((0, 1), "-0.20"),
        ((1, 1), "1.00"),
        ((2, 2), "1.00"),
    ]
    assert list(lines_of(contributions)) == ["a"]


@pytest.mark.mixed
def test_panels() -> None:
    part, tracked = report_of({"a": 1.0}), report_of({"a": 1.0}, {"a": 1.0}, cosines=COSINES)
    kinds = {
        "one": [part],
        "norms": [part, report_of({"a": 1.0}, {"a": 2.0})],
        "total": [report_of({"a": 1.0}, total_norm=2.0)],
        "cosines": [report_of({"a": 1.0}, cosines=COSINES)],
        "all": [part, tracked],
    }
    labels = {
        name: [ax.get_ylabel() or ax.get_title() for ax in history_of(*kind).plot().axes]
        for name, kind in kinds.items()
    }
    values, norms, cosines = (
        "contribution (loss units)",
        "weighted gradient (L2 norm)",
        "mean cosine between gradients",
    )
    assert labels == {
        "one": [values],
        "norms": [values, norms],
        "total": [values, norms],
        "cosines": [values, cosines, "cosine (unitless)"],
        "all": [values, norms, cosines, "cosine (unitless)"],
    }


@pytest.mark.mixed
def test_what_norms_are_with_respect_to() -> None:
    """And which penalties have none."""
    some = replace(report_of({"a": 1.0, "b": 1.0, "free": 1.0}, {"a": 1.0}, base=2.0, base_norm=1.0), wrt="params")
    other = replace(report_of({"b": 1.0}, {"b": 1.0}), wrt="params")
    without = report_of({"a": 1.0})
    _, norms = history_of(some, without, other).plot().axes
    assert norms.get_ylabel() == "weighted gradient (L2 norm)\nwith respect to params"
    assert norms.get_title(loc="left") == "no gradient norm: free"
    _, norms = history_of(some, replace(other, wrt="hidden")).plot().axes
    assert norms.get_ylabel() == "weighted gradient (L2 norm)"
    names = {f"a penalty with a long name {i}": 1.0 for i in range(20)}
    figure = history_of(report_of({"a": 1.0, **names}, {"a": 1.0})).plot(width=4)
    figure.set_dpi(100)
    figure.draw_without_rendering()
    box = figure.axes[1]._left_title.get_window_extent()
    assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
    _, norms = history_of(report_of({"a": 1.0}, {"a": 1.0})).plot().axes
    assert norms.get_title(loc="left") == ""


@pytest.mark.mixed
def test_names_in_the_picture(tmp_path: Path) -> None:
    names = ["_hidden", r"$\no formula$", "a_name_so_long_that_it_leaves_no_room_for_lines"]
    ones = dict.fromkeys(names, 1.0)
    figure = history_of(report_of(ones, cosines={a: dict(ones) for a in names})).plot(tmp_path / "names.svg")
    shown = ["_hidden", r"\$\no formula\$", "a_name_so_lo…m_for_lines"]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == shown
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == shown


@pytest.mark.mixed
def test_there_is_room_for_many_long_names() -> None:
    names = [f"encoder.layers.{i}.attention.weights, group lasso {i}" for i in range(12)]
    ones = dict.fromkeys(names, 1.0)
    report = report_of(ones, ones, base=1.0, base_norm=1.0, total_norm=2.0, cosines={a: dict(ones) for a in names})
    for width in (3, 8):
        figure = history_of(report, report).plot(width=width)
        figure.set_dpi(100)
        figure.draw_without_rendering()
        assert figure.get_figwidth() >= width and figure.get_figwidth() <= 9
        contributions, norms, matrix, colours = figure.axes
        legend = contributions.get_legend()
        inside = [legend, matrix, norms.yaxis.label, matrix.title, colours.yaxis.label, *matrix.get_xticklabels()]
        for artist in inside:
            box = artist.get_tightbbox()
            assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 + 1 and figure.bbox.y0 <= box.y0 + 1, artist
        assert legend.get_window_extent().y0 >= contributions.get_window_extent().y1 - 1  # above the lines
        numbers = [text.get_window_extent() for text in matrix.texts[:12]]
        assert all(left.x1 < right.x0 for left, right in pairwise(numbers))
        assert all(ax.get_window_extent().height > 190 for ax in figure.axes) and matrix.get_aspect() == "auto"
        assert all(ax.get_window_extent().width > 400 for ax in figure.axes[:3])
        sizes = [text.get_fontsize() for text in (*legend.get_texts(), *matrix.texts, *matrix.get_yticklabels())]
        assert min(sizes) >= 8


@pytest.mark.mixed
def test_a_narrow_picture() -> None:
    short, long = "a", "encoder.layers.10.attention.weights, group lasso"
    for name, width, most in ((short, 3, 3), (long, 2, 4)):
        history = GradientHistory()
        for i in range(2):
            history.append(report_of({name: 1.0}, {name: 1.0}), 100_000 * i)
        figure = history.plot(width=width)
        figure.draw_without_rendering()
        assert width <= figure.get_figwidth() <= most
        contributions, norms = figure.axes
        legend = contributions.get_legend().get_window_extent()
        assert figure.bbox.x0 <= legend.x0 and legend.x1 <= figure.bbox.x1
        steps = [label.get_window_extent() for label in norms.get_xticklabels()]
        assert len(steps) > 1 and all(left.x1 < right.x0 for left, right in pairwise(steps))
        assert not any(label.get_visible() for label in contributions.get_xticklabels())


@pytest.mark.mixed
def test_the_width() -> None:
    history = history_of(report_of({"a": 1.0}))
    assert history.plot().get_figwidth() == 8 and history.plot(width=4).get_figwidth() == 4
    for width, error in ((0, ValueError), (math.nan, ValueError), ("wide", TypeError)):
        with pytest.raises(error, match=r"^GradientHistory.plot: `width` must be "):
            history.plot(width=width)  # type: ignore[arg-type]


@pytest.mark.mixed
def test_a_saved_picture(tmp_path: Path) -> None:
    history = history_of(*(report_of({"a": float(i)}, {"a": 1.0}, base=1.0, cosines=COSINES) for i in range(3)))
    figure = history.plot(tmp_path / "run.png", title="a run")
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
    assert figure.get_suptitle() == "a run" and history.plot().get_suptitle() == ""
    if "matplotlib.pyplot" in sys.modules:  # the figure is not one of its
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []
    history.plot(str(tmp_path / "run.svg"))
    assert "<svg" in (tmp_path / "run.svg").read_text("utf-8")


@pytest.mark.mixed
def test_no_report_to_show() -> None:
    with pytest.raises(ValueError, match=r"^GradientHistory.plot: a report must have been kept, got none. Append one"):
        GradientHistory().plot()
