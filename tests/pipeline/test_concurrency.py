"""Penalties side by side, on threads and on an event loop: the same figures, and what happens where one fails."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
import time
import warnings
from collections.abc import Awaitable, Callable, Generator, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.clocks import GRACE, PATIENCE, Clock
from tests.helpers.harness import Framework, close
from tests.helpers.samples import L1, L2, X, mine, with_metrics
from xpenalties import Penalty, Pipeline, RegularizedLoss, telemetry
from xpenalties._core import concurrency, event_loop

SEVERAL = Pipeline(
    [
        Penalty("l1", weight=0.1),
        Penalty("l2", weight=0.3),
        Penalty(with_metrics, weight=0.7),
        Penalty("entropy", weight=1e-3, options={"from_logits": True}),
        Penalty("group_lasso", weight=1e8),
        Penalty(mine, weight=1e-8, differentiable=False),
    ]
)


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def run(coroutine: Any) -> Any:
    """What `coroutine` returns, on a loop where nothing is left running."""

    async def patient() -> Any:
        async with asyncio.timeout(PATIENCE):
            try:
                return await coroutine
            finally:
                assert asyncio.all_tasks() == {asyncio.current_task()}

    return asyncio.run(patient())


# threads


@pytest.mark.parametrize("max_workers", [None, 1, 2, 20])
def test_threads_give_the_same_bits(fw: Framework, max_workers: int | None) -> None:
    rng = np.random.default_rng(5)
    x = fw.array(rng.standard_normal((17, 5)), "float32")
    total, report = SEVERAL.compute(x)
    for _ in range(3):
        again, found = SEVERAL.compute(x, execution="threads", max_workers=max_workers)
        assert float(again) == float(total) and again.dtype == total.dtype
        assert found.to_dict() == report.to_dict()


@pytest.mark.needs("autodiff")
def test_threads_with_tracking_and_gradients(fw: Framework) -> None:
    x = fw.array(np.random.default_rng(5).standard_normal((17, 5)))
    loss = RegularizedLoss(lambda x: xp.z_loss(x), SEVERAL)  # noqa: PLW0108
    for target in (SEVERAL, loss):
        total, report = target.compute(x, gradient_conflicts=True)
        again, found = target.compute(x, gradient_conflicts=True, execution="threads")
        assert float(again) == float(total) and found.to_dict() == report.to_dict()
        assert found.conflicts() == report.conflicts() and found.total_grad_norm is not None


@pytest.mark.only("torch", reason="is about PyTorch's recorded graphs")
def test_torch_gradients_go_through_threads(fw: Framework) -> None:
    for options in ({}, {"track_grad_norms": True}):
        grads = []
        for execution in ("sequential", "threads"):
            x = fw.array(X).requires_grad_()
            SEVERAL.compute(x * 1.0, execution=execution, **options)[0].backward()
            grads.append(x.grad)
        close(fw, grads[0], fw.numpy(grads[1]), rtol=1e-14)  # autograd adds them up in the order of their making


@pytest.mark.only("torch", reason="is about PyTorch's modes")
def test_torch_modes_are_carried(fw: Framework) -> None:
    torch = fw.module
    seen: list[tuple[bool, bool, Any]] = []

    def look(x: Any) -> Any:
        cast = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        seen.append((torch.is_grad_enabled(), torch.is_inference_mode_enabled(), cast))
        return x.sum()

    pipe = Pipeline([Penalty(look)])
    x = fw.array(X).requires_grad_()
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode, partial(torch.autocast, "cpu")):
        with mode():
            here = pipe(x).requires_grad
            assert pipe.compute(x, execution="threads")[0].requires_grad is here
            assert run(pipe.compute_async(x))[0].requires_grad is here
        assert seen[0] == seen[1] == seen[2]
        seen.clear()


def test_the_sum_is_in_order_whoever_is_first(fw: Framework) -> None:
    """1e16 + 1 - 1e16 is 0 or 1, as the order is."""
    later = threading.Event()

    def first(x: Any) -> float:
        assert later.wait(PATIENCE)
        return 1e16

    def last(x: Any) -> float:
        later.set()
        return -1e16

    pipe = Pipeline([Penalty(first), Penalty(lambda x: 1.0, name="one"), Penalty(last)])
    total, report = pipe.compute(fw.array(X), execution="threads", max_workers=3)
    assert float(total) == 1e16 + 1.0 - 1e16 == 0.0
    assert list(report.regularizers) == ["first", "one", "last"]


def test_they_do_run_side_by_side(fw: Framework) -> None:
    barrier = threading.Barrier(3, timeout=PATIENCE)
    pipe = Pipeline([Penalty(lambda x: float(barrier.wait() < 3), name=name) for name in "ab"])
    loss = RegularizedLoss(lambda x: float(barrier.wait() < 3), pipe)
    assert float(loss.compute(fw.array(X), execution="threads", max_workers=3)[0]) == 3.0


def test_max_workers(fw: Framework) -> None:
    running, most, lock = 0, 0, threading.Lock()

    def busy(x: Any) -> float:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(GRACE)  # for one too many to be seen
        with lock:
            running -= 1
        return 1.0

    pipe = Pipeline([Penalty(busy, name=str(i)) for i in range(6)])
    assert float(pipe.compute(fw.array(X), execution="threads", max_workers=2)[0]) == 6.0
    assert most <= 2


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"execution": "thread"}, ValueError, r"`execution` must be one of 'sequential', 'threads', got 'thread'. Did"),
        ({"execution": None}, TypeError, r"`execution` must be one of 'sequential', 'threads', got None"),
        ({"execution": "threads", "max_workers": 0}, ValueError, r"`max_workers` must be at least 1, got 0"),
        ({"execution": "threads", "max_workers": 1.5}, TypeError, r"`max_workers` must be an integer, got 1.5"),
        ({"execution": "threads", "max_workers": True}, TypeError, r"`max_workers` must be an integer, got True"),
        ({"max_workers": 2}, ValueError, r"`max_workers` must come with execution='threads', got 2. Pass it"),
        ({"timeout": 2}, ValueError, r"`timeout` must come with execution='threads', got 2.0. Pass it"),
        ({"execution": "threads", "timeout": 0}, ValueError, r"`timeout` must be in \(0, inf\), got 0.0"),
        ({"execution": "threads", "timeout": math.inf}, ValueError, r"`timeout` must be in \(0, inf\), got inf"),
        ({"execution": "threads", "timeout": "1"}, TypeError, r"`timeout` must be a number in \(0, inf\), got str"),
        ({"on_error": "ignore"}, ValueError, r"`on_error` must be one of 'raise', 'drop', got 'ignore'"),
        ({"on_error": None}, TypeError, r"`on_error` must be one of 'raise', 'drop', got None"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    pipe = Pipeline({"l1": 1.0}, name="training")
    for target in (pipe, RegularizedLoss(xp.l1, pipe)):
        with pytest.raises(kind, match=f"^training: {message}"):
            target.compute(X, **options)
    if "execution" not in options and "max_workers" not in options and options != {"timeout": 2}:
        with pytest.raises(kind, match=f"^training: {message}"):
            run(pipe.compute_async(X, **options))


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"timeout": -1.0}, ValueError, r"^Penalty: `timeout` must be in \(0, inf\), got -1.0"),
        ({"timeout": True}, TypeError, r"^Penalty: `timeout` must be a number in \(0, inf\), got bool"),
        (
            {"on_error": "dropp"},
            ValueError,
            r"^Penalty: `on_error` must be one of 'raise', 'drop', got 'dropp'. Did you",
        ),
        ({"on_error": True}, TypeError, r"^Penalty: `on_error` must be one of 'raise', 'drop', got True"),
    ],
)
def test_options_of_a_penalty_that_are_refused(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        Penalty("l1", **options)


# failures


def failing(x: Any) -> Any:
    raise ZeroDivisionError("mine")


EXECUTIONS: dict[str, Callable[..., Any]] = {
    "sequential": lambda target, *inputs, **options: target.compute(*inputs, **options),
    "threads": lambda target, *inputs, **options: target.compute(*inputs, execution="threads", **options),
    "async": lambda target, *inputs, **options: run(target.compute_async(*inputs, **options)),
}
everywhere = pytest.mark.parametrize("execution", EXECUTIONS)
DROPPED = r"^training: penalty 'failing' was dropped and contributes 0: ZeroDivisionError: mine$"


@everywhere
def test_what_fails_is_raised(fw: Framework, execution: str) -> None:
    pipe = Pipeline([Penalty("l1"), Penalty(failing, weight=0.5), Penalty(failing, name="also")], name="training")
    for on_error in ({}, {"on_error": "raise"}):
        with pytest.raises(ZeroDivisionError, match="mine") as caught:
            EXECUTIONS[execution](pipe, fw.array(X), **on_error)
        assert caught.value.__notes__[0].startswith("In penalty 'failing' of 'training', weight 0.5, inputs ")


@everywhere
def test_what_fails_is_dropped(fw: Framework, execution: str) -> None:
    pipe = Pipeline(
        [Penalty("l1", weight=0.5), Penalty(failing, weight=fw.array(np.asarray(3.0))), Penalty("l2")], name="training"
    )
    with pytest.warns(RuntimeWarning, match=DROPPED) as caught:
        total, report = EXECUTIONS[execution](pipe, fw.array(X), on_error="drop")
    assert len(caught) == 1 and caught[0].filename == __file__
    assert float(total) == 0.5 * L1 + L2
    part = report.to_dict()["regularizers"]["failing"]
    assert part == {
        "value": None,
        "weight": 3.0,
        "contribution": 0.0,
        "grad_norm": None,
        "grad_norm_weighted": None,
        "custom": {},
    }
    assert report.regularizers["failing"].error == "dropped: ZeroDivisionError: mine"
    assert str(report).splitlines()[-1] == "failing: dropped: ZeroDivisionError: mine"
    assert list(report.regularizers) == ["l1", "failing", "l2"] and float(report.regularizer_total) == 0.5 * L1 + L2
    assert "failing/value" not in report.flat() and report.flat()["failing/contribution"] == 0.0


@everywhere
def test_who_may_be_dropped(fw: Framework, execution: str) -> None:
    compute, x = EXECUTIONS[execution], fw.array(X)
    dropped = Pipeline([Penalty("l1"), Penalty(failing, on_error="drop", weight=lambda step: 2.0)], name="training")
    with pytest.warns(RuntimeWarning, match=DROPPED):
        total, report = compute(dropped, x, step=0)
    assert float(total) == L1 and report.regularizers["failing"].weight is None
    raised = Pipeline([Penalty(failing, on_error="raise")])
    with pytest.raises(ZeroDivisionError):
        compute(raised, x, on_error="drop")
    with pytest.warns(RuntimeWarning, match=DROPPED):
        total, report = compute(dropped.remove("l1"), x, step=0)
    assert float(total) == 0.0 and total.dtype == fw.dtype("float64") and float(report.regularizer_total) == 0.0


@everywhere
def test_a_base_loss_is_never_dropped(fw: Framework, execution: str) -> None:
    compute, pipe = EXECUTIONS[execution], Pipeline([Penalty(failing)], name="training")
    with pytest.raises(ZeroDivisionError):
        compute(RegularizedLoss(failing, Pipeline({"l1": 1.0})), fw.array(X), on_error="drop")
    with pytest.warns(RuntimeWarning, match=DROPPED):
        total, report = compute(RegularizedLoss(lambda x: xp.l2(x), pipe), fw.array(X), on_error="drop")  # noqa: PLW0108
    assert float(total) == L2 and float(report.regularizer_total) == 0.0


def test_calls_drop_too(fw: Framework) -> None:
    pipe = Pipeline([Penalty("l1"), Penalty(failing, on_error="drop")], name="training")
    with pytest.warns(RuntimeWarning, match=DROPPED) as caught:
        assert float(pipe(fw.array(X))) == L1
    assert caught[0].filename == __file__


@pytest.mark.needs("autodiff")
@pytest.mark.parametrize("execution", ["sequential", "threads"])
def test_a_total_without_what_was_dropped(fw: Framework, execution: str) -> None:
    pipe = Pipeline([Penalty("l1"), Penalty(failing)], name="training")
    with pytest.warns(RuntimeWarning, match=DROPPED):
        _, report = pipe.compute(fw.array(X), on_error="drop", gradient_conflicts=True, execution=execution)
    assert float(report.total_grad_norm) == 2.0 and list(report.conflicts()) == ["l1"]


@pytest.mark.parametrize("execution", ["threads", "async"])
def test_timeouts(fw: Framework, execution: str) -> None:
    compute, release = EXECUTIONS[execution], threading.Event()

    def slow(x: Any) -> float:
        assert release.wait(PATIENCE)
        return 1.0

    x = fw.array(X)
    try:
        with pytest.raises(TimeoutError, match=r"^'slow' took longer than its timeout of 0.02 s"):
            compute(Pipeline([Penalty("l1", timeout=PATIENCE), Penalty(slow)]), x, timeout=0.02)
        with pytest.raises(TimeoutError, match=r"^'slow' took longer than its timeout of 0.03 s"):
            compute(Pipeline([Penalty(slow, timeout=0.03)]), x, timeout=PATIENCE)
        with pytest.warns(
            RuntimeWarning, match="penalty 'slow' was dropped and contributes 0: TimeoutError: 'slow' took"
        ):
            total, report = compute(Pipeline([Penalty(slow, timeout=0.02), Penalty("l1")]), x, on_error="drop")
        assert float(total) == L1 and "TimeoutError" in report.regularizers["slow"].error
    finally:
        release.set()


@pytest.mark.parametrize("execution", ["threads", "async"])
def test_a_base_loss_has_no_timeout(fw: Framework, monkeypatch: pytest.MonkeyPatch, execution: str) -> None:
    clock = Clock()
    for module in (concurrency, event_loop):
        monkeypatch.setattr(module, "monotonic", clock)

    def base(x: Any) -> float:
        clock.forward(2 * PATIENCE)
        return 1.0

    total, _ = EXECUTIONS[execution](RegularizedLoss(base, Pipeline()), fw.array(X), timeout=PATIENCE)
    assert float(total) == 1.0


# traces


def test_threads_and_loops_are_refused_in_a_trace(fw: Framework) -> None:
    pipe, x = Pipeline({"l1": 1.0}, name="training"), fw.array(X)
    threads = lambda x: pipe.compute(x, execution="threads")[0]  # noqa: E731
    message = r"training: execution='threads' needs arrays with values, got traced arrays. Call it outside"
    transformations: list[Any] = []
    if fw.name == "jax":
        transformations = [fw.module.jit, fw.module.grad, fw.module.vmap]
    elif fw.name == "torch":
        transformations = [fw.module.func.grad, fw.module.vmap, lambda fn: fw.compile(fn)[0]]
    for transformation in transformations:
        with pytest.raises(Exception, match=message):
            transformation(threads)(x)
    if fw.name == "jax":
        weights = lambda pipe: pipe.compute(x, execution="threads")[0]  # noqa: E731
        with pytest.raises(TypeError, match=message):
            fw.module.grad(weights)(pipe)
        with pytest.raises(TypeError, match=r"training: compute_async needs arrays with values"):
            fw.module.grad(lambda x: run(pipe.compute_async(x))[0])(x)


def test_nothing_is_dropped_in_a_trace(fw: Framework) -> None:
    pipe, x = Pipeline([Penalty("l1"), Penalty(failing)], name="training"), fw.array(X)
    dropping = lambda x: pipe.compute(x, on_error="drop")[0]  # noqa: E731
    transformations: list[Any] = []
    if fw.name == "jax":
        transformations = [fw.module.jit, fw.module.grad, fw.module.vmap]
    elif fw.name == "torch":
        transformations = [fw.module.func.grad, fw.module.vmap, lambda fn: fw.compile(fn)[0]]
    for transformation in transformations:
        with pytest.raises(Exception, match=r"mine|ZeroDivisionError") as caught:
            transformation(dropping)(x)
        assert not isinstance(caught.value, Warning)


@pytest.mark.needs("autodiff")
def test_nested_gradients_on_threads(fw: Framework) -> None:
    """autograd's stack of traces is one for all threads."""

    def critic(x: Any) -> Any:
        ns = xp.namespace(x)
        return ns.sum(ns.tanh(x) * x, axis=-1)

    def rng() -> Any:  # the same numbers at each call
        return fw.key(0) if fw.name == "jax" else np.random.default_rng(0)

    def flatness(x: Any, power: int) -> Any:
        ns = xp.namespace(x)
        return ns.sum(xp.grad(lambda x: ns.sum(x**power))(x) ** 2)

    pipe = Pipeline(
        [
            Penalty(lambda x: xp.gradient_penalty(critic, x), name="wgan"),
            *(Penalty(flatness, name=f"flat{k}", options={"power": k}, weight=0.1 * k) for k in (2, 3, 4)),
            Penalty(lambda x: xp.jacobian_penalty(critic, x, rng=rng()), name="jacobian"),
        ]
    )
    x = fw.array(np.random.default_rng(2).standard_normal((4, 3)))
    total, report = pipe.compute(x, gradient_conflicts=True)
    assert all(part.error is None for part in report.regularizers.values())
    for _ in range(50 if fw.name == "numpy" else 3):
        again, found = pipe.compute(x, gradient_conflicts=True, execution="threads", max_workers=5)
        assert float(again) == float(total)
        assert found.to_dict() == report.to_dict() and found.conflicts() == report.conflicts()
    if fw.name == "numpy":
        gradient = xp.grad(pipe)(x)
        in_threads = [xp.grad(lambda x: pipe.compute(x, execution="threads")[0])(x) for _ in range(5)]
        for each in in_threads:
            np.testing.assert_array_equal(each, gradient)


