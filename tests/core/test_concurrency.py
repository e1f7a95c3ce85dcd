"""Calls side by side on threads and on an event loop: order, time limits, failures, cancellation, nothing left."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import os
import signal
import threading
import time
import traceback
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import pytest

from tests.helpers.clocks import GRACE, PATIENCE, Clock
from xpenalties._core import concurrency, event_loop
from xpenalties._core.concurrency import CallAndAwait, CoroutineTask, Outcome, Task, on_threads
from xpenalties._core.event_loop import on_event_loop

T = TypeVar("T")
Run = Callable[[Sequence[Task]], list[Outcome]]


def _run(main: Coroutine[Any, Any, T]) -> T:
    async def patient() -> T:
        async with asyncio.timeout(PATIENCE):
            return await main

    return asyncio.run(patient())


def _threads(tasks: Sequence[Task]) -> list[Outcome]:
    return on_threads(tasks, max_workers=len(tasks) or None)


def _loop(tasks: Sequence[Task]) -> list[Outcome]:
    async def main() -> list[Outcome]:
        try:
            return await on_event_loop(tasks)
        finally:
            assert asyncio.all_tasks() == {asyncio.current_task()}

    return _run(main())


both = pytest.mark.parametrize("run", [pytest.param(_threads, id="threads"), pytest.param(_loop, id="event_loop")])


def _join(threads: set[threading.Thread]) -> None:
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    _join(set(threading.enumerate()) - before)


class Gate(threading.Event):
    """An event that is waited for with patience, not forever."""

    def pass_(self) -> None:
        assert self.wait(PATIENCE)


@pytest.fixture
def gate() -> Iterator[Gate]:
    """What a call hangs at: opened at the latest when the test is over."""
    gate = Gate()
    yield gate
    gate.set()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that timeouts go by."""
    clock = Clock()
    for module in (concurrency, event_loop):
        monkeypatch.setattr(module, "monotonic", clock)
    return clock


def _raise(error: BaseException) -> Any:
    raise error


async def _raise_later(error: BaseException) -> Any:
    raise error


# ---- on threads and on an event loop ----


@both
def test_no_tasks(run: Run) -> None:
    assert run([]) == []


@both
def test_outcomes_are_in_the_order_of_the_tasks(run: Run) -> None:
    gates = [Gate() for _ in range(4)]
    gates[3].set()

    def call(i: int) -> int:  # the last ends first
        gates[i].pass_()
        gates[i - 1].set()
        return i

    assert run([Task(str(i), lambda i=i: call(i)) for i in range(4)]) == [Outcome(i) for i in range(4)]


@both
def test_calls_run_at_the_same_time(run: Run) -> None:
    barrier = threading.Barrier(12, timeout=PATIENCE)  # more than the default executor of asyncio has workers here
    assert len(run([Task(str(i), barrier.wait) for i in range(12)])) == 12


@both
def test_one_call_has_a_thread_too_and_does_not_keep_the_interpreter(run: Run) -> None:
    (outcome,) = run([Task("a", threading.current_thread)])
    assert outcome.result is not threading.current_thread()
    assert outcome.result.daemon and outcome.result.name == "a"


@both
def test_context_variables_of_the_caller(run: Run) -> None:
    variable = contextvars.ContextVar("variable", default="default")

    def call() -> str:
        seen = variable.get()
        variable.set("a task's own")
        return seen

    token = variable.set("the caller's")
    try:
        assert run([Task("a", call), Task("b", call)]) == [Outcome("the caller's")] * 2
        assert variable.get() == "the caller's"
    finally:
        variable.reset(token)


@both
def test_the_error_itself_is_raised_once_the_others_have_ended(run: Run) -> None:
    error, failed, ended = ValueError("mine"), Gate(), []

    def fail() -> None:
        failed.set()
        raise error

    def slow() -> None:
        failed.pass_()
        time.sleep(GRACE)
        ended.append(1)

    with pytest.raises(ValueError, match=r"^mine$") as caught:
        run([Task("slow", slow), Task("fail", fail)])
    assert ended == [1]
    assert caught.value is error and error.__context__ is None and not hasattr(error, "__notes__")
    assert traceback.extract_tb(error.__traceback__)[-1].name == "fail"


