"""The gradients that one computation tracks: with respect to what, and why a penalty has none."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from ..backends import flatten_of, in_dynamo, reshard
from .comparable_norms import are_comparable
from .gradient_tracking import Gradients
from .penalty import Penalty
from .penalty_evaluation import PenaltyResult
from .penalty_inputs import callables_in, names_in
from .penalty_roles import constants_of
from .settings import Settings
from .tracked_arrays import TrackedGraph, TrackedInputs, tracked_arrays
from .wrt import items_of

__all__ = ["TrackedGradients"]


class TrackedGradients:
    """Adds up the gradients of a computation's penalties.

    Parameters
    ----------
    name, penalties
        The pipeline's.
    inputs, settings
        Those of the computation.

    Attributes
    ----------
    arrays : TrackedInputs or TrackedGraph
        What gradients are with respect to.
    sums : Gradients
        Their sum, norms and cosines.
    """

    def __init__(self, name: str, penalties: Sequence[Penalty], inputs: tuple[Any, ...], settings: Settings) -> None:
        # FSDP2 is in use. Looking for it has to be cheap
        fsdp = not in_dynamo() and "torch.distributed.fsdp" in sys.modules
        if fsdp and sys.modules["torch"].distributed.is_initialized():
            reshard((*flatten_of(inputs)[0], *items_of(settings.wrt)))
        constants = constants_of(penalties) if settings.wrt is None else frozenset()
        self._name = name
        self._chosen = settings.wrt
        self.arrays: TrackedInputs | TrackedGraph = tracked_arrays(name, inputs, settings.wrt, constants)
        self.sums = Gradients(self.arrays.backend, self.arrays.arrays, conflicts=settings.conflicts)

    def add(self, penalty: Penalty, result: PenaltyResult) -> tuple[Any, Any, str | None]:
        """Add a penalty's gradient to the total's.

        Returns the gradient norms of the penalty and of its contribution, or why there are none.
        """
        if not penalty.differentiable:
            return None, None, result.error
        if result.gradient is None:
            self.sums.complete = False
            return None, None, result.error
        norm, weighted = self.sums.add(penalty.name, result.gradient, result.factor, result.parts)
        result.gradient.clear()  # it is as large as the inputs
        if norm is not None:
            return norm, weighted, None
        arrays = self.arrays
        if isinstance(arrays, TrackedInputs) and isinstance(self._chosen, tuple):
            names = () if callables_in(penalty.inputs) else names_in(penalty.inputs)
            if not arrays.are_all(names):
                self.sums.known = False
                return None, None, arrays.reason_without_graph()
        if isinstance(arrays, TrackedGraph) and arrays.is_unknown(result.value):
            self.sums.known = False
        return None, None, arrays.reason(result.value)

    def wrt(self, due: Sequence[tuple[Penalty, Any]]) -> str:
        """Return what the gradient norms of the penalties that are due are with respect to, for the report."""
        arrays, used = self.arrays, self.sums.used
        if not isinstance(arrays, TrackedInputs) or self._chosen is not None or len(used) < 2:
            return arrays.label
        penalties = [penalty for penalty, _ in due]
        return arrays.label if are_comparable(self._name, arrays, penalties, used) else "different inputs"
