"""Extra peak memory of a call, by what can see it: tracemalloc, the process' high-water mark, CUDA's allocator."""

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
    """NumPy tells tracemalloc of its arrays."""
    tracemalloc.start()
    result = call()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak, result


def of_process(call: Call) -> tuple[int, Any]:
    """Linux only: the mark can be set back to the present level, which getrusage's ru_maxrss cannot."""
    gc.collect()
    getattr(ctypes.CDLL(None), "malloc_trim", lambda pad: None)(0)  # else glibc has memory left of earlier calls
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    result = call()
    return _status("VmHWM") - before, result


def _status(key: str) -> int:
    """Bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (value,) = [line.split()[1] for line in lines if line.startswith(f"{key}:")]
    return int(value) * 1024


def of_cuda(call: Call) -> tuple[int, Any]:
    """What PyTorch's allocator counts."""
    import torch

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before, result
