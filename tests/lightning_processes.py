"""A training by Lightning on two processes, for the test that starts it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from test_integration_lightning import PIPE, Classifier, batches, fitted
from xpenalties.integrations.lightning import PipelineCallback


def main(out: Path) -> None:
    """Train on half of each of one process' batches, and write the parameters to `out` by the first process."""
    half = slice(8) if os.environ["RANK"] == "0" else slice(8, 16)
    module = Classifier()
    pipe = PIPE.with_weights(l1=0.02)  # a sum: the mean over processes is of halves
    made = fitted(
        module,
        PipelineCallback(pipe, activities={"hidden": "encoder"}, track_every=5),
        data=[(x[half], y[half]) for x, y in batches()],
        strategy="ddp",
        devices=2,
        use_distributed_sampler=False,
    )
    if made.is_global_zero:
        torch.save(module.state_dict(), out)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