@both
def test_the_first_error_in_order_is_raised_with_the_others_as_notes(run: Run) -> None:
    gates = [Gate() for _ in range(4)]
    gates[3].set()

    def call(i: int) -> None:
        gates[i].pass_()
        gates[i - 1].set()
        raise ValueError(i)

    tasks = [Task("fine", lambda: 1), *(Task(f"t{i}", lambda i=i: call(i), optional=i == 1) for i in range(4))]
    with pytest.raises(ValueError, match=r"^0\n") as caught:
        run(tasks)
    assert caught.value.__notes__ == ["Also failed: 't2' with ValueError(2).", "Also failed: 't3' with ValueError(3)."]


@both
def test_an_optional_failure_is_an_outcome(run: Run) -> None:
    error = ValueError("mine")
    assert run([Task("a", lambda: _raise(error), optional=True), Task("b", lambda: 2)]) == [
        Outcome(error=error),
        Outcome(2),
    ]


@both
def test_timeout(run: Run, gate: Gate) -> None:
    with pytest.raises(TimeoutError, match=r"^'slow' took longer than its timeout of 0.05 s\.$"):
        run([Task("quick", lambda: 1, timeout=PATIENCE), Task("slow", gate.pass_, timeout=0.05)])


@both
def test_timeout_of_an_optional_task(run: Run, gate: Gate) -> None:
    slow, quick = run([Task("slow", gate.pass_, timeout=0.05, optional=True), Task("quick", lambda: 1)])
    assert isinstance(slow.error, TimeoutError) and quick == Outcome(1)


@both
def test_a_timeout_of_the_calls_own_is_like_any_error(run: Run) -> None:
    error = TimeoutError("a socket's")
    assert run([Task("a", lambda: _raise(error), timeout=PATIENCE, optional=True)]) == [Outcome(error=error)]


@both
def test_who_is_waited_for_after_a_failure_keeps_its_timeout(run: Run, gate: Gate) -> None:
    began = Gate()

    def hang() -> None:
        began.set()
        gate.pass_()

    def fail() -> None:
        began.pass_()
        raise ValueError("mine")

    tasks = [Task("fail", fail), Task("a", hang, timeout=0.1), Task("b", hang, timeout=0.1, optional=True)]
    with pytest.raises(ValueError, match="mine") as caught:
        run(tasks)
    (note,) = caught.value.__notes__
    assert note.startswith("Also failed: 'a' with TimeoutError(")


@both
def test_what_is_no_exception_is_raised_though_optional(run: Run) -> None:
    with pytest.raises(KeyboardInterrupt):
        run([Task("a", lambda: 1), Task("b", lambda: _raise(KeyboardInterrupt()), optional=True, timeout=PATIENCE)])


@both
def test_no_more_threads(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refusing(thread: threading.Thread) -> None:
        if thread.name == "one too many":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refusing)
    ended: list[int] = []
    with pytest.raises(RuntimeError, match="can't start new thread"):
        run([Task("a", lambda: ended.append(1)), Task("one too many", lambda: 2)])
    assert ended == [1]


@pytest.mark.parametrize("kind", ["threads", "event_loop", "on_the_loop", "coroutine"])
def test_what_failed_is_freed_with_its_error(kind: str) -> None:
    class Big:
        pass

    alive: list[weakref.ref[Big]] = []

    def fail() -> None:
        big = Big()
        alive.append(weakref.ref(big))
        raise ValueError("mine")

    async def fail_later() -> None:
        fail()

    call, blocking = fail_later if kind == "coroutine" else fail, kind == "event_loop"
    tasks = [Task("a", call, blocking=blocking), Task("b", call, blocking=blocking, optional=True)]

    async def main() -> None:
        with suppress(ValueError):  # asyncio.run would keep the error
            await on_event_loop(tasks)

    before = set(threading.enumerate())
    gc.collect()
    gc.disable()
    try:
        if kind == "threads":
            with suppress(ValueError):  # pytest.raises would keep it too
                _threads(tasks)
        else:
            _run(main())
        _join(set(threading.enumerate()) - before)
        assert [ref() for ref in alive] == [None, None]
    finally:
        gc.enable()


# ---- on threads ----


@pytest.mark.parametrize(("given", "cpus", "want"), [(2, 9, 2), (None, 3, 3), (None, None, 1)])
def test_at_most_so_many_workers(
    given: int | None, cpus: int | None, want: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cpus)
    barrier, lock = threading.Barrier(want, timeout=PATIENCE), threading.Lock()  # so many there are
    running, most = 0, 0

    def call() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        barrier.wait()
        time.sleep(GRACE)  # for one too many to be seen
        with lock:
            running -= 1

    on_threads([Task(str(i), call) for i in range(2 * want)], max_workers=given)
    assert most == want  # and no more


