"""Groups of devices that hold the parts of an array, and the collective operations that parts need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

__all__ = ["Cut", "Group"]


class Group:
    """Devices, each with one part. The operations take and return local arrays of the framework `library`.

    Derivatives follow one rule. A value that is the same on all devices has one gradient, which is the same on all
    devices. So the derivative of `sum` hands that gradient to each part, and the derivative of `shared` adds up the
    gradients of the parts.
    """

    library: str

    @property
    def size(self) -> int:
        """Return the number of devices."""
        raise NotImplementedError

    @property
    def index(self) -> Any:
        """Return the number of this device: an int, or a traced integer."""
        raise NotImplementedError

    def sum(self, x: Any) -> Any:
        """Return the sum over the devices."""
        raise NotImplementedError

    def max(self, x: Any) -> Any:
        """Return the largest value on any device, as a constant."""
        raise NotImplementedError

    def min(self, x: Any) -> Any:
        """Return the smallest value on any device, as a constant."""
        raise NotImplementedError

    def shared(self, x: Any) -> Any:
        """Return `x`, which is the same on all devices, for use with values that differ."""
        raise NotImplementedError

    def exchanged(self, x: Any, *, cut: int, joined: int, sizes: tuple[int, ...]) -> Any:
        """Cut axis `cut` of `x` into equal pieces, one for each device, and join the pieces received along `joined`.

        `sizes` are the devices' sizes along axis `joined`.
        """
        raise NotImplementedError

    def gathered(self, numbers: Sequence[int], like: Any) -> list[list[int]]:
        """Return the numbers of each device, equally many. JAX does not need it: one program runs on all devices."""
        raise NotImplementedError

    def is_bound(self) -> bool:
        """Return True if the group exists where this code runs."""
        return True

    def marks(self, x: Any) -> bool:
        """Return True if derivatives follow the rule above for `x`, an array that is cut over this group."""
        return True

    def sliced(self, x: Any, axis: int, sizes: tuple[int, ...]) -> Any:
        """Return this device's part of a whole array."""
        raise NotImplementedError


class Cut(NamedTuple):
    """How one axis is cut."""

    groups: tuple[Group, ...]
    size: int  # of the whole axis
    sizes: tuple[int, ...]  # of the parts, in order; () if they are not contiguous or there are several groups

    def scaled(self, factor: int, *, leads: bool) -> Cut:
        """Return the cut of this axis joined with others of `factor` elements. `leads`: it comes before them."""
        sizes = tuple(size * factor for size in self.sizes) if leads or factor == 1 else ()
        return Cut(self.groups, self.size * factor, sizes)
