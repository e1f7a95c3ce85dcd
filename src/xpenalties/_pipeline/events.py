"""What telemetry is told of one computation: each start has one end, and no handlers no cost."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable
from functools import partial
from threading import Lock
from typing import Any

from .. import telemetry
from .._core.concurrency import Closing
from .._reports.report import Report

__all__ = ["Watch"]


class Watch:
    """Tells telemetry of one computation: each start has one end, whatever happens, on abandoned threads too."""

    def __init__(self, name: str, step: Any) -> None:
        self._event = partial(telemetry.Event, pipeline=name, computation=telemetry.next_computation(), step=step)
        self._began: dict[str | None, tuple[float, float]] = {}  # time of day, and a monotonic clock's
        self._seconds: dict[str | None, float] = {}
        self._ended: set[str | None] = set()
        self._failing = False  # nothing begins any more
        self._lock = Lock()

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
                return Closing(self._awaited(name, result), result)
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
            with self._lock:
                self._failing = True
            for name in reversed(self._began):  # also those whose result nobody has waited for
                self.failed(name, error)

    def _start(self, name: str | None) -> None:
        with self._lock:
            if self._failing or name in self._ended:  # abandoned before its thread came to it
                return
            self._began[name] = time.time(), time.perf_counter()
        telemetry.emit(self._event(kind="start", penalty=name, time=self._began[name][0]))

    def _elapsed(self, name: str | None) -> float:
        return time.perf_counter() - self._began[name][1]

    def stop(self, name: str | None, *, report: Report | None = None, **figures: Any) -> None:
        """Say what was found."""
        self._end(name, kind="stop", report=report, **figures)

    def failed(self, name: str | None, error: BaseException) -> None:
        """Say what was raised, once."""
        self._end(name, kind="exception", error=error)

    def _end(self, name: str | None, **what: Any) -> None:
        with self._lock:
            began = None if name in self._ended else self._began.get(name)
            self._ended.add(name)
        if began is not None:
            seconds = self._seconds.get(name) or self._elapsed(name)
            telemetry.emit(self._event(penalty=name, time=began[0], duration=seconds, **what))