def test_those_not_begun_never_begin_on_threads() -> None:
    begun: list[int] = []
    with pytest.raises(ValueError, match="mine"):
        on_threads([Task("a", lambda: _raise(ValueError("mine"))), Task("b", lambda: begun.append(1))], max_workers=1)
    assert begun == []


def test_the_timeout_does_not_count_the_wait_for_a_worker(clock: Clock) -> None:
    tasks = [Task("a", lambda: clock.forward(2 * PATIENCE)), Task("b", lambda: 2, timeout=PATIENCE)]
    assert on_threads(tasks, max_workers=1) == [Outcome(None), Outcome(2)]


def test_the_place_of_one_that_timed_out_is_given_to_the_next() -> None:
    begun, gate, hung = Gate(), Gate(), []

    def hang() -> str:
        hung.append(threading.current_thread())
        begun.set()
        gate.pass_()
        return "dropped"

    def release() -> int:
        begun.pass_()
        assert hung[0].is_alive()
        gate.set()
        hung[0].join(PATIENCE)  # its result comes before this one's
        return 2

    tasks = [Task("a", hang, timeout=0.05, optional=True), Task("b", release), Task("c", lambda: 3)]
    a, b, c = on_threads(tasks, max_workers=1)
    assert isinstance(a.error, TimeoutError) and a.result is None and (b, c) == (Outcome(2), Outcome(3))


def test_a_required_timeout_stops_those_not_begun(gate: Gate) -> None:
    begun: list[int] = []
    with pytest.raises(TimeoutError, match="'a'"):
        on_threads([Task("a", gate.pass_, timeout=0.05), Task("b", lambda: begun.append(1))], max_workers=1)
    assert begun == []


def test_a_result_that_is_late_is_dropped_though_nobody_could_look(clock: Clock) -> None:
    """As where compiled code keeps the interpreter's lock: the caller learns of its end and of its timeout at once."""

    def hog() -> None:
        clock.forward(2 * PATIENCE)

    (outcome,) = on_threads([Task("hog", hog, timeout=PATIENCE, optional=True)], max_workers=1)
    assert isinstance(outcome.error, TimeoutError)


def test_what_is_no_exception_is_raised_at_once_from_a_thread(gate: Gate) -> None:
    begun: list[int] = []
    tasks = [
        Task("hung", gate.pass_),
        Task("exit", lambda: _raise(SystemExit(3))),
        Task("next", lambda: begun.append(1)),
    ]
    with pytest.raises(SystemExit):  # though one hangs
        on_threads(tasks, max_workers=2)
    assert begun == []


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="Windows does not interrupt a wait")
def test_the_caller_can_be_interrupted(gate: Gate) -> None:
    def interrupt() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        gate.pass_()

    begun: list[int] = []
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            on_threads([Task("a", interrupt), Task("b", lambda: begun.append(1))], max_workers=1)
    finally:
        signal.signal(signal.SIGINT, handler)
    gate.set()
    assert begun == []


class Awaited:
    def __await__(self) -> Generator[Any, None, int]:
        yield from ()
        return 5


def test_awaitables_are_refused_on_threads() -> None:
    coroutine = _raise_later(ValueError("never"))
    for awaitable, kind in ((coroutine, "coroutine"), (Awaited(), "Awaited")):
        with pytest.raises(
            TypeError,
            match=rf"^'a' must return a value on threads, got an awaitable {kind}\. Use compute_async\.$",
        ):
            on_threads([Task("a", lambda awaitable=awaitable: awaitable)], max_workers=None)
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


# ---- on an event loop ----


def test_coroutines_run_at_the_same_time() -> None:
    async def main() -> None:
        barrier = asyncio.Barrier(10)
        assert len(await on_event_loop([Task(str(i), barrier.wait, blocking=False) for i in range(10)])) == 10

    _run(main())


@pytest.mark.parametrize("blocking", [True, False])
def test_where_calls_run_and_where_their_coroutines_do(blocking: bool) -> None:
    called: list[int] = []

    async def on() -> int:
        return threading.get_ident()

    def call() -> Awaitable[int]:
        called.append(threading.get_ident())
        return on()

    here = threading.get_ident()
    assert _loop([Task("a", call, blocking=blocking), Task("b", Awaited, blocking=blocking)]) == [
        Outcome(here),
        Outcome(5),
    ]
    assert (called == [here]) is not blocking


