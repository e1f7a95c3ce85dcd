"""Where JAX's arrays are cut, as far as their types say.

A type names only those axes of a mesh that are explicit. How XLA cuts an array along other axes is unknown while JAX
traces. "Cuts" of an array are, for each of its axes, the names of the mesh's axes that it is cut by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

__all__ = ["Cuts", "as_cuts", "cuts_of", "pad", "pieces", "sharding", "sharding_of_draws", "spec"]

Cuts = tuple[tuple[str, ...], ...]


def cuts_of(x: Any) -> Cuts | None:
    """Return the cuts of `x` by explicit axes, or None if there are none."""
    typed = getattr(jax.typeof(x), "sharding", None)
    cuts = () if typed is None else as_cuts(typed.spec, x.ndim)
    return cuts if any(cuts) else None


def as_cuts(spec: Any, ndim: int) -> Cuts:
    """Return a partition spec as cuts."""
    entries = [*spec, *[None] * (ndim - len(spec))]
    unnamed = (None, PartitionSpec.UNCONSTRAINED)
    return tuple(() if x in unnamed else x if isinstance(x, tuple) else (x,) for x in entries)


def spec(cuts: Sequence[tuple[str, ...]]) -> PartitionSpec:
    """Return cuts as a partition spec."""
    return PartitionSpec(*[names or None for names in cuts])


def sharding(like: Any, cuts: Sequence[tuple[str, ...]]) -> NamedSharding:
    """Return the sharding with these cuts on the mesh of `like`."""
    return NamedSharding(jax.typeof(like).sharding.mesh, spec(cuts))


def pieces(names: Sequence[str], mesh_shape: Mapping[str, int]) -> int:
    """Return the number of pieces that these axes of a mesh cut an axis into."""
    return math.prod(mesh_shape[name] for name in names)


def pad(x: Any, axis: int, multiple: int) -> Any:
    """Append zeros along `axis`, up to a multiple of a number."""
    missing = -x.shape[axis] % multiple
    return jnp.pad(x, [(0, missing if i == axis else 0) for i in range(x.ndim)]) if missing else x


def sharding_of_draws(shape: tuple[int, ...], like: Any) -> NamedSharding | None:
    """Return the sharding for draws of `shape` that meet `like`: that of the axes of equal size. None: no explicit one.

    The last axes correspond, as in broadcasting.
    """
    cuts = cuts_of(like)
    if cuts is None:
        return None
    missing = len(shape) - like.ndim
    pairs = zip(shape[missing:], like.shape, cuts, strict=True)
    return sharding(like, [*[()] * missing, *[names if a == b else () for a, b, names in pairs]])
