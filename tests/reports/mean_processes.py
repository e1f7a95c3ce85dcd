"""Reports on two processes, for the test that starts them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tests.helpers.made_reports import WEIGHTS, reports_of
from tests.helpers.processes import leave
from xpenalties import Report


def gather(state: Any) -> list[Any]:
    states = [None] * dist.get_world_size()
    dist.all_gather_object(states, state)
    return states


def main(out: Path) -> None:
    """Write the mean, as JSON, to a file for each process."""
    dist.init_process_group("gloo")
    rank = int(os.environ["RANK"])
    mean = Report.mean(reports_of(torch.tensor, rank), WEIGHTS[rank], gather=gather)
    (out / f"{rank}.json").write_text(mean.to_json(), "utf-8")
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
