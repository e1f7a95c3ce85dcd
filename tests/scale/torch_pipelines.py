"""Pipelines of DTensors beside those of one process: totals, gradients, reports, and what moves. Started by a test."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import torch
from torch.distributed.tensor import Replicate, distribute_tensor

from tests.helpers.gloo import World, main
from tests.helpers.layouts import LAYOUTS, close, cut, layouts
from xpenalties import GradientHistory, Penalty, Pipeline, RegularizedLoss, Report, schedules, telemetry

ROWS, COLUMNS = 5, 7  # neither is a multiple of the number of processes

MASK = torch.tensor([True, False, True, True, True])

PIPE = Pipeline(
    [
        Penalty("l1", inputs="x", weight=0.1),
        Penalty("l2", inputs="x", weight=0.2, options={"center": "mean"}),
        Penalty("group_lasso", inputs="x", weight=0.3),
        Penalty("output_magnitude", inputs="x", weight=0.4),
        Penalty("orthogonality", inputs="x", weight=0.05),
        Penalty("kl_divergence", inputs=("teacher", "student"), weight=0.5, options={"from_logits": True}),
        Penalty(
            "entropy",
            inputs={"log_p": "student", "where": "mask"},
            weight=schedules.linear(0.0, 1.0, steps=10),
            options={"mode": "bonus", "from_logits": True},
        ),
        Penalty("z_loss", inputs="student", weight=0.01, every=2),
    ],
    name="training",
)


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    x, teacher, student = torch.randn(3, ROWS, COLUMNS, generator=generator)
    return {"x": x.requires_grad_(), "teacher": teacher, "student": student.requires_grad_()}


def inputs(world: World, layout: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the inputs whole and cut. The mask is a plain tensor beside both."""
    one = tensors()
    return {**one, "mask": MASK}, {**{name: cut(world, x, layout) for name, x in one.items()}, "mask": MASK}


def gradients(total: Any, given: dict[str, Any]) -> list[Any]:
    return list(torch.autograd.grad(total, [given["x"], given["student"]]))


def numbers(report: Report) -> dict[str, float]:
    return {**report.flat(), **{f"{a} {b}": c for a, row in report.conflicts().items() for b, c in row.items()}}


def agree(world: World, actual: Report, expected: Report, layout: str) -> None:
    """Compare reports: to rounding with one process, and exactly between the processes."""
    read = numbers(actual)
    world.same(json.dumps(read))
    world.same(actual.to_json())
    world.same(str(actual))
    assert actual.wrt == expected.wrt, (layout, actual.wrt, expected.wrt)
    for name, number in numbers(expected).items():
        close(torch.tensor(read[name]), torch.tensor(number), f"{layout}: {name}")
    assert list(read) == list(numbers(expected))
    for part, other in zip(actual.values(), expected.values(), strict=True):
        assert part.error == other.error, (layout, part.error, other.error)


def case_totals_and_gradients(world: World) -> None:
    for layout in layouts(world):
        one, many = inputs(world, layout)
        expected, actual = PIPE(one, step=4), PIPE(many, step=4)
        close(actual, expected, layout)
        world.same(float(actual))
        for g, h, name in zip(gradients(actual, many), gradients(expected, one), ("x", "student"), strict=True):
            close(g, h, f"{layout}: gradient of {name}")
            assert g.placements == many[name].placements, (layout, g.placements)
        world.record("Pipeline", layout)


def case_reports(world: World) -> None:
    for layout in layouts(world):
        one, many = inputs(world, layout)
        _, expected = PIPE.compute(one, step=4)
        total, report = PIPE.compute(many, step=4)
        for name, part in report.items():
            world.same([float(x) for x in (part.value, part.weight, part.contribution, *part.metrics.values())])
            assert name in expected
        with world.moves() as moves:
            agree_locally = json.dumps(report.to_dict()), str(report), report.flat(), report.brief(), report.share
        assert len(moves.sizes) <= 5, moves.sizes  # one for each way to read it
        assert agree_locally
        agree(world, report, expected, layout)
        gradients(total, many)
        world.record("Report", layout)


