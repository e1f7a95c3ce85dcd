"""Reports on two processes, for the test that starts them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tests.helpers.processes import leave
from xpenalties import Penalty, Pipeline, Report

__all__ = ["PIPE", "WEIGHTS", "reports_of"]

PIPE = Pipeline([Penalty("l1", weight=0.5), Penalty("l2", every=2)])
WEIGHTS = ([1.0, 2.0, 3.0], [4.0, 0.0])  # of the reports of each process


def reports_of(rank: int) -> list[Report]:
    """Return the reports of one process: three of the first process, two of the second."""
    x = torch.tensor([[1.0, -2.0], [3.0, 4.0]][rank])
    return [PIPE.compute(x + step, step=step)[1] for step in range(len(WEIGHTS[rank]))]


def gather(state: Any) -> list[Any]:
    states = [None] * dist.get_world_size()
    dist.all_gather_object(states, state)
    return states


def main(out: Path) -> None:
    """Write the mean, as JSON, to a file for each process."""
    dist.init_process_group("gloo")
    rank = int(os.environ["RANK"])
    mean = Report.mean(reports_of(rank), WEIGHTS[rank], gather=gather)
    (out / f"{rank}.json").write_text(mean.to_json(), "utf-8")
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
