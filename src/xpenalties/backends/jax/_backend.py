"""The JAX backend, which also registers this package's classes as JAX pytrees."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import array_api_compat
import jax
import jax.numpy as jnp
import numpy as np

from ..._core.pytrees import Rebuild, join_paths, watch_nodes
from ..base import Autodiff, Backend, DType, Exchange, OfLeaves, Pull, Random, Tracing
from ..parts._backend import PartBackend
from ._gram import gram
from ._linear import linear_or_none
from ._parts import JaxPart, varying_like
from ._programs import JaxEvaluation
from ._sharding import cut_by, cuts_of, for_product, on_each_device, product, sharding_of_draws, uncut

__all__ = ["BACKEND", "KNOWN", "PARTS", "find", "is_tree", "parameters_of", "paths_of_instances", "paths_of_none"]


class JaxBackend(Backend):
    sums_products = True

    def _describe(self, dtype: Any) -> DType:
        if jnp.issubdtype(dtype, jax.dtypes.extended):  # such as random keys
            return DType("other")
        return super()._describe(dtype)

    def device(self, x: Any) -> Any:
        return None  # a device would pin the new array to it, while `x` may be sharded over several

    def abs(self, x: Any) -> Any:
        return _abs(x) if self.dtype(x.dtype).kind == "real" else super().abs(x)

    def number(self, size: Any, like: Any) -> Any:
        return float(size) if isinstance(size, (int, float)) else jnp.asarray(size, dtype=like.dtype)

    def uncut(self, x: Any, axes: tuple[int, ...]) -> Any:
        return uncut(x, axes)  # XLA does so itself along axes of a mesh that are not explicit

    def copied(self, x: Any) -> Any:
        return uncut(x, tuple(range(x.ndim)))

    def in_order(self, x: Any, axis: int, ranks: Sequence[int] | None = None) -> Any:
        return on_each_device(
            lambda part: super(JaxBackend, self).in_order(part, axis, ranks), uncut(x, (axis % x.ndim,))
        )

    def cut_like(self, x: Any, like: Any) -> Any:
        cuts = cuts_of(like)
        if cuts is None:
            return x
        return cut_by(x, [names if size > 1 else () for names, size in zip(cuts, x.shape, strict=True)], like)

    def gram(self, x: Any, vectors: tuple[int, ...], along: tuple[int, ...], other: Any = None) -> Any:
        return gram(x, vectors, along, other)

    def matmul(self, a: Any, b: Any) -> Any:
        return product(a, b)

    def sum_of_products(self, a: Any, b: Any, *, axis: int, keepdims: bool = False) -> Any:
        if cuts_of(a) or cuts_of(b):  # JAX could not tell how a dot product is cut
            return super().sum_of_products(a, b, axis=axis, keepdims=keepdims)
        # XLA's CPU programs sum a product of elements one after another, in a few lanes, but not a dot product
        total = jnp.vecdot(a, b, axis=axis, precision=jax.lax.Precision.HIGHEST)
        return jnp.expand_dims(total, axis) if keepdims else total

    def linear(self, hidden: Any, weight: Any) -> Any:
        dtype = jnp.result_type(hidden.dtype, weight.dtype, jnp.float32)
        hidden, weight = for_product(hidden, weight)
        rows = hidden
        if hidden.ndim > 2 and hidden.dtype != dtype:  # JAX 0.8 on the CPU sums products of bfloat16 for matrices only
            rows = jnp.reshape(hidden, (-1, hidden.shape[-1]))
        logits = jnp.matmul(rows, jnp.matrix_transpose(weight), preferred_element_type=dtype)
        return logits if rows is hidden else jnp.reshape(logits, (*hidden.shape[:-1], weight.shape[0]))

    def sum_over(self, arrays: Sequence[Any], fn: Callable[[Sequence[Any]], list[Any]]) -> list[Any]:
        def add(total: list[Any], rows: list[Any]) -> tuple[list[Any], None]:
            return [a + b for a, b in zip(total, fn(rows), strict=True)], None

        shapes = jax.eval_shape(fn, [x[0] for x in arrays])
        zeros = [jnp.zeros(x.shape, x.dtype) for x in shapes]
        return jax.lax.scan(add, zeros, list(arrays))[0]

    def snapshot(self, x: Any) -> Any:
        return x  # immutable; a copy would take longer than the rest of a report

    def to_floats(self, scalars: Sequence[Any]) -> list[float]:
        return [float(scalar) for scalar in jax.device_get(list(scalars))]

    def signed(self, integer: Any) -> Any:
        if integer.dtype in (jnp.int32, jnp.int64):
            return integer
        if jnp.iinfo(integer.dtype).max <= jnp.iinfo(jnp.int32).max:
            return jnp.astype(integer, jnp.int32)
        return jnp.astype(integer, jnp.int64) if jax.config.jax_enable_x64 else integer  # users must enable int64

    def flatten(self, tree: Any) -> tuple[list[Any], Rebuild]:
        """Use JAX's pytrees, so that gradients have the structure that JAX itself would return."""
        return self._flatten(tree, ())

    def _flatten(self, tree: Any, leaf_types: tuple[type, ...]) -> tuple[list[Any], Rebuild]:
        """Flatten a tree. Instances of `leaf_types` are leaves."""
        nodes, structure = jax.tree_util.tree_flatten(tree, is_leaf=_is_instance(leaf_types))
        inside = [  # JAX does not know plain dataclasses
            ([node], next) if isinstance(node, leaf_types) else super(JaxBackend, self).flatten(node) for node in nodes
        ]
        leaves = [leaf for node_leaves, _ in inside for leaf in node_leaves]
        return leaves, lambda new: structure.unflatten([rebuild(new) for _, rebuild in inside])

    def flatten_with_paths(self, tree: Any) -> tuple[list[Any], Rebuild, list[str]]:
        sparse = sys.modules.get("jax.experimental.sparse")
        leaf_types = () if sparse is None else (sparse.JAXSparse,)  # which JAX would flatten to indices and values
        paths = []
        for keys, node in _with_keys(tree, leaf_types):
            outside = jax.tree_util.keystr(keys, simple=True, separator=".")
            inside = [""] if isinstance(node, leaf_types) else super().flatten_with_paths(node)[2]
            paths += [join_paths(outside, path) for path in inside]
        return *self._flatten(tree, leaf_types), paths


