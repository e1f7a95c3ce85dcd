"""The class `RegularizedLoss`: a base loss plus a pipeline of penalties."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from .._core.hash_key import HasStaticKey, hashable
from .._core.pytrees import node
from .._core.shown import shown_function
from .._penalties.parameters import HasParameters, Parameters
from .._reports.report import Report
from ..backends import register_loaded
from .checked_pipeline import check_pipeline
from .computation import Computation
from .penalty import Penalty
from .pipeline import Pipeline
from .pipeline_table import as_html, as_text, title_of
from .settings import Settings

__all__ = ["RegularizedLoss"]


@node(leaves=("pipeline",), static=("base_loss", "_base"), key=lambda loss: hashable(loss.base_loss))
@dataclass(frozen=True, eq=False, repr=False)
class RegularizedLoss(HasStaticKey, HasParameters):
    """A base loss plus the penalties of a pipeline: base + sum of weight_i * penalty_i.

    It is immutable, and on JAX a pytree like `Pipeline`.

    Parameters
    ----------
    base_loss : callable
        Called with the same inputs as the pipeline. Returns a scalar or ``(scalar, metrics)``.
    pipeline : Pipeline
        The penalties.

    Raises
    ------
    TypeError
        If `base_loss` is not callable, or `pipeline` is not a Pipeline.

    Examples
    --------
    >>> def mse(data):
    ...     error = data["prediction"] - data["target"]
    ...     return namespace(error).mean(error**2), {"largest": namespace(error).max(error)}
    >>> loss = RegularizedLoss(mse, Pipeline([Penalty("l2", inputs="prediction", weight=0.1)]))
    >>> data = {"prediction": np.asarray([1.0, 3.0]), "target": np.asarray([1.0, 1.0])}
    >>> total, report = loss.compute(data)
    >>> print(report)
    penalty    value  weight  contribution   share
    ----------------------------------------------
    base loss      2     1               2  66.7 %
    l2            10     0.1             1  33.3 %
    total                                3
    >>> report.to_dict()["base_loss"]["custom"]
    {'largest': 2.0}
    """

    base_loss: Callable[..., Any]
    pipeline: Pipeline
    _base: Penalty = field(init=False, repr=False)

    def __post_init__(self) -> None:
        register_loaded()  # if JAX is loaded, make this class a pytree
        if not callable(self.base_loss):
            raise TypeError(
                f"RegularizedLoss: `base_loss` must be callable, got {type(self.base_loss).__qualname__}. Pass a "
                "function."
            )
        check_pipeline("RegularizedLoss", "pipeline", self.pipeline)
        base = Penalty(self.base_loss, name="base loss")
        object.__setattr__(base, "name", "base_loss")  # no penalty may have this name
        object.__setattr__(self, "_base", base)

    def __repr__(self) -> str:
        """Return the name of the base loss, and the pipeline as a table."""
        return as_text(self._title(), self.pipeline)

    def _repr_html_(self) -> str:
        return as_html(self._title(), self.pipeline)

    def _title(self) -> str:
        return f"RegularizedLoss of {shown_function(self.base_loss)} and {title_of(self.pipeline.name)}"

    def __call__(self, *inputs: Any, step: Any = None) -> Any:
        """Return the total, a differentiable 0-d array.

        Parameters
        ----------
        *inputs, step
            As for a call of the pipeline.
        """
        return self._computation(inputs, step, None).total()

    def compute(
        self,
        *inputs: Any,
        step: Any = None,
        track_grad_norms: bool = False,
        wrt: Any = None,
        gradient_conflicts: bool = False,
        execution: Literal["sequential", "threads"] = "sequential",
        max_workers: int | None = None,
        timeout: float | None = None,
        on_error: Literal["raise", "drop"] = "raise",
    ) -> tuple[Any, Report]:
        """Return the total, which is differentiable, and a `Report` of its parts, from one evaluation.

        Parameters
        ----------
        *inputs, step, track_grad_norms, wrt, gradient_conflicts, execution, max_workers, timeout, on_error
            As for `Pipeline.compute`. The base loss is tracked too. It has no timeout, and is never dropped.
        """
        settings = Settings.of(
            self.pipeline.name,
            track_grad_norms=track_grad_norms,
            wrt=wrt,
            gradient_conflicts=gradient_conflicts,
            execution=execution,
            max_workers=max_workers,
            timeout=timeout,
            on_error=on_error,
        )
        return self._computation(inputs, step, settings).total_and_report()

    async def compute_async(
        self,
        *inputs: Any,
        step: Any = None,
        timeout: float | None = None,
        on_error: Literal["raise", "drop"] = "raise",
    ) -> tuple[Any, Report]:
        """Compute on an event loop, see `Pipeline.compute_async`. The base loss may be a coroutine function.

        Parameters
        ----------
        *inputs, step, timeout, on_error
            As for `Pipeline.compute_async`.
        """
        settings = Settings.of(self.pipeline.name, timeout=timeout, on_error=on_error, asynchronous=True)
        return await self._computation(inputs, step, settings).total_and_report_async()

    def __eq__(self, other: object) -> bool:
        """Return whether base losses and pipelines are equal. See `Penalty`."""
        if not isinstance(other, RegularizedLoss):
            return NotImplemented
        return (self._base, self.pipeline) == (other._base, other.pipeline)

    def __hash__(self) -> int:
        return hash((self._base, self.pipeline))

    def _static_key(self) -> tuple[Any, ...]:
        """Return a hashable key that is equal for losses that compute the same inside a pipeline."""
        return self.base_loss, self.pipeline

    def _call_parameters(self) -> Parameters:
        """Return the parameters of the pipeline. The base loss may take any other input."""
        return self.pipeline._call_parameters()._replace(takes_any=True, constants=())

    def _computation(self, inputs: tuple[Any, ...], step: Any, settings: Settings | None) -> Computation:
        pipe, base = self.pipeline, self._base
        return Computation(pipe.name, pipe.penalties, inputs, step, settings, base=base)
