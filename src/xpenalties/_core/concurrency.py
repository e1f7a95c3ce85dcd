"""Independent calls side by side, on threads or on an event loop, each with its own time limit.

The standard library's pools do not let go of a thread that hangs: it keeps its place, and the interpreter from exiting.
Here each call has a daemon thread of its own. No thread can be stopped, so one that runs is waited for, whatever fails
beside it. Only where it has timed out is it abandoned: it may still run, but its result is dropped and its place is
given to the next.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import math
import os
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, NamedTuple

__all__ = ["Closing", "Outcome", "Task", "on_event_loop", "on_threads"]

Report = Callable[[Any, BaseException | None, float], None]  # takes the result, the error, and the seconds it took


@dataclass(frozen=True)
class Task:
    """A call, and what it may do to the others."""

    name: str  # for messages
    call: Callable[[], Any]
    timeout: float | None = None  # seconds from when it begins to run
    blocking: bool = True  # on an event loop: put it on a thread; False: call it on the loop's own thread
    optional: bool = False  # its failure is an outcome, and stops nobody else


class Outcome(NamedTuple):
    """The result of a call, or the error of one that is optional."""

    result: Any = None
    error: Exception | None = None


class Closing:
    """A coroutine and what it awaits, to be closed together: closing the first alone leaves what it never awaited.

    Python would warn of those when they are freed, which for garbage that is a cycle is in any order.
    """

    def __init__(self, awaitable: Awaitable[Any], *inner: Awaitable[Any]) -> None:
        self._chain = (awaitable, *inner)

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._chain[0].__await__()

    def close(self) -> None:
        """Do without all of it."""
        for each in self._chain:
            _drop(each)


def on_threads(tasks: Sequence[Task], *, max_workers: int | None) -> list[Outcome]:
    """The outcomes of calls on threads, at most `max_workers` at a time, in the order of `tasks`.

    Where one that is not optional fails, those that have not begun never do, those that run are waited for, and the
    first error in the order of `tasks` is raised, with the others as notes. What is no Exception is raised at once.

    Parameters
    ----------
    tasks : sequence of Task
        Each is called with the caller's context variables. One that returns an awaitable fails.
    max_workers : int or None
        None for as many as there are CPUs. One that has timed out is not counted: it may still run.
    """
    return _settled(tasks, _run_on_threads(tasks, max_workers or os.cpu_count() or 1))


async def on_event_loop(tasks: Sequence[Task]) -> list[Outcome]:
    """The outcomes of calls that begin together on the running event loop, in the order of `tasks`.

    What a call returns is awaited if it can be, within the same time limit. Where one that is not optional fails, or
    whoever awaits this is cancelled, coroutines are cancelled and awaited, and threads that run are waited for. Then
    the first error in the order of `tasks` is raised, with the others as notes; what is no Exception, instead of it.

    Parameters
    ----------
    tasks : sequence of Task
        Each is called with the caller's context variables. One that holds the loop's thread for longer than its timeout
        cannot be interrupted: it has timed out once it returns.
    """
    return _settled(tasks, await _run_on_event_loop(tasks))


def _run_on_threads(tasks: Sequence[Task], places: int) -> dict[int, Outcome]:
    outcomes: dict[int, Outcome] = {}
    waiting = deque(enumerate(tasks))
    deadlines: dict[int, float] = {}  # of those that run and are not abandoned
    ended: SimpleQueue[tuple[int, Any, BaseException | None, float]] = SimpleQueue()
    while waiting or deadlines:
        while waiting and len(deadlines) < places:
            i, task = waiting.popleft()
            _start_thread(task.name, partial(_refusing_awaitables, task), lambda *end, i=i: ended.put((i, *end)))
            deadlines[i] = monotonic() + _limit_of(task)
        remaining = max(0.0, min(deadlines.values()) - monotonic())
        try:
            i, result, error, seconds = ended.get(timeout=min(remaining, threading.TIMEOUT_MAX))
        except Empty:
            now = monotonic()
            overdue = [i for i, deadline in deadlines.items() if deadline <= now]
            new = {i: _outcome(tasks[i], None, None, late=True) for i in overdue}
        else:
            if i not in deadlines:  # abandoned
                continue
            # by its own clock: this thread may have been kept from looking at the right moment
            new = {i: _outcome(tasks[i], result, error, late=seconds > _limit_of(tasks[i]))}
        for i, outcome in new.items():
            if not isinstance(outcome, Outcome):
                raise outcome
            del deadlines[i]
            outcomes[i] = outcome
            if _fails(tasks[i], outcome):
                waiting.clear()
    return outcomes


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
                stop = stop or _fails(tasks[i], outcome)
            elif not (stopped and isinstance(outcome, asyncio.CancelledError)):
                stop, interrupt = True, interrupt or outcome
        if stop and not stopped:  # once: a second time would disturb them at cleaning up
            stopped = True
            for run in pending:
                run.cancel()
    if interrupt is not None:
        raise interrupt
    return outcomes


async def _run(task: Task) -> Outcome | BaseException:
    # nothing is raised through here: a KeyboardInterrupt would break the loop and leave the others behind
    began = monotonic()
    async with asyncio.timeout(task.timeout) as timeout:
        result, error = await _attempt_on_thread(task, timeout) if task.blocking else _attempt(task.call)
        result, error = await _awaited(result, error)
    try:
        return _outcome(task, result, error, late=timeout.expired() or monotonic() - began > _limit_of(task))
    finally:
        del error, timeout  # see _settled


async def _attempt_on_thread(task: Task, timeout: asyncio.Timeout) -> tuple[Any, BaseException | None]:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
    cancelled: asyncio.CancelledError | None = None

    def report(result: Any, error: BaseException | None, _seconds: float) -> None:
        try:
            loop.call_soon_threadsafe(ended.set_result, (result, error))
        except RuntimeError:  # abandoned, and its loop is closed by now
            _drop(result)

    _start_thread(task.name, task.call, report)
    while not ended.done():
        try:
            await asyncio.wait([ended])  # unlike the future itself, it can be cancelled and awaited again
        except asyncio.CancelledError as request:
            cancelled = request
            if timeout.expired():
                ended.add_done_callback(lambda ended: _drop(ended.result()[0]))
                return None, cancelled
    result, error = ended.result()
    if cancelled is not None and inspect.isawaitable(result):
        _drop(result)
        return None, cancelled
    return result, error


def _start_thread(name: str, call: Callable[[], Any], report: Report) -> None:
    """Run `call` on a thread with the caller's context variables, and `report` from there what became of it."""
    arguments = contextvars.copy_context(), call, report
    try:
        threading.Thread(target=_work, args=arguments, name=name, daemon=True).start()
    except RuntimeError as error:  # the system has no more threads
        report(None, error, 0.0)


