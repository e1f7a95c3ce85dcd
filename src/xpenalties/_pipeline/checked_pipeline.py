"""Check an argument that must be a pipeline. The error says how to make one from what was passed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .penalty import Penalty
from .pipeline import Pipeline

__all__ = ["check_pipeline"]


def check_pipeline(caller: str, name: str, value: Any) -> None:
    """Raise an error if the argument `name` of `caller` is not a Pipeline."""
    if isinstance(value, Pipeline):
        return
    if isinstance(value, Mapping):
        remedy = "Pass Pipeline({...})"
    elif isinstance(value, Penalty):
        remedy = "Pass Pipeline([penalty])"
    elif isinstance(value, (list, tuple)):
        remedy = "Pass Pipeline([...])"
    else:
        remedy = "Pass Pipeline([Penalty(...)])"
    raise TypeError(f"{caller}: `{name}` must be a Pipeline, got {type(value).__qualname__}. {remedy}.")
