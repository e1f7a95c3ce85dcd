"""Evaluate blocks in parallel on the CPU in PyTorch, each on one thread.

PyTorch splits each operation over its threads, and the threads wait for one another after each operation. On a block,
operations are so short that the wait takes longer than the work, and many times longer if other processes use the
cores too. Here threads wait once, at the end, and the data of a block stays in the cache of one core.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from threading import Lock, Thread
from typing import Any, TypeVar, cast

import torch

__all__ = ["carried", "side_by_side"]

T = TypeVar("T")
R = TypeVar("R")


def carried() -> Callable[[], AbstractContextManager[None]]:
    """Return a factory of context managers that set this thread's modes on another thread."""
    grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    casts = [(kind, torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]

    @contextmanager
    def modes() -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(inference))
            stack.enter_context(torch.set_grad_enabled(grad))
            for kind, dtype in casts:
                stack.enter_context(torch.autocast(kind, dtype=dtype))
            yield

    return modes


def side_by_side(call: Callable[[T], R], items: Sequence[T], modes: Callable[[], Any]) -> list[R]:
    """Call a function with each item, on as many threads as PyTorch has, within `modes`. Results keep the order.

    All calls run on this thread if PyTorch has only one, if PyTorch cannot be limited to one thread in each of ours, if
    the system has no more threads, or if a TorchDispatchMode is active, which would not see the operations of other
    threads.
    """
    count = min(torch.get_num_threads(), len(items))
    limit = _omp_set_num_threads()
    if count == 1 or limit is None or torch._C._len_torch_dispatch_stack() > 0:
        return [call(item) for item in items]
    results: list[Any] = [None] * len(items)
    errors: list[BaseException] = []
    waiting = enumerate(items)
    lock = Lock()

    def run() -> None:
        torch.get_num_threads()  # makes PyTorch set up this thread now; later, it would overwrite the limit
        limit(1)
        try:
            with modes():
                while True:
                    with lock:
                        i, item = next(waiting, (None, None))
                    if i is None or errors:
                        return
                    results[i] = call(item)  # type: ignore[arg-type]
        except BaseException as error:  # noqa: BLE001 - raised on the thread that waits
            errors.append(error)

    workers: list[Thread] = []
    try:
        for i in range(count):
            worker = Thread(target=run, name=f"xpenalties-block-{i}")
            worker.start()
            workers.append(worker)
    except RuntimeError:  # the system has no more threads, so those that have started do all calls
        if not workers:
            return [call(item) for item in items]
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]
    return results


@cache
def _omp_set_num_threads() -> Callable[[int], None] | None:
    """Return OpenMP's function of this name from PyTorch's libraries, or None if PyTorch is without OpenMP.

    It affects only the thread that calls it. torch.set_num_threads affects all threads that have not used PyTorch yet,
    including the user's own.
    """
    try:
        function = ctypes.CDLL(torch._C.__file__).omp_set_num_threads
    except (OSError, AttributeError):
        return None
    function.argtypes, function.restype = [ctypes.c_int], None
    return cast(Callable[[int], None], function)
