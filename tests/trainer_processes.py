"""A training by Hugging Face's Trainer on several processes, for the test that starts it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from test_integration_transformers import PIPE, network, sentences, trainer
from xpenalties.integrations.transformers import PipelineLoss


def main(out: Path, accumulated: int) -> None:
    """Train on what one process trains on, and write the first process' parameters and logs to `out`."""
    made = trainer(
        network(),
        PipelineLoss(PIPE, reference=network(seed=3)),
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
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
