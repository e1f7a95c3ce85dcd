"""The picture of a GradientHistory: lines over the steps, and the matrix of cosines. Needs matplotlib."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ._report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

__all__ = ["drawn"]

_LONGEST = 24  # characters of a penalty's name


def drawn(steps: list[int], reports: list[Report]) -> Figure:
    """The picture of reports that hold floats."""
    contributions, norms, cosines = _contributions(reports), _norms(reports), _mean_cosines(reports)
    labels = ["contribution to the loss"] + ["norm of the weighted gradient"] * bool(norms)
    side = 4.5 + 0.25 * len(cosines)  # of the matrix' column: names and numbers stay legible
    size = (9 + side, max(6.5, side)) if cosines else (9, 0.5 + 3 * len(labels))
    figure = Figure(figsize=size, layout="constrained")
    axes: dict[str, Axes] = figure.subplot_mosaic(
        [[label, "cosines"] if cosines else [label] for label in labels], width_ratios=[9, side] if cosines else None
    )
    styles = _styles([*contributions, *norms])
    first, last = axes[labels[0]], axes[labels[-1]]
    first.set_yscale(**_scale(contributions))
    handles = _draw_lines(first, steps, contributions, styles)
    if norms:
        last.sharex(first)
        last.set_yscale("log")
        handles |= _draw_lines(last, steps, norms, styles)
    for label in labels:
        axes[label].set_ylabel(label)
    last.set_xlabel("step")
    last.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    shown = [handles[name] for name in styles]
    first.legend(handles=shown, loc="upper left", bbox_to_anchor=(1, 1), fontsize="small", frameon=False)
    if cosines:
        _draw_matrix(axes["cosines"], cosines)
    return figure


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
    """One for each name, the same in all panels: colours for the penalties, ink for what they add up to."""
    ink = matplotlib.rcParams["text.color"]
    tab20 = matplotlib.color_sequences["tab20"]
    colors = [tab20[i] for i in (*range(0, 20, 2), *range(1, 20, 2)) if i not in (14, 15)]  # strong first, no greys
    own = {
        "base_loss": {"color": ink, "linestyle": "--"},
        "total_grad_norm": {"color": ink, "linewidth": 4, "alpha": 0.25, "zorder": 1},
    }
    penalties = [name for name in dict.fromkeys(names) if name not in own]
    styles = {name: {"color": colors[i % len(colors)]} for i, name in enumerate(penalties)}
    return {name: own.get(name) or styles[name] for name in dict.fromkeys(names)}


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
    """A linear axis, unless one line would look like zero on it; logarithmic then, but for what is about zero."""
    largest = [max((abs(value) for value in values if math.isfinite(value)), default=0) for values in lines.values()]
    peaks = [peak for peak in largest if peak > 0]
    if not peaks or max(peaks) < 50 * min(peaks):
        return {"value": "linear"}
    return {"value": "symlog", "linthresh": max(min(peaks) / 10, max(peaks) * 1e-6)}


def _draw_matrix(ax: Axes, cosines: Mapping[str, Mapping[str, float]]) -> None:
    matrix = [list(row.values()) for row in cosines.values()]
    labels = [_label(name) for name in cosines]
    ax.figure.colorbar(ax.imshow(matrix, cmap="RdBu", vmin=-1, vmax=1), ax=ax, shrink=0.5)
    ax.set_title("mean cosine between gradients", fontsize="medium")
    ax.set_xticks(range(len(labels)), labels, rotation=90, fontsize="small")
    ax.set_yticks(range(len(labels)), labels, fontsize="small")
    size = 10 if len(labels) <= 8 else 7
    for i, row in enumerate(matrix):
        for j, cosine in enumerate(row):
            if not math.isnan(cosine):
                ink = "white" if abs(cosine) > 0.6 else "black"
                ax.text(j, i, f"{cosine:z.2f}", ha="center", va="center", color=ink, fontsize=size)


def _label(name: str) -> str:
    name = {"base_loss": "base loss", "total_grad_norm": "total"}.get(name, name)
    short = name if len(name) <= _LONGEST else name[: _LONGEST // 2] + "…" + name[1 - _LONGEST // 2 :]
    return short.replace("$", r"\$")  # no formula
