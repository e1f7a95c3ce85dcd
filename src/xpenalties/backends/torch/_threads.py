"""Blocks side by side on PyTorch's CPU, each on one thread.

PyTorch splits each operation over its threads, which meet after every one of them: for operations as short as those on
a block that takes longer than the work, and many times as long where other processes want the cores too. Here threads
meet once, at the end, and what a block needs stays in the cache of one core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import Barrier, Lock, Thread
from typing import Any, TypeVar

import torch

__all__ = ["carried", "side_by_side"]

T = TypeVar("T")
R = TypeVar("R")


def carried() -> Callable[[], AbstractContextManager[None]]:
    """What makes the modes of this thread those of another."""
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
    """`call` of each item, in their order, on as many threads as PyTorch has, within `modes`.

    On this thread, where there is one only, or where whoever watches the operations (a TorchDispatchMode) would not
    see those of others.
    """
    threads = torch.get_num_threads()
    count = min(threads, len(items))
    if count == 1 or torch._C._len_torch_dispatch_stack() > 0:
        return [call(item) for item in items]
    results: list[Any] = [None] * len(items)
    errors: list[BaseException] = []
    waiting = enumerate(items)
    lock = Lock()
    ready = Barrier(count + 1)

    def run() -> None:
        torch.get_num_threads()  # else this thread begins, later, with what all threads begin with
        torch.set_num_threads(1)  # of this thread; but also what threads that are still to come begin with
        ready.wait()
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

    workers = [Thread(target=run, name=f"xpenalties-block-{i}") for i in range(count)]
    for worker in workers:
        worker.start()
    ready.wait()
    torch.set_num_threads(threads)  # for those that are still to come
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]
    return results
