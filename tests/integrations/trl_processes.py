"""Trainings by TRL's trainers on several processes, for the tests that start them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from trl import SFTConfig

from tests.helpers.processes import leave
from tests.integrations.trl_training import OPTIONS, network, run

__all__ = ["sft"]


def sft(recipe: str, out: Path, **options: Any) -> Any:
    """Train by a recipe for the SFTTrainer. Four examples are a batch of all processes together."""
    size = 4 // int(os.environ.get("WORLD_SIZE", "1"))
    usual = {**OPTIONS, "per_device_train_batch_size": size, "gradient_accumulation_steps": 2, "max_grad_norm": 0.0}
    arguments = SFTConfig(str(out.parent), **usual, **options)
    return run(recipe, reference=network(seed=3), arguments=arguments)["trainer"]


def main(recipe: str, out: Path) -> None:
    """Write the first process' parameters and logs to `out`, or compare each process' loss with TRL's."""
    if recipe == "trl_grpo.py":
        from tests.integrations.test_trl_grpo import as_trl

        as_trl(out.parent / os.environ["RANK"], ddp_backend="gloo", per_device_train_batch_size=2)
    else:
        made = sft(recipe, out, ddp_backend="gloo")
        if made.is_world_process_zero():
            torch.save({"parameters": dict(made.model.named_parameters()), "logs": made.state.log_history}, out)
    leave()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
