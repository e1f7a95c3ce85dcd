"""What of a pipeline is settled before a compiled program: schedules and `every`, at a step that is a number.

Inside of the program each step would be another number, and another program.
"""

from __future__ import annotations

from typing import Any, TypeVar

from .._pipeline.penalty import Penalty
from .._pipeline.pipeline import Pipeline
from .._pipeline.regularized_loss import RegularizedLoss
from .._reports.report import Report
from ..backends import Backend, backend_of

__all__ = ["Target", "pipeline_of", "remade", "settled", "with_numbers", "with_pipeline"]

T = TypeVar("T")
Target = Pipeline | RegularizedLoss


def pipeline_of(target: Target) -> Pipeline:
    return target.pipeline if isinstance(target, RegularizedLoss) else target


def with_pipeline(target: Target, pipeline: Pipeline) -> Target:
    """The same with another pipeline."""
    return remade(target, pipeline=pipeline) if isinstance(target, RegularizedLoss) else pipeline


def settled(target: Target, step: Any, backend: Backend) -> tuple[Target, Any]:
    """What a program is given of `target` and `step`: both where the step is an array of its own, else no step."""
    own = backend_of(step)
    if own is not None and own.library == backend.library:
        return target, step
    pipeline = pipeline_of(target)
    if not any(callable(penalty.weight) or penalty.every > 1 for penalty in pipeline):
        return target, None
    penalties = tuple(_settled(pipeline.name, penalty, step) for penalty in pipeline)
    return with_pipeline(target, remade(pipeline, penalties=penalties)), None


def _settled(name: str, penalty: Penalty, step: Any) -> Penalty:
    if not penalty.enabled:
        return penalty
    if not penalty.is_due(step):
        return remade(penalty, enabled=False, every=1)
    try:
        weight = penalty.weight_at(step)
    except Exception as error:
        error.add_note(f"In penalty {penalty.name!r} of {name!r}, step {step}.")
        raise
    return remade(penalty, weight=weight if penalty.every == 1 else weight * penalty.every, every=1)


def with_numbers(report: Report, pipeline: Pipeline) -> Report:
    """`report` with the weights that are numbers as such: a program makes arrays of them, JAX in float32."""
    numbers = {p.name: p.weight for p in pipeline if isinstance(p.weight, float) and p.every == 1}
    parts = {
        name: remade(part, weight=numbers[name]) if name in numbers else part
        for name, part in report.regularizers.items()
    }
    return remade(report, regularizers=parts)


def remade(frozen: T, **fields: Any) -> T:
    """A copy with other fields, which are right already: checks would take a while in each step."""
    new = object.__new__(type(frozen))
    new.__dict__.update(frozen.__dict__, **fields)
    return new
