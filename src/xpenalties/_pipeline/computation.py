"""Compute a pipeline once: evaluate the due penalties, add them up, report them, and emit events.

Penalties run one after another, on threads, or on an event loop. Their results are always added up in the pipeline's
order.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from typing import Any

from .. import telemetry
from .._arrays.borrowed_autodiff import autodiff_backend_of, call_borrowed
from .._core.concurrency import CallAndAwait, CoroutineTask, Outcome, Task, on_threads
from .._core.warnings_for_users import callers_level
from .._penalties.spec import spec_of
from .._reports.report import PenaltyReport, Report
from ..backends import backend_of, common_backend, flatten_of, in_dynamo, is_array
from ..backends._over import ACTIVE, active_groups
from .events import Events
from .penalty import Penalty
from .penalty_evaluation import EvaluationContext, PenaltyResult, constant, evaluate, evaluate_async, is_traced
from .penalty_inputs import callables_in
from .returned_values import zero_like
from .settings import Settings
from .tracked_arrays import TrackedInputs
from .tracked_gradients import TrackedGradients
from .wrt import refuse_arrays

__all__ = ["Computation", "is_coroutine_function"]

_DEFAULTS = Settings()


class Computation:
    """One call of a pipeline, with or without a base loss before it.

    Parameters
    ----------
    name, penalties
        The pipeline's.
    inputs, step
        The arguments of the call.
    settings : Settings or None
        None if the caller wants no report.
    base : Penalty, optional
        The base loss.

    Attributes
    ----------
    regularizer_total
        The sum of the penalties' contributions, None if there are none. It is set by the computation.
    """

    def __init__(
        self,
        name: str,
        penalties: Sequence[Penalty],
        inputs: tuple[Any, ...],
        step: Any,
        settings: Settings | None,
        *,
        base: Penalty | None = None,
    ) -> None:
        self._name = name
        self._penalties = penalties
        self._base = base
        self._inputs = inputs
        self._step = step
        self._settings = settings or _DEFAULTS
        self._with_report = settings is not None
        self.regularizer_total: Any = None
        self._gradients = tracked = None
        if self._settings.track:
            self._gradients = TrackedGradients(name, penalties, inputs, self._settings)
            tracked = self._gradients.arrays
        self._context = EvaluationContext(name, inputs, step, self._with_report, tracked)
        self._due = [] if base is None else [(base, True)]
        for penalty in penalties:
            due = penalty.enabled and penalty.is_due(step)
            if due is not False:
                self._due.append((penalty, due))
        self._contributions: dict[str, Any] = {}
        self._reports: dict[str, PenaltyReport] = {}
        self._events = None
        if not in_dynamo() and telemetry.active() and not self._is_traced():
            self._events = Events(name, step)

    def total(self) -> Any:
        """Compute the total."""
        return self._run()[0]

    def total_and_report(self) -> tuple[Any, Report]:
        """Compute total and report, on borrowed arrays if the inputs' framework cannot differentiate."""
        if self._gradients is not None:
            backend = self._gradients.arrays.backend
            autodiff_backend = autodiff_backend_of(self._name, backend)
            if autodiff_backend is not backend:
                refuse_arrays(self._name, self._settings.wrt, backend)
                again = self._name, self._penalties, self._inputs, self._step, self._settings, self._base
                result: tuple[Any, Report] = call_borrowed(
                    self._name, backend, autodiff_backend, _computed_again, again, {}
                )
                return result
        total, report = self._run()
        assert report is not None
        return total, report

    async def total_and_report_async(self) -> tuple[Any, Report]:
        """Compute both on an event loop: await coroutines together, and run calls that may block on threads."""
        from .._core.event_loop import on_event_loop  # imports asyncio

        with self._events or nullcontext():
            self._refuse_traces("compute_async")
            modes = self._modes()
            self._collect(await on_event_loop([self._coroutine_task(penalty, modes) for penalty, _ in self._due]))
            total, report = self._add_up()
            assert report is not None
            return total, report

    def _run(self) -> tuple[Any, Report | None]:
        if self._events is None:
            return self._compute()
        with self._events:
            return self._compute()

    def _compute(self) -> tuple[Any, Report | None]:
        if self._settings.threads:
            self._refuse_traces("execution='threads'")
            if ACTIVE.any and active_groups() is not None:
                raise ValueError(
                    f"{self._name}: execution must be 'sequential' inside `over`, got 'threads'. Devices must make the "
                    "same calls in the same order."
                )
            modes = self._modes()
            tasks = [self._thread_task(penalty, due, modes) for penalty, due in self._due]
            self._collect(on_threads(tasks, max_workers=self._settings.max_workers))
        else:
            for penalty, due in self._due:  # add up and free a gradient before computing the next
                self._add(penalty, self._outcome(penalty, due))
        return self._add_up()

    # evaluate

    def _evaluate(self, penalty: Penalty, due: Any) -> PenaltyResult:
        if self._events is None:
            return evaluate(self._context, penalty, due)
        with self._events.evaluation(penalty.name):
            return evaluate(self._context, penalty, due)

    def _outcome(self, penalty: Penalty, due: Any) -> Outcome:
        if in_dynamo() or not self._is_optional(penalty):
            return Outcome(self._evaluate(penalty, due))
        try:
            return Outcome(self._evaluate(penalty, due))
        except Exception as error:
            if self._is_traced():  # the compiled program would drop it for good
                raise
            return Outcome(error=error)

    def _thread_task(self, penalty: Penalty, due: Any, modes: _Modes) -> Task:
        call = partial(_in_modes, modes, partial(self._evaluate, penalty, due))
        return Task(penalty.name, call, self._timeout(penalty), optional=self._is_optional(penalty))

    def _coroutine_task(self, penalty: Penalty, modes: _Modes) -> CoroutineTask:
        blocking = spec_of(penalty.fn) is None and not is_coroutine_function(penalty.fn)

        async def call(call_and_await: CallAndAwait) -> PenaltyResult:
            def call_in_modes(fn: Callable[[], Any]) -> Awaitable[Any]:
                return call_and_await(partial(_in_modes, modes, fn) if blocking else fn)

            with self._events.evaluation(penalty.name) if self._events is not None else nullcontext():
                return await evaluate_async(self._context, penalty, call_in_modes)

        timeout, optional = self._timeout(penalty), self._is_optional(penalty)
        return CoroutineTask(penalty.name, call, timeout, blocking=blocking, optional=optional)

    def _timeout(self, penalty: Penalty) -> float | None:
        if penalty is self._base or penalty.timeout is not None:
            return penalty.timeout
        return self._settings.timeout

    def _is_optional(self, penalty: Penalty) -> bool:
        if penalty is self._base:
            return False
        return self._settings.drop if penalty.on_error is None else penalty.on_error == "drop"

    # add up

    def _collect(self, outcomes: list[Outcome]) -> None:
        for (penalty, _), outcome in zip(self._due, outcomes, strict=True):
            self._add(penalty, outcome)

    def _add(self, penalty: Penalty, outcome: Outcome) -> None:
        """Add the result of a penalty to the total and the report, or drop the penalty."""
        if outcome.error is not None:
            self._drop(penalty, outcome.error)
            return
        result: PenaltyResult = outcome.result
        self._contributions[penalty.name] = result.contribution
        norm, weighted, why_none = None, None, result.error
        if self._gradients is not None:
            norm, weighted, why_none = self._gradients.add(penalty, result)
        if not self._with_report and self._events is None:
            return
        value, weight, contribution = constant(result.value), _snapshot(result.weight), constant(result.contribution)
        report = PenaltyReport(value, weight, contribution, norm, weighted, result.metrics, why_none)
        self._reports[penalty.name] = report
        if self._events is not None:
            self._events.stop(penalty.name, report)

    def _drop(self, penalty: Penalty, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"
        warnings.warn(
            f"{self._name}: penalty {penalty.name!r} was dropped and contributes 0: {reason}",
            RuntimeWarning,
            stacklevel=callers_level(),
        )
        weight = None if callable(penalty.weight) else _snapshot(penalty.weight)
        self._reports[penalty.name] = PenaltyReport(None, weight, 0.0, error=f"dropped: {reason}")
        if self._events is not None:
            self._events.failed(penalty.name, error)

    def _add_up(self) -> tuple[Any, Report | None]:
        total, penalties = self._sums()
        if not self._with_report and self._events is None:
            return total, None
        report = self._report(total, penalties)
        if self._events is not None:
            self._events.stop_computation(report)
        if hasattr(total, "__imul__"):  # the caller may divide it in place, and the report must not change
            total = total + 0  # a product would save arrays for a second backward pass
        return total, report

    def _sums(self) -> tuple[Any, Any]:
        """Return the total, and the sum of the penalties' contributions: None if only the base loss contributes."""
        if self._contributions:
            # NumPy would treat another framework's 0-d array as a number, and lose its gradient
            common_backend(self._name, list(self._contributions), list(self._contributions.values()))
        contributions = dict(self._contributions)
        base = None if self._base is None else contributions.pop(self._base.name)
        penalties = None
        if contributions:
            first, *others = contributions.values()
            penalties = sum(others, first)
        elif base is None:
            penalties = zero_like(
                self._name, self._inputs, (pick for p in self._penalties for pick in callables_in(p.inputs))
            )
        total = penalties if base is None else base if penalties is None else base + penalties
        if self._gradients is not None and isinstance(self._gradients.arrays, TrackedInputs):
            total = self._gradients.sums.attach(total)
        self.regularizer_total = penalties
        return total, penalties

    def _report(self, total: Any, penalties: Any) -> Report:
        reports = dict(self._reports)
        base = None if self._base is None else reports.pop(self._base.name)
        norm = conflicts = wrt = None
        if self._gradients is not None:
            norm, wrt = self._gradients.sums.total_norm(), self._gradients.wrt(self._due)
            if self._settings.conflicts:
                conflicts = self._gradients.sums.conflicts()
        regularizer_total = 0.0 if penalties is None else constant(penalties)
        return Report(constant(total), base, reports, regularizer_total, norm, conflicts, wrt)

    # tracing and threads

    def _modes(self) -> _Modes:
        """Return, for each framework of the inputs, a context that sets this thread's modes on another thread."""
        backends = (backend_of(leaf) for leaf in flatten_of(self._inputs)[0])
        return [backend.evaluation.thread_modes() for backend in dict.fromkeys(backends) if backend is not None]

    def _is_traced(self) -> bool:
        return is_traced((self._inputs, self._step, [(p.weight, p.options) for p in self._penalties]))

    def _refuse_traces(self, what: str) -> None:
        if self._is_traced():
            raise TypeError(
                f"{self._name}: {what} needs arrays with values, got traced arrays. Call it outside "
                "jit, grad and vmap, or compute sequentially."
            )


_Modes = list[Callable[[], AbstractContextManager[Any]]]


def _computed_again(
    name: str,
    penalties: Sequence[Penalty],
    inputs: tuple[Any, ...],
    step: Any,
    settings: Settings,
    base: Penalty | None,
) -> tuple[Any, Report]:
    return Computation(name, penalties, inputs, step, settings, base=base).total_and_report()


def _snapshot(weight: Any) -> Any:
    """Copy a weight, because a learned one changes in place."""
    return 1 * constant(weight) if type(weight) is not float and is_array(weight) else weight


def _in_modes(modes: _Modes, call: Callable[[], Any]) -> Any:
    """Call a function on another thread, in the modes of the caller's thread."""
    with ExitStack() as stack:
        for mode in modes:
            stack.enter_context(mode())
        return call()


def is_coroutine_function(fn: Any) -> bool:
    """Return whether `fn` is a coroutine function, or an object whose `__call__` is one."""
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004
