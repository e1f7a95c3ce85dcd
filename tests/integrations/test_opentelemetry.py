"""Spans and metrics as OpenTelemetry's SDK gets them, and what is said without OpenTelemetry."""

from __future__ import annotations

import doctest
import importlib
import math
import sys
import threading
from collections.abc import Iterator
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import xpenalties
from tests.helpers.harness import Framework
from xpenalties import telemetry
from xpenalties.integrations import opentelemetry as bridge
from xpenalties.telemetry import Event, add_handler, emit

pytestmark = pytest.mark.mixed


class Collected:
    """An OpenTelemetryHandler that is added, and what its spans and metrics come to."""

    def __init__(self) -> None:
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.handler = bridge.OpenTelemetryHandler(tracer_provider=self.tracers, meter_provider=self.meters)
        add_handler(self.handler)

    def spans(self) -> list[ReadableSpan]:
        """Those that ended, in the order of ending."""
        return list(self.exporter.get_finished_spans())

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """By name. Read once: OpenTelemetry's older SDKs tell of a gauge that was set no second time."""
        data = self.reader.get_metrics_data()
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        return {metric.name: metric for scope in scopes for metric in scope.metrics}

    def points(self, name: str) -> dict[tuple[Any, ...], Any]:
        """A metric's data by the values of its attributes, pipeline first."""
        points = self.metrics[f"xpenalties.{name}"].data.data_points
        labels = ("xpenalties.pipeline", "xpenalties.penalty")
        assert all(set(point.attributes) <= set(labels) for point in points)
        return {
            tuple(point.attributes[label] for label in labels if label in point.attributes): point for point in points
        }


@pytest.fixture(autouse=True)
def _no_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """None at first, and afterwards those of before."""
    monkeypatch.setattr(telemetry, "_handlers", ())


@pytest.fixture
def otel() -> Iterator[Collected]:
    collected = Collected()
    yield collected
    collected.tracers.shutdown()
    collected.meters.shutdown()


def tell(kind: Any, penalty: str | None = None, **more: Any) -> None:
    emit(Event(**{"kind": kind, "pipeline": "pipe", "penalty": penalty, "computation": 1, "time": 100.0, **more}))


def test_spans_of_a_computation(otel: Collected) -> None:
    with otel.tracers.get_tracer("mine").start_as_current_span("training step") as outer:
        tell("start", step=3)
    tell("start", "l1", step=3, time=100.25)
    tell("stop", "l1", step=3, time=100.25, duration=0.5, weight=0.5, value=7.5, contribution=3.75, grad_norm=2.0)
    tell("stop", step=3, duration=2.0, value=3.75, grad_norm=1.0)
    _, l1, compute = otel.spans()
    assert l1.name == "xpenalties.penalty" and compute.name == "xpenalties.compute"
    assert l1.parent == compute.context and compute.parent == outer.get_span_context()
    assert (compute.start_time, compute.end_time) == (100_000_000_000, 102_000_000_000)
    assert (l1.start_time, l1.end_time) == (100_250_000_000, 100_750_000_000)
    assert dict(l1.attributes or {}) == {
        "xpenalties.pipeline": "pipe",
        "xpenalties.penalty": "l1",
        "xpenalties.step": 3,
        "xpenalties.weight": 0.5,
        "xpenalties.value": 7.5,
        "xpenalties.contribution": 3.75,
        "xpenalties.grad_norm": 2.0,
    }
    assert dict(compute.attributes or {}) == {
        "xpenalties.pipeline": "pipe",
        "xpenalties.step": 3,
        "xpenalties.value": 3.75,
        "xpenalties.grad_norm": 1.0,
    }
    assert l1.status.status_code is compute.status.status_code is trace.StatusCode.UNSET
    scope = compute.instrumentation_scope
    assert scope is not None and (scope.name, scope.version) == ("xpenalties", xpenalties.__version__)


def test_figures_of_any_framework(otel: Collected, fw: Framework) -> None:
    tell("start", step=fw.array(np.asarray(3)))
    for name, figure in (("good", 1.5), ("bad", math.nan)):
        x = fw.array(np.asarray(figure), "float32")
        tell("stop", name, step=fw.array(np.asarray(3)), duration=0.5, weight=x, value=x, contribution=x, grad_norm=x)
    good, bad = ({**(span.attributes or {})} for span in otel.spans())
    for name in ("weight", "value", "contribution", "grad_norm"):
        assert good[f"xpenalties.{name}"] == 1.5 and math.isnan(bad[f"xpenalties.{name}"])  # type: ignore[arg-type]
    assert "xpenalties.step" not in good
    assert otel.points("penalty.value")["pipe", "good"].value == 1.5


def test_a_computation_that_fails(otel: Collected) -> None:
    try:
        raise ValueError("no such luck")
    except ValueError as caught:
        error = caught
    tell("start")
    tell("start", "l1")
    tell("start", "never ended")
    tell("exception", "l1", duration=0.5, error=error)
    tell("exception", duration=1.0, error=error)
    l1, compute = otel.spans()
    assert l1.parent == compute.context and not otel.handler._contexts
    for span, end in ((l1, 100_500_000_000), (compute, 101_000_000_000)):
        assert span.status.status_code is trace.StatusCode.ERROR and span.end_time == end
        assert span.status.description == "ValueError: no such luck"
        (recorded,) = span.events
        attributes = recorded.attributes or {}
        assert recorded.name == "exception" and recorded.timestamp == end
        assert attributes["exception.type"] == "ValueError" and "in test_a_com" in str(
            attributes["exception.stacktrace"]
        )
    assert otel.points("penalty.errors")["pipe", "l1"].value == 1 and len(otel.points("penalty.errors")) == 1