def _work(context: contextvars.Context, call: Callable[[], Any], report: Report) -> None:
    began = monotonic()
    report(*context.run(_attempt, call), monotonic() - began)
    del report  # see _settled


def _attempt(call: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return call(), None
    except BaseException as error:  # noqa: BLE001 - the caller raises it
        return None, error


async def _awaited(result: Any, error: BaseException | None) -> tuple[Any, BaseException | None]:
    try:
        return (await result if inspect.isawaitable(result) else result), error
    except BaseException as raised:  # noqa: BLE001 - the caller raises it
        return None, raised


def _refusing_awaitables(task: Task) -> Any:
    result = task.call()
    if inspect.isawaitable(result):
        _drop(result)
        raise TypeError(
            f"{task.name!r} must return a value on threads, got an awaitable {type(result).__qualname__}. "
            "Use compute_async."
        )
    return result


def _drop(result: Any) -> None:
    if inspect.iscoroutine(result) or isinstance(result, Closing):
        result.close()  # or Python warns that it was never awaited


def _outcome(task: Task, result: Any, error: BaseException | None, *, late: bool) -> Outcome | BaseException:
    """What became of `task`; a BaseException which is no Exception as it is, to be raised."""
    if late and (error is None or isinstance(error, (Exception, asyncio.CancelledError))):
        overdue = TimeoutError(f"{task.name!r} took longer than its timeout of {task.timeout:g} s.")
        overdue.__cause__ = error  # where it was cancelled
        return Outcome(error=overdue)
    if error is None or isinstance(error, Exception):
        return Outcome(result, error)
    return error


def _limit_of(task: Task) -> float:
    return math.inf if task.timeout is None else task.timeout


def _fails(task: Task, outcome: Outcome) -> bool:
    return outcome.error is not None and not task.optional


def _settled(tasks: Sequence[Task], outcomes: dict[int, Outcome]) -> list[Outcome]:
    """The outcomes in order, of which some lack only where one that is not optional failed."""
    failure: Exception | None = None
    for i, task in enumerate(tasks):
        error = None if task.optional or i not in outcomes else outcomes[i].error
        if failure is None:
            failure = error
        elif error is not None:
            failure.add_note(f"Also failed: {task.name!r} with {error!r}.")
    if failure is None:
        return [outcomes[i] for i in range(len(tasks))]
    try:
        raise failure
    finally:
        # the traceback has this frame: without a cycle between them, what failed is freed with its error
        del outcomes, failure, error
