"""Keep the reports of a training run, and read them as rows, a table or a figure."""

from __future__ import annotations

import operator
import os
from collections import deque
from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING, Any

from .._core.checks import POSITIVE, check_argument
from .._core.optional import require
from .._core.pytrees import flatten
from .._core.shown import shown
from ..backends import backend_of
from .figures import to_floats
from .report import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["GradientHistory"]


class GradientHistory:
    """Keep the reports of a training run, to see which penalty dominates and which penalties conflict.

    Parameters
    ----------
    every : int, default 1
        Keep only the reports of steps that are divisible by `every`.
    maxlen : int or None, default 1000
        How many reports to keep; the oldest are dropped first. None keeps all.

    Raises
    ------
    TypeError, ValueError
        If `every` or `maxlen` is not a positive integer.

    Notes
    -----
    Appending does not wait for the device. Reading (`rows`, `to_csv`, `to_pandas`, `plot`) moves all new reports off
    the device in one transfer. From then on they hold floats.

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
        self._reports: deque[tuple[int, Report]] = deque(maxlen=maxlen)
        self._calls = 0

    def append(self, report: Report, step: Any = None) -> None:
        """Keep `report` if its step is divisible by `every`.

        Parameters
        ----------
        report : Report
            Its figures stay on their device. Those that may change in place, such as a learned weight, are copied.
        step : int or 0-d array of one, optional
            By default the number of earlier calls without a step. Reading an array waits for the device. Steps may
            repeat, for example in a run that is restarted.

        Raises
        ------
        TypeError
            If `report` is not a `Report` or comes from a function that JAX is tracing, or if `step` is not an integer.
        ValueError
            If the report is stacked over several steps, as by jax.lax.scan or jax.vmap.
        """
        if not isinstance(report, Report):
            got = type(report).__qualname__
            raise TypeError(
                f"GradientHistory.append: `report` must be a Report, got {got}. Pass the second "
                "result of Pipeline.compute."
            )
        is_counted = step is None
        step = self._calls if is_counted else self._checked_step("append", step)
        if step % self._every == 0:
            leaves, rebuild = flatten(report)
            self._reports.append((step, rebuild(iter([_constant(leaf) for leaf in leaves]))))
        self._calls += is_counted

    def wants(self, step: Any) -> bool:
        """Return whether `append` would keep a report of this step, so that you track gradients only then.

        ``pipe.compute(x, step=step, track_grad_norms=history.wants(step))``

        Parameters
        ----------
        step : int or 0-d array of one
            As for `append`, but required.
        """
        return self._checked_step("wants", step) % self._every == 0

    def _checked_step(self, method: str, step: Any) -> int:
        """Return the step as an int."""
        number = _integer(step)
        if number is None:
            raise TypeError(
                f"GradientHistory.{method}: `step` must be an integer or a 0-d array of one, got {shown(step)}. Pass "
                "an int, outside functions that JAX traces."
            )
        return number

    def clear(self) -> None:
        """Drop all reports and the count of calls."""
        self._reports.clear()
        self._calls = 0

    def __repr__(self) -> str:
        return f"GradientHistory(every={self._every}, maxlen={self._reports.maxlen})"

    def __len__(self) -> int:
        return len(self._reports)

    def __iter__(self) -> Iterator[tuple[int, Report]]:
        return iter(tuple(self._reports))

    @property
    def steps(self) -> list[int]:
        """The steps of the kept reports, in the order in which they were appended."""
        return [step for step, _ in self._reports]

    def rows(self) -> list[dict[str, float | int]]:
        """Return a dict of floats for each report.

        The keys are "step", the keys of `Report.flat`, and "gradient_conflicts/a/b" for cosines.
        """
        return [{"step": step, **report.flat(), **_conflicts(report)} for step, report in self._read()]

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write `rows` to a CSV file. Cells that a row lacks are empty.

        Parameters
        ----------
        path : str or path-like
            An existing file is overwritten.
        """
        import csv

        from .._core.files import replacing

        rows = self.rows()
        with replacing(path) as new, open(new, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, _columns(rows))
            writer.writeheader()
            writer.writerows(rows)

    def to_pandas(self) -> DataFrame:
        """Return `rows` as a DataFrame indexed by step. Cells that a row lacks are NaN.

        Raises
        ------
        ModuleNotFoundError
            If pandas is not installed.
        """
        with require("pandas", needed_by="GradientHistory.to_pandas", install="pandas"):
            import pandas
        rows = self.rows()
        table: DataFrame = pandas.DataFrame(rows, columns=_columns(rows)).set_index("step")
        return table

    def plot(
        self, path: str | os.PathLike[str] | None = None, *, title: str | None = None, width: float = 8.0
    ) -> Figure:
        """Plot contributions and gradient norms over the steps, and the mean cosines between gradients.

        Gradient norms and cosines have a panel if they were computed. Values that a logarithmic axis cannot show leave
        a gap.

        Parameters
        ----------
        path : str or path-like, optional
            File to save the figure to. The suffix sets the format: PNG, SVG, PDF, ...
        title : str, optional
            Shown above the panels.
        width : float, default 8.0
            Width of the figure in inches, or more if names and numbers need it. The height follows from the content.

        Returns
        -------
        matplotlib.figure.Figure
            It is not registered with pyplot, so it is not shown and need not be closed.

        Raises
        ------
        ModuleNotFoundError
            If matplotlib is not installed.
        TypeError, ValueError
            If `width` is not a positive number, or no report has been kept.
        """
        width = check_argument("GradientHistory.plot", POSITIVE, "width", width)
        with require("Matplotlib", needed_by="GradientHistory.plot", install="xpenalties[plot]"):
            import matplotlib  # noqa: F401
        if not self._reports:
            raise ValueError("GradientHistory.plot: a report must have been kept, got none. Append one first.")
        from .._core.files import replacing
        from .plot import draw

        figure = draw(self.steps, [report for _, report in self._read()], width)
        if title is not None:
            figure.suptitle(title)
        if path is not None:
            suffix = "" if os.path.splitext(path)[1] else f".{figure.canvas.get_default_filetype()}"
            with replacing(f"{os.fspath(path)}{suffix}") as new:
                figure.savefig(new, dpi=150)
        return figure

    def _read(self) -> deque[tuple[int, Report]]:
        """Return the reports with floats. One transfer converts all that still hold arrays."""
        leaves, rebuild = flatten([report for _, report in self._reports])
        reports = rebuild(iter(to_floats(leaves)))
        self._reports = deque(zip(self.steps, reports, strict=True), maxlen=self._reports.maxlen)
        return self._reports


