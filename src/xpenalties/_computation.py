"""All penalties of one call: in which order and where they run, their sum, the report, and what telemetry is told."""

from __future__ import annotations

import inspect
import time
import warnings
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from . import telemetry
from ._evaluation import Job, Part, constant, evaluate, is_traced
from ._execution import Outcome, Task, on_event_loop, on_threads
from ._loans import lender_of, on_loan
from ._options import POSITIVE, member, named, positive_integer
from ._report import PenaltyReport, Report
from ._returned import zero_like
from ._spec import spec_of
from ._tracking import Gradients, Tracked
from ._weighted import ON_ERROR, Penalty
from .backends import backend_of, common_backend, flatten_of, in_dynamo

__all__ = ["Computation", "Settings"]

_EXECUTION = member(("sequential", "threads"))


@dataclass(frozen=True)
class Settings:
    """How to compute, checked."""

    track: bool = False
    wrt: tuple[str | int, ...] | None = None
    conflicts: bool = False
    threads: bool = False
    max_workers: int | None = None
    timeout: float | None = None
    drop: bool = False

    @classmethod
    def of(
        cls,
        caller: str,
        *,
        track_grad_norms: Any = False,
        wrt: Any = None,
        gradient_conflicts: Any = False,
        timeout: Any,
        on_error: Any,
        execution: Any = "sequential",
        max_workers: Any = None,
    ) -> Settings:
        """Of what a user passed; errors name `caller`."""
        track = bool(track_grad_norms) or bool(gradient_conflicts)
        if wrt is not None:
            wrt = (wrt,) if isinstance(wrt, (str, int)) else tuple(wrt)
            if not track:
                raise ValueError(f"{caller}: `wrt` must come with track_grad_norms=True, got {wrt!r} without. Pass it.")
        threads = named(caller, _EXECUTION, "execution", execution) == "threads"
        if max_workers is not None:
            max_workers = positive_integer(caller, "max_workers", max_workers)
            if not threads:
                raise ValueError(
                    f"{caller}: `max_workers` must come with execution='threads', got {max_workers}. Pass it."
                )
        if timeout is not None:
            timeout = named(caller, POSITIVE, "timeout", timeout)
        drop = named(caller, ON_ERROR, "on_error", on_error) == "drop"
        return cls(track, wrt, bool(gradient_conflicts), threads, max_workers, timeout, drop)


