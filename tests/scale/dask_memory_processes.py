"""Penalties of Dask arrays that are four times as large as the memory of the process, for the test that starts it.

Writes how much memory each penalty took, in chunks, as JSON to standard output.
"""

from __future__ import annotations

import ctypes
import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np

import xpenalties as xp
from xpenalties import Penalty, Pipeline, transforms

CHUNK, WORKERS = 8 * 2**20, 2  # bytes of a chunk of 1024 x 1024
MORE = 24 * CHUNK  # what the penalties may take: 6 chunks of each of two arrays for each worker


def _chunk(seed: int, block_info: Any = None) -> np.ndarray:
    """Return a chunk of numbers, made without a copy of it."""
    shape, (row, column) = block_info[None]["chunk-shape"], block_info[None]["chunk-location"]
    x = np.empty(shape)
    x[:] = np.sin(np.arange(shape[1]) + 1.7 * column + seed)
    x *= np.cos(np.arange(shape[0]) + 0.3 * row)[:, None]
    return x


def source(seed: int, *, cut: str, chunks: int) -> Any:
    """Return an array of this number of chunks: of whole rows, or cut along both axes."""
    along = 1 if cut == "rows" else 4
    numbers = da.core.normalize_chunks((1024, 1024), (1024 * -(-chunks // along), 1024 * along))
    return da.map_blocks(_chunk, seed, chunks=numbers, dtype=float, meta=np.empty((0, 0)))


def clipped(x: Any) -> Any:
    """Return the sum of an update that is clipped by its norm."""
    return da.sum(transforms.clip_by_global_norm(1.0).update([x], ())[0][0])


PIPELINE = Pipeline(  # penalties of one pass and of two: no chunk may wait for the second pass
    [
        Penalty("l1", inputs="x"),
        Penalty("l2", inputs="x", options={"center": "mean"}),
        Penalty("output_magnitude", inputs="x"),
        Penalty("entropy", inputs="x", options={"from_logits": True}),
        Penalty("covariance", inputs="few"),
    ]
)
OF_ONE: dict[str, Callable[[Any], Any]] = {
    "l1": xp.l1,
    "huber": xp.huber,
    "l2": lambda x: xp.l2(x, center="mean", clip=1.0),
    "elastic_net": lambda x: xp.elastic_net(x, where=da.ones((len(x), 1), dtype=bool), reduction="mean"),
    "group_lasso": xp.group_lasso,
    "output_magnitude": xp.output_magnitude,
    "entropy": lambda x: xp.entropy(x, from_logits=True),
    "z_loss": lambda x: xp.z_loss(x, weights=da.ones(len(x), chunks=1024), reduction="mean"),
    "clip_by_global_norm": clipped,
    "Pipeline": lambda x: PIPELINE({"x": x, "few": x[:, :256]}),
}
OF_TWO: dict[str, Callable[[Any, Any], Any]] = {
    "kl_divergence": lambda p, q: xp.kl_divergence(p, q, from_logits=True),
    "consistency": lambda p, q: xp.consistency(p, q, metric="cosine"),
    "sampled_kl": xp.sampled_kl,
}
GRAMS: dict[str, Callable[[Any], Any]] = {
    "covariance": lambda x: xp.covariance(x[:, :256]),
    "orthogonality": lambda x: xp.orthogonality(x[:, :256]),
}


def status(name: str) -> int:
    """Return a number of bytes from the system's report on this process."""
    text = Path("/proc/self/status").read_text("ascii")
    return 1024 * int(text.partition(f"{name}:")[2].split()[0])


def reset_peak() -> int:
    """Forget the peak of the memory. Returns what is in use."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", "ascii")
    return status("VmRSS")


def taken(value: Any) -> float:
    """Compute a value. Returns the peak of the memory that this took, in chunks for each worker."""
    before = reset_peak()
    assert np.isfinite(float(value.compute()))
    return (status("VmHWM") - before) / CHUNK / WORKERS


def main(cut: str) -> None:
    dask.config.set(scheduler="threads", num_workers=WORKERS)
    xp.covariance(da.ones((10, 5), chunks=5)).compute()  # imports, and buffers for products
    xp.huber(source(0, cut=cut, chunks=8)).compute()  # threads, and what the C library keeps for each
    limit = status("VmData") + MORE
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    x, y = (source(seed, cut=cut, chunks=-(-4 * limit // CHUNK)) for seed in (0, 1))
    assert x.nbytes >= 4 * limit
    peaks = {name: taken(penalty(x)) for name, penalty in OF_ONE.items()}
    peaks |= {name: taken(penalty(x, y)) / 2 for name, penalty in OF_TWO.items()}
    if cut == "rows":
        peaks |= {name: taken(penalty(x)) for name, penalty in GRAMS.items()}
        xp.check_finite(x)
    print(json.dumps(peaks))


if __name__ == "__main__":
    main(sys.argv[1])
