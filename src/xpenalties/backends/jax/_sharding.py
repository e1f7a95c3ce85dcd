"""Where JAX's arrays are cut, as far as their types say.

A type names only those axes of a mesh that are explicit. How XLA cuts an array along other axes is unknown while JAX
traces. "Cuts" of an array are, for each of its axes, the names of the mesh's axes that it is cut by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

__all__ = [
    "Cuts",
    "as_cuts",
    "cut_by",
    "cuts_of",
    "for_product",
    "is_manual",
    "on_each_device",
    "pad",
    "pieces",
    "product",
    "reshape",
    "sharding",
    "sharding_of_draws",
    "spec",
]

Cuts = tuple[tuple[str, ...], ...]


def cuts_of(x: Any) -> Cuts | None:
    """Return the cuts of `x` by explicit axes, or None if there are none."""
    typed = getattr(jax.typeof(x), "sharding", None)
    cuts = () if typed is None else as_cuts(typed.spec, x.ndim)
    return cuts if any(cuts) else None


def is_manual(x: Any) -> bool:
    """Return True inside `jax.shard_map`, where an array is one device's own part."""
    return any(kind == jax.sharding.AxisType.Manual for kind in jax.typeof(x).sharding.mesh.axis_types)


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


def cut_by(x: Any, cuts: Sequence[tuple[str, ...]], like: Any = None) -> Any:
    """Return `x` with other cuts by explicit axes, of the mesh of `like`. By default, that is its own mesh."""
    current = cuts_of(x) or ((),) * x.ndim
    return x if tuple(cuts) == current else jax.sharding.reshard(x, sharding(x if like is None else like, cuts))


def uncut(x: Any, axes: tuple[int, ...]) -> Any:
    """Return `x` without explicit cuts along `axes`. Another axis is cut instead, if its size allows it."""
    cuts = cuts_of(x)
    names = () if cuts is None else tuple(name for axis in axes for name in cuts[axis])
    if cuts is None or not names:
        return x
    new = [() if axis in axes else found for axis, found in enumerate(cuts)]
    mesh_shape = jax.typeof(x).sharding.mesh.shape
    for axis, found in enumerate(new):
        if axis not in axes and x.shape[axis] % pieces((*found, *names), mesh_shape) == 0:
            new[axis] = (*found, *names)
            break
    return cut_by(x, new)


def on_each_device(function: Callable[[Any], Any], x: Any) -> Any:
    """Return a function of `x` that needs no other part than a device's own, and keeps the axes that are cut."""
    cuts = cuts_of(x)
    if cuts is None:
        return function(x)
    names = {name for of_axis in cuts for name in of_axis}
    return jax.shard_map(function, in_specs=spec(cuts), out_specs=spec(cuts), axis_names=names)(x)


def reshape(x: Any, shape: Sequence[Any], cuts: Sequence[tuple[str, ...]] | None) -> Any:
    """Reshape `x`. Pass the cuts of the result if `x` has some."""
    return jax.lax.reshape(x, tuple(shape), out_sharding=None if cuts is None else sharding(x, cuts))


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


def product(a: Any, b: Any) -> Any:
    """Return `a @ b`. Its matrices are whole if JAX could not tell how they are cut."""
    if a.ndim != b.ndim or a.ndim < 2:
        return a @ b
    of_a, of_b = (cuts_of(x) or ((),) * x.ndim for x in (a, b))
    if not (of_a[-1] or of_b[-2] or set(of_a[-2]).intersection(of_b[-1])):
        return a @ b
    others = tuple(range(a.ndim - 2))
    numbers = (((a.ndim - 1,), (a.ndim - 2,)), (others, others))
    return jax.lax.dot_general(a, b, numbers, out_sharding=sharding(a, [*of_a[:-2], (), ()]))


def for_product(hidden: Any, weight: Any) -> tuple[Any, Any]:
    """Cut hidden states and a weight [classes, features] so that their product is not ambiguous.

    Features are not cut: a weight's are exchanged for its classes, and hidden states are gathered along them. If rows
    and classes are cut by the same axis of the mesh, the smaller array is gathered along it.
    """
    rows, classes = (cuts_of(x) or ((),) * x.ndim for x in (hidden, weight))
    if not any((*rows, *classes)):
        return hidden, weight
    new_rows, new_classes = [*rows[:-1], ()], [classes[0], ()]
    if classes[1]:
        both = (*classes[0], *classes[1])
        mesh_shape = jax.typeof(weight).sharding.mesh.shape
        new_classes[0] = both if weight.shape[0] % pieces(both, mesh_shape) == 0 else classes[0]
    twice = {name for names in new_rows for name in names}.intersection(new_classes[0])
    if twice and weight.size < hidden.size:
        new_classes[0] = tuple(name for name in new_classes[0] if name not in twice)
    elif twice:
        new_rows = [tuple(name for name in names if name not in twice) for names in new_rows]
    return cut_by(hidden, new_rows), cut_by(weight, new_classes)
