"""Parts of arrays inside jax.shard_map and jax.vmap, and collective operations over their named axes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax

from ..parts._group import Group
from ..parts._part import Part

__all__ = ["JaxGroup", "JaxPart", "group_of", "varying_like"]


class JaxPart(Part):
    __slots__ = ()


@dataclass(frozen=True)
class JaxGroup(Group):
    """The devices along named axes. JAX itself differentiates its collective operations."""

    names: tuple[str, ...]
    library = "jax"

    def __str__(self) -> str:
        return ", ".join(map(repr, self.names))

    @property
    def size(self) -> int:
        size: int = jax.lax.axis_size(self.names)
        return size

    @property
    def index(self) -> Any:
        return jax.lax.axis_index(self.names)

    def sum(self, x: Any) -> Any:
        return jax.lax.psum(x, self.names)

    def max(self, x: Any) -> Any:
        return jax.lax.pmax(x, self.names)

    def min(self, x: Any) -> Any:
        return jax.lax.pmin(x, self.names)

    def shared(self, x: Any) -> Any:
        """Mark `x` as varying. JAX would do so itself, but in each step of a loop that uses `x`."""
        in_shard_map = jax.sharding.get_abstract_mesh().manual_axes
        return _varied(x, [name for name in self.names if name in in_shard_map])

    def exchanged(self, x: Any, *, cut: int, joined: int, sizes: tuple[int, ...]) -> Any:
        return jax.lax.all_to_all(x, self.names, cut, joined, tiled=True)

    def sliced(self, x: Any, axis: int, sizes: tuple[int, ...]) -> Any:
        return jax.lax.dynamic_slice_in_dim(x, self.index * sizes[0], sizes[0], axis % x.ndim)

    def marks(self, x: Any) -> bool:
        """Return True under jax.shard_map with ``check_vma=True``, where JAX knows what varies."""
        return not _varying(x).isdisjoint(self.names)

    def is_bound(self) -> bool:
        """Return True inside a function that is mapped over all of these axes."""
        try:
            self.size  # noqa: B018 - JAX has no other question for it
        except NameError:
            return False
        return True


def _varying(x: Any) -> frozenset[str]:
    """Return the axes over which JAX knows `x` to vary. Before JAX 0.10, the attribute was `vma`."""
    aval = jax.typeof(x)
    kind = getattr(aval, "mat", None)
    varying: frozenset[str] = frozenset(kind.varying if kind is not None else getattr(aval, "vma", ()))
    return varying


def _varied(x: Any, names: Iterable[str]) -> Any:
    """Mark `x` as varying over these axes of jax.shard_map."""
    missing = tuple(name for name in names if name not in _varying(x))
    return jax.lax.pcast(x, missing, to="varying") if missing else x


def varying_like(cotangent: Any, value: Any) -> Any:
    """Return a cotangent that varies over the axes of jax.shard_map that `value` varies over, as jax.vjp demands."""
    return _varied(cotangent, sorted(_varying(value)))


def group_of(value: Any) -> JaxGroup | None:
    """Return the group of an axis name or of several."""
    names = (value,) if isinstance(value, str) else value
    if isinstance(names, tuple) and names and all(isinstance(name, str) for name in names):
        return JaxGroup(names)
    return None
