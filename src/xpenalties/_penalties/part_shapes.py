"""The parts of a call's arrays: the shapes of the whole arrays, with checks that are the same on every device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._arrays.numerics import broadcasts
from ..backends import Backend
from ..backends._over import Groups, record
from ..backends._registry import part_backend_of
from ..backends.parts._group import Cut, Group
from ..backends.parts._part import Cuts
from .part_sizes import PartSizes

__all__ = ["Layout", "PartShapes"]

Layout = dict[int, Group]  # from axes, counted from 0, to the groups that they are cut over


class PartShapes:
    """The parts of one call.

    Attributes
    ----------
    parts : list of Part
        The penalty's arrays, the first of `sizes.arrays`: those that have a layout.
    """

    def __init__(
        self,
        caller: str,
        backend: Backend,
        groups: Groups,
        sizes: PartSizes,
        layouts: Sequence[Layout],
        matrices: tuple[int, ...] = (),
        *,
        differ: int | None = None,
    ) -> None:
        self._caller = caller
        self._groups = groups
        self._sizes = sizes
        self._cls = part_backend_of(backend).cls  # type: ignore[attr-defined]
        self._own_rows = frozenset(group for group in groups.all if groups.leaves_sums_to_user(group))
        self.parts = []
        for (name, x), layout in zip(sizes.arrays.items(), layouts, strict=False):
            for group in groups.all:
                sizes.check_equal(name, group, except_axis=next((a for a in layout if layout[a] == group), None))
            cuts = tuple(self._cut(name, axis, layout.get(axis)) for axis in range(x.ndim))
            record(x, list(layout.values()))
            self.parts.append(self._cls(x, cuts, self._own_rows))
        self._check_alike(list(sizes.arrays), matrices, differ)

    def _cut(self, name: str, axis: int, group: Group | None) -> Cut | None:
        if group is None:
            return None
        sizes = self._sizes.of(name, group, axis)
        return Cut((group,), sum(sizes), sizes)

    def _check_alike(self, names: Sequence[str], matrices: tuple[int, ...], differ: int | None) -> None:
        """Check that arrays of rows, and weights of layers, are cut at the same places, except along axis `differ`."""
        for kind in (matrices, tuple(i for i in range(len(self.parts)) if i not in matrices)):
            for i in kind[1:]:
                first, other = self.parts[kind[0]], self.parts[i]
                if first.ndim == other.ndim and any(
                    a != b and a is not None and b is not None and axis != differ
                    for axis, (a, b) in enumerate(zip(first.cuts, other.cuts, strict=True))
                ):
                    sizes = [tuple(cut and cut.sizes for cut in x.cuts) for x in (first, other)]
                    raise ValueError(
                        f"{self._caller}: `{names[kind[0]]}` and `{names[i]}` must be cut at the same places, got "
                        f"parts of {sizes[0]} and {sizes[1]}. Cut them alike."
                    )

    def beside(self, name: str, local: tuple[int, ...], cuts: Cuts) -> Any:
        """Return an array that broadcasts to one of local shape `local`, which is cut by `cuts`, as a part of it."""
        x = self._sizes.arrays[name]
        xp = self._cls.backend.local.xp
        missing = len(local) - x.ndim
        for group in self._groups.all:
            places = [axis - missing for axis, cut in enumerate(cuts) if cut is not None and group in cut.groups]
            self._sizes.check_equal(name, group, except_axis=places[0] if places else None)
        pairs = list(zip(local, cuts, strict=True))
        if missing < 0 or not all(self._fits(name, axis, *pair) for axis, pair in enumerate(pairs[missing:])):
            elsewhere = " here and another shape on another device" if broadcasts(tuple(x.shape), local) else ""
            raise ValueError(
                f"{self._caller}: `{name}` must broadcast to its part of the terms or of the array, of shape "
                f"{tuple(local)}, got {tuple(x.shape)}{elsewhere}. Pass the device's own part."
            )
        shared: list[Group] = []
        cut_over: list[Group] = []
        for axis, (_, cut) in enumerate(pairs):
            if cut is not None and (axis < missing or self._is_broadcast(name, axis - missing, cut)):
                shared += [group for group in cut.groups if group not in self._own_rows]
            elif cut is not None:
                cut_over += cut.groups
        record(x, cut_over)
        for group in shared:
            x = group.shared(x)
        return self._cls(xp.broadcast_to(x, tuple(local)), cuts, self._own_rows)

    def _fits(self, name: str, axis: int, n: int, cut: Cut | None) -> bool:
        size = self._sizes.arrays[name].shape[axis]
        if cut is None:
            return size in (1, n)
        return self._is_broadcast(name, axis, cut) or self._sizes.of(name, cut.groups[0], axis) == cut.sizes

    def _is_broadcast(self, name: str, axis: int, cut: Cut) -> bool:
        sizes = self._sizes.of(name, cut.groups[0], axis)
        return set(sizes) == {1} and sizes != cut.sizes
