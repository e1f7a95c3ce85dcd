"""Check that the gradient norms of one report are with respect to the same inputs, so that they can be compared."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

from .._core.shown import listed, shown
from .._core.warnings_for_users import callers_level
from ..backends import in_dynamo
from .penalty import Penalty
from .penalty_inputs import callables_in, names_in
from .tracked_arrays import TrackedInputs

__all__ = ["are_comparable"]

_WARNED: set[str] = set()  # messages


def are_comparable(
    pipeline: str, tracked: TrackedInputs, penalties: Iterable[Penalty], used: Mapping[str, list[bool]]
) -> bool:
    """Return whether all penalties have an input in common, pair by pair. If not, warn once with each message.

    Inputs are compared by name, so penalties that take all inputs by position are comparable.

    Parameters
    ----------
    pipeline
        Its name.
    tracked
        The inputs.
    penalties
        The penalties of the pipeline, and the base loss.
    used
        For each penalty that has a gradient, which of the traced arrays it depends on.
    """
    traced = in_dynamo()  # where all arrays seem to be used
    if not traced and any(map(all, zip(*used.values(), strict=True))):  # an array that all use
        return True
    inputs = {penalty.name: penalty.inputs for penalty in penalties}
    if not any(map(names_in, inputs.values())):
        return True
    names = tracked.names()
    of_each: dict[str, set[Any]] = {}
    for name, places in used.items():
        held = {x for of_array, is_used in zip(names, places, strict=True) if is_used for x in of_array}
        if inputs[name] is not None and not callables_in(inputs[name]):
            held &= set(names_in(inputs[name]))
        of_each[name] = held
    for a, b in combinations(of_each, 2):
        if of_each[a].isdisjoint(of_each[b]):
            if not traced:
                _warn_once(pipeline, f"{_described(a, of_each)}, {_described(b, of_each)}")
            return False
    return True


def _warn_once(pipeline: str, differing: str) -> None:
    """Warn that norms cannot be compared, the first time for this pair of penalties in a pipeline of this name."""
    message = (
        f"{pipeline}: gradient norms are with respect to different inputs, so you cannot compare them: {differing}. "
        "Pass `wrt`: in PyTorch a module or its parameters, otherwise inputs that all penalties are computed from."
    )
    if message not in _WARNED:
        _WARNED.add(message)
        warnings.warn(message, UserWarning, stacklevel=callers_level())


def _described(name: str, of_each: Mapping[str, set[Any]]) -> str:
    return f"{listed(sorted(of_each[name], key=str))} for {shown(name)}"
