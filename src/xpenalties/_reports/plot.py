"""The picture of a GradientHistory: lines over the steps, and the matrix of cosines. Needs matplotlib."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

__all__ = ["drawn"]

_LONGEST = 24  # characters of a penalty's name
_SMALL = 9  # points, of names and numbers
_CELL = 0.36  # inches, of a number in the matrix
_DASHES = ("-", ":", "-.", "--")


def drawn(steps: list[int], reports: list[Report], width: float) -> Figure:
    """The picture of reports that hold floats: panels below each other."""
    contributions, norms, cosines = _contributions(reports), _norms(reports), _mean_cosines(reports)
    styles = _styles([*contributions, *norms])
    entry, label = 0.7 + _inches(styles), _inches(cosines)
    width = max(width, 1 + entry, 1.2 + label + _CELL * len(cosines) if cosines else 0)
    columns = max(1, int((width - 1) / entry))  # of the legend
    panels = 1 + bool(norms)
    heights = [0.4 + 2.6 * panels + 0.2 * math.ceil(len(styles) / columns)]
    if cosines:
        heights.append(0.8 + label + 0.3 * len(cosines))
    figure = Figure(figsize=(width, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]  # names stay in theirs
    first, *others = parts[0].subplots(panels, 1, squeeze=False, sharex=True)[:, 0]
    first.set_yscale(**_scale(contributions))
    first.set_ylabel("contribution (loss units)")
    handles = _draw_lines(first, steps, contributions, styles)
    for last in others:
        last.set_yscale("log")
        last.set_ylabel("weighted gradient (L2 norm)")
        handles |= _draw_lines(last, steps, norms, styles)
    last = [first, *others][-1]
    last.set_xlabel("step")
    last.xaxis.set_major_locator(MaxNLocator(nbins=min(max(int(width), 2), 9), integer=True, min_n_ticks=1))
    entries = [handles[name] for name in styles]
    first.legend(
        handles=entries, loc="lower left", bbox_to_anchor=(0, 1), fontsize=_SMALL, frameon=False, ncols=columns
    )
    if cosines:
        _draw_matrix(parts[1].subplots(), cosines)
    return figure


def _inches(names: Iterable[str]) -> float:
    """How long the longest of them is, about."""
    return 0.55 * _SMALL / 72 * max((len(_label(name)) for name in names), default=0)


def _contributions(reports: list[Report]) -> dict[str, list[float]]:
    """By name, in order; NaN where there is none to draw."""
    base = {"base_loss": [getattr(report.base_loss, "value", None) for report in reports]}
    return _drawable({**base, **_parts(reports, "contribution")}, above=-math.inf)


def _norms(reports: list[Report]) -> dict[str, list[float]]:
    base = {"base_loss": [getattr(report.base_loss, "grad_norm", None) for report in reports]}
    total = {"total_grad_norm": [report.total_grad_norm for report in reports]}
    return _drawable({**base, **_parts(reports, "grad_norm_weighted"), **total}, above=0)


def _parts(reports: list[Report], figure: str) -> dict[str, list[float | None]]:
    names = dict.fromkeys(name for report in reports for name in report.regularizers)
    return {name: [getattr(report.regularizers.get(name), figure, None) for report in reports] for name in names}


def _drawable(figures: Mapping[str, list[float | None]], *, above: float) -> dict[str, list[float]]:
    """What any report has, with NaN, a gap, for what is missing or what the axis cannot show."""
    return {
        name: [math.nan if value is None or not above < value < math.inf else value for value in values]
        for name, values in figures.items()
        if any(value is not None for value in values)
    }


def _mean_cosines(reports: list[Report]) -> dict[str, dict[str, float]]:
    """Over the reports that have them; NaN for two penalties that never met."""
    found = [report.conflicts() for report in reports]
    names = list(dict.fromkeys(name for rows in found for name in rows))
    return {a: {b: _mean(rows.get(a, {}).get(b, math.nan) for rows in found) for b in names} for a in names}


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return fmean(known) if known else math.nan


def _styles(names: list[str]) -> dict[str, dict[str, Any]]:
    """One for each name, the same in all panels: Matplotlib's cycle for the penalties, ink for what they add up to.

    Where the cycle's colours are used up they come again with other dashes; its greys are left to what is no penalty.
    """
    ink = matplotlib.rcParams["text.color"]
    cycle = list(matplotlib.rcParams["axes.prop_cycle"])
    cycle = [style for style in cycle if _is_coloured(style)] or cycle
    own = {
        "base_loss": {"color": ink, "linestyle": "--"},
        "total_grad_norm": {"color": ink, "linestyle": "-", "linewidth": 4, "alpha": 0.25, "zorder": 1},
    }
    penalties = [name for name in dict.fromkeys(names) if name not in own]
    styles: dict[str, dict[str, Any]] = {}
    for i, name in enumerate(penalties):
        again, place = divmod(i, len(cycle))
        styles[name] = cycle[place] | ({"linestyle": _DASHES[again % len(_DASHES)]} if again else {})
    return {name: own.get(name) or styles[name] for name in dict.fromkeys(names)}


def _is_coloured(style: Mapping[str, Any]) -> bool:
    red_green_blue = to_rgb(style.get("color", "C0"))
    return max(red_green_blue) - min(red_green_blue) > 0.1


def _draw_lines(
    ax: Axes, steps: list[int], lines: Mapping[str, list[float]], styles: Mapping[str, dict[str, Any]]
) -> dict[str, Line2D]:
    handles = {}
    for name, values in lines.items():
        drawn = [False, *map(math.isfinite, values), False]
        alone = [i for i in range(len(values)) if drawn[i : i + 3] == [False, True, False]]  # no line goes there
        marker: dict[str, Any] = {"marker": ".", "markevery": alone} if alone else {}
        [handles[name]] = ax.plot(steps, values, label=_label(name), **styles[name], **marker)
    ax.grid(alpha=0.3)
    return handles


def _scale(lines: Mapping[str, list[float]]) -> dict[str, Any]:
    """A linear axis, unless half of a line would look like zero on it: then logarithmic, but for what is about zero."""
    values = [[abs(y) for y in line if math.isfinite(y) and y != 0] for line in lines.values()]
    middles = [median(line) for line in values if line]
    largest = max(map(max, filter(None, values)), default=0.0)
    if not middles or largest < 50 * min(middles):
        return {"value": "linear"}
    least = max(largest * 1e-6, 1e-300)  # what is smaller would take the room of the rest
    if all(y > least for line in lines.values() for y in line if not math.isnan(y)):
        return {"value": "log"}
    return {"value": "symlog", "linthresh": 10.0 ** math.floor(math.log10(max(min(middles), least)))}  # where a tick is


def _draw_matrix(ax: Axes, cosines: Mapping[str, Mapping[str, float]]) -> None:
    matrix = [list(row.values()) for row in cosines.values()]
    labels = [_label(name) for name in cosines]
    image = ax.imshow(matrix, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    bar = ax.get_figure().colorbar(image, ax=ax, pad=0.02)
    bar.set_label("cosine (unitless)")
    bar.set_ticks([-1, -0.5, 0, 0.5, 1])
    ax.set_title("mean cosine between gradients", fontsize="medium")
    ax.set_xticks(range(len(labels)), labels, rotation=90, fontsize=_SMALL)
    ax.set_yticks(range(len(labels)), labels, fontsize=_SMALL)
    for i, row in enumerate(matrix):
        for j, cosine in enumerate(row):
            if not math.isnan(cosine):
                ink = "white" if abs(cosine) > 0.6 else "black"
                ax.text(j, i, f"{cosine:z.2f}", ha="center", va="center", color=ink, fontsize=_SMALL - 1)


def _label(name: str) -> str:
    name = {"base_loss": "base loss", "total_grad_norm": "total"}.get(name, name)
    short = name if len(name) <= _LONGEST else name[: _LONGEST // 2] + "…" + name[1 - _LONGEST // 2 :]
    return short.replace("$", r"\$")  # no formula
