"""Keep the state of a loss in Hugging Face's Trainer: the current batch, and sums of the values to log."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import torch
from transformers import Trainer, TrainerCallback

from .._reports.report import Report

__all__ = ["ResetOnBegin", "TrainerRun"]


class TrainerRun:
    """A Trainer, the batch that it is computing, and sums over the batches since it last logged."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.called_with: dict[str, Any] = {}
        self.reset()

    def reset(self) -> None:
        """Forget the sums."""
        self._sums: dict[str, Any] = {}  # the same names in the same order in all processes
        self._shares: dict[str, Any] = {}
        self._last_logged_step = self.trainer.state.global_step

    def add(self, report: Report, share: Any, scaled: Set[str]) -> None:
        """Add a batch's report to the sums.

        `share` is the batch's share of the step's items. `scaled` names the penalties whose weights were multiplied by
        it. Their values are multiplied by it here. All other values are already divided by the step's items.
        """
        self._add_norms(report, share, scaled)
        numbers = {"base_loss": report.base_loss and report.base_loss.value}
        numbers["regularizer_total"] = report.regularizer_total
        for name, penalty in report.regularizers.items():
            if penalty.value is None:  # dropped after an error
                value, counted = 0.0, 0.0
            else:
                value, counted = penalty.value * share if name in scaled else penalty.value, share
            numbers[f"{name}/value"] = value
            numbers[f"{name}/contribution"] = penalty.contribution
            self._shares[f"{name}/value"] = self._shares.get(f"{name}/value", 0.0) + counted
        for name, number in numbers.items():
            self._sums[name] = self._sums.get(name, 0.0) + number

    def _add_norms(self, report: Report, share: Any, scaled: Set[str]) -> None:
        """Add a batch's gradient norms, if they are tracked, so that the means are divided by the batch's share."""
        if report.wrt is None:
            return
        norms = {"total_grad_norm": report.total_grad_norm}
        norms["base_loss/grad_norm"] = report.base_loss and report.base_loss.grad_norm
        for name, penalty in report.regularizers.items():
            norm = penalty.grad_norm
            norms[f"{name}/grad_norm"] = norm * share if name in scaled and norm is not None else norm
            norms[f"{name}/grad_norm_weighted"] = penalty.grad_norm_weighted
        for name, norm in norms.items():  # also those that another process has
            self._sums[name] = self._sums.get(name, 0.0) + (0.0 if norm is None else norm)
            self._shares[name] = self._shares.get(name, 0.0) + (0.0 if norm is None else share)

    def means(self) -> dict[str, float]:
        """Return the means over the steps since the last call, and over all processes. Reset the sums."""
        steps, sums, shares = self.trainer.state.global_step - self._last_logged_step, self._sums, self._shares
        self.reset()
        if not sums or steps <= 0:
            return {}
        device = next(x.device for x in sums.values() if isinstance(x, torch.Tensor))  # the base loss is one
        stacked = torch.stack(
            [torch.as_tensor(x, device=device, dtype=torch.float32) for x in (*sums.values(), *shares.values())]
        )
        # a process divides either by the items of all processes, or by its own
        reduction = "sum" if self.trainer.args.average_tokens_across_devices else "mean"
        reduced = self.trainer.accelerator.reduce(stacked, reduction).tolist()
        totals = dict(zip(sums, reduced[: len(sums)], strict=True))
        counts = dict(zip(shares, reduced[len(sums) :], strict=True))  # steps in which a penalty has a value
        return {name: total / counts.get(name, steps) for name, total in totals.items() if counts.get(name, steps) > 0}


class ResetOnBegin(TrainerCallback):  # type: ignore[misc]
    """Resets the sums when training begins: from a checkpoint, or for the second time with one Trainer."""

    def __init__(self, run: TrainerRun) -> None:
        self._run = run

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self._run.reset()
