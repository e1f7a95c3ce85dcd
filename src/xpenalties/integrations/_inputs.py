"""Which of the many things that a training loop has at hand a pipeline's penalties take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._pipeline import Pipeline

__all__ = ["asked_for"]


def asked_for(pipe: Pipeline, offered: Mapping[str, Any]) -> dict[str, Any]:
    """What the penalties name of `offered`; all of it where one of them picks for itself."""
    names: set[str] = set()
    for penalty in pipe:
        if not penalty.enabled:
            continue
        if penalty.inputs is None or callable(penalty.inputs):
            return {name: offered[name] for name in offered}
        names.update((penalty.inputs,) if isinstance(penalty.inputs, str) else penalty.inputs)
    return {name: offered[name] for name in offered if name in names}