def test_computations_side_by_side(otel: Collected) -> None:
    """Each penalty from a thread of its own, where no span or another one is current."""

    def penalty(computation: int) -> None:
        with otel.tracers.get_tracer("mine").start_as_current_span("elsewhere"):
            tell("stop", f"of {computation}", computation=computation, duration=0.1)

    for computation in (1, 2):
        tell("start", computation=computation, pipeline=f"pipe {computation}")
    for computation in (2, 1):
        thread = threading.Thread(target=penalty, args=(computation,))
        thread.start()
        thread.join()
    for computation in (1, 2):
        tell("stop", computation=computation, duration=1.0)
    spans = {
        (span.attributes or {}).get("xpenalties.penalty", (span.attributes or {}).get("xpenalties.pipeline")): span
        for span in otel.spans()
    }
    for computation in (1, 2):
        parent = spans[f"pipe {computation}"]
        assert parent.parent is None and spans[f"of {computation}"].parent == parent.context
    assert not otel.handler._contexts


def test_a_span_without_a_duration_ends_now(otel: Collected, caplog: pytest.LogCaptureFixture) -> None:
    tell("start")
    tell("stop")
    (compute,) = otel.spans()
    assert compute.end_time is not None and compute.end_time > 1e18
    tell("stop", "l1")
    assert "xpenalties.penalty.duration" not in otel.metrics and not caplog.records


def test_a_handler_that_is_added_midway(otel: Collected) -> None:
    tell("stop", "l1", duration=0.5, value=1.0)
    tell("stop", duration=1.0, value=2.0)
    assert not otel.spans()
    assert otel.points("penalty.value")["pipe", "l1"].value == 1.0 and otel.points("loss_total")["pipe",].value == 2.0


def test_a_figure_that_cannot_be_read(otel: Collected, caplog: pytest.LogCaptureFixture) -> None:
    tell("start")
    tell("stop", "l1", duration=0.5, value=np.ones(2))
    tell("stop", duration=1.0, value=np.ones(2))
    assert [span.name for span in otel.spans()] == ["xpenalties.penalty", "xpenalties.compute"]
    assert not otel.handler._contexts and caplog.text.count("TypeError") == 2
    assert otel.points("penalty.duration")["pipe", "l1"].count == 1


def test_metrics(otel: Collected) -> None:
    for value in (1.0, 2.0):
        tell("start")
        tell("stop", "l1", duration=0.002, weight=0.5, value=value, contribution=value / 2, grad_norm=3 * value)
        tell("stop", "base_loss", duration=0.5, value=10 * value)
        tell("exception", "l2", duration=0.25, error=OSError())
        tell("stop", duration=1.0, value=20 * value, grad_norm=1.0)
    latest = {
        name: {key: point.value for key, point in otel.points(name).items()}
        for name in (
            "penalty.value",
            "penalty.contribution",
            "penalty.grad_norm",
            "loss_total",
            "penalty.errors",
        )
    }
    assert latest == {
        "penalty.value": {("pipe", "l1"): 2.0, ("pipe", "base_loss"): 20.0},
        "penalty.contribution": {("pipe", "l1"): 1.0},
        "penalty.grad_norm": {("pipe", "l1"): 6.0},
        "loss_total": {("pipe",): 40.0},
        "penalty.errors": {("pipe", "l2"): 2},
    }
    durations = otel.points("penalty.duration")
    assert {key: (point.count, point.sum) for key, point in durations.items()} == {
        ("pipe", "l1"): (2, 0.004),
        ("pipe", "base_loss"): (2, 1.0),
        ("pipe", "l2"): (2, 0.5),
    }
    recorded = otel.metrics
    assert recorded["xpenalties.penalty.duration"].unit == "s"
    assert set(recorded) == {f"xpenalties.{name}" for name in (*latest, "penalty.duration")}


def test_buckets_of_durations_are_apart(otel: Collected) -> None:
    for duration in (2e-5, 2e-4, 2e-3, 0.02, 0.2, 2.0):
        tell("stop", "l1", duration=duration)
    assert set(otel.points("penalty.duration")["pipe", "l1"].bucket_counts) == {0, 1}


def test_options_are_keywords() -> None:
    with pytest.raises(TypeError, match="positional"):
        bridge.OpenTelemetryHandler(TracerProvider(shutdown_on_exit=False))  # type: ignore[call-arg]


def test_example() -> None:
    failed, attempted = doctest.testmod(bridge)
    assert failed == 0 and attempted == 4


@pytest.mark.parametrize("module", [None, ModuleType("opentelemetry")], ids=["nothing", "another package of the name"])
def test_without_opentelemetry(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("opentelemetry.")]:
        monkeypatch.delitem(sys.modules, name)  # an import falls back to a submodule that is loaded
    monkeypatch.setitem(sys.modules, "opentelemetry", module)
    monkeypatch.delitem(sys.modules, bridge.__name__)
    with pytest.raises(
        ModuleNotFoundError,
        match=r'^xpenalties\.integrations\.opentelemetry needs .*: pip install "xpenalties\[opentelemetry\]"\.$',
    ) as caught:
        importlib.import_module(bridge.__name__)
    assert isinstance(caught.value.__cause__, ImportError) and caught.value.name == "opentelemetry"
