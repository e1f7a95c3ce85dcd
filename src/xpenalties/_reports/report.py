"""Reports of a computation. Figures stay arrays until they are read. One transfer then moves all off the device."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from dataclasses import dataclass, field
from typing import Any

from .._core.pytrees import flatten, node
from .._core.shown import listed, shown
from .._core.suggestions import did_you_mean
from .._core.terminal_text import printable
from .dicts import flat, nested
from .figures import contribution_of, json_safe, to_floats, tracer_of
from .table import as_text, shares

__all__ = ["PenaltyReport", "Report"]


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
        Why a number is missing. If the value is missing, the penalty was dropped, and contributes 0. If a gradient norm
        is missing, the gradient failed, or the penalty does not depend on `wrt`.
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

    ``print(report)`` shows a table. A report is a JAX pytree, so a jitted function can return it. Inside that function,
    you cannot read its numbers. You can use a report like a mapping from names to `PenaltyReport`: ``report["l1"]``,
    ``dict(report)``. The names are "base_loss", if there is a base loss, then those of the penalties.

    Attributes
    ----------
    loss_total
        The base loss, if there is one, plus all contributions.
    base_loss : PenaltyReport or None
        The base loss.
    regularizers : dict
        The `PenaltyReport` of each enabled penalty that counts at this step, by name.
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
        all of them, or "different inputs". The last means that two penalties have no input in common, so you cannot
        compare their norms. None if no norms were computed.

    Examples
    --------
    >>> total, report = Pipeline({"l1": 0.5, "l2": 2.0}).compute(np.asarray([1.0, -2.0]))
    >>> float(report["l1"].contribution)
    1.5
    >>> report.brief()
    'loss 11.5 l1 13% l2 87%'
    """

    loss_total: Any
    base_loss: PenaltyReport | None
    regularizers: Mapping[str, PenaltyReport]
    regularizer_total: Any
    total_grad_norm: Any = None
    gradient_conflicts: Mapping[str, Mapping[str, Any]] | None = None
    wrt: str | None = None

    def _parts(self) -> dict[str, PenaltyReport]:
        base = {} if self.base_loss is None else {"base_loss": self.base_loss}
        return {**base, **self.regularizers}

    def __getitem__(self, name: str) -> PenaltyReport:
        parts = self._parts()
        if name not in parts:
            raise KeyError(
                f"Report: no penalty is named {shown(name)}. The names are {listed(parts)}.{did_you_mean(name, parts)}"
            )
        return parts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts())

    def __len__(self) -> int:
        return len(self._parts())

    def __contains__(self, name: object) -> bool:
        return name in self._parts()

    def __bool__(self) -> bool:
        return True  # a report of no penalty still has a total

    def keys(self) -> KeysView[str]:
        """Return the names: "base_loss", if there is one, then the penalties."""
        return self._parts().keys()

    def values(self) -> ValuesView[PenaltyReport]:
        """Return the `PenaltyReport` of each part of the loss."""
        return self._parts().values()

    def items(self) -> ItemsView[str, PenaltyReport]:
        """Return pairs of name and `PenaltyReport`."""
        return self._parts().items()

    @property
    def share(self) -> dict[str, float]:
        """The share of each part in the loss: its contribution divided by the sum of all magnitudes, as plain floats.

        A part that is subtracted has a negative share. The base loss is "base_loss". If all contributions are 0, so are
        all shares. If one contribution is NaN or infinite, all shares are NaN. Reading them moves the contributions off
        the device, in one transfer.
        """
        parts = self._parts()
        contributions = [contribution_of(part) for part in parts.values()]
        values = shares(to_floats(contributions))
        return {name: value for name, value in zip(parts, values, strict=True) if value is not None}

    def brief(self) -> str:
        """Return one short line for a progress bar: the total, and the share of each penalty.

        Reading the numbers waits for the device, so do not call this at each step of a fast loop.

        Examples
        --------
        >>> pipe = Pipeline([Penalty("entropy", weight=0.1, options={"mode": "bonus", "from_logits": True})])
        >>> loss = RegularizedLoss(lambda logits: (logits * logits).mean(), pipe)
        >>> loss.compute(np.asarray([[1.0, -1.0]]))[1].brief()
        'loss 0.963 entropy -4%'
        """
        total, *contributions = to_floats([self.loss_total, *map(contribution_of, self._parts().values())])
        parts = zip(self._parts(), shares(contributions), strict=True)
        texts = [
            f"{printable(name)} {share:z.0%}" for name, share in parts if name != "base_loss" and share is not None
        ]
        return " ".join([f"loss {total:z.3g}", *texts])

    @staticmethod
    def mean(
        reports: Iterable[Report],
        weights: Iterable[Any] | None = None,
        *,
        gather: Callable[[Any], Sequence[Any]] | None = None,
    ) -> Report:
        """Return the mean of several reports, such as those of an epoch, with plain floats in it.

        It adds up: the mean total is the sum of the mean contributions. So if a report lacks a penalty, as with
        `every`, the penalty counts there with `weight` and `contribution` 0. All other figures are means over the
        reports that have them, and the metrics "min" and "max" are the smallest and the largest value.

        Parameters
        ----------
        reports : iterable of Report
            They are read in one transfer.
        weights : iterable of numbers or 0-d arrays >= 0, optional
            A weight for each report, such as its number of tokens if the penalties are means over tokens. A report with
            weight 0 is left out, even if it holds NaN. Default: all have the same weight.
        gather : callable, optional
            For a mean over several processes: takes one picklable object, and returns a list of the objects of all
            processes. Each process must call `mean`, but their reports may differ.

        Returns
        -------
        Report

        Raises
        ------
        TypeError
            If one of `reports` is not a `Report` or comes from a function that is being traced, or if a weight is not a
            number.
        ValueError
            If there are no reports, a weight is negative or not finite, or the weights do not match the reports or are
            all 0.

        Examples
        --------
        >>> pipe = Pipeline([Penalty("l1"), Penalty("l2", weight=0.5, every=2)])
        >>> reports = [pipe.compute(np.asarray([1.0, -2.0]), step=step)[1] for step in range(4)]
        >>> print(Report.mean(reports))
        penalty  value  weight  contribution   share
        --------------------------------------------
        l1           3     1             3    54.5 %
        l2           5     0.5           2.5  45.5 %
        total                            5.5
        """
        from .mean import means_of

        if isinstance(reports, Report):
            raise TypeError("Report.mean: `reports` must be several reports, got one Report. Pass a list of them.")
        members = list(reports)
        for report in members:
            if not isinstance(report, Report):
                raise TypeError(
                    f"Report.mean: each of `reports` must be a Report, got {type(report).__qualname__}. Pass the "
                    "second results of `compute`."
                )
        means = means_of(members, weights, gather)
        base, parts = means.pop("base_loss"), means.pop("regularizers")
        parts = {name: PenaltyReport(**figures) for name, figures in parts.items()}
        return Report(base_loss=None if base is None else PenaltyReport(**base), regularizers=parts, **means)

    def to_dict(self) -> dict[str, Any]:
        """Return a nested dict of plain floats, moved off the device in one transfer.

        It has all figures, and no text: `wrt` and a penalty's `error` are attributes. For cosines, see `conflicts`.

        Returns
        -------
        dict
            ``{"loss_total", "base_loss": {"value", "grad_norm", "custom"}, "regularizers": {name: {"value", "weight",
            "contribution", "grad_norm", "grad_norm_weighted", "custom"}}, "regularizer_total", "total_grad_norm"}``

        Raises
        ------
        TypeError
            If the report comes from a function that is being traced, as by jax.jit. Return it from the function first.
        ValueError
            If the report is stacked over several steps, as by jax.lax.scan or jax.vmap. Index it first.
        """
        leaves, rebuild = flatten(nested(self))
        result: dict[str, Any] = rebuild(iter(to_floats(leaves)))
        return result

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
        import json

        leaves, rebuild = flatten(self.to_dict())
        return json.dumps(rebuild(iter([json_safe(leaf) for leaf in leaves])), **{"allow_nan": False, **options})

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
        figures = flat(self.to_dict() if floats else nested(self))
        return {prefix + path: value for path, value in figures.items() if value is not None}

    def __str__(self) -> str:
        return self._placeholder() or as_text(self.to_dict(), self._errors(), self.wrt)

    def _repr_html_(self) -> str:
        from .html_table import as_html

        return self._placeholder() or as_html(self.to_dict(), self._errors(), self.wrt)

    def _placeholder(self) -> str:
        """Return a text to show instead of numbers if they are being traced, else ""."""
        tracer = tracer_of(flatten(self)[0])
        return f"This Report is traced by {tracer}: return it from the function to read it." if tracer else ""

    def _errors(self) -> list[tuple[str, str]]:
        reports = [("base loss", self.base_loss), *self.regularizers.items()]
        return [(name, report.error) for name, report in reports if report is not None and report.error is not None]
