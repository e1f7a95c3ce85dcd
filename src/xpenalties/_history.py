"""Reports over the steps of a training run: which penalty dominates, as rows and as a picture."""

from __future__ import annotations

import csv
import math
import operator
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from itertools import combinations
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ._nests import flatten
from ._numerics import stop_gradient
from ._report import Report, _to_floats
from .backends import is_array, namespace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from pandas import DataFrame

__all__ = ["GradientHistory"]

_LONGEST = 24  # characters of a penalty's name in a picture


class GradientHistory:
    """Reports of a training run, for a person to see which penalty dominates and which pull apart.

    Parameters
    ----------
    every : int, default 1
        Keep the reports of the steps that it divides.
    maxlen : int or None, default 1000
        How many to keep; the oldest go first. None keeps all.

    Raises
    ------
    TypeError, ValueError
        For what is no positive integer.

    Notes
    -----
    Appending does not wait for the device. Reading (`rows`, `to_csv`, `to_pandas`, `plot`) moves all reports that were
    appended since the last time off it at once; from then on they hold floats.

    Examples
    --------
    >>> pipe = Pipeline({"l1": 0.5, "l2": 2.0})
    >>> history = GradientHistory(every=10)
    >>> x = np.asarray([1.0, -2.0])
    >>> for step in range(30):
    ...     total, report = pipe.compute(x, step=step)
    ...     history.append(report, step)
    ...     x = x / 2**0.1
    >>> history.steps
    [0, 10, 20]
    >>> [round(row["l2/contribution"], 9) for row in history.rows()]
    [10.0, 2.5, 0.625]
    """

    def __init__(self, *, every: int = 1, maxlen: int | None = 1000) -> None:
        self._every = _positive("every", every, "Pass a Python int.")
        maxlen = None if maxlen is None else _positive("maxlen", maxlen, "Pass a Python int, or None to keep all.")
        self._kept: deque[tuple[int, Report]] = deque(maxlen=maxlen)
        self._calls = 0

    def append(self, report: Report, step: Any = None) -> None:
        """Keep `report`, where it is of an `every`-th step.

        Parameters
        ----------
        report : Report
            Its figures stay on their device. They are copied where they could be changed in place, as a learned weight
            is by an optimizer.
        step : int or 0-d array of one, optional
            By default the number of calls without a step so far. An array is read, which waits for the device. A run
            that starts again may repeat steps.

        Raises
        ------
        TypeError
            For what is no report, for a report of a function that JAX is tracing, and for a step that is no integer.
        ValueError
            For a report of several steps at once, as jax.lax.scan and jax.vmap stack them.
        """
        if not isinstance(report, Report):
            got = type(report).__qualname__
            raise TypeError(
                f"GradientHistory.append: `report` must be a Report, got {got}. Pass the second of what "
                "Pipeline.compute returns."
            )
        step, counts = self._numbered("append", step)
        if step % self._every == 0:
            leaves, rebuild = flatten(report)
            self._kept.append((step, rebuild(iter([_constant(leaf) for leaf in leaves]))))
        self._calls += counts

    def wants(self, step: Any = None) -> bool:
        """Whether `append` would keep a report of this step, so that a loop tracks gradients only then.

        ``pipe.compute(x, step=step, track_grad_norms=history.wants(step))``

        Parameters
        ----------
        step : int or 0-d array of one, optional
            As for `append`.
        """
        return self._numbered("wants", step)[0] % self._every == 0

    def _numbered(self, method: str, step: Any) -> tuple[int, bool]:
        """The step as an int, and whether it was counted rather than given."""
        if step is None:
            return self._calls, True
        found = _integer(step)
        if found is None:
            raise TypeError(
                f"GradientHistory.{method}: `step` must be an integer or a 0-d array of one, got {step!r}. Pass "
                "an int, outside of functions that JAX traces."
            )
        return found, False

    def clear(self) -> None:
        """Forget all reports, and the count of calls."""
        self._kept.clear()
        self._calls = 0

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[tuple[int, Report]]:
        return iter(tuple(self._kept))

    @property
    def steps(self) -> list[int]:
        """The steps whose reports are kept, in the order they were appended."""
        return [step for step, _ in self._kept]

    def rows(self) -> list[dict[str, float | int]]:
        """A dict of floats for each report: "step", what `Report.flat` has, cosines as "gradient_conflicts/a/b"."""
        return [{"step": step, **report.flat(), **_pairs(report)} for step, report in self._read()]

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write `rows` to a file of comma-separated values; what a row lacks is an empty cell.

        Parameters
        ----------
        path : str or path-like
            Overwritten.
        """
        rows = self.rows()
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, _columns(rows))
            writer.writeheader()
            writer.writerows(rows)

    def to_pandas(self) -> DataFrame:
        """`rows` as a DataFrame with the steps as its index; what a row lacks is NaN.

        Raises
        ------
        ModuleNotFoundError
            Without pandas.
        """
        pandas = _imported("to_pandas", "pandas", "pandas")
        rows = self.rows()
        table: DataFrame = pandas.DataFrame(rows, columns=_columns(rows)).set_index("step")
        return table

    def plot(self, path: str | os.PathLike[str] | None = None, *, title: str | None = None) -> Figure:
        """Contributions and gradient norms over the steps, and the mean cosines between gradients, as a picture.

        The panel of the gradient norms is there where they were tracked, that of the cosines where conflicts were. What
        a logarithmic axis cannot show is a gap.

        Parameters
        ----------
        path : str or path-like, optional
            Where to save it, by its ending as PNG, SVG, PDF, ...
        title : str, optional
            Above the panels.

        Returns
        -------
        matplotlib.figure.Figure
            Unknown to pyplot, so that nothing is shown and nothing has to be closed.

        Raises
        ------
        ModuleNotFoundError
            Without matplotlib.
        ValueError
            Where no report has been kept.
        """
        _imported("plot", "matplotlib", '"xpenalties[plot]"')
        if not self._kept:
            raise ValueError("GradientHistory.plot: a report must have been kept, got none. Append one first.")
        figure = _drawn(self.steps, [report for _, report in self._read()])
        if title is not None:
            figure.suptitle(title)
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure

    def _read(self) -> deque[tuple[int, Report]]:
        """What is kept, as floats: one transfer for all reports that are not yet."""
        leaves, rebuild = flatten([report for _, report in self._kept])
        reports = rebuild(iter(_to_floats(leaves)))
        self._kept = deque(zip(self.steps, reports, strict=True), maxlen=self._kept.maxlen)
        return self._kept


def _integer(value: Any) -> int | None:
    """None for what is no integer, as for one that JAX is tracing."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def _positive(name: str, value: Any, remedy: str) -> int:
    found = _integer(value)
    if found is None or found < 1:
        kind = TypeError if found is None else ValueError
        raise kind(f"GradientHistory: `{name}` must be a positive integer, got {value!r}. {remedy}")
    return found


