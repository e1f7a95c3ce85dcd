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
    """Emits the events of one computation, which runs inside this context manager.

    An error on an abandoned thread emits nothing if its penalty or the computation has ended.
    """

    def __init__(self, name: str, step: Any) -> None:
        self._event = partial(telemetry.Event, pipeline=name, computation=telemetry.next_computation(), step=step)
        self._started: dict[str | None, tuple[float, float]] = {}  # wall-clock time, monotonic time
        self._seconds: dict[str | None, float] = {}
        self._ended: set[str | None] = set()
        self._failing = False  # if True, no more penalties start
        self._lock = Lock()

    def __enter__(self) -> None:
        self._start(None)

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is not None:
            with self._lock:
                self._failing = True
            for name in reversed(self._started):  # includes penalties whose results were not awaited
                self.failed(name, error)

    @contextmanager
    def evaluation(self, name: str) -> Iterator[None]:
        """Emit a penalty's start event, time the block, and emit an exception event if the block raises."""
        self._start(name)
        try:
            yield
        except Exception as error:
            self.failed(name, error)
            raise
        self._seconds[name] = self._elapsed(name)

    def stop(self, name: str, report: PenaltyReport) -> None:
        """Emit a penalty's stop event, with its figures."""
        figures = {"value": report.value, "weight": report.weight, "contribution": report.contribution}
        self._end(name, kind="stop", grad_norm=report.grad_norm, **figures)

    def stop_computation(self, report: Report) -> None:
        """Emit the computation's stop event, with its figures."""
        self._end(None, kind="stop", value=report.loss_total, grad_norm=report.total_grad_norm, report=report)

    def failed(self, name: str | None, error: BaseException) -> None:
        """Emit the exception event of a penalty, or of the computation if `name` is None."""
        self._end(name, kind="exception", error=error)

    def _start(self, name: str | None) -> None:
        with self._lock:
            if self._failing or name in self._ended:  # abandoned before its thread started it
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
