"""Reports of a computation. Figures stay arrays until they are read. One transfer then moves all off the device."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .._core.pytrees import flatten, node
from .._core.shown import shown
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
    """One penalty of a `Report`. Figures are numbers or 0-d arrays, or None if they were not computed.

    Attributes
    ----------
    value, weight, contribution
        The penalty, its weight, and their product.
    grad_norm, grad_norm_weighted
        L2 norms of the gradients of the penalty and of its contribution.
    metrics : dict
        For a built-in penalty, the sum, mean, min and max of its terms. For a callable, the metrics that it returned.
    error : str or None
        Why there is no value (the penalty was dropped, and contributes 0) or no gradient norm: the gradient failed, or
        the penalty does not depend on what the norms are with respect to.
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
    static=("wrt",),
)
@dataclass(frozen=True)
class Report:
    """The report of `Pipeline.compute`. Its arrays are detached, 0-d and still on their device.

    It is a JAX pytree, so a jitted function can return it.

    Attributes
    ----------
    loss_total
        The base loss, if there is one, plus all contributions.
    base_loss : PenaltyReport or None
        The base loss.
    regularizers : dict
        The `PenaltyReport` of each enabled penalty that is due, by name.
    regularizer_total
        The sum of the contributions.
    total_grad_norm
        L2 norm of the gradient of the total. None if it was not computed, or the total depends on none of the arrays.
    gradient_conflicts : dict of dicts or None
        Cosine between the gradients of each pair of penalties, by name. The base loss is "base_loss". A negative
        cosine means that they pull in opposite directions. A penalty without a gradient has no row. None if conflicts
        were not requested.
    wrt : str or None
        What the gradient norms are with respect to, as in the table's header: "params", names of inputs, "inputs" for
        all of them, or "different inputs" if the norms of two penalties have no input in common, so that you cannot
        compare them. None if no norms were computed.
    """

    loss_total: Any
    base_loss: PenaltyReport | None
    regularizers: Mapping[str, PenaltyReport]
    regularizer_total: Any
    total_grad_norm: Any = None
    gradient_conflicts: Mapping[str, Mapping[str, Any]] | None = None
    wrt: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a nested dict of plain floats, moved off the device in one transfer.

        Returns
        -------
        dict
            ``{"loss_total", "base_loss": {"value", "grad_norm", "custom"}, "regularizers": {name: {"value", "weight",
            "contribution", "grad_norm", "grad_norm_weighted", "custom"}}, "regularizer_total", "total_grad_norm"}``

        Raises
        ------
        ValueError
            If the report is stacked over several steps, as by jax.lax.scan or jax.vmap. Index it first.
        """
        leaves, rebuild = flatten(self._nested())
        result: dict[str, Any] = rebuild(iter(to_floats(leaves)))
        return result

    def _nested(self) -> dict[str, Any]:
        """Return the dict of `to_dict`, with arrays left as they are."""
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
                    "value": penalty.value,
                    "weight": penalty.weight,
                    "contribution": penalty.contribution,
                    "grad_norm": penalty.grad_norm,
                    "grad_norm_weighted": penalty.grad_norm_weighted,
                    "custom": dict(penalty.metrics),
                }
                for name, penalty in self.regularizers.items()
            },
            "regularizer_total": self.regularizer_total,
            "total_grad_norm": self.total_grad_norm,
        }

    def conflicts(self) -> dict[str, dict[str, float]]:
        """Return `gradient_conflicts` as plain floats, in one transfer. Return {} if they were not requested."""
        leaves, rebuild = flatten({a: dict(row) for a, row in (self.gradient_conflicts or {}).items()})
        result: dict[str, dict[str, float]] = rebuild(iter(to_floats(leaves)))
        return result

    def to_json(self, **options: Any) -> str:
        """Return `to_dict` as JSON. NaN and infinities become the strings "NaN", "Infinity" and "-Infinity".

        Parameters
        ----------
        **options
            For `json.dumps`, such as ``indent=2``.
        """
        leaves, rebuild = flatten(self.to_dict())
        return json.dumps(rebuild(iter([_json_safe(leaf) for leaf in leaves])), **{"allow_nan": False, **options})

    def flat(self, prefix: str = "", *, floats: bool = True) -> dict[str, Any]:
        """Return a flat dict of floats for experiment loggers: "l1/value", "l1/weight", "loss_total", ...

        Parameters
        ----------
        prefix : str, default ""
            Put before each name, for example "train/".
        floats : bool, default True
            False leaves 0-d arrays on their device, for a logger that reads them later, like Lightning's.

        Raises
        ------
        ValueError
            If "/" in a name gives two figures the same name. Also as for `to_dict`.
        """
        nested = self.to_dict() if floats else self._nested()
        nested.update(nested.pop("regularizers"))
        figures: dict[str, Any] = {}
        for path, value in _paths(nested):
            if path in figures:
                raise ValueError(
                    f"Report.flat: two figures must not have one name, got {shown(path)} twice. Rename one."
                )
            figures[path] = value
        return {prefix + path: value for path, value in figures.items() if value is not None}

    def __str__(self) -> str:
        return as_text(self.to_dict(), self._errors(), self.wrt)

    def _repr_html_(self) -> str:
        return as_html(self.to_dict(), self._errors(), self.wrt)

    def _errors(self) -> list[tuple[str, str]]:
        reports = [("base loss", self.base_loss), *self.regularizers.items()]
        return [(name, report.error) for name, report in reports if report is not None and report.error is not None]


def to_floats(leaves: list[Any]) -> list[Any]:
    """Convert 0-d arrays to floats, in one transfer for each library. Leave anything else as it is."""
    floats = list(leaves)
    by_backend: dict[Backend, list[int]] = {}
    for i, leaf in enumerate(leaves):
        backend = backend_of(leaf)
        if backend is not None:
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


def _json_safe(leaf: Any) -> Any:
    if not isinstance(leaf, float) or math.isfinite(leaf):
        return leaf
    return "NaN" if math.isnan(leaf) else "Infinity" if leaf > 0 else "-Infinity"


def _paths(nested: Mapping[str, Any], path: str = "") -> list[tuple[str, Any]]:
    paths = []
    for name, value in nested.items():
        if isinstance(value, Mapping):
            paths += _paths(value, f"{path}{name}/")
        else:
            paths.append((path + str(name), value))
    return paths
