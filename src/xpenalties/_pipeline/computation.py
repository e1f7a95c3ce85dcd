"""All penalties of one call: in which order and where they run, their sum, the report, and what telemetry is told."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from typing import Any

from .. import telemetry
from .._arrays.lending import lender_of, on_loan
from .._core.concurrency import Outcome, Task, on_event_loop, on_threads
from .._penalties.spec import spec_of
from .._reports.report import PenaltyReport, Report
from ..backends import backend_of, common_backend, flatten_of, in_dynamo, is_array
from .evaluation import Job, Part, constant, evaluate, is_traced
from .events import Watch
from .gradient_tracking import Gradients, Tracked
from .penalty import Penalty
from .results import zero_like
from .settings import Settings

__all__ = ["Computation", "is_coroutine_function"]

_PLAIN = Settings()


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
        self._settings = settings or _PLAIN
        tracked = Tracked(name, inputs, self._settings.wrt) if self._settings.track else None
        self._job = Job(name, inputs, step, settings is not None, tracked, asynchronous)
        self._gradients = None
        if tracked is not None:
            self._gradients = Gradients(tracked.backend, tracked.arrays, conflicts=self._settings.conflicts)
        due = [(p, p.is_due(step)) for p in penalties if p.enabled]
        self._counted = [] if base is None else [(base, True)]
        self._counted += [each for each in due if each[1] is not False]
        self.values: dict[str, Any] = {}  # with what they depend on
        self._contributions: dict[str, Any] = {}
        self._reports: dict[str, PenaltyReport] = {}
        self._watch = None
        if not in_dynamo() and telemetry.active() and not self._is_traced():
            self._watch = Watch(name, step)

    def total(self) -> Any:
        """The total."""
        return self._run()[0]

    def reported(self) -> tuple[Any, Report]:
        """Total and report; all of it with arrays lent, where gradients take another framework."""
        if self._job.tracked is not None:
            backend = self._job.tracked.backend
            lender = lender_of(self._name, backend)
            if lender is not backend:
                again = self._name, self._penalties, self._inputs, self._job.step, self._settings, self._base
                found: tuple[Any, Report] = on_loan(self._name, backend, lender, _reported, again, {})
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
            tasks = [
                self._task(p, _carrying(carried, partial(evaluate, self._job, p, due))) for p, due in self._counted
            ]
            self._collect(on_threads(tasks, max_workers=self._settings.max_workers))
        else:
            self._collect(self._outcome(p, due) for p, due in self._counted)
        return self._summed()

    async def run_on_event_loop(self) -> tuple[Any, Report]:
        """The same; coroutines are awaited together, and what blocks is put on threads."""
        with nullcontext() if self._watch is None else self._watch:
            self._refuse_traces("compute_async")
            carried = self._carried()
            tasks = []
            for p, due in self._counted:
                call: Callable[[], Any] = partial(evaluate, self._job, p, due)
                blocking = spec_of(p.fn) is None and not is_coroutine_function(p.fn)
                tasks.append(self._task(p, _carrying(carried, call) if blocking else call, blocking=blocking))
            self._collect(await on_event_loop(tasks))
            total, report = self._summed()
            assert report is not None
            return total, report

    def _task(self, penalty: Penalty, call: Callable[[], Any], *, blocking: bool = True) -> Task:
        timeout = self._settings.timeout if penalty.timeout is None and penalty is not self._base else penalty.timeout
        if self._watch is not None:
            call = self._watch.timed(penalty.name, call)
        return Task(penalty.name, call, timeout, blocking=blocking, optional=self._is_optional(penalty))

    def _outcome(self, penalty: Penalty, due: Any) -> Outcome:
        call: Callable[[], Any] = partial(evaluate, self._job, penalty, due)
        if self._watch is not None:
            call = self._watch.timed(penalty.name, call)
        if in_dynamo() or not self._is_optional(penalty):
            return Outcome(call())
        try:
            return Outcome(call())
        except Exception as error:
            if self._is_traced():  # it would be left out of what runs later, for good
                raise
            return Outcome(error=error)

    def _is_optional(self, penalty: Penalty) -> bool:
        if penalty is self._base:
            return False
        return self._settings.drop if penalty.on_error is None else penalty.on_error == "drop"

    def _collect(self, outcomes: Iterable[Outcome]) -> None:
        """Take each part as it comes, in the penalties' order."""
        for (penalty, _), outcome in zip(self._counted, outcomes, strict=True):
            if outcome.error is not None:
                self._drop(penalty, outcome.error)
                continue
            part: Part = outcome.result
            self.values[penalty.name] = part.value
            self._contributions[penalty.name] = part.contribution
            norms = (None, None)
            if self._gradients is not None and penalty.differentiable:
                if part.gradient is None:
                    self._gradients.complete = False
                else:
                    norms = self._gradients.add(penalty.name, part.gradient, part.factor)
                    part.gradient.clear()  # as large as the inputs, and the next penalty has its own
            if not self._job.reported and self._watch is None:
                continue
            value, weight, contribution = constant(part.value), _kept(part.weight), constant(part.contribution)
            self._reports[penalty.name] = PenaltyReport(value, weight, contribution, *norms, part.metrics, part.error)
            if self._watch is not None:
                self._watch.stop(
                    penalty.name, weight=weight, value=value, contribution=contribution, grad_norm=norms[0]
                )

    def _drop(self, penalty: Penalty, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"
        warnings.warn(
            f"{self._name}: penalty {penalty.name!r} was dropped and contributes 0: {reason}",
            RuntimeWarning,
            stacklevel=_callers_level(),
        )
        weight = None if callable(penalty.weight) else _kept(penalty.weight)
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
            first, *others = contributions.values()
            penalties = sum(others, first)
        else:
            parts = (p.inputs for p in self._penalties if callable(p.inputs))
            penalties = zero_like(self._name, self._inputs, parts) if base is None else None
        total = penalties if base is None else base if penalties is None else base + penalties
        if self._gradients is not None:
            total = self._gradients.of_total(total)
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
            if hasattr(total, "__imul__"):  # a loop may divide it in place, and the report would see that
                total = total + 0  # a product would keep what a second pass back needs
        return total, report

    def _carried(self) -> list[Callable[[], AbstractContextManager[Any]]]:
        """The modes of this thread, by the inputs' frameworks."""
        found = (backend_of(leaf) for leaf in flatten_of(self._inputs)[0])
        return [each.carried() for each in dict.fromkeys(found) if each is not None]

    def _is_traced(self) -> bool:
        return is_traced((self._inputs, self._job.step, [(p.weight, p.options) for p in self._penalties]))

    def _refuse_traces(self, what: str) -> None:
        if self._is_traced():
            raise TypeError(
                f"{self._name}: {what} needs arrays with values, got ones that are being traced. Call it outside of "
                "jit, grad and vmap, or compute sequentially."
            )


def _reported(
    name: str,
    penalties: Sequence[Penalty],
    inputs: tuple[Any, ...],
    step: Any,
    settings: Settings,
    base: Penalty | None,
) -> tuple[Any, Report]:
    return Computation(name, penalties, inputs, step, settings, base=base).reported()


def _callers_level() -> int:
    """How far away the first function outside of this package is from whoever asks, as `warnings.warn` counts."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("xpenalties."):
        level, frame = level + 1, frame.f_back
    return level


def _kept(weight: Any) -> Any:
    """A weight as it is now: one that is learned changes in place."""
    return 1 * constant(weight) if is_array(weight) else weight


def _carrying(carried: list[Callable[[], AbstractContextManager[Any]]], call: Callable[[], Any]) -> Callable[[], Any]:
    """`call` on another thread, in the modes of this one."""

    def run() -> Any:
        with ExitStack() as stack:
            for modes in carried:
                stack.enter_context(modes())
            return call()

    return run


def is_coroutine_function(fn: Any) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004
