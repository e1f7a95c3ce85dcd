"""Run independent calls together on the running event loop, each with its own time limit.

This is not in `concurrency`, so that importing the package does not import asyncio.

asyncio.TaskGroup does not fit. In Python 3.11 and 3.12 it forgets that it was cancelled if one of its tasks fails at
the same time. Also, a KeyboardInterrupt in a task ends the loop, and leaves the other tasks running.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from time import monotonic
from typing import Any
from weakref import ref

from .concurrency import (
    CoroutineTask,
    Outcome,
    Task,
    attempt,
    close,
    fails,
    in_order,
    limit_of,
    outcome_of,
    start_thread,
)

__all__ = ["on_event_loop"]


async def on_event_loop(tasks: Sequence[Task]) -> list[Outcome]:
    """Run all tasks together on the running event loop. Returns their outcomes in the order of `tasks`.

    If a call returns an awaitable, it is awaited within the same time limit. If a task that is not optional fails, or
    the caller is cancelled, the other coroutines are cancelled and awaited, and running threads are waited for. Then
    the first error in the order of `tasks` is raised, with the other errors as notes. A BaseException that is not an
    Exception, such as CancelledError, is raised instead.

    Parameters
    ----------
    tasks : sequence of Task
        Each runs with the caller's context variables. A call on the loop's thread cannot be interrupted: if it takes
        longer than its timeout, it times out when it returns.
    """
    return in_order(tasks, await _run_on_event_loop(tasks))


async def _run_on_event_loop(tasks: Sequence[Task]) -> dict[int, Outcome]:
    runs = {asyncio.create_task(_run(task), name=task.name): i for i, task in enumerate(tasks)}
    outcomes: dict[int, Outcome] = {}
    pending, stopped = set(runs), False
    interrupt: BaseException | None = None
    while pending:
        stop = False
        try:
            finished, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError as cancelled:
            finished, stop = set(), True
            interrupt = interrupt or cancelled
        for run in sorted(finished, key=runs.__getitem__):
            i, outcome = runs[run], asyncio.CancelledError() if run.cancelled() else run.result()
            if isinstance(outcome, Outcome):
                outcomes[i] = outcome
                stop = stop or fails(tasks[i], outcome)
            elif not (stopped and isinstance(outcome, asyncio.CancelledError)):
                stop, interrupt = True, interrupt or outcome
        if stop and not stopped:  # only once: a second cancellation would interrupt their cleanup
            stopped = True
            for run in pending:
                run.cancel()
    if interrupt is not None:
        raise interrupt
    return outcomes


async def _run(task: Task) -> Outcome | BaseException:
    """Run one task. Errors are returned: a raised KeyboardInterrupt would end the loop and abandon the other tasks."""
    began = monotonic()
    async with asyncio.timeout(task.timeout) as timeout:
        # weak, to break a cycle: the error's traceback holds the timeout, which holds the asyncio.Task and its result
        call_and_await = partial(_call_and_await, task, ref(timeout))
        awaitable = task.call(call_and_await) if isinstance(task, CoroutineTask) else call_and_await(task.call)
        result, error = await _attempt_async(awaitable)
    try:
        late = timeout.expired() or monotonic() - began > limit_of(task)
        return outcome_of(task, result, error, late=late, cancelled=isinstance(error, asyncio.CancelledError))
    finally:
        del error, timeout  # see in_order


async def _call_and_await(task: Task, timeout: ref[asyncio.Timeout], call: Callable[[], Any]) -> Any:
    """Call a function (on a thread if `task` is blocking) and await its result if it is awaitable."""
    result, error = await _attempt_on_thread(task.name, timeout, call) if task.blocking else attempt(call)
    if error is None:
        return await result if inspect.isawaitable(result) else result
    try:
        raise error
    finally:
        del error  # see in_order


async def _attempt_on_thread(
    name: str, timeout: ref[asyncio.Timeout], call: Callable[[], Any]
) -> tuple[Any, BaseException | None]:
    """Call a function on a thread, and wait for it unless `timeout` expires."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
    cancelled: asyncio.CancelledError | None = None

    def on_end(result: Any, error: BaseException | None, _seconds: float) -> None:
        try:
            loop.call_soon_threadsafe(ended.set_result, (result, error))
        except RuntimeError:  # the thread was abandoned, and the loop is closed
            close(result)

    start_thread(name, call, on_end)
    while not ended.done():
        try:
            await asyncio.wait([ended])  # `wait` can be cancelled and awaited again, the future cannot
        except asyncio.CancelledError as request:
            cancelled = request
            limit = timeout()
            if limit is not None and limit.expired():
                ended.add_done_callback(lambda ended: close(ended.result()[0]))
                return None, cancelled
    result, error = ended.result()
    if cancelled is not None and inspect.isawaitable(result):
        close(result)
        return None, cancelled
    return result, error


async def _attempt_async(awaitable: Awaitable[Any]) -> tuple[Any, BaseException | None]:
    try:
        return await awaitable, None
    except BaseException as error:  # noqa: BLE001 - the caller raises it
        return None, error
