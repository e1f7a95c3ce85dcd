"""Resolve schedules and `every` for a numeric step before calling a compiled program, so that it does not recompile."""

from __future__ import annotations

from typing import Any, TypeVar

from .._pipeline.penalty import Penalty
from .._pipeline.pipeline import Pipeline
from .._pipeline.regularized_loss import RegularizedLoss
from .._reports.report import Report

__all__ = ["HasTarget", "Target", "pipeline_of", "replace_unchecked", "resolve_at", "with_numbers", "with_pipeline"]

T = TypeVar("T")
Target = Pipeline | RegularizedLoss


class HasTarget:
    """The base class of `Compiled`, by which a compiler recognizes it without importing it."""

    target: Target


def pipeline_of(target: Target) -> Pipeline:
    """Return a pipeline itself, or the pipeline of a loss."""
    return target.pipeline if isinstance(target, RegularizedLoss) else target


def with_pipeline(target: Target, pipeline: Pipeline) -> Target:
    """Return `target` with another pipeline."""
    return replace_unchecked(target, pipeline=pipeline) if isinstance(target, RegularizedLoss) else pipeline


def resolve_at(target: Target, step: Any) -> Target:
    """Return `target` with its schedules evaluated at `step`, and with penalties that are not due disabled."""
    pipeline = pipeline_of(target)
    if not any(callable(penalty.weight) or penalty.every > 1 for penalty in pipeline):
        return target
    penalties = tuple(_resolved(pipeline.name, penalty, step) for penalty in pipeline)
    return with_pipeline(target, replace_unchecked(pipeline, penalties=penalties))


def _resolved(name: str, penalty: Penalty, step: Any) -> Penalty:
    if not penalty.enabled:
        return penalty
    if not penalty.is_due(step):
        return replace_unchecked(penalty, enabled=False, every=1)
    try:
        weight = penalty.weight_at(step)
    except Exception as error:
        error.add_note(f"In penalty {penalty.name!r} of {name!r}, step {step}.")
        raise
    return replace_unchecked(penalty, weight=weight if penalty.every == 1 else weight * penalty.every, every=1)


def with_numbers(report: Report, pipeline: Pipeline) -> Report:
    """Restore the numeric weights in a report. The program returned them as arrays, on JAX in float32."""
    numbers = {p.name: p.weight for p in pipeline if isinstance(p.weight, float) and p.every == 1}
    reports = {
        name: replace_unchecked(penalty, weight=numbers[name]) if name in numbers else penalty
        for name, penalty in report.regularizers.items()
    }
    return replace_unchecked(report, regularizers=reports)


def replace_unchecked(instance: T, **fields: Any) -> T:
    """Copy an instance with other fields, which must be valid: checks would cost time in each step."""
    new = object.__new__(type(instance))
    new.__dict__.update(instance.__dict__, **fields)
    return new
