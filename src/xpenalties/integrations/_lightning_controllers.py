"""The controllers of a `PipelineCallback`: what they have observed since their last step, and their weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from .._core.shown import shown
from .._core.suggestions import did_you_mean
from .._pipeline.pipeline import Pipeline
from .._reports.report import Report
from ..controllers import Controller

__all__ = ["Controllers", "Observe"]

Observe = Callable[[Report], Any]


class Controllers:
    """Steps the controllers of some penalties' weights with each step of an optimizer.

    Parameters
    ----------
    pipe : Pipeline
        The penalties' pipeline.
    controllers : mapping of str to Controller, or to pairs of Controller and callable
        See `PipelineCallback`.
    """

    def __init__(self, pipe: Pipeline, controllers: Mapping[str, Any]) -> None:
        self._pairs = {name: _checked_pair(pipe, name, value) for name, value in controllers.items()}
        self._states = {name: controller.init() for name, (controller, _) in self._pairs.items()}
        self._observed: dict[str, list[Any]] = {name: [] for name in self._pairs}
        self._stepped_at = 0  # the trainer's step at the last step of the controllers

    def start(self, step: int) -> None:
        """Forget earlier observations, and begin at a step of the trainer."""
        self._stepped_at = step
        self._observed = {name: [] for name in self._pairs}

    def current(self) -> dict[str, Any]:
        """Return the weights by the penalties' names, which may be arrays."""
        return {name: state["weight"] for name, state in self._states.items()}

    def weights(self) -> dict[str, float]:
        """Return the weights by the penalties' names."""
        return {name: float(weight) for name, weight in self.current().items()}

    def load(self, saved: Mapping[str, float]) -> None:
        """Restore the weights."""
        if set(saved) != set(self._pairs):
            raise ValueError(
                f"PipelineCallback: the checkpoint must be of the same controllers, got {', '.join(saved) or 'none'} "
                f"instead of {', '.join(self._pairs) or 'none'}. Pass those that it was saved with."
            )
        self._states = {name: {"weight": weight} for name, weight in saved.items()}

    def observe(self, report: Report) -> None:
        """Let the controllers observe a batch, except those whose penalty is disabled, not due or dropped."""
        for name, (_, of_report) in self._pairs.items():
            result = report.regularizers.get(name)
            if result is not None and result.value is not None:
                self._observed[name].append(result.value if of_report is None else of_report(report))

    def step(self, trainer: Trainer, module: LightningModule) -> None:
        """Step with the means of what was observed, if the optimizer has stepped."""
        if trainer.global_step == self._stepped_at:
            return
        self._stepped_at = trainer.global_step
        for name, (controller, _) in self._pairs.items():
            values, self._observed[name] = self._observed[name], []
            if trainer.world_size > 1:
                self._states[name] = _stepped_together(controller, self._states[name], values, trainer, module)
            elif values:  # empty if training_step skipped the batch
                self._states[name] = controller.step(self._states[name], sum(values[1:], values[0]) / len(values))[1]


def _checked_pair(pipe: Pipeline, name: str, value: Any) -> tuple[Controller, Observe | None]:
    controller, observe = value if isinstance(value, tuple) and len(value) == 2 else (value, None)
    if not isinstance(controller, Controller) or not (observe is None or callable(observe)):
        raise TypeError(
            "PipelineCallback: `controllers` must be controllers, or pairs of one and a callable, got "
            f"{type(value).__qualname__} for {name!r}. Make one, for example with adaptive_kl."
        )
    if name not in pipe:
        raise ValueError(
            f"PipelineCallback: `controllers` must name penalties of the pipeline, got {shown(name)}."
            + did_you_mean(name, [penalty.name for penalty in pipe])
        )
    return controller, observe


def _stepped_together(
    controller: Controller, state: dict[str, Any], values: list[Any], trainer: Trainer, module: LightningModule
) -> dict[str, Any]:
    """Step with the mean over all processes. Even a process without values takes part: the others wait for it."""
    dtype = torch.promote_types(module.dtype, torch.float32)
    local = [torch.as_tensor(x, dtype=dtype, device=module.device) for x in (sum(values), len(values))]
    total, count = trainer.strategy.reduce(torch.stack(local), reduce_op="sum")
    before = torch.as_tensor(state["weight"], dtype=dtype, device=module.device)
    weight, _ = controller.step({"weight": before}, total / count)
    return {"weight": torch.where(count > 0, weight, before)}
