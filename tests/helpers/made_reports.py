"""Reports that are made by hand, and those of two processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xpenalties import Penalty, PenaltyReport, Pipeline, Report

__all__ = ["WEIGHTS", "report_of", "reports_of"]

WEIGHTS = ([1.0, 2.0, 3.0], [4.0, 0.0])  # of the reports of two processes


def report_of(*parts: tuple[str, Any], total: Any = 1.0, norm: Any = None) -> Report:
    """Make a report from names and contributions. All parts have the gradient norm `norm`."""
    made = {name: PenaltyReport(value, 1.0, value, norm, norm, {"m" * 200: 1.0}) for name, value in parts}
    return Report(total, None, made, total, norm)


def reports_of(array: Callable[[Any], Any], rank: int) -> list[Report]:
    """Return the reports of one of two processes: three of the first, two of the second."""
    pipe = Pipeline([Penalty("l1", weight=0.5), Penalty("l2", every=2)])
    x = array([[1.0, -2.0], [3.0, 4.0]][rank])
    return [pipe.compute(x + step, step=step)[1] for step in range(len(WEIGHTS[rank]))]
