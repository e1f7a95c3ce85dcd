"""Read the figures of reports: numbers and 0-d arrays."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ..backends import Backend, backend_of

__all__ = ["contribution_of", "json_safe", "to_floats", "tracer_of"]


def contribution_of(part: Any) -> Any:
    """Return what a part adds to the loss. A base loss that was reported without a weight adds its value."""
    return part.value if part.contribution is None else part.contribution


def tracer_of(figures: Iterable[Any]) -> str | None:
    """Return the name of the framework that is tracing one of the figures, or None if all have values."""
    for figure in figures:
        backend = backend_of(figure)
        if backend is not None and not backend.tracing.has_value(figure):
            return backend.name
    return None


def to_floats(leaves: list[Any]) -> list[Any]:
    """Convert 0-d arrays to floats, in one transfer for each library. Leave anything else as it is."""
    floats = list(leaves)
    by_backend: dict[Backend, list[int]] = {}
    for i, leaf in enumerate(leaves):
        backend = backend_of(leaf)
        if backend is not None:
            if not backend.tracing.has_value(leaf):
                raise TypeError(
                    f"Report: this Report is traced by {backend.name}, so it has no numbers yet. Return it from the "
                    "function, and read it outside."
                )
            if tuple(leaf.shape) != ():
                raise ValueError(
                    f"Report: figures must be 0-d to be read, got shape {tuple(leaf.shape)}. Index "
                    "stacked reports first, for example jax.tree.map(lambda figure: figure[-1], report)."
                )
            by_backend.setdefault(backend, []).append(i)
    for backend, places in by_backend.items():
        for i, value in zip(places, backend.to_floats([leaves[i] for i in places]), strict=True):
            floats[i] = value
    return floats


def json_safe(leaf: Any) -> Any:
    """Replace a float that JSON lacks by a string."""
    if not isinstance(leaf, float) or math.isfinite(leaf):
        return leaf
    return "NaN" if math.isnan(leaf) else "Infinity" if leaf > 0 else "-Infinity"
