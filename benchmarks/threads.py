"""The time that execution="threads" and compute_async save, for two CPU-bound penalties and several that wait.

Run `python benchmarks/threads.py`. Sequential runs and runs on threads take turns, and the best of several counts.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from threading import Thread
from typing import Any

import numpy as np

from xpenalties import Penalty, Pipeline

REPEATS = 15
SHAPE = 200, 10_000
WAITING = 8
SECONDS = 0.2


def disorder(x: np.ndarray) -> Any:
    """Return how far the rows are from sorted: the mean distance of rank and position. NumPy releases the GIL."""
    return np.mean(np.abs(np.argsort(x, axis=-1, kind="stable") - np.arange(x.shape[-1])))


def on_bare_threads(*calls: Callable[[], Any]) -> None:
    """Run the calls on bare threads, which shows the possible gain on this machine."""
    threads = [Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def waiting(x: np.ndarray) -> float:
    await asyncio.sleep(SECONDS)
    return 1.0


def best(*runs: Callable[[], Any]) -> list[float]:
    """Return seconds. Each runs once in each round, so other load affects all of them equally."""
    seconds = [float("inf")] * len(runs)
    for _ in range(REPEATS):
        for i, run in enumerate(runs):
            began = time.perf_counter()
            run()
            seconds[i] = min(seconds[i], time.perf_counter() - began)
    return seconds


def main() -> None:
    """Measure both."""
    rng = np.random.default_rng(0)
    inputs = {"a": rng.random(SHAPE), "b": rng.random(SHAPE)}
    busy = Pipeline([Penalty(disorder, name=name, inputs=name) for name in inputs])
    assert busy(inputs) == busy.compute(inputs, execution="threads")[0]
    sequential, threads, bare = best(
        lambda: busy.compute(inputs),
        lambda: busy.compute(inputs, execution="threads"),
        lambda: on_bare_threads(*[lambda x=x: disorder(x) for x in inputs.values()]),
    )
    print(f"2 penalties that rank {SHAPE[0]} x {SHAPE[1]} numbers, {os.cpu_count()} CPUs")
    print(f"  sequentially {sequential:.3f} s, on threads {threads:.3f} s: {sequential / threads:.2f} times as fast")
    print(f"  on bare threads {bare:.3f} s: {sequential / bare:.2f} times as fast")

    asleep = Pipeline([Penalty(waiting, name=f"waiting {i}") for i in range(WAITING)])
    (together,) = best(lambda: asyncio.run(asleep.compute_async(inputs["a"][0])))
    print(f"{WAITING} coroutines of {SECONDS} s: {together:.3f} s together")


if __name__ == "__main__":
    main()
