"""Draw a GradientHistory: lines over the steps, and a matrix of cosines. Needs matplotlib."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .._core.shown import shorten
from .report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

__all__ = ["draw"]

_LONGEST = 24  # characters of a penalty's name
_SMALL = 9  # points, of names and numbers
_CHARACTER = 0.55 * _SMALL / 72  # inches, on average
_MISSING = "no gradient norm: "
_CELL = 0.36  # inches, of a number in the matrix
_DASHES = ("-", ":", "-.", "--")

_Styles = Mapping[str, dict[str, Any]]  # keyword arguments of a line, by name


def draw(steps: list[int], reports: list[Report], width: float) -> Figure:
    """Draw reports that hold floats, as panels one below the other."""
    contributions, norms, cosines = _contributions(reports), _norms(reports), _mean_cosines(reports)
    styles = _styles([*contributions, *norms])
    entry, label = 0.7 + _inches(styles), _inches(cosines)  # widths in the legend, in the matrix
    width = max(width, 1 + entry, 1.2 + label + _CELL * len(cosines) if cosines else 0)
    columns = max(1, int((width - 1) / entry))
    heights = [0.4 + 2.6 * (1 + bool(norms)) + 0.2 * math.ceil(len(styles) / columns)]
    if cosines:
        heights.append(0.8 + label + 0.3 * len(cosines))
    figure = Figure(figsize=(width, sum(heights)), layout="constrained")
    # subfigures keep names inside their part
    parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    axes = list(parts[0].subplots(1 + bool(norms), 1, squeeze=False, sharex=True)[:, 0])
    handles = _draw_contributions(axes[0], steps, contributions, styles)
    if norms:
        handles |= _draw_norms(axes[1], steps, norms, styles, _wrt(reports))
        missing = ", ".join(_label(name) for name in contributions if name not in norms)
        if missing:  # for example because they do not depend on `wrt`
            room = int((width - 1) / _CHARACTER) - len(_MISSING)
            axes[1].set_title(_MISSING + shorten(missing, room), loc="left", fontsize=_SMALL)
    _label_steps(axes[-1], width)
    entries = [handles[name] for name in styles]
    axes[0].legend(
        handles=entries, loc="lower left", bbox_to_anchor=(0, 1), fontsize=_SMALL, frameon=False, ncols=columns
    )
    if cosines:
        _draw_matrix(parts[1].subplots(), cosines)
    return figure


def _inches(names: Iterable[str]) -> float:
    """Estimate the length of the longest name, in inches."""
    return _CHARACTER * max((len(_label(name)) for name in names), default=0)


def _contributions(reports: list[Report]) -> dict[str, list[float]]:
    """Return the values to draw, by name, in the order of steps. Missing values are NaN."""
    base = {"base_loss": [getattr(report.base_loss, "value", None) for report in reports]}
    return _drawable({**base, **_by_penalty(reports, "contribution")}, above=-math.inf)


def _norms(reports: list[Report]) -> dict[str, list[float]]:
    base = {"base_loss": [getattr(report.base_loss, "grad_norm", None) for report in reports]}
    total = {"total_grad_norm": [report.total_grad_norm for report in reports]}
    return _drawable({**base, **_by_penalty(reports, "grad_norm_weighted"), **total}, above=0)


def _by_penalty(reports: list[Report], field: str) -> dict[str, list[float | None]]:
    names = dict.fromkeys(name for report in reports for name in report.regularizers)
    return {name: [getattr(report.regularizers.get(name), field, None) for report in reports] for name in names}


def _drawable(lines: Mapping[str, list[float | None]], *, above: float) -> dict[str, list[float]]:
    """Return the lines that have a value. Values that are missing, or outside the axis, become NaN: a gap."""
    return {
        name: [math.nan if value is None or not above < value < math.inf else value for value in values]
        for name, values in lines.items()
        if any(value is not None for value in values)
    }


def _mean_cosines(reports: list[Report]) -> dict[str, dict[str, float]]:
    """Average each cosine over the reports that have it. It is NaN if two penalties never occur together."""
    matrices = [report.conflicts() for report in reports]
    names = list(dict.fromkeys(name for rows in matrices for name in rows))
    return {a: {b: _mean(rows.get(a, {}).get(b, math.nan) for rows in matrices) for b in names} for a in names}


def _mean(values: Iterable[float]) -> float:
    numbers = [value for value in values if not math.isnan(value)]
    return fmean(numbers) if numbers else math.nan


def _styles(names: list[str]) -> dict[str, dict[str, Any]]:
    """Return a style for each name, the same in all panels.

    Penalties take Matplotlib's color cycle without its grays, then the same colors with other dashes. The base loss and
    the total have the color of text.
    """
    ink = matplotlib.rcParams["text.color"]
    cycle = list(matplotlib.rcParams["axes.prop_cycle"])
    cycle = [style for style in cycle if _is_colored(style)] or cycle
    fixed = {
        "base_loss": {"color": ink, "linestyle": "--"},
        "total_grad_norm": {"color": ink, "linestyle": "-", "linewidth": 4, "alpha": 0.5, "zorder": 1},
    }
    penalties = [name for name in dict.fromkeys(names) if name not in fixed]
    styles: dict[str, dict[str, Any]] = {}
    for i, name in enumerate(penalties):
        repeat, place = divmod(i, len(cycle))
        styles[name] = cycle[place] | ({"linestyle": _DASHES[repeat % len(_DASHES)]} if repeat else {})
    return {name: fixed.get(name) or styles[name] for name in dict.fromkeys(names)}


def _is_colored(style: Mapping[str, Any]) -> bool:
    red_green_blue = to_rgb(style.get("color", "C0"))
    return max(red_green_blue) - min(red_green_blue) > 0.1


def _draw_contributions(
    ax: Axes, steps: list[int], contributions: Mapping[str, list[float]], styles: _Styles
) -> dict[str, Line2D]:
    ax.set_yscale(**_scale(contributions))
    ax.set_ylabel("contribution (loss units)")
    return _draw_lines(ax, steps, contributions, styles)


def _wrt(reports: list[Report]) -> str:
    """Return what the norms are with respect to, "" if that differs between reports."""
    labels = {report.wrt for report in reports if report.wrt is not None}
    return _label(labels.pop()) if len(labels) == 1 else ""


def _draw_norms(
    ax: Axes, steps: list[int], norms: Mapping[str, list[float]], styles: _Styles, wrt: str
) -> dict[str, Line2D]:
    ax.set_yscale("log")
    ax.set_ylabel("weighted gradient (L2 norm)" + (f"\nwith respect to {wrt}" if wrt else ""))
    return _draw_lines(ax, steps, norms, styles)


def _label_steps(ax: Axes, width: float) -> None:
    ax.set_xlabel("step")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=min(max(int(width), 2), 9), integer=True, min_n_ticks=1))


def _draw_lines(ax: Axes, steps: list[int], lines: Mapping[str, list[float]], styles: _Styles) -> dict[str, Line2D]:
    handles = {}
    for name, values in lines.items():
        is_drawn = [False, *map(math.isfinite, values), False]
        # no line reaches a value without neighbors
        alone = [i for i in range(len(values)) if is_drawn[i : i + 3] == [False, True, False]]
        marker: dict[str, Any] = {"marker": ".", "markevery": alone} if alone else {}
        [handles[name]] = ax.plot(steps, values, label=_label(name), **styles[name], **marker)
    ax.grid(alpha=0.3)
    return handles


def _scale(lines: Mapping[str, list[float]]) -> dict[str, Any]:
    """Choose a linear axis. If half of a line would look like 0 on it, choose a logarithmic one, linear around 0."""
    values = [[abs(y) for y in line if math.isfinite(y) and y != 0] for line in lines.values()]
    middles = [median(line) for line in values if line]
    largest = max(map(max, filter(None, values)), default=0.0)
    if not middles or largest < 50 * min(middles):
        return {"value": "linear"}
    least = max(largest * 1e-6, 1e-300)  # smaller values would squeeze the rest
    if all(y > least for line in lines.values() for y in line if not math.isnan(y)):
        return {"value": "log"}
    return {"value": "symlog", "linthresh": 10.0 ** math.floor(math.log10(max(min(middles), least)))}  # at a tick


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
    return short.replace("$", r"\$")  # not a formula
