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
from xpenalties import transforms

MIB = 2**20
CHUNK, LIMIT, WORKERS = 8 * MIB, 256 * MIB, 2  # bytes of a chunk and of all data segments


def _chunk(seed: int, block_info: Any = None) -> np.ndarray:
    """Return a chunk of numbers, made without a copy of it."""
    shape, (row, column) = block_info[None]["chunk-shape"], block_info[None]["chunk-location"]
    x = np.empty(shape)
    x[:] = np.sin(np.arange(shape[1]) + 1.7 * column + seed)
    x *= np.cos(np.arange(shape[0]) + 0.3 * row)[:, None]
    return x


def source(seed: int, *, cut: str) -> Any:
    """Return an array of four times the limit: in chunks of whole rows, or cut along both axes."""
    shape, chunks = {
        "rows": ((128 * 1024, 1024), (1024, 1024)),  # 128 chunks
        "rows and classes": ((32 * 1024, 4096), (1024, 1024)),
    }[cut]
    numbers = da.core.normalize_chunks(chunks, shape)
    return da.map_blocks(_chunk, seed, chunks=numbers, dtype=float, meta=np.empty((0, 0)))


def clipped(x: Any) -> Any:
    """Return the sum of an update that is clipped by its norm."""
    return da.sum(transforms.clip_by_global_norm(1.0).update([x], ())[0][0])


OF_ONE: dict[str, Callable[[Any], Any]] = {
    "l1": xp.l1,
    "huber": xp.huber,
    "l2": lambda x: xp.l2(x, center="mean", clip=1.0),
    "elastic_net": lambda x: xp.elastic_net(x, where=x[:, :1] > 0, reduction="mean"),
    "group_lasso": xp.group_lasso,
    "output_magnitude": xp.output_magnitude,
    "entropy": lambda x: xp.entropy(x, from_logits=True),
    "z_loss": lambda x: xp.z_loss(x, weights=da.ones(x.shape[0], chunks=1024), reduction="mean"),
    "check_finite": lambda x: xp.check_finite(x)[0, 0],
    "clip_by_global_norm": clipped,
}
OF_TWO: dict[str, Callable[[Any, Any], Any]] = {
    "kl_divergence": lambda p, q: xp.kl_divergence(p, q, from_logits=True),
    "js_divergence": lambda p, q: xp.js_divergence(p, q, from_logits=True),
    "topk_kl_divergence": lambda p, q: xp.topk_kl_divergence(p - 9, q - 9),
    "consistency": lambda p, q: xp.consistency(p, q, metric="cosine"),
    "sampled_kl": xp.sampled_kl,
}
GRAMS: dict[str, Callable[[Any], Any]] = {
    "covariance": lambda x: xp.covariance(x[:, :256]),
    "orthogonality": lambda x: xp.orthogonality(x[:, :256]),
}


def _peak() -> int:
    status = Path("/proc/self/status").read_text("ascii")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * resource.getpagesize()


def taken(value: Any) -> float:
    """Compute a value. Returns the peak of the memory that this took, in chunks."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # resets the peak
    before = _resident()
    result = float(value.compute())
    assert np.isfinite(result)
    return (_peak() - before) / CHUNK


def main(cut: str) -> None:
    dask.config.set(scheduler="threads", num_workers=WORKERS)
    xp.l2(da.ones(10, chunks=5)).compute()  # imports, and threads
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
    x, y = source(0, cut=cut), source(1, cut=cut)
    assert x.nbytes == 4 * LIMIT
    peaks = {name: taken(penalty(x)) for name, penalty in OF_ONE.items() if name != "check_finite"}
    peaks |= {name: taken(penalty(x, y)) / 2 for name, penalty in OF_TWO.items()}
    if cut == "rows":
        peaks |= {name: taken(penalty(x)) for name, penalty in GRAMS.items()}
    xp.check_finite(x)
    print(json.dumps(peaks))


if __name__ == "__main__":
    main(sys.argv[1])
