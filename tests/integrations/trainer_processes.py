"""A training by Hugging Face's Trainer on several processes, for the test that starts it."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import torch

from tests.helpers.processes import leave
from tests.integrations.trainer_training import PIPE, network, sentences, trainer
from xpenalties import Penalty, Pipeline
from xpenalties.integrations.transformers import PipelineLoss


def main(out: Path, accumulated: int, drops: str = "") -> None:
    """Train on what one process trains on, and write the first process' parameters and logs to `out`."""
    torch.set_default_dtype(torch.float64)
    pipe, calls = PIPE, []

    def teacher(labels: torch.Tensor) -> torch.Tensor:  # not there at the second process' first call
        calls.append(1)
        if len(calls) == 1 and os.environ["RANK"] == "1":
            warnings.simplefilter("ignore")
            raise ConnectionError("down")
        return torch.tensor(2.0)

    if drops:
        pipe = Pipeline([Penalty(teacher, inputs="labels", weight=0.5, on_error="drop"), *PIPE])
    made = trainer(
        network(),
        PipelineLoss(pipe, reference=network(seed=3)),
        out.parent,
        accumulated=accumulated,
        data=sentences(4 * accumulated),
        per_device_train_batch_size=4 // int(os.environ["WORLD_SIZE"]),
        ddp_backend="gloo",
        logging_strategy="steps",
        logging_steps=2,
    )
    made.train()
    if made.is_world_process_zero():
        model = made.accelerator.unwrap_model(made.model)
        torch.save({"parameters": dict(model.named_parameters()), "logs": made.state.log_history}, out)
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