class JaxAutodiff(Autodiff):
    def differentiates(self) -> bool:
        return True

    def vjp(self, fn: OfLeaves, leaves: list[Any], *, again: bool = True) -> tuple[Any, list[Any], Pull]:
        value, pull, aux = jax.vjp(fn, leaves, has_aux=True)
        if again:
            return value, aux, lambda cotangent: pull(varying_like(cotangent, value))[0]
        constant = jax.tree.map(self.stop_gradient, pull)  # else an outer derivative would go through the pullbacks too
        return value, aux, lambda cotangent: linear_or_none(lambda ct: constant(ct)[0], varying_like(cotangent, value))

    def stop_gradient(self, x: Any) -> Any:
        return jax.lax.stop_gradient(x)

    def weight_mask(self, weights: Any) -> Any:
        return _unless_differentiated(weights) > 0

    def escaped(self, error: Exception) -> bool:
        return isinstance(error, (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError))


class JaxTracing(Tracing):
    def is_tracing(self, x: Any) -> bool:
        return isinstance(x, jax.core.Tracer)

    def has_value(self, x: Any) -> bool:
        return not isinstance(x, jax.core.Tracer)

    def in_trace(self) -> bool:
        return isinstance(jax.lax.neg(np.float32(0)), jax.core.Tracer)

    def compiles(self) -> bool:
        return True  # also for tracers: under jax.grad and jax.vmap a program stays one program

    def raise_unless(self, valid: Any, message: str, error: Callable[[], Exception]) -> None:
        if isinstance(valid, jax.core.Tracer):
            jax.debug.callback(partial(_raise_unless, message), valid)
        else:
            super().raise_unless(valid, message, error)

    def when(self, due: Any, compute: Callable[[], list[Any]]) -> list[Any]:
        shapes = jax.eval_shape(compute)  # shapes only, so that nothing runs if it is not due
        return jax.lax.cond(due, compute, lambda: [jnp.zeros(x.shape, x.dtype) for x in shapes])


class JaxRandom(Random):
    def uniform(self, caller: str, rng: Any, shape: tuple[int, ...], like: Any) -> Any:
        return jax.random.uniform(_key(caller, rng), shape, like.dtype, out_sharding=sharding_of_draws(shape, like))

    def normal(self, caller: str, rng: Any, shape: tuple[int, ...], like: Any) -> Any:
        return jax.random.normal(_key(caller, rng), shape, like.dtype, out_sharding=sharding_of_draws(shape, like))

    def split(self, caller: str, rng: Any, count: int) -> list[Any]:
        return list(jax.random.split(_key(caller, rng), count))


class JaxExchange(Exchange):
    def exported(self, x: Any) -> Any:
        return x

    def borrowed(self, x: Any) -> Any:
        try:
            return super().borrowed(x)
        except (BufferError, jax.errors.JaxRuntimeError):  # read-only, or with gaps in memory
            return super().borrowed(array_api_compat.array_namespace(x).asarray(x, copy=True))

    def borrowing(self) -> AbstractContextManager[Any]:
        """Enable 64 bits. Otherwise JAX would cast to 32 bits, and the owner would get 32-bit results."""
        switch: AbstractContextManager[Any] = jax.enable_x64(True)
        return switch


def _raise_unless(message: str, valid: Any) -> None:
    if not valid:
        raise ValueError(message)