@pytest.mark.parametrize("blocking", [True, False])
def test_a_coroutine_task_calls_what_may_block(blocking: bool) -> None:
    async def task(call_and_await: CallAndAwait) -> list[Any]:
        called = await call_and_await(threading.get_ident)
        awaited = await call_and_await(Awaited)
        try:
            await call_and_await(lambda: _raise(ValueError("mine")))
        except ValueError as error:
            return [called, awaited, str(error), threading.get_ident()]

    (outcome,) = _loop([CoroutineTask("a", task, blocking=blocking)])
    called, *others, here = outcome.result
    assert others == [5, "mine"] and here == threading.get_ident() and (called == here) is not blocking


def test_a_coroutine_task_times_out_on_a_thread(gate: Gate) -> None:
    cleaned: list[int] = []

    async def task(call_and_await: CallAndAwait) -> None:
        try:
            await call_and_await(gate.pass_)
        finally:
            cleaned.append(1)

    with pytest.raises(TimeoutError, match=r"^'a' took longer than its timeout of 0.05 s\.$"):
        _loop([CoroutineTask("a", task, timeout=0.05)])
    assert cleaned == [1]


def test_a_coroutine_that_times_out_is_cancelled_and_awaited() -> None:
    cleaned: list[int] = []

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(1)

    with pytest.raises(TimeoutError, match=r"^'slow' took longer than its timeout of 0.05 s\.$") as caught:
        _loop([Task("slow", hang, timeout=0.05, blocking=False)])
    assert cleaned == [1]
    names = [frame.name for frame in traceback.extract_tb(caught.value.__cause__.__traceback__)]  # type: ignore[union-attr]
    assert "hang" in names  # where it hung


def test_the_timeout_covers_the_call_and_what_it_returns() -> None:
    def call() -> Awaitable[None]:
        time.sleep(0.15)
        return asyncio.sleep(0.15)  # too late in sum, however busy the machine

    for blocking in (True, False):
        with pytest.raises(TimeoutError, match="'a'"):
            _loop([Task("a", call, timeout=0.25, blocking=blocking)])


@pytest.mark.parametrize("answer", [lambda: 1, lambda: _raise(ValueError("mine"))])
def test_whatever_comes_after_the_timeout_is_late(answer: Callable[[], Any]) -> None:
    async def stubborn() -> Any:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return answer()

    (outcome,) = _loop([Task("a", stubborn, timeout=0.02, blocking=False, optional=True)])
    assert isinstance(outcome.error, TimeoutError)


def test_a_call_that_holds_the_loop_has_timed_out_once_it_returns(clock: Clock) -> None:
    with pytest.raises(TimeoutError, match="'a'"):
        _loop([Task("a", lambda: clock.forward(2 * PATIENCE), timeout=PATIENCE, blocking=False)])


@pytest.mark.parametrize("blocking", [True, False])
def test_a_failure_cancels_coroutines_once_and_awaits_them(blocking: bool) -> None:
    begun: list[asyncio.Event] = []
    cleaned: list[asyncio.Event] = []
    seen: list[int] = []

    async def hang(i: int) -> None:
        try:
            begun[i].set()
            await asyncio.Event().wait()
        finally:
            if i > 0:
                await cleaned[i - 1].wait()  # undisturbed by the failure before at cleaning up
            await asyncio.sleep(0)
            seen.append(i)
            cleaned[i].set()
            if i < 2:
                raise OSError(i)

    async def fail() -> None:
        for event in begun:
            await event.wait()
        raise ValueError("mine")

    async def main() -> None:
        begun.extend(asyncio.Event() for _ in range(3))
        cleaned.extend(asyncio.Event() for _ in range(3))
        tasks = [Task(str(i), lambda i=i: hang(i), blocking=blocking, timeout=PATIENCE) for i in range(3)]
        with pytest.raises(OSError, match=r"^0\n") as caught:
            await on_event_loop([*tasks, Task("fail", fail, blocking=False)])
        assert caught.value.__notes__ == [
            "Also failed: '1' with OSError(1).",
            "Also failed: 'fail' with ValueError('mine').",
        ]
        assert seen == [0, 1, 2] and asyncio.all_tasks() == {asyncio.current_task()}

    _run(main())


def test_a_failure_waits_for_threads_and_does_not_begin_their_coroutines() -> None:
    failed, ended = Gate(), []
    coroutine = _raise_later(AssertionError)

    async def fail() -> None:
        failed.set()
        raise ValueError("mine")

    def slow(result: Any) -> Any:
        failed.pass_()
        time.sleep(GRACE)
        ended.append(1)
        return result

    tasks = [
        Task("a", lambda: slow(1)),
        Task("b", lambda: slow(coroutine)),
        Task("fail", fail, blocking=False),
        Task("c", lambda: _raise(slow(OSError("later")))),
    ]
    with pytest.raises(ValueError, match="mine") as caught:
        _loop(tasks)
    assert ended == [1, 1, 1] and caught.value.__notes__ == ["Also failed: 'c' with OSError('later')."]
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


