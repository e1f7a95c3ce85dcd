"""Run independent calls at the same time on threads, each with its own time limit. `event_loop` awaits them instead.

The standard library's thread pools do not fit: a thread that hangs keeps its place in the pool, and keeps the
interpreter from exiting. Here each call has its own daemon thread. Python cannot stop a thread, so a running one is
waited for, even if another call fails. Only a thread that times out is abandoned: it may go on running, but its result
is dropped and the next call takes its place.
"""

from __future__ import annotations

import contextvars
import inspect
import math
import os
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, NamedTuple

from .shown import shown

__all__ = [
    "CallAndAwait",
    "CoroutineTask",
    "Outcome",
    "Task",
    "attempt",
    "close",
    "fails",
    "in_order",
    "limit_of",
    "on_threads",
    "outcome_of",
    "start_thread",
]

#: Calls a function (on a thread if the task is blocking) and awaits its result if it is awaitable.
CallAndAwait = Callable[[Callable[[], Any]], Awaitable[Any]]
#: Takes the result of a call, its error, and its duration in seconds.
OnEnd = Callable[[Any, BaseException | None, float], None]


@dataclass(frozen=True)
class Task:
    """A call, its time limit, and whether its failure stops the other tasks.

    Attributes
    ----------
    name : str
        The name in messages.
    call : callable
        Called without arguments.
    timeout : float or None
        Time limit in seconds, from when the call starts. None means no limit.
    blocking : bool
        Only for an event loop: if True, run the call on its own thread; if False, on the loop's thread.
    optional : bool
        If True, a failure is an outcome like any other and does not stop the other tasks.
    """

    name: str
    call: Callable[..., Any]
    timeout: float | None = None
    blocking: bool = True
    optional: bool = False


class CoroutineTask(Task):
    """An event-loop task. Its `call` is a coroutine function that takes a `CallAndAwait`, to run what may block."""


class Outcome(NamedTuple):
    """The result or the error of a call."""

    result: Any = None
    error: Exception | None = None


def on_threads(tasks: Sequence[Task], *, max_workers: int | None) -> list[Outcome]:
    """Run tasks on threads, at most `max_workers` at a time. Returns their outcomes in the order of `tasks`.

    If a task that is not optional fails, no more tasks start, and running tasks are waited for. Then the first error in
    the order of `tasks` is raised, with the other errors as notes. A BaseException that is not an Exception, such as
    KeyboardInterrupt, is raised at once.

    Parameters
    ----------
    tasks : sequence of Task
        Each runs with the caller's context variables. A task that returns an awaitable fails.
    max_workers : int or None
        Maximum number of threads; None means the number of CPUs. A thread that timed out does not count, even if it
        still runs.
    """
    return in_order(tasks, _run_on_threads(tasks, max_workers or os.cpu_count() or 1))


def _run_on_threads(tasks: Sequence[Task], places: int) -> dict[int, Outcome]:
    outcomes: dict[int, Outcome] = {}
    waiting = deque(enumerate(tasks))
    deadlines: dict[int, float] = {}  # of running tasks that are not abandoned
    ended: SimpleQueue[tuple[int, Any, BaseException | None, float]] = SimpleQueue()
    while waiting or deadlines:
        while waiting and len(deadlines) < places:
            i, task = waiting.popleft()
            start_thread(task.name, partial(_refusing_awaitables, task), lambda *end, i=i: ended.put((i, *end)))
            deadlines[i] = monotonic() + limit_of(task)
        remaining = max(0.0, min(deadlines.values()) - monotonic())
        try:
            i, result, error, seconds = ended.get(timeout=min(remaining, threading.TIMEOUT_MAX))
        except Empty:
            now = monotonic()
            overdue = [i for i, deadline in deadlines.items() if deadline <= now]
            new = {i: outcome_of(tasks[i], None, None, late=True) for i in overdue}
        else:
            if i not in deadlines:  # abandoned
                continue
            # by the clock of its own thread, because this thread may wake up late
            new = {i: outcome_of(tasks[i], result, error, late=seconds > limit_of(tasks[i]))}
        for i, outcome in new.items():
            if not isinstance(outcome, Outcome):
                raise outcome
            del deadlines[i]
            outcomes[i] = outcome
            if fails(tasks[i], outcome):
                waiting.clear()
    return outcomes


def start_thread(name: str, call: Callable[[], Any], on_end: OnEnd) -> None:
    """Run `call` on a thread with the caller's context variables, and call `on_end` from there."""
    arguments = contextvars.copy_context(), call, on_end
    try:
        threading.Thread(target=_work, args=arguments, name=name, daemon=True).start()
    except RuntimeError as error:  # the system has no more threads
        on_end(None, error, 0.0)


def _work(context: contextvars.Context, call: Callable[[], Any], on_end: OnEnd) -> None:
    began = monotonic()
    on_end(*context.run(attempt, call), monotonic() - began)
    del on_end  # see in_order


def attempt(call: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return call(), None
    except BaseException as error:  # noqa: BLE001 - the caller raises it
        return None, error


def _refusing_awaitables(task: Task) -> Any:
    result = task.call()
    if inspect.isawaitable(result):
        close(result)
        raise TypeError(
            f"{task.name!r} must return a value on threads, got an awaitable {type(result).__qualname__}. "
            "Use compute_async."
        )
    return result


def close(result: Any) -> None:
    """Close a coroutine that will not be awaited, to avoid Python's warning."""
    if inspect.iscoroutine(result):
        result.close()


def outcome_of(
    task: Task, result: Any, error: BaseException | None, *, late: bool, cancelled: bool = False
) -> Outcome | BaseException:
    """Return the outcome of a task, or a BaseException that is not an Exception, for the caller to raise.

    If the task is `late`, it timed out, unless such a BaseException ended it. If it is `cancelled`, the timeout itself
    ended it.
    """
    if late and (cancelled or error is None or isinstance(error, Exception)):
        overdue = TimeoutError(f"{task.name!r} took longer than its timeout of {task.timeout:g} s.")
        overdue.__cause__ = error  # shows where the task was cancelled
        return Outcome(error=overdue)
    if error is None or isinstance(error, Exception):
        return Outcome(result, error)
    return error


def limit_of(task: Task) -> float:
    return math.inf if task.timeout is None else task.timeout


def fails(task: Task, outcome: Outcome) -> bool:
    return outcome.error is not None and not task.optional


def in_order(tasks: Sequence[Task], outcomes: dict[int, Outcome]) -> list[Outcome]:
    """Return the outcomes in the order of the tasks, or raise the first error of a task that is not optional."""
    failure: Exception | None = None
    for i, task in enumerate(tasks):
        error = None if task.optional or i not in outcomes else outcomes[i].error
        if failure is None:
            failure = error
        elif error is not None:
            failure.add_note(f"Also failed: {shown(task.name)} with {shown(error)}.")
    if failure is None:
        return [outcomes[i] for i in range(len(tasks))]
    try:
        raise failure
    finally:
        # break a cycle: the error's traceback holds this frame, and the frame would hold the error
        del outcomes, failure, error