def parameters_of(module: Any) -> Any:
    """Return the parameters of a Flax nnx module, or None for anything else."""
    nnx = sys.modules.get("flax.nnx")
    return nnx.state(module, nnx.Param) if nnx is not None and isinstance(module, nnx.Module) else None


def paths_of_instances(tree: Any, classes: tuple[type, ...]) -> list[str]:
    """Return the paths of the outermost nodes, or modules of Flax nnx, that are instances of `classes`."""
    nnx = sys.modules.get("flax.nnx")
    if nnx is not None and isinstance(tree, nnx.Module):
        modules = sorted(nnx.iter_modules(tree), key=lambda pair: len(pair[0]))
        return [".".join(map(str, path)) for path, module in modules if isinstance(module, classes)]
    nodes = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_instance(classes))[0]
    return [jax.tree_util.keystr(keys, simple=True, separator=".") for keys, x in nodes if isinstance(x, classes)]


def paths_of_none(tree: Any) -> list[str]:
    """Return the paths at which a pytree has None, which is no leaf to JAX."""
    leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: x is None)[0]
    return [jax.tree_util.keystr(keys, simple=True, separator=".") for keys, leaf in leaves if leaf is None]


def is_tree(x: Any) -> bool:
    """Return True if JAX takes `x` for a pytree and not for a leaf."""
    return not jax.tree_util.all_leaves([x])


def _key(caller: str, rng: Any) -> Any:
    """Check that `rng` is a JAX key."""
    dtype = getattr(rng, "dtype", None)
    if not isinstance(rng, jax.Array) or not (dtype == jnp.uint32 or jnp.issubdtype(dtype, jax.dtypes.prng_key)):
        got = type(rng).__qualname__ if dtype is None else f"{type(rng).__qualname__} of {dtype}"
        raise TypeError(
            f"{caller}: `rng` must be a JAX key, got {got}. Pass for example jax.random.key(0), another one at "
            "each step."
        )
    return rng


@jax.custom_jvp
def _unless_differentiated(weights: Any) -> Any:
    """Return 1 where a weight is not 0, and 0 elsewhere. If the weights are differentiated, return 1 everywhere.

    Only a custom derivative rule can know this: under jax.jit, a function cannot see what will be differentiated.
    """
    return jnp.where(weights != 0, jnp.ones_like(weights), 0)


@_unless_differentiated.defjvp
def _(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
    return jnp.ones_like(primals[0]), jnp.zeros_like(tangents[0])


@jax.custom_jvp
def _abs(x: Any) -> Any:
    """Return `|x|` with slope 0 at 0. JAX's own has slope 1 (https://github.com/jax-ml/jax/issues/10031).

    `test_jax_abs_still_needs_pinning` fails once JAX changes that and this function can go.
    """
    return jnp.abs(x)


_abs.defjvps(lambda tangent, _, x: tangent * jnp.sign(x))


def _is_instance(classes: tuple[type, ...]) -> Callable[[Any], bool] | None:
    """Return a function for JAX's `is_leaf`, or None without classes, which saves a call for each node."""
    return (lambda x: isinstance(x, classes)) if classes else None


def _with_keys(tree: Any, leaf_types: tuple[type, ...]) -> list[tuple[tuple[Any, ...], Any]]:
    """Return the leaves with their keys. An array in a Flax box gets the key of the box."""
    boxes = tuple(getattr(sys.modules[module], name) for module, name in _BOXES if module in sys.modules)
    nodes = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_instance((*boxes, *leaf_types)))[0]
    if not boxes:
        return nodes
    leaves = []
    for keys, node in nodes:
        if isinstance(node, boxes):
            leaves += [((*keys, *inner[1:]), leaf) for inner, leaf in jax.tree_util.tree_flatten_with_path(node)[0]]
        else:
            leaves.append((keys, node))
    return leaves


# nnx variables, and Linen parameters with mesh axes; each holds an array or a tree
_BOXES = (("flax.nnx", "Variable"), ("flax.core.meta", "Partitioned"))


BACKEND = JaxBackend(
    "jax",
    jnp,
    autodiff=JaxAutodiff,
    evaluation=JaxEvaluation,
    tracing=JaxTracing,
    random=JaxRandom,
    exchange=JaxExchange,
)
PARTS = PartBackend(BACKEND, JaxPart)
# without the array type, because naming it would start the devices at import
KNOWN: dict[type, Backend] = {JaxPart: PARTS}


def find(cls: type) -> Backend | None:
    return BACKEND if issubclass(cls, (jax.Array, jax.core.Tracer)) else None


# not register_dataclass, which sorts names: a report keeps the order of penalties and metrics through a jit
def _register(cls: Any) -> None:
    def with_keys(node: Any) -> tuple[Any, Any]:
        children, static = node._tree_flatten()
        return list(zip(map(jax.tree_util.DictKey, node._tree_keys()), children, strict=True)), static

    jax.tree_util.register_pytree_with_keys(cls, with_keys, cls._tree_unflatten, cls._tree_flatten)


watch_nodes(_register)
