"""Lightning with FSDP2, and the Trainer's loss with a model that FSDP2 has sharded, for the test that starts it.

The Trainer itself does not use FSDP on a CPU: accelerate takes DDP there, and does not say so.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from tests.helpers.processes import leave
from tests.integrations.lightning_training import CONTROLLERS, PIPE, Classifier, fitted
from tests.integrations.torch_training import batches
from tests.integrations.trainer_training import network, sentences
from xpenalties import Penalty, Pipeline
from xpenalties.integrations.lightning import PipelineCallback
from xpenalties.integrations.transformers import PipelineLoss

OF_LOGITS = Pipeline(
    [
        Penalty("entropy", inputs="logits", weight=0.1, mode="bonus", from_logits=True),
        Penalty("z_loss", inputs="logits", weight=0.01),
    ]
)


class Sharded(Classifier):
    def configure_model(self) -> None:
        for layer in (self.encoder[0], self.head):  # both are outermost modules, which keep whole parameters
            fully_shard(layer, mesh=self.device_mesh["data_parallel"])


def by_lightning(rank: int) -> dict[str, Any]:
    from lightning.pytorch.strategies import ModelParallelStrategy

    half = slice(8 * rank, 8 * rank + 8)
    module = Sharded()
    pipe = PIPE.with_weights(l1=0.02)  # a sum: the mean over processes is of halves
    callback = PipelineCallback(pipe, activities={"hidden": "encoder"}, track_every=5, controllers=CONTROLLERS)
    trainer = fitted(
        module,
        callback,
        data=[(x[half], y[half]) for x, y in batches()],
        strategy=ModelParallelStrategy(
            data_parallel_size=2, tensor_parallel_size=1, save_distributed_checkpoint=True, process_group_backend="gloo"
        ),
        devices=2,
        use_distributed_sampler=False,
    )
    assert all(isinstance(p, DTensor) for p in module.parameters())
    return {
        "parameters": {name: p.full_tensor().detach() for name, p in module.named_parameters()},
        "weights": callback.weights(),
        "logged": {name: float(x) for name, x in trainer.callback_metrics.items()},
    }


def by_the_trainers_loss(rank: int, *, sharded: bool) -> dict[str, torch.Tensor]:
    """Return the gradients of a model. `num_items_in_batch` is what the Trainer passes, or its mean over processes."""
    data = sentences(1)
    ids, labels = (torch.stack([row[name] for row in data]) for name in ("input_ids", "labels"))
    model = network().double()
    own, items = slice(None), (labels[:, 1:] != -100).sum()
    if sharded:
        for block in model.transformer.h:
            fully_shard(block)
        fully_shard(model)
        own, items = slice(2 * rank, 2 * rank + 2), items / 2
    pipe = OF_LOGITS
    total = PipelineLoss(pipe)(model(input_ids=ids[own]), labels[own], num_items_in_batch=items)
    total.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {name: g.full_tensor() if isinstance(g, DTensor) else g for name, g in gradients.items()}


def main(out: Path) -> None:
    """Each process writes what it has come to into the folder `out`."""
    warnings.simplefilter("ignore")  # others' own
    torch.set_default_dtype(torch.float64)
    rank = int(os.environ["RANK"])
    results = {"lightning": by_lightning(rank), "loss": by_the_trainers_loss(rank, sharded=True)}
    torch.save(results, out / f"{rank}.pt")
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
