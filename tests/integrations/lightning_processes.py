"""A training by Lightning on two processes, for the test that starts it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from tests.helpers.processes import leave
from tests.integrations.lightning_training import CONTROLLERS, PIPE, Classifier, fitted
from tests.integrations.torch_training import batches
from xpenalties.integrations.lightning import PipelineCallback


def main(out: Path) -> None:
    """Train on half of each of one process' batches; each process writes what it has come to into the folder `out`."""
    torch.set_default_dtype(torch.float64)
    rank = int(os.environ["RANK"])
    half = slice(8 * rank, 8 * rank + 8)
    module = Classifier()
    pipe = PIPE.with_weights(l1=0.02)  # a sum: the mean over processes is of halves
    callback = PipelineCallback(pipe, activities={"hidden": "encoder"}, track_every=5, controllers=CONTROLLERS)
    fitted(
        module,
        callback,
        data=[(x[half], y[half]) for x, y in batches()],
        strategy="ddp",
        devices=2,
        use_distributed_sampler=False,
    )
    torch.save({"parameters": module.state_dict(), "weights": callback.weights()}, out / f"{rank}.pt")
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
