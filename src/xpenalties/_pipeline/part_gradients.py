"""Norms of gradients with respect to arrays of which each device holds a part, inside `over`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ..backends import in_dynamo
from ..backends._over import ACTIVE, Layouts, active_groups, recorded_layouts
from ..backends.parts._group import Group

__all__ = ["PartGradients", "layouts_if_parts", "same_on_all_devices"]


def layouts_if_parts() -> AbstractContextManager[Layouts | None]:
    """Record how the arrays of penalties are cut while the context is active. Without `over`, record nothing."""
    return nullcontext() if in_dynamo() or active_groups() is None else recorded_layouts()


class PartGradients:
    """Completes what is computed from the parts of gradients with respect to some arrays.

    Parameters
    ----------
    layouts : Layouts
        How the arrays of a penalty are cut.
    arrays : sequence of arrays
        Those that gradients are with respect to.
    """

    def __init__(self, layouts: Layouts, arrays: Sequence[Any]) -> None:
        groups = active_groups()
        assert groups is not None
        self._groups = groups
        self._marked = layouts.marked
        self._cut = [layouts.cut.get(id(x)) for x in arrays]

    def are_known(self, gradient: Sequence[Any]) -> bool:
        """Return True if it is known how the arrays with a gradient are cut, because a penalty got them unchanged."""
        return all(g is None or cut is not None for g, cut in zip(gradient, self._cut, strict=True))

    def update(self, other: PartGradients) -> None:
        """Take what another penalty knows."""
        self._marked |= other._marked
        self._cut = [b if a is None else a for a, b in zip(self._cut, other._cut, strict=True)]

    def whole(self, i: int, gradient: Any) -> Any:
        """Return this device's part of the whole gradient. Parts of a sum over devices are added up."""
        for group in self._groups.all:
            marked = group in self._marked
            if group not in self._groups_of(i) and (not marked or self._groups.leaves_sums_to_user(group)):
                gradient = group.sum(gradient)
            if not marked:  # the gradient is that of the sum of the value over all devices, see `over`
                gradient = gradient / group.size
        return gradient

    def total(self, i: int, summed: Any) -> Any:
        """Return the sum over all parts of something that was summed over this device's part of array `i`."""
        for group in self._groups_of(i):
            summed = group.sum(summed)
        return summed

    def _groups_of(self, i: int) -> Sequence[Group]:
        return self._cut[i] or ()


def same_on_all_devices(largest: Any) -> Any:
    """Return the largest of a number on all devices, or the number itself without `over`."""
    groups = active_groups() if ACTIVE.any else None
    for group in () if groups is None else groups.all:
        largest = group.max(largest)
    return largest
