"""Bind a pipeline's penalties to one batch of Hugging Face's Trainer. A step of the optimizer may have several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .._penalties.spec import spec_of
from .._pipeline.penalty import Penalty
from .._pipeline.penalty_inputs import callables_in, names_in
from .._pipeline.pipeline import Pipeline

__all__ = ["bound_pipeline", "evaluated_each_step"]

_PER_TOKEN = {"logits", "reference"}  # the inputs that have a row for each token


def bound_pipeline(pipe: Pipeline, mask: Any, items: Any, share: Any, classes: int) -> tuple[Pipeline, set[str]]:
    """Return the pipeline for one batch, and the names of the penalties that are scaled by the batch's share.

    Penalties of tokens are masked and divided by the step's items, so that they add up over its batches. The weights of
    all other penalties are multiplied by the batch's share of the items.
    """
    per_token = {p.name: _per_token(p, mask, items, classes) for p in pipe}
    bound = [per_token[p.name] or _scaled(p, share) for p in pipe]
    return Pipeline(bound, name=pipe.name), {name for name, penalty in per_token.items() if penalty is None}


def evaluated_each_step(pipe: Pipeline) -> Pipeline:
    """Return the pipeline with `every` set to 1, so that an evaluation includes each penalty at any step."""
    return Pipeline([replace(p, every=1) for p in pipe], name=pipe.name)


def _per_token(penalty: Penalty, mask: Any, items: Any, classes: int) -> Penalty | None:
    """Mask a built-in penalty of logits and divide it by the items. Return None for any other penalty."""
    inputs, spec = penalty.inputs, spec_of(penalty.fn)
    if spec is None or spec.functions or inputs is None:
        return None
    named = inputs if isinstance(inputs, Mapping) else {}
    arrays = {name: named[name] for name in spec.arrays} if named else inputs
    if callables_in(arrays) or not _PER_TOKEN.issuperset(names_in(arrays)):
        return None
    shape = spec.shape_of_terms(penalty.options)
    if shape == "rows":
        options = {"where": mask, "normalizer": items}
    elif shape == "elements":
        is_mean = penalty.options.get("reduction", spec.reduction) == "mean"
        options = {"where": mask[..., None], "normalizer": items * classes if is_mean else items}
    else:
        return None
    defaults = {name: value for name, value in options.items() if name not in named}
    return replace(penalty, options={**defaults, **penalty.options})


def _scaled(penalty: Penalty, share: Any) -> Penalty:
    """Multiply the weight by the batch's share of the step."""
    weight = penalty.weight
    return replace(penalty, weight=(lambda step: weight(step) * share) if callable(weight) else weight * share)