def case_means_of_reports(world: World) -> None:
    for layout in layouts(world):
        pairs = [inputs(world, layout) for _ in range(2)]
        expected = Report.mean([PIPE.compute(one, step=step)[1] for step, (one, _) in enumerate(pairs)])
        reports = [PIPE.compute(many, step=step)[1] for step, (_, many) in enumerate(pairs)]
        with world.moves() as moves:
            mean = Report.mean(reports, [torch.tensor(1.0), 1.0])
        assert len(moves.sizes) <= 1, moves.sizes
        agree(world, mean, expected, layout)


def case_gradient_norms(world: World) -> None:
    for layout in layouts(world):
        for options in ({}, {"wrt": "student"}, {"wrt": ("x", "student")}, {"gradient_conflicts": True}):
            one, many = inputs(world, layout)
            _, expected = PIPE.compute(one, step=4, track_grad_norms=True, **options)
            total, report = PIPE.compute(many, step=4, track_grad_norms=True, **options)
            agree(world, report, expected, f"{layout}, {options}")
            assert report.total_grad_norm is not None or expected.total_grad_norm is None
            expected_total = PIPE(one, step=4)
            if not options:
                for g, h in zip(gradients(total, many), gradients(expected_total, one), strict=True):
                    close(g, h, f"{layout}: the gradient of a tracked total")


def case_gradient_norms_of_parameters(world: World) -> None:
    """Through a layer, with respect to its parameters, which every process has a copy of or a part of."""
    pipe = Pipeline([Penalty("l2", inputs="y", weight=0.5), Penalty("z_loss", inputs="y", weight=2.0)])
    layer = torch.nn.Linear(COLUMNS, 4)
    for layout in layouts(world):
        for parameters in ("copies", "rows", "columns"):
            mesh = getattr(world, LAYOUTS[layout][0])
            if mesh.ndim > 1 and parameters != "copies":
                continue
            one, many = inputs(world, layout)
            made = torch.nn.Linear(COLUMNS, 4)
            for name, parameter in layer.named_parameters():
                placements = [p if parameters != "copies" else Replicate() for p in LAYOUTS[parameters][1]] * mesh.ndim
                placements = [Replicate() if parameter.ndim == 1 else p for p in placements]
                made.register_parameter(
                    name, torch.nn.Parameter(distribute_tensor(parameter.detach(), mesh, placements))
                )
            results = [
                pipe.compute({"y": each(given["x"])}, track_grad_norms=True, gradient_conflicts=True, wrt=wrt)[1]
                for each, given in ((layer, one), (made, many))
                for wrt in (each, list(each.parameters()), each.weight)
            ]
            for expected, actual in zip(results[:3], results[3:], strict=True):
                agree(world, actual, expected, f"{layout}, parameters in {parameters}")


def case_norms_move_numbers_only(world: World) -> None:
    """Tracking moves what the penalties' own passes move: rows and numbers, never a gradient."""
    pipe = Pipeline({"l1": 0.1, "l2": 0.2, "huber": 0.3, "group_lasso": 0.4, "z_loss": 0.5})
    rows, columns = 64, 48
    x = torch.randn(rows, columns).requires_grad_()
    _, expected = pipe.compute(x, track_grad_norms=True, gradient_conflicts=True)
    for layout in layouts(world):
        y = cut(world, x, layout)
        with world.moves() as moves:
            total, report = pipe.compute(y, track_grad_norms=True, gradient_conflicts=True)
            total.backward()
        assert moves.largest <= 2 * rows, (layout, moves.sizes)  # maxima, with a mark for NaN
        world.record("Gradient norms", layout, moved=moves.largest / x.numel())
        agree(world, report, expected, layout)


def case_a_plain_base_loss(world: World) -> None:
    """A loss of plain tensors beside penalties of DTensors, and the other way around."""
    pipe = Pipeline([Penalty("l2", inputs="x", weight=0.5), Penalty("z_loss", inputs="x")])
    loss = RegularizedLoss(lambda given: (torch.nn.functional.softplus(given["student"]).sum(), {"three": 3.0}), pipe)
    for layout in layouts(world):
        for plain in ("student", "x", "neither"):
            one, many = inputs(world, layout)
            many = {name: one[name] if name == plain else many[name] for name in ("x", "student")}
            one = {name: one[name] for name in many}
            expected_total, expected = loss.compute(one, track_grad_norms=True)
            total, report = loss.compute(many, track_grad_norms=True)
            what = f"{layout}, plain: {plain}"
            close(total, expected_total, what)
            close(loss(many), expected_total, what)
            agree(world, report, expected, what)
            for g, h in zip(gradients(loss(many), many), gradients(loss(one), one), strict=True):
                close(g, h, f"{what}: gradient")
            for g, h in zip(gradients(total, many), gradients(expected_total, one), strict=True):
                close(g, h, f"{what}: gradient of a tracked total")


