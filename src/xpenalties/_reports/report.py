"""What a pipeline found, as arrays until it is read: one transfer from the device, not one for each figure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .._core.pytrees import flatten, node
from ..backends import Backend, backend_of
from .table import as_html, as_text

__all__ = ["PenaltyReport", "Report", "to_floats"]


@node(
    leaves=("value", "weight", "contribution", "grad_norm", "grad_norm_weighted"),
    mappings=("metrics",),
    static=("error",),
)
@dataclass(frozen=True)
class PenaltyReport:
    """One penalty of a `Report`; numbers and 0-d arrays, None where not computed.

    Attributes
    ----------
    value, weight, contribution
        The penalty, its weight, and their product.
    grad_norm, grad_norm_weighted
        L2 norm of the penalty's gradient, and of the contribution's.
    metrics : dict
        Sum, mean, min and max of the terms of a penalty of this package, and whatever a callable returned beside its
        value.
    error : str or None
        Why there is no value (the penalty was dropped, and contributes 0) or no gradient norm.
    """

    value: Any
    weight: Any
    contribution: Any
    grad_norm: Any = None
    grad_norm_weighted: Any = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None


@node(
    leaves=("loss_total", "base_loss", "regularizer_total", "total_grad_norm"),
    mappings=("regularizers", "gradient_conflicts"),
)
@dataclass(frozen=True)
class Report:
    """What `Pipeline.compute` found: detached 0-d arrays on their device. A JAX pytree, so that it leaves a jit.

    Attributes
    ----------
    loss_total
        Base loss, where there is one, and all contributions.
    base_loss : PenaltyReport or None
        The base loss.
    regularizers : dict
        Each enabled penalty's `PenaltyReport` by name.
    regularizer_total
        The sum of the contributions.
    total_grad_norm
        L2 norm of the total's gradient, None where not computed.
    gradient_conflicts : dict of dicts or None
        Cosine between the gradients of each two penalties, by their names; the base loss is "base_loss". Negative where
        they pull apart. None where not asked for; a penalty without a gradient has no row.
    """

    loss_total: Any
    base_loss: PenaltyReport | None
    regularizers: Mapping[str, PenaltyReport]
    regularizer_total: Any
    total_grad_norm: Any = None
    gradient_conflicts: Mapping[str, Mapping[str, Any]] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Nested dict of plain floats, moved off the device at once.

        Returns
        -------
        dict
            ``{"loss_total", "base_loss": {"value", "grad_norm", "custom"}, "regularizers": {name: {"value", "weight",
            "contribution", "grad_norm", "grad_norm_weighted", "custom"}}, "regularizer_total", "total_grad_norm"}``

        Raises
        ------
        ValueError
            For a report of several steps at once, as jax.lax.scan and jax.vmap stack them: index it first.
        """
        leaves, rebuild = flatten(self._nested())
        result: dict[str, Any] = rebuild(iter(to_floats(leaves)))
        return result

    def _nested(self) -> dict[str, Any]:
        """What `to_dict` returns, with 0-d arrays as they are."""
        return {
            "loss_total": self.loss_total,
            "base_loss": None
            if self.base_loss is None
            else {
                "value": self.base_loss.value,
                "grad_norm": self.base_loss.grad_norm,
                "custom": dict(self.base_loss.metrics),
            },
            "regularizers": {
                name: {
                    "value": part.value,
                    "weight": part.weight,
                    "contribution": part.contribution,
                    "grad_norm": part.grad_norm,
                    "grad_norm_weighted": part.grad_norm_weighted,
                    "custom": dict(part.metrics),
                }
                for name, part in self.regularizers.items()
            },
            "regularizer_total": self.regularizer_total,
            "total_grad_norm": self.total_grad_norm,
        }

    def conflicts(self) -> dict[str, dict[str, float]]:
        """`gradient_conflicts` as plain floats, moved off the device at once; empty where they were not asked for."""
        leaves, rebuild = flatten({a: dict(row) for a, row in (self.gradient_conflicts or {}).items()})
        result: dict[str, dict[str, float]] = rebuild(iter(to_floats(leaves)))
        return result

    def to_json(self, **options: Any) -> str:
        """`to_dict` as JSON; NaN and infinities, which JSON lacks, are the strings "NaN", "Infinity", "-Infinity".

        Parameters
        ----------
        **options
            For `json.dumps`, such as ``indent=2``.
        """
        leaves, rebuild = flatten(self.to_dict())
        return json.dumps(rebuild(iter([_json_safe(leaf) for leaf in leaves])), **{"allow_nan": False, **options})

    def flat(self, prefix: str = "", *, floats: bool = True) -> dict[str, Any]:
        """One level of names and floats, as experiment loggers take them: "l1/value", "l1/weight", "loss_total", ...

        Parameters
        ----------
        prefix : str, default ""
            Put before each name as it is, such as "train/".
        floats : bool, default True
            False leaves 0-d arrays on their device, for a logger that reads them later, as Lightning's does.

        Raises
        ------
        ValueError
            For names with "/" that make two figures' names the same, and as `to_dict`.
        """
        nested = self.to_dict() if floats else self._nested()
        nested.update(nested.pop("regularizers"))
        figures: dict[str, Any] = {}
        for path, value in _paths(nested):
            if path in figures:
                raise ValueError(f"Report.flat: two figures must not have one name, got {path!r} twice. Rename one.")
            figures[path] = value
        return {prefix + path: value for path, value in figures.items() if value is not None}

    def __str__(self) -> str:
        return as_text(self.to_dict(), self._errors())

    def _repr_html_(self) -> str:
        return as_html(self.to_dict(), self._errors())

    def _errors(self) -> list[tuple[str, str]]:
        parts = [("base loss", self.base_loss), *self.regularizers.items()]
        return [(name, part.error) for name, part in parts if part is not None and part.error is not None]


def to_floats(leaves: list[Any]) -> list[Any]:
    """Arrays as floats, each library's in one go; None, numbers and strings as they are."""
    floats = list(leaves)
    by_backend: dict[Backend, list[int]] = {}
    for i, leaf in enumerate(leaves):
        backend = backend_of(leaf)
        if backend is not None:
            if tuple(leaf.shape) != ():
                raise ValueError(
                    f"Report: figures must be 0-d to be read, got shape {tuple(leaf.shape)}. Of stacked reports take "
                    "one first, for example jax.tree.map(lambda figure: figure[-1], report)."
                )
            by_backend.setdefault(backend, []).append(i)
    for backend, places in by_backend.items():
        for i, value in zip(places, backend.to_floats([leaves[i] for i in places]), strict=True):
            floats[i] = value
    return floats


def _json_safe(leaf: Any) -> Any:
    if not isinstance(leaf, float) or math.isfinite(leaf):
        return leaf
    return "NaN" if math.isnan(leaf) else "Infinity" if leaf > 0 else "-Infinity"


def _paths(nested: Mapping[str, Any], path: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, value in nested.items():
        if isinstance(value, Mapping):
            found += _paths(value, f"{path}{name}/")
        else:
            found.append((path + str(name), value))
    return found