def _integer(value: Any) -> int | None:
    """Return an int, or None if `value` is not an integer or JAX is tracing it."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def _positive(name: str, value: Any, remedy: str) -> int:
    number = _integer(value)
    if number is None or number < 1:
        kind = TypeError if number is None else ValueError
        raise kind(f"GradientHistory: `{name}` must be a positive integer, got {shown(value)}. {remedy}")
    return number


def _constant(figure: Any) -> Any:
    """Return a figure that cannot change, unlike a view of a learned weight or of a batch."""
    backend = backend_of(figure)
    if backend is None:
        return figure
    if not backend.tracing.has_value(figure):
        raise TypeError(
            f"GradientHistory.append: `report` must have values, got {shown(figure)}, which {backend.name} is tracing. "
            "Return it from the traced function, and append it outside."
        )
    if tuple(figure.shape) != ():
        raise ValueError(
            f"GradientHistory.append: figures must be 0-d, got shape {tuple(figure.shape)}. Append "
            "stacked reports one at a time, for example jax.tree.map(lambda figure: figure[i], report)."
        )
    return backend.snapshot(figure)


def _conflicts(report: Report) -> dict[str, float]:
    """Return the cosine of each pair of penalties."""
    rows = report.conflicts()
    return {f"gradient_conflicts/{a}/{b}": rows[a][b] for a, b in combinations(rows, 2)}


def _columns(rows: list[dict[str, float | int]]) -> list[str]:
    return list(dict.fromkeys(["step", *(name for row in rows for name in row)]))
