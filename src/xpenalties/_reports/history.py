"""Reports over the steps of a training run: which penalty dominates, as rows and as a picture."""

from __future__ import annotations

import csv
import operator
import os
import sys
from collections import deque
from collections.abc import Iterator
from importlib import import_module
from itertools import combinations
from typing import TYPE_CHECKING, Any

from .._arrays.numerics import stop_gradient
from .._core.checks import POSITIVE, named
from .._core.optional import require
from .._core.pytrees import flatten
from ..backends import is_array, namespace
from .report import Report, to_floats

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["GradientHistory"]


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
        counts = step is None
        step = self._calls if counts else self._numbered("append", step)
        if step % self._every == 0:
            leaves, rebuild = flatten(report)
            self._kept.append((step, rebuild(iter([_constant(leaf) for leaf in leaves]))))
        self._calls += counts

    def wants(self, step: Any) -> bool:
        """Whether `append` would keep a report of this step, so that a loop tracks gradients only then.

        ``pipe.compute(x, step=step, track_grad_norms=history.wants(step))``

        Parameters
        ----------
        step : int or 0-d array of one
            As for `append`. Not optional: where nothing was appended there is nothing to count.
        """
        return self._numbered("wants", step) % self._every == 0

    def _numbered(self, method: str, step: Any) -> int:
        """The step as an int."""
        found = _integer(step)
        if found is None:
            raise TypeError(
                f"GradientHistory.{method}: `step` must be an integer or a 0-d array of one, got {step!r}. Pass "
                "an int, outside of functions that JAX traces."
            )
        return found

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
        with require("pandas", needed_by="GradientHistory.to_pandas", install="pandas"):
            import pandas
        rows = self.rows()
        table: DataFrame = pandas.DataFrame(rows, columns=_columns(rows)).set_index("step")
        return table

    def plot(
        self, path: str | os.PathLike[str] | None = None, *, title: str | None = None, width: float = 8.0
    ) -> Figure:
        """Contributions and gradient norms over the steps, and the mean cosines between gradients, as a picture.

        The panel of the gradient norms is there where they were tracked, that of the cosines where conflicts were. What
        a logarithmic axis cannot show is a gap.

        Parameters
        ----------
        path : str or path-like, optional
            Where to save it, by its ending as PNG, SVG, PDF, ...
        title : str, optional
            Above the panels.
        width : float, default 8.0
            Of the picture, in inches; more where names and numbers need it. The height follows from what there is to
            show.

        Returns
        -------
        matplotlib.figure.Figure
            Unknown to pyplot, so that nothing is shown and nothing has to be closed.

        Raises
        ------
        ModuleNotFoundError
            Without matplotlib.
        TypeError, ValueError
            For a width that is no positive number, and where no report has been kept.
        """
        width = named("GradientHistory.plot", POSITIVE, "width", width)
        with require("Matplotlib", needed_by="GradientHistory.plot", install="xpenalties[plot]"):
            import_module("matplotlib")
        if not self._kept:
            raise ValueError("GradientHistory.plot: a report must have been kept, got none. Append one first.")
        from .plot import drawn

        figure = drawn(self.steps, [report for _, report in self._read()], width)
        if title is not None:
            figure.suptitle(title)
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure

    def _read(self) -> deque[tuple[int, Report]]:
        """What is kept, as floats: one transfer for all reports that are not yet."""
        leaves, rebuild = flatten([report for _, report in self._kept])
        reports = rebuild(iter(to_floats(leaves)))
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
