"""Reports on one of two processes of JAX, for the test that starts both."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import process_allgather

from tests.helpers.made_reports import WEIGHTS, reports_of
from xpenalties import Report


def gather(state: Any) -> list[Any]:
    """Gather any object, as docs/guide/tracking.md does."""
    data = np.frombuffer(pickle.dumps(state), np.uint8)
    sizes = process_allgather(np.asarray(data.size))
    rows = process_allgather(np.pad(data, (0, sizes.max() - data.size)))
    return [pickle.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


def main(rank: int, address: str, out: Path) -> None:
    """Write the mean, as JSON, to a file."""
    jax.distributed.initialize(address, num_processes=2, process_id=rank)
    mean = Report.mean(reports_of(jnp.asarray, rank), WEIGHTS[rank], gather=gather)
    (out / f"{rank}.json").write_text(mean.to_json(), "utf-8")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
