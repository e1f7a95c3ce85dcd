"""Reports made of numbers, and histories of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xpenalties import PenaltyReport, Report
from xpenalties._reports.history import GradientHistory

__all__ = ["COSINES", "history_of", "report_of"]

COSINES = {"base_loss": {"base_loss": 1.0, "a": -0.5}, "a": {"base_loss": -0.5, "a": 1.0}}


def report_of(
    contributions: Mapping[str, Any],
    norms: Mapping[str, Any] | None = None,
    *,
    base: Any = None,
    base_norm: Any = None,
    total_norm: Any = None,
    cosines: Mapping[str, Mapping[str, Any]] | None = None,
) -> Report:
    parts = {
        name: PenaltyReport(-1.0, 1.0, contribution, -1.0 if norms else None, (norms or {}).get(name))
        for name, contribution in contributions.items()
    }
    base_loss = None if base is None else PenaltyReport(base, None, None, base_norm)
    return Report(9.0, base_loss, parts, 1.0, total_norm, cosines)


def history_of(*reports: Report) -> GradientHistory:
    history = GradientHistory()
    for report in reports:
        history.append(report)
    return history
