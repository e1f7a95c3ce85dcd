"""The array class: a local array, and how its axes are cut."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from ._group import Cut, Group

__all__ = ["Cuts", "Part", "elementwise"]

Cuts = tuple[Cut | None, ...]


class Part:
    """A part of a larger array. `shape` is that of the whole array.

    Parameters
    ----------
    data : array
        The local array.
    cuts : tuple
        How each axis is cut. None: this device holds the whole axis.
    varies : frozenset, optional
        Groups on whose devices the values differ. Those of the cut axes always belong to them.
    """

    #: Set by the framework's subclass: its `PartBackend`.
    backend: ClassVar[Any] = None
    __slots__ = ("cuts", "data", "shape", "transposed_from", "varies")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, data: Any, cuts: Cuts, varies: frozenset[Group] = frozenset()) -> None:
        self.data = data
        self.cuts = cuts
        self.varies = varies.union(*(cut.groups for cut in cuts if cut is not None))
        self.shape = tuple(n if cut is None else cut.size for n, cut in zip(data.shape, cuts, strict=True))
        self.transposed_from: Part | None = None  # lets a Gram matrix exchange its vectors once

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> Any:
        return self.data.dtype

    def like(self, data: Any) -> Part:
        """Return a local array of this array's shape as a part that is cut in the same way."""
        return type(self)(data, self.cuts, self.varies)

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        return self.backend.xp

    def __repr__(self) -> str:
        return f"Part({self.data!r}, shape={self.shape})"

    def __getitem__(self, index: Any) -> Part:
        index = index if isinstance(index, tuple) else (index,)
        given = sum(1 for i in index if i is not None and i is not Ellipsis)
        if Ellipsis not in index:
            index = (*index, Ellipsis)
        at = index.index(Ellipsis)
        index = (*index[:at], *[slice(None)] * (self.ndim - given), *index[at + 1 :])
        axes = iter(self.cuts)
        cuts: list[Cut | None] = []
        for i in index:
            if i is None:
                cuts.append(None)
                continue
            cut = next(axes)
            if isinstance(i, slice):
                if cut is not None and i not in (slice(None), slice(0), slice(None, 0)):
                    raise NotImplementedError(f"an index of a cut axis must be `:` or `:0`, got {i}.")
                empty = cut is not None and i != slice(None)
                cuts.append(Cut(cut.groups, 0, (0,) * len(cut.sizes)) if empty and cut is not None else cut)
            elif cut is not None:
                raise NotImplementedError(f"an index of a cut axis must be `:` or `:0`, got {i}.")
        return type(self)(self.data[index], tuple(cuts), self.varies)

    def __bool__(self) -> bool:
        raise TypeError("a part of an array has no truth value.")


def _binary(function: Callable[[Any, Any], Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def forward(self: Part, other: Any) -> Any:
        return elementwise(function, self, other)

    def backward(self: Part, other: Any) -> Any:
        return elementwise(function, other, self)

    return forward, backward


def _unary(function: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda self: self.like(function(self.data))


for _name in ("add", "sub", "mul", "truediv", "pow", "and", "or", "xor"):
    _function = getattr(operator, f"{_name}_" if _name in ("and", "or") else _name)
    _forward, _backward = _binary(_function)
    setattr(Part, f"__{_name}__", _forward)
    setattr(Part, f"__r{_name}__", _backward)
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Part, f"__{_name}__", _binary(getattr(operator, _name))[0])
for _name in ("neg", "pos", "invert", "abs"):
    setattr(Part, f"__{_name}__", _unary(getattr(operator, _name)))


def elementwise(function: Callable[..., Any], *args: Any) -> Part:
    """Apply a function of elements to parts and numbers."""
    parts = [x for x in args if isinstance(x, Part)]
    if len(parts) == 1 or all(x.cuts == parts[0].cuts and x.varies == parts[0].varies for x in parts):
        return parts[0].like(function(*(x.data if isinstance(x, Part) else x for x in args)))
    cuts = _common_cuts(parts)
    varies: frozenset[Group] = frozenset().union(*(x.varies for x in parts))
    data = function(*(aligned(x, cuts, varies) if isinstance(x, Part) else x for x in args))
    return type(parts[0])(data, cuts, varies)


def _common_cuts(parts: Sequence[Part]) -> Cuts:
    """Return how the result of an operation on these arrays is cut."""
    ndim = max(x.ndim for x in parts)
    result: list[Cut | None] = []
    for axis in range(-ndim, 0):
        cuts = [x.cuts[axis] for x in parts if x.ndim >= -axis]
        first = next((cut for cut in cuts if cut is not None), None)
        if any(cut is not None and cut != first for cut in cuts):
            raise NotImplementedError(f"arrays must be cut in the same way, got {[x.shape for x in parts]}.")
        result.append(first)
    groups = [group for cut in result if cut is not None for group in cut.groups]
    if len(set(groups)) < len(groups):  # each device would have a block on the diagonal only
        raise NotImplementedError(f"two axes must not be cut over the same devices, got {[x.shape for x in parts]}.")
    return tuple(result)


def aligned(x: Part, cuts: Cuts, varies: frozenset[Group]) -> Any:
    """Return the local array of `x`, for an operation whose result is cut by `cuts` and varies over `varies`."""
    data = x.data
    for group in sorted(varies - x.varies, key=str):  # the same order on each device
        data = group.shared(data)
    for axis in range(-x.ndim, 0):
        cut = cuts[axis]
        if cut is not None and x.cuts[axis] is None and x.shape[axis] != 1:
            (group,) = cut.groups
            data = group.sliced(data, axis, cut.sizes)
    return data