def test_a_coroutine_whose_call_times_out_on_a_thread_is_closed() -> None:
    gate, coroutine = Gate(), _raise_later(AssertionError)

    def hang() -> Any:
        gate.pass_()
        return coroutine

    async def main() -> None:
        before = set(threading.enumerate())
        (outcome,) = await on_event_loop([Task("a", hang, timeout=0.05, optional=True)])
        assert isinstance(outcome.error, TimeoutError)
        gate.set()
        _join(set(threading.enumerate()) - before)
        while inspect.getcoroutinestate(coroutine) != inspect.CORO_CLOSED:
            await asyncio.sleep(0)

    _run(main())


def test_a_coroutine_that_comes_after_the_loop_has_closed_is_closed() -> None:
    gate, coroutine = Gate(), _raise_later(AssertionError)

    def hang() -> Any:
        gate.pass_()
        return coroutine

    before = set(threading.enumerate())
    _loop([Task("a", hang, timeout=0.05, optional=True)])
    gate.set()
    _join(set(threading.enumerate()) - before)
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


async def _cancelled(running: asyncio.Task[Any]) -> None:
    with pytest.raises(asyncio.CancelledError):
        await running
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_cancelling_who_awaits_leaves_nothing_running() -> None:
    release, ended = Gate(), []

    async def main() -> None:
        hanging, cleaning = asyncio.Event(), asyncio.Event()

        async def hang() -> None:
            try:
                hanging.set()
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                cleaning.set()
                ended.append("coroutine")

        def slow() -> None:
            release.pass_()
            ended.append("thread")
            raise ValueError("not heard")

        running = asyncio.create_task(on_event_loop([Task("a", hang, blocking=False), Task("b", slow)]))
        await hanging.wait()
        running.cancel("please")
        await cleaning.wait()
        running.cancel()  # in vain: a thread runs
        for _ in range(5):
            await asyncio.sleep(0)
        assert not running.done()
        release.set()
        await _cancelled(running)
        assert running.cancelled()

    _run(main())
    assert ended == ["coroutine", "thread"]


def test_cancelling_who_awaits_a_thread_that_hangs_waits_until_its_timeout(gate: Gate) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        running = asyncio.create_task(on_event_loop([Task("a", gate.pass_, timeout=0.1)]))
        for _ in range(3):  # until its thread has begun
            await asyncio.sleep(0)
        running.cancel()
        await _cancelled(running)
        assert loop.time() - began >= 0.09  # a busy machine waits longer, and none less

    _run(main())


def test_cancelled_before_it_begins() -> None:
    async def main() -> None:
        running = asyncio.create_task(on_event_loop([Task("a", lambda: pytest.fail("begun"), blocking=False)]))
        running.cancel()
        await _cancelled(running)

    _run(main())


def test_an_outer_timeout() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await on_event_loop([Task("a", asyncio.Event().wait, blocking=False, timeout=PATIENCE)])
        assert asyncio.all_tasks() == {asyncio.current_task()}

    _run(main())


def _cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda: _raise(KeyboardInterrupt()), KeyboardInterrupt),
        (lambda: _raise_later(SystemExit()), SystemExit),
        (lambda: _raise_later(asyncio.CancelledError()), asyncio.CancelledError),
        (_cancel_itself, asyncio.CancelledError),
    ],
)
def test_what_is_no_exception_is_raised_from_the_loop_with_nothing_left_running(
    call: Callable[[], Any], kind: type[BaseException]
) -> None:
    cleaned: list[int] = []

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(1)

    with pytest.raises(kind):
        _loop([Task("a", hang, blocking=False), Task("b", call, blocking=False, optional=True)])
    assert cleaned == [1]


def test_what_is_no_exception_is_raised_though_it_is_late(clock: Clock) -> None:
    def call() -> None:
        clock.forward(2 * PATIENCE)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _loop([Task("a", call, timeout=PATIENCE, blocking=False)])


def test_the_first_in_order_is_raised_of_what_is_no_exception() -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        _loop([Task(str(i), lambda i=i: _raise(SystemExit(i)), blocking=False) for i in range(40)])