def case_callables(world: World) -> None:
    """A callable may return a partial sum, or a plain value."""
    for layout in layouts(world):
        results = []
        for given in inputs(world, layout):
            pipe = Pipeline(
                [
                    Penalty(lambda x: ((x * x).sum(), {"size": x.abs().sum()}), name="own", inputs="x", weight=0.5),
                    Penalty(lambda x: 2.0, name="number", inputs="x"),
                    Penalty("l1", inputs="x"),
                ]
            )
            total, report = pipe.compute(given, track_grad_norms=True)
            results.append((total, report, torch.autograd.grad(total, given["x"])[0]))
        (expected, one_report, g), (actual, report, h) = results
        close(actual, expected, layout)
        agree(world, report, one_report, layout)
        close(h, g, f"{layout}: gradient")


def case_a_sum_by_hand(world: World) -> None:
    """A loss that PyTorch left as a partial sum, plus a total."""
    for layout in layouts(world):
        one, many = inputs(world, layout)
        results = [given["student"].exp().sum() + PIPE(given, step=4) for given in (one, many)]
        close(results[1], results[0], layout)
        for g, h in zip(gradients(results[1], many), gradients(results[0], one), strict=True):
            close(g, h, f"{layout}: gradient")


def case_learned_weights(world: World) -> None:
    for layout in layouts(world):
        results = []
        for given in inputs(world, layout):
            weight = torch.tensor(0.3, requires_grad=True)
            pipe = Pipeline([Penalty("l2", inputs="x", weight=weight), Penalty("l1", inputs="x", weight=0.1)])
            total, report = pipe.compute(given, track_grad_norms=True)
            results.append((report, *torch.autograd.grad(total, [weight, given["x"]])))
        agree(world, results[1][0], results[0][0], layout)
        close(results[1][1], results[0][1], f"{layout}: gradient of the weight")
        close(results[1][2], results[0][2], f"{layout}: gradient")


def case_event_loop(world: World) -> None:
    async def asked(x: Any) -> Any:
        await asyncio.sleep(0)
        return (x * x).sum()

    for layout in layouts(world):
        one, many = inputs(world, layout)
        pipe = Pipeline([Penalty(asked, name="asked", inputs="x"), *PIPE])
        expected_total, expected = asyncio.run(pipe.compute_async(one, step=4))
        total, report = asyncio.run(pipe.compute_async(many, step=4))
        agree(world, report, expected, layout)
        for g, h in zip(gradients(total, many), gradients(expected_total, one), strict=True):
            close(g, h, layout)


def case_history(world: World) -> None:
    for layout in layouts(world):
        one, many = inputs(world, layout)
        histories = GradientHistory(), GradientHistory()
        for given, history in zip((one, many), histories, strict=True):
            for step in range(3):
                history.append(PIPE.compute(given, step=step, track_grad_norms=True)[1], step)
        with world.moves() as moves:
            rows = histories[1].rows()
        assert len(moves.sizes) <= 1, moves.sizes
        world.same(json.dumps(rows))
        for row, expected in zip(rows, histories[0].rows(), strict=True):
            assert row.keys() == expected.keys()
            for name, number in expected.items():
                close(torch.tensor(row[name]), torch.tensor(number), f"{layout}: {name}")