class Computation:
    """One call of a pipeline, with or without a base loss before it."""

    def __init__(
        self,
        name: str,
        penalties: Sequence[Penalty],
        inputs: tuple[Any, ...],
        step: Any,
        settings: Settings | None,  # None: no report is asked for
        *,
        base: Penalty | None = None,
        asynchronous: bool = False,
    ) -> None:
        self._name = name
        self._penalties = penalties
        self._base = base
        self._inputs = inputs
        self._settings = settings or Settings()
        tracked = Tracked(name, inputs, self._settings.wrt) if self._settings.track else None
        self._job = Job(name, inputs, step, settings is not None, tracked, asynchronous)
        self._gradients = None
        if tracked is not None:
            self._gradients = Gradients(tracked.backend, tracked.arrays, conflicts=self._settings.conflicts)
        counted = [p for p in penalties if p.enabled and p.is_due(step) is not False]
        self._counted = counted if base is None else [base, *counted]
        self._contributions: dict[str, Any] = {}
        self._reports: dict[str, PenaltyReport] = {}
        self._watch = None
        if not in_dynamo() and telemetry.active() and not is_traced((inputs, step)):
            self._watch = _Watch(name, step)

    def total(self) -> Any:
        """The total."""
        return self._run()[0]

    def reported_for(self, owner: Any, again: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, Report]:
        """Total and report; by ``again(owner, *args)`` with arrays lent to a framework that can track gradients."""
        if self._job.tracked is not None:
            backend = self._job.tracked.backend
            lender = lender_of(self._name, backend)
            if lender is not backend:
                found: tuple[Any, Report] = on_loan(self._name, backend, lender, again, (owner, *args), {})
                return found
        total, report = self._run()
        assert report is not None
        return total, report

    def _run(self) -> tuple[Any, Report | None]:
        if self._watch is None:
            return self._result()
        with self._watch:
            return self._result()

    def _result(self) -> tuple[Any, Report | None]:
        if self._settings.threads:
            self._refuse_traces("execution='threads'")
            carried = self._carried()
            tasks = [self._task(p, _carrying(carried, partial(evaluate, self._job, p))) for p in self._counted]
            self._collect(zip(self._counted, on_threads(tasks, max_workers=self._settings.max_workers), strict=True))
        else:
            self._collect((p, self._outcome(p)) for p in self._counted)
        return self._summed()

    async def run_on_event_loop(self) -> tuple[Any, Report]:
        """The same; coroutines are awaited together, and what blocks is put on threads."""
        with nullcontext() if self._watch is None else self._watch:
            self._refuse_traces("compute_async")
            carried = self._carried()
            tasks = []
            for p in self._counted:
                call: Callable[[], Any] = partial(evaluate, self._job, p)
                blocking = spec_of(p.fn) is None and not _is_coroutine_function(p.fn)
                tasks.append(self._task(p, _carrying(carried, call) if blocking else call, blocking=blocking))
            self._collect(zip(self._counted, await on_event_loop(tasks), strict=True))
            total, report = self._summed()
            assert report is not None
            return total, report

    def _task(self, penalty: Penalty, call: Callable[[], Any], *, blocking: bool = True) -> Task:
        timeout = self._settings.timeout if penalty.timeout is None and penalty is not self._base else penalty.timeout
        if self._watch is not None:
            call = self._watch.timed(penalty.name, call)
        return Task(penalty.name, call, timeout, blocking=blocking, optional=self._is_optional(penalty))

    def _outcome(self, penalty: Penalty) -> Outcome:
        call: Callable[[], Any] = partial(evaluate, self._job, penalty)
        if self._watch is not None:
            call = self._watch.timed(penalty.name, call)
        if in_dynamo() or not self._is_optional(penalty):
            return Outcome(call())
        try:
            return Outcome(call())
        except Exception as error:
            if is_traced((self._inputs, self._job.step)):  # it would be left out of what runs later, for good
                raise
            return Outcome(error=error)

    def _is_optional(self, penalty: Penalty) -> bool:
        if penalty is self._base:
            return False
        return self._settings.drop if penalty.on_error is None else penalty.on_error == "drop"

    def _collect(self, outcomes: Iterable[tuple[Penalty, Outcome]]) -> None:
        """Take each part as it comes, in the penalties' order."""
        for penalty, outcome in outcomes:
            if outcome.error is not None:
                self._drop(penalty, outcome.error)
                continue
            part: Part = outcome.result
            self._contributions[penalty.name] = part.contribution
            norms = (None, None)
            if self._gradients is not None and penalty.differentiable:
                if part.gradient is None:
                    self._gradients.complete = False
                else:
                    norms = self._gradients.add(penalty.name, part.gradient, part.factor)
            if self._job.reported or self._watch is not None:
                self._reports[penalty.name] = PenaltyReport(
                    constant(part.value), part.weight, constant(part.contribution), *norms, part.metrics, part.error
                )
            if self._watch is not None:
                self._watch.stop(
                    penalty.name,
                    weight=part.weight,
                    value=constant(part.value),
                    contribution=constant(part.contribution),
                    grad_norm=norms[0],
                )

    def _drop(self, penalty: Penalty, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"
        warnings.warn(
            f"{self._name}: penalty {penalty.name!r} was dropped and contributes 0: {reason}",
            RuntimeWarning,
            stacklevel=5,
        )
        weight = None if callable(penalty.weight) else constant(penalty.weight)
        self._reports[penalty.name] = PenaltyReport(None, weight, 0.0, error=f"dropped: {reason}")
        if self._watch is not None:
            self._watch.failed(penalty.name, error)

    def _summed(self) -> tuple[Any, Report | None]:
        contributions = dict(self._contributions)
        base = None if self._base is None else contributions.pop(self._base.name)
        if contributions:
            # NumPy would take another framework's 0-d array for a number, and lose its gradient
            names = list(self._contributions)
            common_backend(self._name, names, list(self._contributions.values()))
            penalties = _sum(list(contributions.values()))
        else:
            parts = (p.inputs for p in self._penalties if callable(p.inputs))
            penalties = zero_like(self._name, self._inputs, parts) if base is None else None
        total = penalties if base is None else base if penalties is None else base + penalties
        report = None
        if self._job.reported or self._watch is not None:
            found = dict(self._reports)
            of_base = None if self._base is None else found.pop(self._base.name)
            report = Report(
                constant(total),
                of_base,
                found,
                0.0 if penalties is None else constant(penalties),
                None if self._gradients is None else self._gradients.total_norm(),
                None if self._gradients is None else self._gradients.conflicts(),
            )
            if self._watch is not None:
                self._watch.stop(None, value=report.loss_total, grad_norm=report.total_grad_norm, report=report)
        return total, report

    def _carried(self) -> list[Callable[[], AbstractContextManager[Any]]]:
        """The modes of this thread, by the inputs' frameworks."""
        found = (backend_of(leaf) for leaf in flatten_of(self._inputs)[0])
        return [each.carried() for each in dict.fromkeys(found) if each is not None]

    def _refuse_traces(self, what: str) -> None:
        if is_traced((self._inputs, self._job.step)):
            raise TypeError(
                f"{self._name}: {what} needs arrays with values, got ones that are being traced. Call it outside of "
                "jit, grad and vmap, or compute sequentially."
            )


def _sum(contributions: list[Any]) -> Any:
    total = contributions[0]
    for contribution in contributions[1:]:
        total = total + contribution
    return total


def _carrying(carried: list[Callable[[], AbstractContextManager[Any]]], call: Callable[[], Any]) -> Callable[[], Any]:
    """`call` on another thread, in the modes of this one."""

    def run() -> Any:
        with ExitStack() as stack:
            for modes in carried:
                stack.enter_context(modes())
            return call()

    return run


def _is_coroutine_function(fn: Any) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004


class _Watch:
    """Tells telemetry of one computation: each start has its end, whatever happens."""

    def __init__(self, name: str, step: Any) -> None:
        self._event = partial(telemetry.Event, pipeline=name, computation=telemetry.next_computation(), step=step)
        self._open: dict[str | None, tuple[float, float]] = {}  # what began: time of day, and a monotonic clock's
        self._seconds: dict[str | None, float] = {}

    def timed(self, name: str, call: Callable[[], Any]) -> Callable[[], Any]:
        """`call`, whose start and time are noted, and what it raises."""

        def run() -> Any:
            self._start(name)
            try:
                result = call()
            except Exception as error:
                self.failed(name, error)
                raise
            if inspect.isawaitable(result):
                return self._awaited(name, result)
            self._seconds[name] = self._elapsed(name)
            return result

        return run

    async def _awaited(self, name: str, result: Awaitable[Any]) -> Any:
        try:
            found = await result
        except Exception as error:
            self.failed(name, error)
            raise
        self._seconds[name] = self._elapsed(name)
        return found

    def __enter__(self) -> None:
        self._start(None)

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is not None:
            for name in [*reversed(self._open)]:  # also those whose result nobody has waited for
                self.failed(name, error)

    def _start(self, name: str | None) -> None:
        self._open[name] = time.time(), time.perf_counter()
        telemetry.emit(self._event(kind="start", penalty=name, time=self._open[name][0]))

    def _elapsed(self, name: str | None) -> float:
        return time.perf_counter() - self._open[name][1]

    def stop(self, name: str | None, *, report: Report | None = None, **figures: Any) -> None:
        """Say what was found."""
        seconds = self._seconds.get(name) or self._elapsed(name)
        began, _ = self._open.pop(name)
        telemetry.emit(self._event(kind="stop", penalty=name, time=began, duration=seconds, report=report, **figures))

    def failed(self, name: str | None, error: BaseException) -> None:
        """Say what was raised, once."""
        began = self._open.pop(name, None)
        if began is not None:
            seconds = time.perf_counter() - began[1]
            telemetry.emit(self._event(kind="exception", penalty=name, time=began[0], duration=seconds, error=error))
