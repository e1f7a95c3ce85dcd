"""Handlers: which are called, when, and with which events. No computation is needed."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest

from xpenalties import telemetry
from xpenalties.telemetry import Event, LoggingHandler, add_handler, emit, remove_handler


@pytest.fixture(autouse=True)
def _no_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """None at first, and afterwards those of before."""
    monkeypatch.setattr(telemetry, "_handlers", ())


def event(kind: Any = "stop", penalty: str | None = "l1", **fields: Any) -> Event:
    return Event(**{"kind": kind, "pipeline": "pipe", "penalty": penalty, "computation": 1, "time": 5.0, **fields})


def raised(error: BaseException) -> BaseException:
    """`error` with a traceback."""
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 - a handler may get any exception
        return caught


class Unreadable:
    def __float__(self) -> float:
        pytest.fail("a figure was read")


def test_events() -> None:
    one = event()
    assert (one.kind, one.pipeline, one.penalty, one.computation, one.time) == ("stop", "pipe", "l1", 1, 5.0)
    optional = ("step", "duration", "weight", "value", "contribution", "grad_norm", "error", "report")
    assert {getattr(one, name) for name in optional} == {None}
    with pytest.raises(FrozenInstanceError):
        one.time = 1.0  # type: ignore[misc]
    with pytest.raises(TypeError, match="positional"):
        Event("stop", "pipe", "l1", 1, 5.0)  # type: ignore[call-arg]


def test_events_with_arrays_compare_and_hash() -> None:
    one, other = event(value=np.ones(2), report={}), event(value=np.ones(2), report={})
    assert len({one, other}) == 2 and one in [other, one] and one != other


def test_handlers_are_called_in_the_order_of_adding() -> None:
    seen: list[tuple[str, Event]] = []

    @add_handler
    def first(event: Event) -> None:
        seen.append(("first", event))

    second = add_handler(lambda event: seen.append(("second", event)))
    one, other = event("start"), event("stop")
    emit(one)
    remove_handler(first)
    emit(other)
    assert seen == [("first", one), ("second", one), ("second", other)]
    remove_handler(second)
    emit(one)
    assert len(seen) == 3


def test_active() -> None:
    assert telemetry.active() is False
    handler = add_handler(print)
    assert telemetry.active() is True
    remove_handler(handler)
    assert telemetry.active() is False


@pytest.mark.parametrize("handler", [None, 3, LoggingHandler])
def test_what_is_no_handler(handler: Any) -> None:
    with pytest.raises(
        TypeError, match=r"^add_handler: `handler` must be a function of one Event, got .*\. Pass a callable\.$"
    ):
        add_handler(handler)
    assert not telemetry.active()


def test_a_handler_is_added_once() -> None:
    seen: list[Event] = []
    add_handler(seen.append)  # each look-up of a method is another object
    with pytest.raises(ValueError, match=r"^add_handler: `handler` must be new, got <built-in .*added already. Remove"):
        add_handler(seen.append)
    emit(event())
    assert len(seen) == 1
    remove_handler(seen.append)
    with pytest.raises(ValueError, match=r"^remove_handler: `handler` must be one that was added, got <built.*\. Pass"):
        remove_handler(seen.append)


def test_a_handler_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Event] = []

    class Failing:
        def __call__(self, event: Event) -> None:
            raise OSError("disk is full")

        def __repr__(self) -> str:
            return "Failing()"

    add_handler(Failing())
    add_handler(seen.append)
    emit(event())
    emit(event())
    assert len(seen) == 2
    first, second = caplog.records
    assert first.name == second.name == "xpenalties.telemetry" and first.levelno == logging.ERROR
    assert first.getMessage() == "handler Failing() failed at a 'stop' of 'pipe'"
    assert "in __call__" in caplog.text and "OSError: disk is full" in caplog.text


def test_an_interrupt_is_no_failure() -> None:
    def interrupt(event: Event) -> None:
        raise KeyboardInterrupt

    add_handler(interrupt)
    with pytest.raises(KeyboardInterrupt):
        emit(event())


def test_handlers_that_come_and_go_while_called() -> None:
    seen: list[str] = []

    @add_handler
    def once(event: Event) -> None:
        seen.append("once")
        remove_handler(once)
        add_handler(lambda event: seen.append("new"))

    add_handler(lambda event: seen.append("other"))
    emit(event())
    assert seen == ["once", "other"]
    emit(event())
    assert seen == ["once", "other", "other", "new"]


class Slow:
    """A handler that lets other threads run in the midst of adding and removing."""

    __hash__ = None  # type: ignore[assignment]

    def __call__(self, event: Event) -> None: ...

    def __eq__(self, other: object) -> bool:
        time.sleep(1e-4)
        return self is other


def in_threads(work: Callable[[], object], number: int = 4) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            barrier.wait()
            work()
        except BaseException as error:  # noqa: BLE001 - raised below, in the test's thread
            errors.append(error)

    barrier = threading.Barrier(number)
    threads = [threading.Thread(target=run) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors


def test_threads_that_add_and_remove() -> None:
    def work() -> None:
        for _ in range(5):
            mine, remaining = add_handler(Slow()), add_handler(Slow())
            emit(event())
            remove_handler(mine)
            left.append(remaining)

    left: list[Slow] = []
    in_threads(work)
    assert len(left) == 20 == len(telemetry._handlers)
    assert {id(handler) for handler in telemetry._handlers} == {id(handler) for handler in left}


def test_numbers_of_computations() -> None:
    def work() -> None:
        numbers.extend([telemetry.next_computation() for _ in range(500)])

    numbers: list[int] = []
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        in_threads(work)
    finally:
        sys.setswitchinterval(before)
    assert len(set(numbers)) == 2000 and {type(number) for number in numbers} == {int}


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (
            event(weight=0.5, value=np.asarray(7.5), contribution=np.float32(3.75), grad_norm=2, duration=0.0015),
            "penalty 'l1' of 'pipe': weight 0.5, value 7.5, contribution 3.75, grad norm 2, 1.500 ms",
        ),
        (event(weight=0.0, value=1e-9, step=0), "penalty 'l1' of 'pipe', step 0: weight 0, value 1e-09"),
        (
            event(penalty=None, value=np.asarray(3.75), grad_norm=np.nan, duration=1.0, step=np.asarray(7)),
            "'pipe', step 7: total 3.75, grad norm nan, 1000.000 ms",
        ),
    ],
)
def test_logged_lines(told: Event, line: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "xpenalties")
    LoggingHandler()(told)
    assert caplog.record_tuples == [("xpenalties", logging.INFO, line)]


def test_logged_errors(caplog: pytest.LogCaptureFixture) -> None:
    error = raised(ZeroDivisionError("by zero"))
    with caplog.at_level(logging.ERROR, "xpenalties"):
        LoggingHandler()(event("exception", value=Unreadable(), error=error))
    (record,) = caplog.records
    assert record.levelno == logging.ERROR and record.exc_info is not None and record.exc_info[1] is error
    assert record.getMessage() == "penalty 'l1' of 'pipe' raised ZeroDivisionError('by zero')"
    assert "in raised" in caplog.text


def test_starts_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "xpenalties")
    LoggingHandler()(event("start"))
    assert not caplog.records


def test_another_logger_and_level(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("mine")
    handler = LoggingHandler(logger, logging.DEBUG)
    caplog.set_level(logging.DEBUG, "mine")
    handler(event(value=1.0))
    assert caplog.record_tuples == [("mine", logging.DEBUG, "penalty 'l1' of 'pipe': value 1")]


def test_figures_are_read_only_where_they_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    told = event(value=Unreadable(), weight=Unreadable())
    caplog.set_level(logging.WARNING, "xpenalties")
    LoggingHandler()(told)
    assert not caplog.records
    caplog.set_level(logging.INFO, "xpenalties")
    with pytest.raises(pytest.fail.Exception, match="a figure was read"):
        LoggingHandler()(told)
