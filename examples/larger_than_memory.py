"""Penalties of activations in a file that is larger than the memory, with Dask.

    python examples/larger_than_memory.py [--gigabytes 1.0] [--memory 0.25] [--workers 2]

The script writes hidden states to a temporary .npy file. On Linux, it then limits its own memory to what it uses so far
plus `--memory`, so `numpy.load` of the file fails. A pipeline of six penalties takes the memory of a few chunks. It
reads the file twice, because `covariance` needs the mean of all rows first.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

try:
    import dask
    import dask.array as da
    import numpy as np

    from xpenalties import Penalty, Pipeline
except ModuleNotFoundError as error:
    sys.exit(f'{error.name} is missing: pip install "xpenalties[numpy]" "dask[array]"')

FEATURES, CLASSES = 512, 64
ROWS_OF_CHUNK = 4096  # 8 MiB of float32


def write(path, rows):
    """Write random activations to a file, a chunk at a time."""
    file = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, FEATURES))
    rng = np.random.default_rng(0)
    for start in range(0, rows, ROWS_OF_CHUNK):
        part = file[start : start + ROWS_OF_CHUNK]
        part[:] = rng.standard_normal(part.shape, dtype=np.float32)
    file.flush()


def read(path, rows, block_info=None):
    """Return the rows of one chunk."""
    (start, stop), _ = block_info[None]["array-location"]
    with path.open("rb") as file:
        file.seek(path.stat().st_size + (start - rows) * FEATURES * 4)
        return np.fromfile(file, np.float32, (stop - start) * FEATURES).reshape(-1, FEATURES)


def lazy(path, rows):
    """Return the file as a Dask array. Nothing is read yet."""
    chunks = da.core.normalize_chunks((ROWS_OF_CHUNK, FEATURES), (rows, FEATURES))
    return da.map_blocks(read, path, rows, chunks=chunks, dtype=np.float32, meta=np.empty((0, 0), np.float32))


def limit_memory(more):
    """Let this process use `more` bytes beyond what it uses now. Return False if the system cannot do that."""
    status = Path("/proc/self/status")
    if not status.exists():
        return False
    import resource

    limit = 1024 * int(status.read_text().partition("VmData:")[2].split()[0]) + more
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    return True


def pipeline():
    logits = {"from_logits": True}
    return Pipeline(
        [
            Penalty("l1", inputs="hidden", weight=1e-3, options={"reduction": "mean"}),
            Penalty("group_lasso", inputs="hidden", weight=1e-3, options={"reduction": "mean"}),
            Penalty("output_magnitude", inputs="hidden", weight=0.1),
            Penalty("covariance", inputs="hidden", weight=1.0),
            Penalty("linear_entropy", inputs=("hidden", "layer"), weight=0.01),
            Penalty("entropy", inputs="logits", weight=0.01, options=logits),
        ]
    )


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=1.0, help="size of the file")
    parser.add_argument("--memory", type=float, default=0.25, help="gigabytes of memory for the pipeline")
    parser.add_argument("--workers", type=int, default=2, help="number of threads")
    args = parser.parse_args(argv)

    rows = max(1, round(args.gigabytes * 2**30 / (4 * FEATURES * ROWS_OF_CHUNK))) * ROWS_OF_CHUNK
    layer = np.random.default_rng(1).standard_normal((CLASSES, FEATURES), dtype=np.float32) / FEATURES**0.5
    with tempfile.TemporaryDirectory() as folder, dask.config.set(scheduler="threads", num_workers=args.workers):
        path = Path(folder, "hidden.npy")
        write(path, rows)
        size = path.stat().st_size
        pipeline().compute(inputs(lazy(path, rows)[:64], layer))[1].to_dict()  # imports and threads
        if limit_memory(round(args.memory * 2**30)):
            print(f"{size / 2**30:.2f} GiB on disk, {args.memory:.2f} GiB of memory more than now")
            try:
                np.load(path)
                print("numpy.load: read all of it")
            except MemoryError:
                print("numpy.load: MemoryError")
        start = time.perf_counter()
        _, report = pipeline().compute(inputs(lazy(path, rows), layer))  # computes nothing
        made = time.perf_counter() - start
        figures = report.to_dict()  # computes everything, once
        print(f"a graph in {made:.1f} s, computed in {time.perf_counter() - start - made:.1f} s\n")
        print(report)
    return figures


def inputs(hidden, layer):
    weight = da.from_array(layer)
    return {"hidden": hidden, "layer": weight, "logits": hidden @ weight.T}


if __name__ == "__main__":
    main()
