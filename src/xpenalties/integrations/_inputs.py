"""Which of the many things that a training loop has at hand a pipeline's penalties take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._options import nearest
from .._pipeline import Pipeline

__all__ = ["asked_for"]


def asked_for(pipe: Pipeline, *parts: Mapping[str, Any]) -> dict[str, Any]:
    """What the penalties name in several mappings, the first that has it; all of it where one picks for itself."""
    names: dict[str, Any] = {}
    picks = False
    for penalty in pipe:
        if not penalty.enabled:
            continue
        if penalty.inputs is None or callable(penalty.inputs):
            picks = True
            continue
        for name in (penalty.inputs,) if isinstance(penalty.inputs, str) else penalty.inputs:
            having = [part for part in parts if name in part]
            if not having:
                known = [each for part in parts for each in part]
                raise ValueError(
                    f"penalty {penalty.name!r}: the inputs must have {name!r}, got {', '.join(map(repr, known))}."
                    + nearest(name, known)
                )
            names[name] = having[0][name]
    if not picks:
        return names
    everything: dict[str, Any] = {}
    for part in reversed(parts):
        everything.update(part.seen() if hasattr(part, "seen") else part)  # of modules what there is of them
    return {**everything, **names}
