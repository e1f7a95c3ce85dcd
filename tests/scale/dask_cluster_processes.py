"""Penalties on a cluster of two processes, for the test that starts it.

Writes the values, and how much memory each took on a worker, in chunks, as JSON to standard output.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from distributed import Client, LocalCluster

import xpenalties as xp
from tests.scale.dask_memory_processes import CHUNK, reset_peak, source, status

CALLS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "l2": ("rows", lambda x: xp.l2(x, center="mean", reduction="mean")),
    "entropy": ("rows and classes", lambda x: xp.entropy(x, from_logits=True)),
    "output_magnitude": ("rows and classes", xp.output_magnitude),
    "covariance": ("rows", lambda x: xp.covariance(x[:, :64])),
    "linear_entropy": ("rows", lambda x: xp.linear_entropy(x, xp.namespace(x).ones((32, 1024)))),
}


def main() -> None:
    found: dict[str, Any] = {}
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        float(xp.l2(source(0, cut="rows", chunks=2)).compute())  # imports
        for name, (cut, call) in CALLS.items():
            few = source(0, cut=cut, chunks=4)
            np.testing.assert_allclose(call(few).compute(), call(few.compute(scheduler="threads")), rtol=1e-9)
            before = client.run(reset_peak)
            call(source(0, cut=cut, chunks=48)).compute()
            peaks = client.run(status, "VmHWM")
            found[name] = max((peaks[worker] - before[worker]) / CHUNK for worker in peaks)
        kept = few.persist()
        np.testing.assert_allclose(xp.l2(kept, center="mean").compute(), xp.l2(few.compute(), center="mean"))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
