"""A table of what the terms of each penalty belong to, from the penalties' own specifications, for the docs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

from xpenalties._core.registry import PENALTIES
from xpenalties._penalties.spec import Spec

__all__ = ["terms_table"]

TERMS = {
    "elements": ("elements", "(..., k)"),
    "neighborhoods": ("elements with their neighbors", "(..., k)"),
    "rows": ("rows", "(...), the input without `axis`"),
    "matrices": ("matrices", "the leading axes"),
    "samples": ("samples", "the first axis"),
    "statistic of elements": ("statistic of elements", "()"),
    "statistic of rows": ("statistic of rows", "()"),
    "statistic of samples": ("statistic of samples", "()"),
    "whole": ("whole", "()"),
}


def terms_table() -> str:
    """Return a Markdown table of all penalties by what their terms belong to."""
    labels: dict[str, list[str]] = {kind: [] for kind in TERMS}
    for name, function in PENALTIES.items():
        spec: Spec = function.spec  # type: ignore[attr-defined]
        usual = _kind(spec, {})
        labels[usual].append(f"`{name}`")
        for option, value in _values(spec):
            kind = _kind(spec, {option: value})
            if kind != usual:
                shown = "..." if isinstance(value, float) else repr(value).replace("'", '"')
                labels[kind].append(f"`{name}({option}={shown})`")
    rows = [
        f"| {text} | {', '.join(labels[kind])} | {shape} |" for kind, (text, shape) in TERMS.items() if labels[kind]
    ]
    return "\n".join(["| Terms | Penalties | Shape for an input of shape (..., k) |", "| --- | --- | --- |", *rows])


def _kind(spec: Spec, options: dict[str, Any]) -> str:
    samples = spec.shape_of_samples(options)
    return spec.shape_of_terms(options) if samples is None else f"statistic of {samples}"


def _values(spec: Spec) -> Iterator[tuple[str, Any]]:
    """Yield options with a value other than the default."""
    hints = get_type_hints(spec.formula)
    for option, default in spec.defaults.items():
        if isinstance(default, bool):
            yield option, not default
        elif get_origin(hints[option]) is Literal:
            yield from ((option, value) for value in get_args(hints[option]) if value != default)
        elif isinstance(default, float):
            yield option, 0.5
