"""Extra peak memory of a call, from tracemalloc, the process's high-water mark, or CUDA's allocator."""

from __future__ import annotations

import ctypes
import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["of_cuda", "of_numpy", "of_process"]

Call = Callable[[], Any]


def of_numpy(call: Call) -> tuple[int, Any]:
    """Use tracemalloc, to which NumPy reports its arrays."""
    tracemalloc.start()
    result = call()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak, result


def of_process(call: Call) -> tuple[int, Any]:
    """Use the high-water mark of Linux, which can be reset to the present level, unlike getrusage's ru_maxrss."""
    gc.collect()
    getattr(ctypes.CDLL(None), "malloc_trim", lambda pad: None)(0)  # else glibc has memory left of earlier calls
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    result = call()
    return _status("VmHWM") - before, result


def _status(key: str) -> int:
    """Return bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (value,) = [line.split()[1] for line in lines if line.startswith(f"{key}:")]
    return int(value) * 1024


def of_cuda(call: Call) -> tuple[int, Any]:
    """Use the counts of PyTorch's allocator."""
    import torch

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before, result