# an event loop


class Later:
    """An awaitable that is no coroutine."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __await__(self) -> Generator[Any, None, Any]:
        yield from asyncio.sleep(0).__await__()
        return self.value


async def later(value: Any) -> Any:
    return value


def test_what_can_be_awaited(fw: Framework) -> None:
    thread = threading.get_ident()
    threads: dict[str, int] = {}

    def on(name: str, value: Any) -> Any:
        threads[name] = threading.get_ident()
        return value

    async def coroutine(x: Any, scale: float = 1.0) -> Any:
        await asyncio.sleep(0)
        return on("coroutine", scale * xp.l1(x))

    async def metrics(x: Any) -> Any:
        await asyncio.sleep(0)
        return xp.l2(x), {"largest": xp.namespace(x).max(x)}

    class Service:
        async def __call__(self, x: Any) -> Any:
            return on("service", 2.0)

    pipe = Pipeline(
        [
            Penalty(coroutine, weight=0.5, options={"scale": 2.0}),
            Penalty(lambda x: on("lambda", coroutine(x)), name="lambda"),
            Penalty(metrics),
            Penalty(lambda x: on("object", Later(3.0)), name="object"),
            Penalty(Service(), name="service"),
            Penalty(lambda x: on("blocking", 5.0), name="blocking"),
            Penalty("l1", inputs=lambda x: on("ours", x)),
            Penalty("l2", weight=lambda step: 0.1 * step, every=2),
        ]
    )
    total, report = run(pipe.compute_async(fw.array(X), step=4))
    want = {
        "coroutine": (2 * L1, 0.5),
        "lambda": (L1, 1.0),
        "metrics": (L2, 1.0),
        "object": (3.0, 1.0),
        "service": (2.0, 1.0),
        "blocking": (5.0, 1.0),
        "l1": (L1, 1.0),
        "l2": (L2, 0.8),
    }
    found = report.to_dict()["regularizers"]
    assert {name: (part["value"], part["weight"]) for name, part in found.items()} == want
    assert (
        list(found) == list(want)
        and found["metrics"]["custom"] == {"largest": 4.0}
        and found["l1"]["custom"]["max"] == 4
    )
    assert float(total) == pytest.approx(sum(value * weight for value, weight in want.values()))
    assert {name for name, ident in threads.items() if ident == thread} == {"coroutine", "service", "ours"}
    assert list(run(pipe.compute_async(fw.array(X), step=5))[1].regularizers) == list(want)[:-1]


def test_coroutines_need_no_threads(fw: Framework, monkeypatch: pytest.MonkeyPatch) -> None:
    class Service:
        async def __call__(self, x: Any) -> float:
            return 2.0

    monkeypatch.setattr(event_loop, "start_thread", lambda *args: pytest.fail("a thread was started"))
    pipe = Pipeline(
        [Penalty(later), Penalty(partial(later), name="partial"), Penalty(Service(), name="s"), Penalty("l1")]
    )
    total, _ = run(pipe.remove("later", "partial").compute_async(fw.array(X)))
    assert float(total) == 2.0 + L1
    total, _ = run(pipe.compute_async(fw.array(np.asarray(3.0))))
    assert float(total) == 3.0 + 3.0 + 2.0 + 3.0


def test_async_gives_the_same_bits(fw: Framework) -> None:
    x = fw.array(np.random.default_rng(5).standard_normal((17, 5)), "float32")
    total, report = SEVERAL.compute(x)
    again, found = run(SEVERAL.compute_async(x))
    assert float(again) == float(total) and found.to_dict() == report.to_dict()


def test_coroutines_are_awaited_together(fw: Framework) -> None:
    async def main() -> Any:
        barrier = asyncio.Barrier(8)

        async def together(x: Any) -> float:
            return 1.0 + 0.0 * await barrier.wait()

        return await Pipeline([Penalty(together, name=str(i)) for i in range(8)]).compute_async(fw.array(X))

    total, _ = run(main())
    assert float(total) == 8.0


@pytest.mark.only("torch", reason="is about PyTorch's recorded graphs")
def test_torch_gradients_go_through_coroutines(fw: Framework) -> None:

    async def later(x: Any) -> Any:
        await asyncio.sleep(0)
        return xp.l2(x)

    x = fw.array(X).requires_grad_()
    loss = RegularizedLoss(later, Pipeline([Penalty(later, weight=0.5, name="again"), Penalty(mine)]))
    run(loss.compute_async(x))[0].backward()
    close(fw, x.grad, 3 * X + 3 * np.sign(X))


def test_a_coroutine_as_base_loss(fw: Framework) -> None:
    async def base(x: Any) -> Any:
        await asyncio.sleep(0)
        return xp.l2(x), {"m": 1.0}

    total, report = run(RegularizedLoss(base, Pipeline({"l1": 0.5})).compute_async(fw.array(X)))
    assert float(total) == L2 + 0.5 * L1
    assert report.to_dict()["base_loss"] == {"value": L2, "grad_norm": None, "custom": {"m": 1.0}}


def test_what_a_coroutine_raises_or_returns(fw: Framework) -> None:
    async def raising(x: Any) -> Any:
        await asyncio.sleep(0)
        raise ZeroDivisionError("mine")

    async def wrong(x: Any) -> Any:
        await asyncio.sleep(0)
        return x

    for fn, kind, message in (
        (raising, ZeroDivisionError, "mine"),
        (wrong, ValueError, r"penalty 'p': must return a scalar, got shape \(2, 2\)"),
        (lambda x: Later("text"), TypeError, r"penalty 'p': must return a 0-d array, got str"),
    ):
        with pytest.raises(kind, match=message) as caught:
            run(Pipeline([Penalty(fn, name="p", weight=0.5)]).compute_async(fw.array(X)))
        assert caught.value.__notes__[0].startswith("In penalty 'p' of 'pipeline', weight 0.5, inputs ")
        assert len(caught.value.__notes__) == 1


def test_cancelling_leaves_nothing(fw: Framework) -> None:
    states: list[str] = []
    entered, release = threading.Event(), threading.Event()

    async def endless(x: Any) -> Any:
        try:
            await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError:
            states.append("cancelled")
            raise

    def blocking(x: Any) -> float:
        entered.set()
        assert release.wait(PATIENCE)
        states.append("waited for")
        return 1.0

    async def main() -> None:
        pipe = Pipeline([Penalty(endless), Penalty(blocking)])
        task = asyncio.create_task(pipe.compute_async(fw.array(X)))
        await asyncio.to_thread(entered.wait, PATIENCE)
        task.cancel()
        await asyncio.sleep(0)
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()} and sorted(states) == ["cancelled", "waited for"]

    asyncio.run(main())


def test_a_failure_cancels_the_others(fw: Framework) -> None:
    states: list[str] = []

    async def endless(x: Any) -> Any:
        try:
            await asyncio.sleep(PATIENCE)
        finally:
            states.append("stopped")

    async def bad(x: Any) -> Any:
        await asyncio.sleep(0)
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError):
        run(Pipeline([Penalty(endless), Penalty(bad)]).compute_async(fw.array(X)))
    assert states == ["stopped"]


def test_timeouts_of_coroutines(fw: Framework) -> None:
    async def endless(x: Any) -> Any:
        await asyncio.sleep(PATIENCE)

    pipe = Pipeline([Penalty(endless, timeout=0.02), Penalty("l1")], name="training")
    with pytest.raises(TimeoutError, match=r"^'endless' took longer than its timeout of 0.02 s"):
        run(pipe.compute_async(fw.array(X)))
    with pytest.warns(
        RuntimeWarning, match=r"^training: penalty 'endless' was dropped and contributes 0: TimeoutError"
    ):
        total, _ = run(pipe.compute_async(fw.array(X), on_error="drop"))
    assert float(total) == L1


@pytest.mark.parametrize("handlers", [(), (lambda event: None,)], ids=["unseen", "seen"])
def test_a_coroutine_that_comes_too_late(fw: Framework, monkeypatch: pytest.MonkeyPatch, handlers: Any) -> None:
    """It is never awaited, and Python must not say so."""
    monkeypatch.setattr(telemetry, "_handlers", handlers)
    release = threading.Event()

    def late(x: Any) -> Awaitable[Any]:
        assert release.wait(PATIENCE)
        return later(1.0)

    async def main() -> None:
        before = set(threading.enumerate())
        with pytest.raises(TimeoutError):
            await Pipeline([Penalty(late)]).compute_async(fw.array(X), timeout=0.01)
        release.set()
        for thread in set(threading.enumerate()) - before:
            await asyncio.to_thread(thread.join, PATIENCE)
        await asyncio.sleep(0)
        gc.collect()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(main())
        gc.collect()
    # other warnings are of garbage that earlier tests left
    assert not [str(each.message) for each in caught if not issubclass(each.category, ResourceWarning)]


@pytest.mark.parametrize("execution", ["sequential", "threads"])
@pytest.mark.parametrize("make", [Later, later], ids=["object", "coroutine"])
def test_awaitables_are_refused_elsewhere(fw: Framework, execution: str, make: Callable[[Any], Awaitable[Any]]) -> None:
    pipe = Pipeline([Penalty(lambda x: make(1.0), name="p")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(
            TypeError, match=r"^penalty 'p': must return a value, got an awaitable \w+. Use `compute_async`"
        ):
            pipe.compute(fw.array(X), execution=execution)
        with pytest.raises(TypeError, match=r"Use `compute_async`"):
            pipe(fw.array(X))
        gc.collect()
