"""What a loss of Hugging Face's Trainer has to remember: the batch that is computed, and what is to be logged."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import torch
from transformers import Trainer, TrainerCallback

from .._reports.report import Report

__all__ = ["Begins", "Run"]


class Run:
    """A Trainer, what it is computing, and what has been found since it last logged."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.called_with: dict[str, Any] = {}
        self.begin()

    def begin(self) -> None:
        self._sums: dict[str, Any] = {}  # the same names in the same order in all processes
        self._shares: dict[str, Any] = {}
        self._logged_at = self.trainer.state.global_step

    def add(self, report: Report, share: Any, whole: Set[str]) -> None:
        """Add up what a log is the mean of: a batch, its share of the step, and what it has of a whole step's value."""
        figures = {"base_loss": report.base_loss and report.base_loss.value}
        figures["regularizer_total"] = report.regularizer_total
        for name, part in report.regularizers.items():
            known = part.value is not None  # not dropped
            figures[f"{name}/value"] = (part.value * share if name in whole else part.value) if known else 0.0
            figures[f"{name}/contribution"] = part.contribution
            self._shares[f"{name}/value"] = self._shares.get(f"{name}/value", 0.0) + (share if known else 0.0)
        for name, figure in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + figure

    def means(self) -> dict[str, float]:
        """Over the steps since the last time, and all processes."""
        steps, sums, shares = self.trainer.state.global_step - self._logged_at, self._sums, self._shares
        self.begin()
        if not sums or steps <= 0:
            return {}
        device = next(x.device for x in sums.values() if isinstance(x, torch.Tensor))  # of the base loss at least
        figures = [*sums.values(), *shares.values()]
        stacked = torch.stack([torch.as_tensor(x, device=device, dtype=torch.float32) for x in figures])
        # each process has its part of the items, or all of its own
        how = "sum" if self.trainer.args.average_tokens_across_devices else "mean"
        found = self.trainer.accelerator.reduce(stacked, how).tolist()
        counted = dict(zip(shares, found[len(sums) :], strict=True))  # steps on which a penalty's value is known
        totals = {name: (x, counted.get(name, steps)) for name, x in zip(sums, found[: len(sums)], strict=True)}
        return {name: total / count for name, (total, count) in totals.items() if count > 0}


class Begins(TrainerCallback):  # type: ignore[misc]
    """A run begins anew: it may go on from a checkpoint, or be another one of the same Trainer."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self._run.begin()
