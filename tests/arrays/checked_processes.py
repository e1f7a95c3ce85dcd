"""A value check of sharded tensors on two processes, for the test that starts them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh

from tests.helpers.processes import leave
from xpenalties import entropy, set_value_checks


def main(out: Path) -> None:
    """Write what a good and a bad array give to a file for each process. Only the second process has bad rows."""
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    good = torch.full((2, 4), 0.25).log()
    bad = torch.stack([good[0], good[1].exp()])
    results = []
    with set_value_checks():
        for x in (good, bad):
            try:
                results.append(f"{float(entropy(distribute_tensor(x, mesh, [Shard(0)]))):.4f}")
            except ValueError as error:
                results.append(str(error))
    (out / f"{os.environ['RANK']}.txt").write_text("\n".join(results), "utf-8")
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
