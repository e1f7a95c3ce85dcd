"""The fast path of programs for the CPU: evaluate without guards, and again with guards if the result is not finite.

XLA's CPU compiler fuses a product into a sum, but not a selection (`where`). A selection stores an array as large as
the inputs, and KL takes four times as long. Under jax.vmap, formulas keep their guards, because both branches would
run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.custom_derivatives import SymbolicZero

from .._fast_path import without_guards

__all__ = ["evaluated"]

Function = Callable[..., Any]


def evaluated(
    formula: Function, arrays: tuple[Any, ...], options: Mapping[str, Any], *, axis: int | None = None
) -> Any:
    """Evaluate a formula, on the fast path if it has guards.

    Pass `axis` if each term depends on one row along that axis only. Then first derivatives use the fast path too.
    """
    traced = tuple(name for name, value in options.items() if isinstance(value, jax.Array))
    args = (*arrays, *(options[name] for name in traced))
    # the functions below outlive this call as a part of JAX's program, so they must not hold a tracer
    count, static = len(arrays), {name: value for name, value in options.items() if name not in traced}

    def split(args: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return tuple(args[:count]), {**static, **dict(zip(traced, args[count:], strict=True))}

    def guarded(*args: Any) -> Any:
        arrays, options = split(args)
        return formula(*arrays, **options)

    def unguarded(*args: Any) -> Any:
        return without_guards(formula, *split(args))[0]

    if not _has_guards(formula, split, args):
        return guarded(*args)
    return _fast(guarded, unguarded, args, None if axis is None else _Rows(axis, count))


def _has_guards(formula: Function, split: Function, args: tuple[Any, ...]) -> bool:
    """Return True if the formula has guards to skip."""
    skipped = False

    def run(*args: Any) -> Any:
        nonlocal skipped
        result, skipped = without_guards(formula, *split(args))
        return result

    jax.eval_shape(run, *args)
    return skipped


class _Rows(NamedTuple):
    axis: int  # along which a row lies
    arguments: int  # how many of the first arguments hold rows


def _fast(guarded: Function, unguarded: Function, args: tuple[Any, ...], rows: _Rows | None) -> Any:
    """Evaluate without guards on the CPU if the first result is finite.

    First derivatives with respect to `rows` alone use the fast path. All other derivatives are those of the formula
    with guards.
    """

    def on_cpu(*args: Any) -> Any:
        results = unguarded(*args)
        is_finite = jnp.all(jnp.isfinite(jax.tree_util.tree_leaves(results)[0]))
        return jax.lax.cond(is_finite, lambda *_: results, guarded, *args)

    @custom_vmap
    def single(*args: Any) -> Any:
        return jax.lax.platform_dependent(*args, cpu=on_cpu, default=guarded)

    @single.def_vmap
    def batch(_: int, batched: Sequence[bool], *args: Any) -> tuple[Any, Any]:
        results = jax.vmap(guarded, [0 if is_batched else None for is_batched in batched])(*args)
        return results, jax.tree_util.tree_map(lambda _: True, results)

    @jax.custom_jvp
    def results(*args: Any) -> Any:
        return single(*args)

    def jvp(args: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
        varied = [i for i, tangent in enumerate(tangents) if not isinstance(tangent, SymbolicZero)]
        directions = [tangents[i] for i in varied]
        if rows is not None and varied[-1] < rows.arguments:
            terms, *slopes = _fast(_with_slopes(guarded, varied), _with_slopes(unguarded, varied), args, None)
            products = [jnp.sum(a * b, axis=rows.axis) for a, b in zip(slopes, directions, strict=True)]
            return terms, sum(products[1:], start=products[0])
        return jax.jvp(_of(guarded, args, varied), [args[i] for i in varied], directions)

    results.defjvp(jvp, symbolic_zeros=True)
    return results(*args)


def _of(function: Function, args: tuple[Any, ...], varied: list[int]) -> Function:
    """Return a function of the arguments that are differentiated. The others are fixed."""

    def of_varied(*values: Any) -> Any:
        new = dict(zip(varied, values, strict=True))
        return function(*(new.get(i, x) for i, x in enumerate(args)))

    return of_varied


def _with_slopes(function: Function, varied: list[int]) -> Function:
    """Return a function that computes the terms, and the gradient of each term with respect to its rows."""

    def terms_and_slopes(*args: Any) -> Any:
        terms, pull = jax.vjp(_of(function, args, varied), *(args[i] for i in varied))
        return terms, *pull(jnp.ones_like(terms))

    return terms_and_slopes
