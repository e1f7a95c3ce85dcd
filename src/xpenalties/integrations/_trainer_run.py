"""What a loss of Hugging Face's Trainer has to remember: the batch that is computed, and what is to be logged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import Trainer, TrainerCallback

from .._report import Report

__all__ = ["Begins", "Run"]


class Run:
    """A Trainer, what it is computing, and what has been found since it last logged."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.called_with: dict[str, Any] = {}
        self.begin()

    def begin(self) -> None:
        self._sums: dict[str, Any] = {}
        self._steps: dict[str, set[int]] = {}
        self._logged_at = self.trainer.state.global_step

    def add(self, report: Report, shares: Mapping[str, Any]) -> None:
        """Add up what a log is the mean of."""
        figures = {"base_loss": report.base_loss and report.base_loss.value}
        figures["regularizer_total"] = report.regularizer_total
        for name, part in report.regularizers.items():
            if part.value is not None:  # not where it was dropped
                figures[f"{name}/value"] = part.value * shares.get(name, 1)
                self._steps.setdefault(f"{name}/value", set()).add(self.trainer.state.global_step)
            figures[f"{name}/contribution"] = part.contribution
        for name, figure in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + figure

    def means(self) -> dict[str, float]:
        """Over the steps since the last time, and all processes."""
        steps, sums, counted = self.trainer.state.global_step - self._logged_at, self._sums, self._steps
        self.begin()
        if not sums or steps <= 0:
            return {}
        device = next(x.device for x in sums.values() if isinstance(x, torch.Tensor))  # of the base loss at least
        stacked = torch.stack([torch.as_tensor(x, device=device, dtype=torch.float32) for x in sums.values()])
        # each process has its part of the items, or all of its own
        how = "sum" if self.trainer.args.average_tokens_across_devices else "mean"
        totals = zip(sums, self.trainer.accelerator.reduce(stacked, how).tolist(), strict=True)
        return {name: total / (len(counted[name]) if name in counted else steps) for name, total in totals}


class Begins(TrainerCallback):  # type: ignore[misc]
    """A run begins anew: it may go on from a checkpoint, or be another one of the same Trainer."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self._run.begin()