def case_telemetry(world: World) -> None:
    """The numbers of events, of the lines in a log, and of OpenTelemetry's spans."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from xpenalties.integrations.opentelemetry import OpenTelemetryHandler

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage().rpartition(",")[0])  # without the duration

    lines: list[str] = []
    logger = logging.Logger("lines")
    logger.addHandler(Lines())
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    events: list[tuple[Any, ...]] = []
    pipe = PIPE.remove("orthogonality")  # 5 rows of unit length: its value has rounding errors of its own
    handlers = [
        telemetry.LoggingHandler(logger),
        OpenTelemetryHandler(tracer_provider=provider),
        lambda e: events.append(
            (e.kind, e.penalty, *(None if x is None else float(x) for x in (e.value, e.grad_norm)))
        ),
    ]
    for layout in layouts(world):
        results = []
        for given in inputs(world, layout):
            for handler in handlers:
                telemetry.add_handler(handler)
            try:
                pipe.compute(given, step=4, track_grad_norms=True)
            finally:
                for handler in handlers:
                    telemetry.remove_handler(handler)
            spans = [dict(span.attributes or {}) for span in exporter.get_finished_spans()]
            results.append((list(lines), list(events), spans))
            lines.clear(), events.clear(), exporter.clear()
        world.same(json.dumps(results[1]))
        assert results[1][0] == results[0][0], layout
        for event, expected in zip(results[1][1], results[0][1], strict=True):
            assert event[:2] == expected[:2]
            for a, b in zip(event[2:], expected[2:], strict=True):
                assert (a is None) == (b is None)
                if a is not None:
                    close(torch.tensor(a), torch.tensor(b), f"{layout}: {event[:2]}")
        assert len(results[1][2]) == len(pipe) + 1


def case_errors_are_the_same_everywhere(world: World) -> None:
    """Wrong arguments, and a penalty that fails, even with empty parts."""

    def fails(x: Any) -> Any:
        raise ConnectionError("down")

    x = cut(world, torch.randn(1, 3), "rows")  # all processes but one hold nothing
    for pipe, given, message in (
        (Pipeline([Penalty("kl_divergence", inputs=("x", "y"))]), {"x": x, "y": x.mT}, "must have the same shape"),
        (
            Pipeline([Penalty("l2", inputs="x", options={"where": torch.ones(2, 2, dtype=torch.bool)})]),
            {"x": x},
            "where",
        ),
        (Pipeline([Penalty(fails, inputs="x")]), {"x": x}, "down"),
    ):
        try:
            pipe.compute(given, track_grad_norms=True)
            text = "no error"
        except Exception as error:  # noqa: BLE001
            text = f"{type(error).__name__}: {error}"
        assert message in text, text
        world.same(text)
    dropping = Pipeline([Penalty(fails, inputs="x", on_error="drop"), Penalty("l2", inputs="x")])
    _, report = dropping.compute({"x": x}, track_grad_norms=True)
    world.same(report.to_json())


def case_empty_and_masked_parts(world: World) -> None:
    """A process without rows, and one whose rows are all masked, take part in everything."""
    for rows in (1, world.size + 1, 2 * world.size):
        x = torch.randn(rows, 3).requires_grad_()
        mask = torch.arange(rows) < 2  # the last processes have none
        pipe = Pipeline(
            [
                Penalty("l2", inputs={"x": "x"}, weight=0.1, options={"reduction": "mean"}),
                Penalty("entropy", inputs={"log_p": "x", "where": "mask"}, options={"from_logits": True}),
                Penalty("kl_divergence", inputs={"log_p": "x", "log_q": "y", "where": "mask"}, from_logits=True),
                *([Penalty("covariance", inputs="x", weight=0.1)] if rows > 1 else []),
                Penalty("group_lasso", inputs={"x": "x", "where": "mask"}),
            ]
        )
        for none in (False, True):
            given_mask = torch.zeros_like(mask) if none else mask
            one = {"x": x, "y": x.detach() * 0.5, "mask": given_mask}
            for layout in layouts(world):
                many = {"x": cut(world, x, layout), "y": cut(world, x.detach() * 0.5, layout), "mask": given_mask}
                expected_total, expected = pipe.compute(one, track_grad_norms=True, gradient_conflicts=True)
                total, report = pipe.compute(many, track_grad_norms=True, gradient_conflicts=True)
                agree(world, report, expected, f"{rows} rows, {layout}, {none}")
                close(
                    torch.autograd.grad(total, many["x"])[0],
                    torch.autograd.grad(expected_total, x)[0],
                    f"{rows} rows, {layout}, {none}",
                )


if __name__ == "__main__":
    main(globals())
