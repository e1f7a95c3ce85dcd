"""The mean of reports, of one process or of several. Processes exchange sums and weights, not means."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._core.checks import NON_NEGATIVE, check_argument
from .._core.pytrees import flatten
from .._core.shown import shown
from .figures import contribution_of, to_floats

__all__ = ["means_of"]

_CALLER = "Report.mean"
_TOTALS = ("loss_total", "regularizer_total", "total_grad_norm")
_FIGURES = ("value", "weight", "contribution", "grad_norm", "grad_norm_weighted")
_EXTREMA: dict[str, Callable[[list[float]], float]] = {"min": min, "max": max}  # of metrics with these names

# ("total", figure), ("part", name, figure), ("metric", name, metric) or ("cosine", name, name)
_Key = tuple[str, ...]


@dataclass
class _Sums:
    """Weighted sums of figures, each with the sum of the weights of the reports that have it."""

    weight: float = 0.0
    sums: dict[_Key, tuple[float, float]] = field(default_factory=dict)
    extrema: dict[_Key, float] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)  # the first error of each part
    wrt: set[str] = field(default_factory=set)

    def add(self, report: Any, weight: float) -> None:
        """Add a report that holds floats."""
        self.weight += weight
        self.wrt |= set() if report.wrt is None else {report.wrt}
        for key, value in _figures(report):
            if key[0] == "metric" and key[2] in _EXTREMA:
                self._extend(key, value)
            else:
                self._add(key, weight * value, weight)
        for name, part in report.items():
            if part.error is not None:
                self.errors.setdefault(name, part.error)

    def merge(self, other: _Sums) -> None:
        """Add the sums of another process."""
        self.weight += other.weight
        for key, (total, weight) in other.sums.items():
            self._add(key, total, weight)
        for key, value in other.extrema.items():
            self._extend(key, value)
        self.errors = {**other.errors, **self.errors}
        self.wrt |= other.wrt

    def _add(self, key: _Key, total: float, weight: float) -> None:
        earlier, weight_of_earlier = self.sums.get(key, (0.0, 0.0))
        self.sums[key] = earlier + total, weight_of_earlier + weight

    def _extend(self, key: _Key, value: float) -> None:
        known = self.extrema.get(key, math.nan)  # NaN if all terms of a report are masked
        pair = [x for x in (known, value) if not math.isnan(x)]
        self.extrema[key] = _EXTREMA[key[2]](pair) if pair else math.nan

    def means(self) -> dict[str, Any]:
        """Return the means as arguments of `Report`. Each part is a dict of arguments of `PenaltyReport`."""
        parts = {key[1]: self._part(key[1]) for key in self.sums if key[0] == "part"}
        cosines: dict[str, dict[str, float]] = {}
        for kind, *names in self.sums:
            if kind == "cosine":
                cosines.setdefault(names[0], {})[names[1]] = self._mean(("cosine", *names))
        return {
            **{figure: self._mean(("total", figure)) for figure in _TOTALS},
            "base_loss": parts.pop("base_loss", None),
            "regularizers": parts,
            "gradient_conflicts": cosines or None,
            "wrt": " or ".join(sorted(self.wrt)) or None,
        }

    def _part(self, name: str) -> dict[str, Any]:
        metrics = [key for key in (*self.sums, *self.extrema) if key[:2] == ("metric", name)]
        return {
            **{figure: self._mean(("part", name, figure)) for figure in _FIGURES},
            "metrics": {key[2]: self._mean(key) for key in metrics},
            "error": self.errors.get(name),
        }

    def _mean(self, key: _Key) -> Any:
        """Return the mean of a figure, or None if no report has it."""
        if key in self.extrema:
            return self.extrema[key]
        if key not in self.sums:
            return None
        total, weight = self.sums[key]
        if key[0] == "part" and key[2] in ("weight", "contribution"):
            weight = self.weight  # both are 0 in a report without this part
        return total / weight


def means_of(
    reports: Sequence[Any], weights: Iterable[Any] | None, gather: Callable[[Any], Sequence[Any]] | None
) -> dict[str, Any]:
    """Return the means of reports as arguments of `Report`, see `Report.mean` and `_Sums.means`."""
    if not (weights is None or isinstance(weights, Iterable)):
        raise TypeError(f"{_CALLER}: `weights` must be a number for each report, got {shown(weights)}. Pass a list.")
    leaves, rebuild = flatten((list(reports), [1.0] * len(reports) if weights is None else list(weights)))
    read, numbers = rebuild(iter(to_floats(leaves)))
    if len(numbers) != len(reports):
        raise ValueError(
            f"{_CALLER}: `weights` must have a number for each report, got {len(numbers)} for {len(reports)}. Pass "
            "one for each."
        )
    sums = _Sums()
    for report, number in zip(read, numbers, strict=True):
        weight = check_argument(_CALLER, NON_NEGATIVE, "weights", number)
        if weight > 0:
            sums.add(report, weight)
    if gather is not None:
        sums = _merged(gather(sums))
    if sums.weight == 0:
        raise ValueError(
            f"{_CALLER}: at least one report must have a weight above 0, got none in {len(reports)} reports. Pass "
            "reports, with weights that are not all 0."
        )
    return sums.means()


def _merged(gathered: Any) -> _Sums:
    """Merge the sums of all processes, in the order of the processes."""
    if not isinstance(gathered, Sequence) or not all(isinstance(sums, _Sums) for sums in gathered):
        raise TypeError(
            f"{_CALLER}: `gather` must return a list of what each process passed to it, got {shown(gathered)}. For "
            "PyTorch, use torch.distributed.all_gather_object."
        )
    merged = _Sums()
    for sums in gathered:
        merged.merge(sums)
    return merged


def _figures(report: Any) -> Iterator[tuple[_Key, float]]:
    """Return the figures of a report that are not None, with their keys."""
    for figure in _TOTALS:
        yield from _unless_none(("total", figure), getattr(report, figure))
    for name, part in report.items():
        for figure in _FIGURES:
            value = contribution_of(part) if figure == "contribution" else getattr(part, figure)
            yield from _unless_none(("part", name, figure), value)
        for metric, value in part.metrics.items():
            yield from _unless_none(("metric", name, metric), value)
    for a, row in (report.gradient_conflicts or {}).items():
        for b, cosine in row.items():
            yield ("cosine", a, b), cosine


def _unless_none(key: _Key, value: Any) -> Iterator[tuple[_Key, float]]:
    if value is not None:
        yield key, value
