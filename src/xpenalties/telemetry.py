"""Events of each computation of a pipeline: its start, its results, its duration and its errors.

Without handlers, nothing is measured. Handlers run on the thread that computes, between two penalties.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    import logging

__all__ = ["Event", "LoggingHandler", "add_handler", "remove_handler"]


@dataclass(frozen=True, kw_only=True, eq=False)  # fields may be arrays, which have no usable == or hash
class Event:
    """The start or the end of a computation, or of one penalty in it.

    Attributes
    ----------
    kind : {"start", "stop", "exception"}
        Each "start" is followed by a "stop" or an "exception".
    pipeline : str
        Name of the pipeline.
    penalty : str or None
        Name of the penalty, or "base_loss" for a base loss. None for an event of the whole computation.
    computation : int
        A number that all events of one computation share, unique in this process.
    time : float
        Start of the penalty or the computation, in seconds since the epoch, from `time.time`.
    step : int or 0-d array, optional
        The step passed to the pipeline.
    duration : float or None
        Seconds on the host, from a monotonic clock. An asynchronous device may still be computing.
    weight, value, contribution, grad_norm
        As in `PenaltyReport`. For the whole computation, `value` is the total loss and `grad_norm` the norm of its
        gradient. None if not known. Numbers or detached 0-d arrays; reading an array may wait for the device.
    error : BaseException or None
        The exception raised, in an "exception" event.
    report : Report or None
        In the "stop" event of a whole computation.
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
_handlers: tuple[Callable[[Event], object], ...] = ()  # replaced, never changed, so that reading needs no lock
_replacing = Lock()
_computations = count(1)


def add_handler(handler: _Handler) -> _Handler:
    """Call `handler` with each event from now on, after earlier handlers. Also works as a decorator.

    Parameters
    ----------
    handler : callable
        Takes one `Event`; its result is ignored. If it raises an Exception, the logger "xpenalties.telemetry" logs it
        and the computation continues. It may be called from several threads, and must not compute a pipeline itself.

    Returns
    -------
    callable
        `handler`, to be passed to `remove_handler`.

    Raises
    ------
    TypeError
        If `handler` is not callable or is a class; pass an instance.
    ValueError
        If `handler` was added already.

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
    global _handlers  # noqa: PLW0603 - reading one name is the cheapest `active`
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
    """Stop calling `handler`.

    Parameters
    ----------
    handler : callable
        A handler passed to `add_handler`.

    Raises
    ------
    ValueError
        If `handler` was not added.
    """
    global _handlers  # noqa: PLW0603
    with _replacing:
        others = tuple(other for other in _handlers if other != handler)
        if len(others) == len(_handlers):
            raise ValueError(
                f"remove_handler: `handler` must be one that was added, got {handler!r}. Pass the same object."
            )
        _handlers = others


class LoggingHandler:
    """A handler that logs one line for each penalty and each computation, and exceptions.

    It reads the numbers, which may wait for the device, only if `logger` is enabled for `level`. By default the logger
    is not: call ``logging.basicConfig(level=logging.INFO)``, for example.

    Parameters
    ----------
    logger : logging.Logger, optional
        By default the logger "xpenalties".
    level : int, default 20, which is logging.INFO
        Level of the lines with numbers. Exceptions are logged as errors, with their traceback.
    """

    def __init__(self, logger: logging.Logger | None = None, level: int = 20) -> None:
        import logging  # here, because few programs need it

        self.logger = logging.getLogger("xpenalties") if logger is None else logger
        self.level = level

    def __call__(self, event: Event) -> None:
        """Log `event`."""
        if event.kind == "exception":
            self.logger.error("%s raised %r", _subject(event), event.error, exc_info=event.error)
        elif event.kind == "stop" and self.logger.isEnabledFor(self.level):
            self.logger.log(self.level, "%s: %s", _subject(event), _numbers(event))


def _subject(event: Event) -> str:
    subject = repr(event.pipeline) if event.penalty is None else f"penalty {event.penalty!r} of {event.pipeline!r}"
    return subject if event.step is None else f"{subject}, step {event.step}"


def _numbers(event: Event) -> str:
    numbers = {
        "weight": event.weight,
        "total" if event.penalty is None else "value": event.value,
        "contribution": event.contribution,
        "grad norm": event.grad_norm,
    }
    texts = [f"{name} {float(value):.6g}" for name, value in numbers.items() if value is not None]
    return ", ".join(texts if event.duration is None else [*texts, f"{1e3 * event.duration:.3f} ms"])


def active() -> bool:
    """Return True if there is a handler. Without one, pipelines emit no events."""
    return bool(_handlers)


def emit(event: Event) -> None:
    """Call each handler with `event`, even if another handler raises."""
    for handler in _handlers:
        try:
            handler(event)
        except Exception:
            import logging

            logging.getLogger(__name__).exception(
                "handler %r failed at a %r of %r", handler, event.kind, event.pipeline
            )


def next_computation() -> int:
    """Return a number for a computation, unique in this process."""
    return next(_computations)
