"""The cost of each penalty's gradient norm: tracked in one computation, or with a pass for each by hand.

There are four penalties on logits. By hand, each is evaluated and differentiated alone, and then the total once more:
N + 1 passes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from case import Case
from problems import arrays
from table import Framework, Goal, Row, Scale

import xpenalties as xp
from xpenalties import Penalty, Pipeline

__all__ = ["PIPELINE", "each_penalty", "row", "tracked", "whole"]

PIPELINE = Pipeline(
    [
        Penalty("kl_divergence", inputs=("teacher", "student"), weight=0.5, from_logits=True),
        Penalty("entropy", inputs="student", weight=0.1, from_logits=True, mode="bonus"),
        Penalty("l2", inputs="student", weight=1e-6),
        Penalty("consistency", inputs=("student", "teacher"), weight=0.3),
    ]
)

Way = Callable[..., Any]  # student, teacher -> the total, norms of the penalties' gradients, the total's gradient


def each_penalty(teacher: Any) -> list[tuple[float, Way]]:
    """Return weights, and penalties as functions of the student."""

    def of_student(penalty: Penalty) -> Way:
        def value(x: Any) -> Any:
            arrays, keywords = penalty.arguments(({"teacher": teacher, "student": x},))
            return penalty.fn(*arrays, **keywords, **penalty.options)

        return value

    return [(penalty.weight, of_student(penalty)) for penalty in PIPELINE]


def tracked(student: Any, teacher: Any, **options: Any) -> tuple[Any, list[Any]]:
    """Return the total, and the norms of the penalties' gradients."""
    total, report = PIPELINE.compute({"student": student, "teacher": teacher}, track_grad_norms=True, **options)
    return total, [part.grad_norm for part in report.regularizers.values()]


def row(
    framework: Framework, rows: int, inputs: Callable[[], tuple[Any, ...]], tracked: Way, by_hand: Way, untracked: Way
) -> Row:
    """Return the row of a framework. It gets the framework's way to differentiate."""
    return Row(
        f"tracking 4 penalties, {rows} rows",
        framework,
        inputs,
        tracked,
        {"N + 1 passes": by_hand, "not tracked": untracked},
        goals=(Goal(f"tracking 4 penalties, {framework.name}", 0.5, "N + 1 passes"),),
        unlike=("not tracked",),
    )


def whole(framework: Framework, scale: Scale, cases: list[Case], compiler: Callable[[Way], Way]) -> Row:
    """Return the row of the same pipeline, compiled, and of its formula by hand."""
    ours = xp.compile(PIPELINE)
    by_hand = {case.label: case.by_hand for case in cases}

    def expression(student: Any, teacher: Any) -> Any:
        divergence = 0.5 * by_hand["kl_divergence(from_logits=True)"](teacher, student)
        bonus = -0.1 * by_hand["entropy(from_logits=True)"](student)
        return divergence + bonus + 1e-6 * by_hand["l2"](student) + 0.3 * by_hand["consistency"](student, teacher)

    return Row(
        "a pipeline of 4 penalties, by xpenalties.compile",
        framework,
        partial(arrays, framework, scale, "logits", "logits"),
        lambda student, teacher: ours({"student": student, "teacher": teacher}),
        {"by hand, compiled": compiler(expression)},
    )
