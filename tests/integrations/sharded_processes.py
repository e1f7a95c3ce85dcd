"""A training on two processes with sharded parameters and a checkpoint in the middle, for the test that starts it."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard

from tests.helpers.processes import leave
from tests.integrations.torch_training import batches, network
from xpenalties import prox, schedules, transforms
from xpenalties.integrations.torch import attach

__all__ = ["made", "trained"]


def made(*, sharded: bool) -> tuple[Any, Any, list[Any]]:
    """A model, its optimizer, and transforms in it."""
    model = network()
    if sharded:
        fully_shard(model)
    optimizer = torch.optim.Adam(model.named_parameters(), lr=0.01)
    decay = transforms.add_l2_decay(schedules.linear(0.0, 0.5, steps=30))
    shrinking = transforms.proximal(prox.l1, scale=schedules.linear(0.0, 0.5, steps=30))
    return (
        model,
        optimizer,
        [
            attach(optimizer, transforms.clip_by_global_norm(0.1)),
            attach(optimizer, decay),
            attach(optimizer, shrinking, to="updates", scale_by_learning_rate=True),
        ],
    )


def trained(model: Any, optimizer: Any, part: slice) -> None:
    for x, y in batches()[part]:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def main(out: Path) -> None:
    """Train, save, load into new objects, and go on. The first process writes the parameters."""
    warnings.filterwarnings("ignore")  # PyTorch's own
    torch.distributed.init_process_group("gloo")
    torch.set_default_dtype(torch.float64)
    model, optimizer, _ = made(sharded=True)
    trained(model, optimizer, slice(0, 10))
    parameters, state = get_state_dict(model, optimizer)
    checkpoint.save({"model": parameters, "optimizer": state}, checkpoint_id=out / "checkpoint")

    model, optimizer, attached = made(sharded=True)
    parameters, state = get_state_dict(model, optimizer)
    loaded = {"model": parameters, "optimizer": state}
    checkpoint.load(loaded, checkpoint_id=out / "checkpoint")
    set_state_dict(model, optimizer, model_state_dict=loaded["model"], optim_state_dict=loaded["optimizer"])
    counts = [int(each.state.step) for each in attached[1:]]
    trained(model, optimizer, slice(10, None))
    whole = {name: param.full_tensor().detach() for name, param in model.named_parameters()}
    if torch.distributed.get_rank() == 0:
        torch.save({"parameters": whole, "counts": counts}, out / "result.pt")
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
