"""A module of Lightning, its penalties in a pipeline and by hand, and its training."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy, log_softmax
from torch.utils.data import DataLoader

from tests.integrations.torch_training import batches
from xpenalties import Penalty, Pipeline, controllers, schedules, trees

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its imports' own
    import lightning

__all__ = ["ByHand", "CONTROLLERS", "Classifier", "PIPE", "fitted", "trainer"]


class Classifier(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.0))
        self.head = nn.Linear(8, 3)
        self.steps = 0

    def penalties(self, hidden: torch.Tensor, logits: torch.Tensor) -> Any:
        return 0.0

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        hidden = self.encoder(x)
        logits = self.head(hidden)
        self.steps += 1
        return {"loss": cross_entropy(logits, y) + self.penalties(hidden, logits), "logits": logits}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class ByHand(Classifier):
    """The penalties of PIPE, in PyTorch's words."""

    def penalties(self, hidden: torch.Tensor, logits: torch.Tensor) -> Any:
        log_p = log_softmax(logits, -1)
        entropy = -(log_p.exp() * log_p).sum(-1).mean()
        decay = sum((p**2).sum() for name, p in self.named_parameters() if "weight" in name)
        return 0.01 * hidden.abs().sum() - 0.01 * (self.trainer.global_step / 10) * entropy + 0.005 * decay


def trainer(*callbacks: Any, **options: Any) -> lightning.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "max_epochs": 1, "accelerator": "cpu", "barebones": False}
    return lightning.Trainer(callbacks=list(callbacks), **{**quiet, **options})


def fitted(module: Any, *callbacks: Any, data: Any = None, ckpt_path: Any = None, **options: Any) -> lightning.Trainer:
    made = trainer(*callbacks, **options)
    made.fit(module, DataLoader(batches() if data is None else data, batch_size=None), ckpt_path=ckpt_path)
    return made


PIPE = Pipeline(
    [
        Penalty("l1", inputs="hidden", weight=0.01),
        Penalty(
            "entropy",
            inputs="logits",
            weight=schedules.linear(0.0, 0.1, steps=100),
            options={"mode": "bonus", "from_logits": True},
        ),
        Penalty(trees.over_tree("l2", match="weight"), name="decay", inputs="params", weight=0.005),
    ]
)


CONTROLLERS = {
    "entropy": (
        controllers.target_entropy(0.01, target=2.0, rate=0.1),
        lambda report: -report.regularizers["entropy"].value,
    )
}
