"""Record a span and metrics for each computation of a pipeline, with OpenTelemetry's API. Its SDK exports them."""

from __future__ import annotations

from .. import __version__
from .._core.optional import require
from ..telemetry import Event

with require("OpenTelemetry's API", needed_by=__name__, install="xpenalties[opentelemetry]"):
    from opentelemetry import metrics, trace
    from opentelemetry.context import Context

__all__ = ["OpenTelemetryHandler"]

_NUMBERS = ("weight", "value", "contribution", "grad_norm")
# in seconds; the SDK's default buckets start at 5
_SECONDS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


class OpenTelemetryHandler:
    """A handler that records events as OpenTelemetry's spans and metrics.

    Each computation has a span "xpenalties.compute", a child of the current span, and each penalty has a span
    "xpenalties.penalty" below it. Their attributes are "xpenalties.pipeline", "xpenalties.penalty", "xpenalties.step"
    if it is an int, and "xpenalties.weight", "xpenalties.value", "xpenalties.contribution" and "xpenalties.grad_norm"
    if they are known. The value of a computation is the total loss.

    The metrics are a histogram, "xpenalties.penalty.duration", in seconds on the host and including failed penalties;
    the gauges "xpenalties.penalty.value", "xpenalties.penalty.contribution", "xpenalties.penalty.grad_norm" and
    "xpenalties.loss_total"; and a counter, "xpenalties.penalty.errors". Their attributes are pipeline and penalty.

    The handler reads each number, so the host waits for the device after each penalty.

    Parameters
    ----------
    tracer_provider : opentelemetry.trace.TracerProvider, optional
        By default the global one.
    meter_provider : opentelemetry.metrics.MeterProvider, optional
        By default the global one.

    Examples
    --------
    >>> from xpenalties.integrations.opentelemetry import OpenTelemetryHandler
    >>> from xpenalties.telemetry import add_handler, remove_handler
    >>> handler = add_handler(OpenTelemetryHandler())
    >>> remove_handler(handler)
    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        self._tracer = trace.get_tracer("xpenalties", __version__, tracer_provider)
        meter = metrics.get_meter("xpenalties", __version__, meter_provider)
        self._durations = meter.create_histogram(
            "xpenalties.penalty.duration",
            unit="s",
            description="Time on the host.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._errors = meter.create_counter("xpenalties.penalty.errors", description="Computations that failed.")
        self._loss_total = meter.create_gauge("xpenalties.loss_total", description="Loss and penalties, the latest.")
        self._gauges = {
            "value": meter.create_gauge("xpenalties.penalty.value", description="The latest value."),
            "contribution": meter.create_gauge("xpenalties.penalty.contribution", description="Weight times value."),
            "grad_norm": meter.create_gauge("xpenalties.penalty.grad_norm", description="Norm of the gradient."),
        }
        self._contexts: dict[int, Context] = {}  # by running computation, because penalties may run on any thread

    def __call__(self, event: Event) -> None:
        """Record one event."""
        if event.kind == "start":
            if event.penalty is None:  # a penalty's span is made when it ends, so that none stays open
                span = self._tracer.start_span(
                    "xpenalties.compute", attributes=_attributes(event), start_time=_nanoseconds(event.time)
                )
                self._contexts[event.computation] = trace.set_span_in_context(span)
            return
        span = self._span(event)
        end = None if event.duration is None else _nanoseconds(event.time + event.duration)
        try:
            if event.error is not None:
                span.record_exception(event.error, timestamp=end)
                message = f"{type(event.error).__name__}: {event.error}"
                span.set_status(trace.Status(trace.StatusCode.ERROR, message))
            self._record_penalty(event)
            numbers = {name: float(x) for name in _NUMBERS if (x := getattr(event, name)) is not None}
            span.set_attributes({f"xpenalties.{name}": number for name, number in numbers.items()})
            self._set_gauges(event, numbers)
        finally:  # float() of an array may raise
            span.end(end)

    def _span(self, event: Event) -> trace.Span:
        """Return the span that this event ends, or an invalid one if the handler missed the computation's start."""
        find = self._contexts.pop if event.penalty is None else self._contexts.get
        context = find(event.computation, None)
        if context is None:
            return trace.INVALID_SPAN
        if event.penalty is None:
            return trace.get_current_span(context)
        start = _nanoseconds(event.time)
        return self._tracer.start_span("xpenalties.penalty", context, attributes=_attributes(event), start_time=start)

    def _record_penalty(self, event: Event) -> None:
        if event.penalty is None:
            return
        if event.duration is not None:
            self._durations.record(event.duration, _labels(event))
        if event.kind == "exception":
            self._errors.add(1, _labels(event))

    def _set_gauges(self, event: Event, numbers: dict[str, float]) -> None:
        gauges = {"value": self._loss_total} if event.penalty is None else self._gauges
        for name, gauge in gauges.items():
            if name in numbers:
                gauge.set(numbers[name], _labels(event))


def _labels(event: Event) -> dict[str, str]:
    labels = {"xpenalties.pipeline": event.pipeline}
    return labels if event.penalty is None else {**labels, "xpenalties.penalty": event.penalty}


def _attributes(event: Event) -> dict[str, str | int]:
    labels = _labels(event)
    return {**labels, "xpenalties.step": event.step} if isinstance(event.step, int) else {**labels}


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
