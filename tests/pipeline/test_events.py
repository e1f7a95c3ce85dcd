"""What handlers are told of real computations: in which order, with which figures, and where nothing at all."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.clocks import PATIENCE
from tests.helpers.harness import Framework
from tests.helpers.samples import L1, L2, X, with_metrics
from xpenalties import Penalty, Pipeline, RegularizedLoss, backends, telemetry
from xpenalties._core import concurrency, event_loop
from xpenalties._pipeline import events as _events
from xpenalties.telemetry import Event

BOTH = Pipeline({"l1": 0.5, "l2": 2.0}, name="training")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Event]]:
    """The events since the test began; whatever began in the meantime has ended once."""
    events: list[Event] = []
    monkeypatch.setattr(telemetry, "_handlers", (events.append,))
    yield events
    for computation in {event.computation for event in events}:
        mine = [event for event in events if event.computation == computation]
        begun = [event.penalty for event in mine if event.kind == "start"]
        ended = [event.penalty for event in mine if event.kind != "start"]
        assert sorted(map(str, begun)) == sorted(map(str, ended)) and len(set(begun)) == len(begun)
        assert (mine[0].kind, mine[0].penalty) == ("start", None) and mine[-1].penalty is None


class Clock:
    """A stand-in for the module `time`: each look at the clock takes a second, and a test may let more pass."""

    def __init__(self) -> None:
        self.now, self.looks, self._lock = 0.0, 0, threading.Lock()
        self.looked_four_times = threading.Event()

    def time(self) -> float:
        return 1e9 + self.now

    def perf_counter(self) -> float:
        with self._lock:
            self.now += 1.0
            self.looks += 1
            if self.looks == 4:
                self.looked_four_times.set()
            return self.now

    def forward(self, seconds: float) -> None:
        with self._lock:
            self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(_events, "time", clock)
    return clock


def kinds(events: list[Event]) -> list[tuple[str, str | None]]:
    return [(event.kind, event.penalty) for event in events]


def failing(x: Any) -> Any:
    raise ZeroDivisionError("mine")


SEQUENTIAL = [("start", None), ("start", "l1"), ("stop", "l1"), ("start", "l2"), ("stop", "l2"), ("stop", None)]


@pytest.mark.smoke
def test_order_and_figures(fw: Framework, seen: list[Event], clock: Clock) -> None:
    step = fw.array(np.asarray(7))
    before = clock.time()
    total, report = BOTH.compute(fw.array(X), step=step)
    after = clock.time()
    assert kinds(seen) == SEQUENTIAL
    assert {event.pipeline for event in seen} == {"training"} and len({event.computation for event in seen}) == 1
    assert all(event.step is step for event in seen) and all(before <= event.time <= after for event in seen)
    for i in (1, 3, 0):  # an end has the time of its start
        end = seen[{0: 5, 1: 2, 3: 4}[i]]
        assert end.time == seen[i].time and 0 < end.duration <= after - before and seen[i].duration is None
    assert seen[5].duration >= seen[2].duration + seen[4].duration
    for event, name, weight in ((seen[2], "l1", 0.5), (seen[4], "l2", 2.0)):
        part = report.regularizers[name]
        assert event.weight == weight and event.grad_norm is None and event.error is None and event.report is None
        assert float(event.value) == float(part.value) and float(event.contribution) == float(part.contribution)
    assert seen[5].report is report and float(seen[5].value) == float(total) == 0.5 * L1 + 2 * L2
    assert [event.report for event in seen[:5]] == [None] * 5 and seen[5].weight is seen[5].contribution is None
    for event in seen:
        if event.kind == "start":
            assert event.value is event.weight is event.contribution is event.error is None


def test_numbers_of_computations(fw: Framework, seen: list[Event]) -> None:
    for _ in range(3):
        BOTH(fw.array(X))
    numbers = [event.computation for event in seen if event.kind == "start" and event.penalty is None]
    assert len(set(numbers)) == 3 and numbers == sorted(numbers)


def test_calls_are_seen_too(fw: Framework, seen: list[Event]) -> None:
    total = BOTH(fw.array(X), step=3)
    assert kinds(seen) == SEQUENTIAL and {event.step for event in seen} == {3}
    assert float(seen[-1].value) == float(total) and float(seen[2].value) == L1
    assert seen[-1].report.to_dict()["loss_total"] == float(total) and seen[-1].report.regularizers["l1"].metrics == {}
    seen.clear()
    RegularizedLoss(with_metrics, BOTH)(fw.array(X))
    assert kinds(seen)[1:3] == [("start", "base_loss"), ("stop", "base_loss")]


def test_a_base_loss(fw: Framework, seen: list[Event]) -> None:
    total, report = RegularizedLoss(with_metrics, BOTH).compute(fw.array(X))
    assert kinds(seen) == [("start", None), ("start", "base_loss"), ("stop", "base_loss"), *SEQUENTIAL[1:]]
    assert float(seen[2].value) == L2 and float(seen[-1].value) == float(total) and seen[-1].report is report


def test_penalties_that_take_no_part(fw: Framework, seen: list[Event]) -> None:
    pipe = Pipeline([Penalty("l1", every=2), Penalty("l2", enabled=False)])
    pipe(fw.array(X), step=1)
    assert kinds(seen) == [("start", None), ("stop", None)] and float(seen[1].value) == 0.0
    seen.clear()
    pipe(fw.array(X), step=2)
    assert kinds(seen) == [("start", None), ("start", "l1"), ("stop", "l1"), ("stop", None)]
    assert seen[2].weight == 2.0


@pytest.mark.needs("autodiff")
@pytest.mark.parametrize("execution", ["sequential", "threads"])
def test_tracked(fw: Framework, seen: list[Event], execution: str) -> None:
    loss = RegularizedLoss(lambda x: xp.l2(x), BOTH.add(Penalty(lambda x: 1.0, name="one", differentiable=False)))  # noqa: PLW0108
    _, report = loss.compute(fw.array(X), track_grad_norms=True, execution=execution)
    found = {event.penalty: event for event in seen if event.kind == "stop"}
    assert float(found["l1"].grad_norm) == 2.0 and float(found["base_loss"].grad_norm) == pytest.approx(
        2 * math.sqrt(L2)
    )
    assert float(found[None].grad_norm) == float(report.total_grad_norm) and found["one"].grad_norm is None


def test_durations(fw: Framework, seen: list[Event], clock: Clock) -> None:
    def slow(x: Any) -> float:
        clock.forward(100.0)
        return 1.0

    async def asleep(x: Any) -> float:
        await asyncio.sleep(0)
        clock.forward(100.0)
        return 1.0

    pipe = Pipeline([Penalty(slow), Penalty("l1"), Penalty(lambda x: slow(x), name="again")])  # noqa: PLW0108
    pipe.compute(fw.array(X))
    pipe.compute(fw.array(X), execution="threads", max_workers=1)
    for fn in (asleep, slow):
        asyncio.run(Pipeline([Penalty(fn), Penalty("l1", enabled=False)]).compute_async(fw.array(X)))
    stops = [event for event in seen if event.kind == "stop"]
    assert [event.duration for event in stops if event.penalty in ("slow", "again", "asleep")] == [101.0] * 6
    assert [event.duration for event in stops if event.penalty == "l1"] == [1.0] * 2
    # a second at each look: two for each penalty, and one at the end
    assert [event.duration for event in stops if event.penalty is None] == [207.0, 207.0, 103.0, 103.0]


def test_durations_are_of_the_penalty_alone(fw: Framework, seen: list[Event], clock: Clock) -> None:
    """Not of the wait for the others."""

    def slow(x: Any) -> float:
        assert clock.looked_four_times.wait(PATIENCE)  # the beginnings of all three, and the end of "quick"
        clock.forward(100.0)
        return 1.0

    pipe = Pipeline([Penalty(lambda x: 1.0, name="quick"), Penalty(slow)])
    pipe.compute(fw.array(X), execution="threads", max_workers=2)
    found = {event.penalty: event.duration for event in seen if event.kind == "stop"}
    assert found["quick"] < 4.0 and found["slow"] > 100.0


def test_the_clocks_are_the_hosts(fw: Framework, seen: list[Event]) -> None:
    BOTH(fw.array(X))
    assert all(event.time > 1e9 for event in seen) and _events.time is time
    assert all(event.duration >= 0 for event in seen if event.kind == "stop")


# failures


EXECUTIONS = {
    "sequential": lambda target, *inputs, **options: target.compute(*inputs, **options),
    "threads": lambda target, *inputs, **options: target.compute(*inputs, execution="threads", **options),
    "async": lambda target, *inputs, **options: asyncio.run(target.compute_async(*inputs, **options)),
}
everywhere = pytest.mark.parametrize("execution", EXECUTIONS)


@everywhere
def test_a_penalty_that_fails(fw: Framework, seen: list[Event], clock: Clock, execution: str) -> None:
    pipe = Pipeline([Penalty(failing), Penalty("l1")])
    with pytest.raises(ZeroDivisionError) as caught:
        EXECUTIONS[execution](pipe, fw.array(X))
    ends = {event.penalty: event for event in seen if event.kind == "exception"}
    assert ends["failing"].error is ends[None].error is caught.value and ends["failing"].duration > 0
    assert ends[None].report is None and ends[None].value is None and ends[None].duration >= ends["failing"].duration
    if execution == "sequential":
        assert kinds(seen)[1:3] == [("start", "failing"), ("exception", "failing")] and len(seen) == 4


@everywhere
def test_a_penalty_that_is_dropped(fw: Framework, seen: list[Event], execution: str) -> None:
    pipe = Pipeline([Penalty(failing), Penalty("l1")])
    with pytest.warns(RuntimeWarning, match="was dropped"):
        total, _ = EXECUTIONS[execution](pipe, fw.array(X), on_error="drop")
    ends = {event.penalty: event for event in seen if event.kind != "start"}
    assert {name: event.kind for name, event in ends.items()} == {"failing": "exception", "l1": "stop", None: "stop"}
    assert isinstance(ends["failing"].error, ZeroDivisionError) and float(ends[None].value) == float(total) == L1


def test_a_coroutine_that_fails(fw: Framework, seen: list[Event]) -> None:
    async def bad(x: Any) -> Any:
        await asyncio.sleep(0)
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError) as caught:
        asyncio.run(Pipeline([Penalty(bad)]).compute_async(fw.array(X)))
    assert kinds(seen) == [("start", None), ("start", "bad"), ("exception", "bad"), ("exception", None)]
    assert seen[2].error is seen[3].error is caught.value


@pytest.mark.parametrize("execution", ["threads", "async"])
@pytest.mark.parametrize("on_error", ["raise", "drop"])
def test_timeouts(
    fw: Framework, seen: list[Event], clock: Clock, monkeypatch: pytest.MonkeyPatch, execution: str, on_error: str
) -> None:
    begun, release, start = threading.Event(), threading.Event(), concurrency.start_thread

    def slow(x: Any) -> float:
        clock.forward(100.0)
        begun.set()
        assert release.wait(PATIENCE)
        return 1.0

    def started(name: str, *args: Any) -> None:
        start(name, *args)
        assert name != "slow" or begun.wait(PATIENCE)  # before its timeout, however busy the machine

    for module in (concurrency, event_loop):
        monkeypatch.setattr(module, "start_thread", started)
    pipe = Pipeline([Penalty("l1", timeout=PATIENCE), Penalty(slow)])
    options = {"timeout": 0.02, "on_error": on_error}
    before = set(threading.enumerate())
    try:
        if on_error == "raise":
            with pytest.raises(TimeoutError):
                EXECUTIONS[execution](pipe, fw.array(X), **options)
        else:
            with pytest.warns(RuntimeWarning, match="was dropped"):
                EXECUTIONS[execution](pipe, fw.array(X), **options)
    finally:
        release.set()
        for thread in set(threading.enumerate()) - before:
            thread.join(PATIENCE)
    ends = {event.penalty: event for event in seen if event.kind != "start"}
    assert ends["slow"].kind == "exception" and isinstance(ends["slow"].error, TimeoutError)
    assert ends["slow"].duration > 100.0 and ends[None].kind == ("exception" if on_error == "raise" else "stop")


@pytest.mark.parametrize("on_error", ["raise", "drop"])
def test_a_timeout_before_the_thread_has_begun(
    fw: Framework, seen: list[Event], monkeypatch: pytest.MonkeyPatch, on_error: str
) -> None:
    release, work = threading.Event(), concurrency._work

    def late(*args: Any) -> None:
        assert release.wait(PATIENCE)
        work(*args)

    monkeypatch.setattr(concurrency, "_work", late)
    before = set(threading.enumerate())
    try:
        with pytest.warns(RuntimeWarning) if on_error == "drop" else pytest.raises(TimeoutError):
            BOTH.compute(fw.array(X), execution="threads", timeout=0.01, on_error=on_error)
    finally:
        release.set()
        for thread in set(threading.enumerate()) - before:
            thread.join(PATIENCE)
    assert kinds(seen) == [("start", None), ("stop" if on_error == "drop" else "exception", None)]


def test_a_cancelled_computation(fw: Framework, seen: list[Event]) -> None:
    async def endless(x: Any) -> Any:
        await asyncio.sleep(PATIENCE)

    async def main() -> None:
        task = asyncio.create_task(Pipeline([Penalty(endless)]).compute_async(fw.array(X)))
        while len(seen) < 2:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert kinds(seen) == [("start", None), ("start", "endless"), ("exception", "endless"), ("exception", None)]
    assert isinstance(seen[-1].error, asyncio.CancelledError)


def test_inputs_that_are_refused_begin_nothing(fw: Framework, seen: list[Event]) -> None:
    with pytest.raises(ValueError, match="`step` must be given for every=2"):
        Pipeline([Penalty("l1", every=2)])(fw.array(X))
    with pytest.raises((TypeError, NotImplementedError)):
        BOTH.compute({"ids": fw.array(np.arange(3))}, track_grad_norms=True)
    assert seen == []


def test_what_only_the_sum_refuses(fw: Framework, seen: list[Event]) -> None:
    with pytest.raises(TypeError, match="the inputs must hold an array"):
        Pipeline()(None)
    assert kinds(seen) == [("start", None), ("exception", None)]


# handlers


def test_a_handler_that_raises_stops_nothing(
    fw: Framework, seen: list[Event], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def bad(event: Event) -> None:
        raise OSError("disk is full")

    monkeypatch.setattr(telemetry, "_handlers", (bad, seen.append))
    for compute in EXECUTIONS.values():
        total, _ = compute(BOTH, fw.array(X))
        assert float(total) == 0.5 * L1 + 2 * L2
    assert len(seen) == 18 == len(caplog.records)


def test_handlers_on_threads_and_loops(fw: Framework, seen: list[Event]) -> None:
    for execution in ("threads", "async"):
        seen.clear()
        total, report = EXECUTIONS[execution](BOTH, fw.array(X))
        assert seen[0].penalty is None and seen[-1].report is report and len(seen) == 6
        stops = [(event.penalty, float(event.value)) for event in seen if event.kind == "stop"]
        assert stops == [("l1", L1), ("l2", L2), (None, float(total))]


def test_without_handlers_there_are_no_events(fw: Framework, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused:
        def __init__(self, **given: Any) -> None:
            pytest.fail("an event was made")

    monkeypatch.setattr(telemetry, "_handlers", ())
    monkeypatch.setattr(telemetry, "Event", Refused)
    for compute in EXECUTIONS.values():
        compute(BOTH, fw.array(X))
    BOTH(fw.array(X))
    RegularizedLoss(with_metrics, BOTH).compute(fw.array(X))


def test_nothing_is_read_from_the_device(fw: Framework, seen: list[Event], monkeypatch: pytest.MonkeyPatch) -> None:
    backend = backends.backend_of(fw.array(X))
    monkeypatch.setattr(type(backend), "to_floats", lambda self, scalars: pytest.fail("a figure was read"))
    x = fw.array(X)
    for tracked in (False, True)[: 1 + fw.has_autodiff]:
        for compute in list(EXECUTIONS.values())[: 3 - tracked]:
            compute(BOTH, x, **({"gradient_conflicts": True} if tracked else {}))
    BOTH(x)
    assert seen


# tracing


@pytest.mark.needs("autodiff")
def test_gradients(fw: Framework, seen: list[Event]) -> None:
    """NumPy's and PyTorch's run the program, JAX's traces it."""
    xp.value_and_grad(lambda x: BOTH.compute(x), has_aux=True)(fw.array(X))  # noqa: PLW0108
    if fw.name == "jax":
        assert seen == []
    else:
        assert kinds(seen) == SEQUENTIAL and float(seen[2].value) == L1
        assert type(seen[2].value) is type(BOTH.compute(fw.array(X))[1].regularizers["l1"].value)


