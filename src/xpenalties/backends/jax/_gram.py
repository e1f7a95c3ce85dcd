"""Gram matrices of arrays that are cut over devices: each device sums its part, and only the small matrix is reduced.

XLA's own program for x @ x.T gathers all of `x` on each device if `x` is cut along the axis of its vectors. Here each
device exchanges vectors for parts of all vectors (an all-to-all, which moves the device's own part of `x` only),
multiplies those, and adds the small matrices of all devices.

With explicit axes of a mesh, the type of `x` says how it is cut. Otherwise only XLA knows, once JAX has traced and
differentiated the program. So the products are primitives of their own, which are bilinear and whose derivatives are
each other, and XLA asks for their program when it cuts the arrays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.custom_partitioning import custom_partitioning
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir
from jax.sharding import AxisType, NamedSharding

from ._sharding import Cuts, as_cuts, cuts_of, pad, pieces, sharding, spec

__all__ = ["gram"]

Axes = tuple[int, ...]


def gram(x: Any, vectors: Axes, along: Axes, other: Any = None) -> Any:
    """Return the products of all pairs of vectors, see `Backend.gram`."""
    other = x if other is None else other
    cuts = cuts_of(x)
    if cuts is not None:
        products = _explicit(x, other, cuts, vectors, along)
    elif _may_be_cut(x):
        products = _bind(_products, x, other, vectors, along)
    else:
        products = _dot(x, other, vectors, along)
    n = math.prod(x.shape[axis] for axis in vectors)
    return jnp.reshape(products, (*products.shape[: -2 * len(vectors)], n, n))


def _dot(a: Any, b: Any, vectors: Axes, along: Axes, out: Any = None) -> Any:
    """Return the sum of `a * b` over `along`, [*others, *vectors of a, *vectors of b]."""
    others = _others(a, vectors, along)
    return jax.lax.dot_general(a, b, ((along, along), (others, others)), out_sharding=out)


def _others(x: Any, vectors: Axes, along: Axes) -> Axes:
    return tuple(axis for axis in range(x.ndim) if axis not in (*vectors, *along))


def _explicit(x: Any, other: Any, cuts: Cuts, vectors: Axes, along: Axes) -> Any:
    names = tuple(name for axis in vectors for name in cuts[axis])
    target = along[-1]
    whole = [() if axis in vectors else found for axis, found in enumerate(cuts)]
    if names:
        whole[target] = (*cuts[target], *names)
        count = pieces(whole[target], jax.typeof(x).sharding.mesh.shape)
        is_same = other is x
        x = jax.sharding.reshard(pad(x, target, count), sharding(x, whole))
        other = x if is_same else jax.sharding.reshard(pad(other, target, count), sharding(other, whole))
    others = [whole[axis] for axis in _others(x, vectors, along)]
    return _dot(x, other, vectors, along, sharding(x, [*others, *[()] * 2 * len(vectors)]))


def _may_be_cut(x: Any) -> bool:
    """Return True if XLA may cut `x` over devices without the type saying so, or has it cut already."""
    if jax.device_count() == 1 or not all(type(size) is int for size in x.shape):  # sizes are symbols in an export
        return False
    mesh = jax.typeof(x).sharding.mesh
    return all(kind == AxisType.Auto for kind in mesh.axis_types)


def _times(x: Any, matrix: Any, vectors: Axes, along: Axes) -> Any:
    """Return the product of the vectors and a matrix [*others, *vectors, *new vectors], in the layout of `x`."""
    others = _others(x, vectors, along)
    count = len(others)
    columns = tuple(range(count, count + len(vectors)))
    product = jax.lax.dot_general(x, matrix, ((vectors, columns), (others, tuple(range(count)))))
    order = (*others, *along, *vectors)
    return jnp.permute_dims(product, [order.index(axis) for axis in range(x.ndim)])


def _transposed(matrix: Any, count: int) -> Any:
    """Exchange the two groups of `count` axes at the end."""
    start = matrix.ndim - 2 * count
    groups = range(start), range(start + count, matrix.ndim), range(start, start + count)
    return jnp.permute_dims(matrix, [*range(start), *groups[1], *groups[2]])


# The two primitives. `_products(a, b)` is `_dot`, and `_multiples(x, matrix)` is `_times`.
_products, _multiples = Primitive("xpenalties_products"), Primitive("xpenalties_multiples")


def _bind(primitive: Any, first: Any, second: Any, vectors: Axes, along: Axes) -> Any:
    """Bind a primitive. Its program is a parameter, because JAX must see that it needs the devices to be lowered."""
    shapes = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (first, second))
    return primitive.bind(
        first, second, program=_program(primitive, shapes, vectors, along), vectors=vectors, along=along
    )


@cache
def _program(primitive: Any, shapes: tuple[Any, Any], vectors: Axes, along: Axes) -> Any:
    cut = _cut_products if primitive is _products else _cut_multiples
    return jax.make_jaxpr(partial(cut, vectors=vectors, along=along))(*shapes)


def _run(primitive: Any, first: Any, second: Any, *, program: Any, vectors: Axes, along: Axes) -> Any:
    return _jitted(primitive, first, second, vectors, along)


@partial(jax.jit, static_argnums=(0, 3, 4))
def _jitted(primitive: Any, first: Any, second: Any, vectors: Axes, along: Axes) -> Any:
    return _bind(primitive, first, second, vectors, along)


_products.def_impl(partial(_run, _products))
_multiples.def_impl(partial(_run, _multiples))


@_products.def_abstract_eval
def _(a: Any, b: Any, *, program: Any, vectors: Axes, along: Axes) -> Any:
    shape = [a.shape[axis] for axis in (*_others(a, vectors, along), *vectors, *vectors)]
    return jax.core.ShapedArray(tuple(shape), jnp.result_type(a, b))


@_multiples.def_abstract_eval
def _(x: Any, matrix: Any, *, program: Any, vectors: Axes, along: Axes) -> Any:
    return jax.core.ShapedArray(x.shape, jnp.result_type(x, matrix))


def _products_by_first(cotangent: Any, a: Any, b: Any, *, program: Any, vectors: Axes, along: Axes) -> Any:
    return _bind(_multiples, b, _transposed(cotangent, len(vectors)), vectors, along)


def _products_by_second(cotangent: Any, a: Any, b: Any, *, program: Any, vectors: Axes, along: Axes) -> Any:
    return _bind(_multiples, a, cotangent, vectors, along)


def _multiples_by_first(cotangent: Any, x: Any, matrix: Any, *, program: Any, vectors: Axes, along: Axes) -> Any:
    return _bind(_multiples, cotangent, _transposed(matrix, len(vectors)), vectors, along)


def _multiples_by_second(cotangent: Any, x: Any, matrix: Any, *, program: Any, vectors: Axes, along: Axes) -> Any:
    return _bind(_products, x, cotangent, vectors, along)


ad.defbilinear(_products, _products_by_first, _products_by_second)
ad.defbilinear(_multiples, _multiples_by_first, _multiples_by_second)


def _batched(
    primitive: Any, args: Sequence[Any], dims: Sequence[Any], *, program: Any, vectors: Axes, along: Axes
) -> Any:
    """Put the new axis before all others, on both arguments."""
    size = next(x.shape[dim] for x, dim in zip(args, dims, strict=True) if dim is not None)
    first, second = (
        jnp.broadcast_to(x, (size, *x.shape)) if dim is None else jnp.moveaxis(x, dim, 0)
        for x, dim in zip(args, dims, strict=True)
    )
    shifted = (tuple(axis + 1 for axis in axes) for axes in (vectors, along))
    return _bind(primitive, first, second, *shifted), 0


batching.primitive_batchers[_products] = partial(_batched, _products)
batching.primitive_batchers[_multiples] = partial(_batched, _multiples)


def _lower(plain: Any, ctx: Any, *values: Any, program: Any, vectors: Axes, along: Axes) -> Any:
    """Lower to the program that XLA asks how to cut or, if JAX does not say for which devices, to the plain one."""
    known = getattr(ctx.module_context.axis_context, "device_assignment", None) is not None
    function = jaxpr_as_fun(program) if known else lambda *args: [plain(*args, vectors=vectors, along=along)]
    return mlir.lower_fun(function, multiple_results=True)(ctx, *values)


mlir.register_lowering(_products, partial(_lower, _dot))
mlir.register_lowering(_multiples, partial(_lower, _times))


def _letters(start: int, count: int) -> str:
    return " ".join(f"f{i}" for i in range(start, start + count))


def _cut_products(a: Any, b: Any, *, vectors: Axes, along: Axes) -> Any:
    others = _others(a, vectors, along)

    def partition(mesh: Any, arg_shapes: Any, result_shape: Any) -> Any:
        cuts = as_cuts(arg_shapes[0].sharding.spec, a.ndim)
        there, _, names = _exchanges(cuts, mesh, arg_shapes[0].shape, vectors, along)

        def of_part(a: Any, b: Any) -> Any:
            part = _dot(there(a), there(b), vectors, along)
            return jax.lax.psum(part, names) if names else part

        result = [*[cuts[axis] for axis in others], *[()] * (2 * len(vectors))]
        return mesh, of_part, NamedSharding(mesh, spec(result)), (NamedSharding(mesh, spec(cuts)),) * 2

    def infer(mesh: Any, arg_shapes: Any, result_shape: Any) -> Any:
        cuts = as_cuts(arg_shapes[0].sharding.spec, a.ndim)
        return NamedSharding(mesh, spec([*[cuts[axis] for axis in others], *[()] * (2 * len(vectors))]))

    function = custom_partitioning(lambda a, b: _dot(a, b, vectors, along))
    whole = _letters(0, a.ndim)
    kept = " ".join([*[f"f{axis}" for axis in others], _letters(a.ndim, 2 * len(vectors))])
    function.def_partition(partition, infer_sharding_from_operands=infer, sharding_rule=f"{whole}, {whole} -> {kept}")
    return function(a, b)


def _cut_multiples(x: Any, matrix: Any, *, vectors: Axes, along: Axes) -> Any:
    others = _others(x, vectors, along)

    def partition(mesh: Any, arg_shapes: Any, result_shape: Any) -> Any:
        cuts = as_cuts(arg_shapes[0].sharding.spec, x.ndim)
        there, back, _ = _exchanges(cuts, mesh, arg_shapes[0].shape, vectors, along)

        def of_part(x: Any, matrix: Any) -> Any:
            return back(_times(there(x), matrix, vectors, along))

        small = [*[cuts[axis] for axis in others], *[()] * (2 * len(vectors))]
        like_x = NamedSharding(mesh, spec(cuts))
        return mesh, of_part, like_x, (like_x, NamedSharding(mesh, spec(small)))

    def infer(mesh: Any, arg_shapes: Any, result_shape: Any) -> Any:
        return arg_shapes[0].sharding

    function = custom_partitioning(lambda x, matrix: _times(x, matrix, vectors, along))
    whole = _letters(0, x.ndim)
    small = " ".join([*[f"f{axis}" for axis in others], _letters(x.ndim, 2 * len(vectors))])
    function.def_partition(partition, infer_sharding_from_operands=infer, sharding_rule=f"{whole}, {small} -> {whole}")
    return function(x, matrix)


def _exchanges(cuts: Cuts, mesh: Any, shape: Axes, vectors: Axes, along: Axes) -> Any:
    """Return how a device exchanges its part for parts of all vectors and back, and the axes to sum over then."""
    target = along[-1]
    cut = [axis for axis in vectors if cuts[axis]]
    size = -(-shape[target] // pieces(cuts[target], mesh.shape))  # of the device's part

    def there(x: Any) -> Any:
        for axis in cut:
            x = pad(x, target, pieces(cuts[axis], mesh.shape))
            x = jax.lax.all_to_all(x, cuts[axis], target, axis, tiled=True)
        return x

    def back(x: Any) -> Any:
        sizes = [size]
        for axis in cut:
            count = pieces(cuts[axis], mesh.shape)
            sizes.append(-(-sizes[-1] // count))
        for axis, needed in zip(reversed(cut), reversed(sizes[:-1]), strict=True):
            x = jax.lax.all_to_all(x, cuts[axis], axis, target, tiled=True)
            x = jax.lax.slice_in_dim(x, 0, needed, axis=target)
        return x

    return there, back, tuple(name for axis in (*cut, *along) for name in cuts[axis])
