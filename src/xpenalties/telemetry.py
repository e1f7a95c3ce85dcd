"""What handlers are told of each computation of a pipeline: that it began, what it found, how long it took, or failed.

Without handlers nothing is measured. A handler runs in the thread that computes, between two penalties.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from threading import Lock
from typing import Any, Literal, TypeVar

__all__ = ["Event", "LoggingHandler", "add_handler", "remove_handler"]

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)  # figures may be arrays, which neither compare nor hash as one
class Event:
    """One thing that happened in a computation.

    Attributes
    ----------
    kind : {"start", "stop", "exception"}
        A "start" is followed by one of the others.
    pipeline : str
        Name of the pipeline.
    penalty : str or None
        Name of the penalty, "base_loss" for a base loss; None where the event is about the whole computation.
    computation : int
        The same in all events of one computation, and in no other's of this process.
    time : float
        When that which the event is about began, in seconds since the epoch: `time.time`.
    step : int or 0-d array, optional
        As the pipeline was given it.
    duration : float or None
        Seconds on the host, by a monotonic clock; a device that computes asynchronously may still be at work.
    weight, value, contribution, grad_norm
        As in `PenaltyReport`, of the whole computation the loss total and its gradient's norm; None where not known.
        Numbers and detached 0-d arrays: reading one may wait for the device.
    error : BaseException or None
        What was raised, in an "exception".
    report : Report or None
        In the "stop" of a whole computation.
    """

    kind: Literal["start", "stop", "exception"]
    pipeline: str
    penalty: str | None
    computation: int
    time: float
    step: Any = None
    duration: float | None = None
    weight: Any = None
    value: Any = None
    contribution: Any = None
    grad_norm: Any = None
    error: BaseException | None = None
    report: Any = None


_Handler = TypeVar("_Handler", bound=Callable[[Event], object])
_handlers: tuple[Callable[[Event], object], ...] = ()  # replaced, never changed: who reads it needs no lock
_replacing = Lock()
_computations = count(1)


def add_handler(handler: _Handler) -> _Handler:
    """Call `handler` with each event from now on, after those that were added before. Also a decorator.

    Parameters
    ----------
    handler : callable
        Takes one `Event`; what it returns is ignored. An Exception that it raises is logged by "xpenalties.telemetry",
        and the computation goes on. It may be called from several threads, and must not compute a pipeline itself.

    Returns
    -------
    callable
        `handler`, as `remove_handler` takes it.

    Raises
    ------
    TypeError
        For what cannot be called, and for a class: an instance handles events.
    ValueError
        For a handler that was added already.

    Examples
    --------
    >>> from xpenalties import telemetry
    >>> @telemetry.add_handler
    ... def show(event):
    ...     print(event.kind, event.penalty, event.value)
    >>> total, report = Pipeline({"l1": 1.0}).compute(np.asarray([1.0, -2.0]))
    start None None
    start l1 None
    stop l1 3.0
    stop None 3.0
    >>> telemetry.remove_handler(show)
    """
    global _handlers  # noqa: PLW0603 - one name to read is the cheapest `active`
    if not callable(handler) or isinstance(handler, type):
        raise TypeError(f"add_handler: `handler` must be a function of one Event, got {handler!r}. Pass a callable.")
    with _replacing:
        if handler in _handlers:
            raise ValueError(
                f"add_handler: `handler` must be new, got {handler!r}, which was added already. Remove it first."
            )
        _handlers = (*_handlers, handler)
    return handler


def remove_handler(handler: Callable[[Event], object]) -> None:
    """Call `handler` no more.

    Parameters
    ----------
    handler : callable
        What `add_handler` was given.

    Raises
    ------
    ValueError
        For a handler that is not there.
    """
    global _handlers  # noqa: PLW0603
    with _replacing:
        left = tuple(each for each in _handlers if each != handler)
        if len(left) == len(_handlers):
            raise ValueError(
                f"remove_handler: `handler` must be one that was added, got {handler!r}. Pass the same object."
            )
        _handlers = left


class LoggingHandler:
    """A handler that logs a line for each penalty and computation that stopped, and what was raised.

    Figures are read, which may wait for the device, only where `logger` is enabled for `level`: by default it is not,
    before something like ``logging.basicConfig(level=logging.INFO)``.

    Parameters
    ----------
    logger : logging.Logger, optional
        By default the one that is named "xpenalties".
    level : int, default logging.INFO
        Of the lines with figures; exceptions are logged as errors, with their traceback.
    """

    def __init__(self, logger: logging.Logger | None = None, level: int = logging.INFO) -> None:
        self.logger = logging.getLogger("xpenalties") if logger is None else logger
        self.level = level

    def __call__(self, event: Event) -> None:
        """Log `event`."""
        if event.kind == "exception":
            self.logger.error("%s raised %r", _subject(event), event.error, exc_info=event.error)
        elif event.kind == "stop" and self.logger.isEnabledFor(self.level):
            self.logger.log(self.level, "%s: %s", _subject(event), _figures(event))


def _subject(event: Event) -> str:
    subject = repr(event.pipeline) if event.penalty is None else f"penalty {event.penalty!r} of {event.pipeline!r}"
    return subject if event.step is None else f"{subject}, step {event.step}"


def _figures(event: Event) -> str:
    figures = {
        "weight": event.weight,
        "total" if event.penalty is None else "value": event.value,
        "contribution": event.contribution,
        "grad norm": event.grad_norm,
    }
    found = [f"{name} {float(value):.6g}" for name, value in figures.items() if value is not None]
    return ", ".join(found if event.duration is None else [*found, f"{1e3 * event.duration:.3f} ms"])


def active() -> bool:
    """Whether there is a handler: without one, the pipeline makes no events."""
    return bool(_handlers)


def emit(event: Event) -> None:
    """Call each handler, whatever the others raise."""
    for handler in _handlers:
        try:
            handler(event)
        except Exception:
            _LOGGER.exception("handler %r failed at a %r of %r", handler, event.kind, event.pipeline)


def next_computation() -> int:
    """A number that no other computation of this process has."""
    return next(_computations)
