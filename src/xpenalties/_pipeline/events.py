"""Emit telemetry events for one computation: every start event gets exactly one stop or exception event."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import Any

from .. import telemetry
from .._reports.report import PenaltyReport, Report

__all__ = ["Events"]


class Events:
    """The events of one computation, which is the block of this context manager.

    What fails on an abandoned thread, after its penalty or the computation has ended, emits nothing.
    """

    def __init__(self, name: str, step: Any) -> None:
        self._event = partial(telemetry.Event, pipeline=name, computation=telemetry.next_computation(), step=step)
        self._started: dict[str | None, tuple[float, float]] = {}  # time of day, and a monotonic clock's
        self._seconds: dict[str | None, float] = {}
        self._ended: set[str | None] = set()
        self._failing = False  # nothing starts any more
        self._lock = Lock()

    def __enter__(self) -> None:
        self._start(None)

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is not None:
            with self._lock:
                self._failing = True
            for name in reversed(self._started):  # also penalties whose result nobody has waited for
                self.failed(name, error)

    @contextmanager
    def evaluation(self, name: str) -> Iterator[None]:
        """Emit the start of one penalty, time its block, and emit an exception that it raises."""
        self._start(name)
        try:
            yield
        except Exception as error:
            self.failed(name, error)
            raise
        self._seconds[name] = self._elapsed(name)

    def stop(self, name: str, report: PenaltyReport) -> None:
        """Emit the figures of one penalty."""
        figures = {"value": report.value, "weight": report.weight, "contribution": report.contribution}
        self._end(name, kind="stop", grad_norm=report.grad_norm, **figures)

    def stop_computation(self, report: Report) -> None:
        """Emit the figures of the computation."""
        self._end(None, kind="stop", value=report.loss_total, grad_norm=report.total_grad_norm, report=report)

    def failed(self, name: str | None, error: BaseException) -> None:
        """Emit an error of one penalty, or of the computation if `name` is None."""
        self._end(name, kind="exception", error=error)

    def _start(self, name: str | None) -> None:
        with self._lock:
            if self._failing or name in self._ended:  # abandoned before its thread came to it
                return
            self._started[name] = time.time(), time.perf_counter()
        telemetry.emit(self._event(kind="start", penalty=name, time=self._started[name][0]))

    def _elapsed(self, name: str | None) -> float:
        return time.perf_counter() - self._started[name][1]

    def _end(self, name: str | None, **fields: Any) -> None:
        with self._lock:
            started = None if name in self._ended else self._started.get(name)
            self._ended.add(name)
        if started is not None:
            seconds = self._seconds[name] if name in self._seconds else self._elapsed(name)
            telemetry.emit(self._event(penalty=name, time=started[0], duration=seconds, **fields))