def _constant(figure: Any) -> Any:
    """`figure`, which nothing changes any more: a view of a learned weight or of a batch would."""
    if not is_array(figure):
        return figure
    jax = sys.modules.get("jax")
    if jax is not None and isinstance(figure, jax.core.Tracer):
        raise TypeError(
            f"GradientHistory.append: `report` must have values, got {figure!r}, which JAX is tracing. Return it "
            "from the function that JAX transforms, and append it outside."
        )
    if tuple(figure.shape) != ():
        raise ValueError(
            f"GradientHistory.append: figures must be 0-d, got shape {tuple(figure.shape)}. Of stacked reports "
            "append one at a time, for example jax.tree.map(lambda figure: figure[i], report)."
        )
    if jax is not None and isinstance(figure, jax.Array):  # immutable, and a copy takes longer than all else here
        return figure
    constant = stop_gradient(figure)
    return namespace(constant).asarray(constant, copy=True)


def _pairs(report: Report) -> dict[str, float]:
    rows = report.conflicts()
    return {f"gradient_conflicts/{a}/{b}": rows[a][b] for a, b in combinations(rows, 2)}


def _columns(rows: list[dict[str, float | int]]) -> list[str]:
    return list(dict.fromkeys(["step", *(name for row in rows for name in row)]))


def _imported(method: str, module: str, requirement: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"GradientHistory.{method}: {module} must be installed, got {error}. Run pip install {requirement}."
        ) from error


def _drawn(steps: list[int], reports: list[Report]) -> Figure:
    """The picture of reports that hold floats."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

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
    import matplotlib

    ink = matplotlib.rcParams["text.color"]
    tab20 = matplotlib.color_sequences["tab20"]
    colors = [tab20[i] for i in (*range(0, 20, 2), *range(1, 20, 2)) if i not in (14, 15)]  # strong first, no greys
    own = {
        "base_loss": {"color": ink, "linestyle": "--"},
        "total_grad_norm": {"color": ink, "linewidth": 4, "alpha": 0.25},
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
