"""The figures of a report as dicts: nested, or flat with a path for each figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._core.shown import shown

__all__ = ["flat", "nested"]


def nested(report: Any) -> dict[str, Any]:
    """Return the dict of `Report.to_dict`, with arrays left as they are."""
    base = report.base_loss
    return {
        "loss_total": report.loss_total,
        "base_loss": None
        if base is None
        else {"value": base.value, "grad_norm": base.grad_norm, "custom": dict(base.metrics)},
        "regularizers": {
            name: {
                "value": penalty.value,
                "weight": penalty.weight,
                "contribution": penalty.contribution,
                "grad_norm": penalty.grad_norm,
                "grad_norm_weighted": penalty.grad_norm_weighted,
                "custom": dict(penalty.metrics),
            }
            for name, penalty in report.regularizers.items()
        },
        "regularizer_total": report.regularizer_total,
        "total_grad_norm": report.total_grad_norm,
    }


def flat(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return a nested dict of figures as a flat one, by path. A penalty's path begins with its name."""
    parts = dict(figures)
    parts.update(parts.pop("regularizers"))
    by_path: dict[str, Any] = {}
    for path, value in _paths(parts):
        if path in by_path:
            raise ValueError(
                f"Report.flat: two figures must not have the same name, got {shown(path)} twice. Rename one."
            )
        by_path[path] = value
    return by_path


def _paths(nested: Mapping[str, Any], path: str = "") -> list[tuple[str, Any]]:
    """Return the leaves of nested mappings, with their keys joined by slashes."""
    result = []
    for name, value in nested.items():
        if isinstance(value, Mapping):
            result += _paths(value, f"{path}{name}/")
        else:
            result.append((path + str(name), value))
    return result