def test_traces_are_not_told_of(fw: Framework, seen: list[Event]) -> None:
    x = fw.array(X)
    loss = RegularizedLoss(with_metrics, BOTH)
    if fw.name == "jax":
        jax = fw.module
        for transformation in (jax.jit, jax.grad, jax.vmap):
            for target in (BOTH, loss, lambda x: BOTH.compute(x, track_grad_norms=True)[0]):
                transformation(target)(x)
        jax.grad(lambda pipe: pipe(x))(BOTH)
        jax.jit(lambda step: BOTH(x, step=step))(3)
        jax.jit(lambda where: Pipeline([Penalty("l1", options={"where": where})])(x))(x > 0)
    elif fw.name == "torch":
        torch = fw.module
        for transformation in (torch.func.grad, torch.vmap):
            for target in (BOTH, loss, lambda x: BOTH.compute(x, track_grad_norms=True)[0]):
                transformation(target)(x)
        compiled, _ = fw.compile(lambda x: BOTH.compute(x)[0])
        assert float(compiled(x)) == 0.5 * L1 + 2 * L2
    assert seen == []


@pytest.mark.only("jax", reason="is about constants in a trace of JAX")
def test_constants_inside_of_a_trace_are_not_told_of(fw: Framework, seen: list[Event]) -> None:
    x = fw.array(X)
    fw.module.jit(lambda y: y + Pipeline({"l1": 1.0})(x))(1.0)
    assert not seen
    fw.module.grad(lambda y: y + Pipeline({"l1": 1.0})(x))(1.0)  # computes as it goes
    assert len(seen) == 4


@pytest.mark.only("torch", reason="is about PyTorch's autograd")
def test_torch_in_training(fw: Framework, seen: list[Event]) -> None:
    x = fw.array(X).requires_grad_()
    BOTH.compute(x, track_grad_norms=True)[0].backward()
    assert kinds(seen) == SEQUENTIAL and x.grad is not None
    figures = [y for event in seen for y in (event.value, event.contribution, event.grad_norm) if y is not None]
    assert len(figures) == 8 and not any(figure.requires_grad for figure in figures)
