"""The fast path of programs for the CPU: evaluate without guards, and again with guards if the result is not finite.

XLA's CPU compiler fuses a product into a sum, but not a selection (`where`). A selection stores an array as large as
the inputs, and KL takes four times as long. This concerns values only. Derivatives are those of the formula with
guards, which cost no more. Values under jax.vmap use guards too, because both branches would run there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.custom_derivatives import SymbolicZero

from .._fast_path import without_guards

__all__ = ["evaluated"]


def evaluated(formula: Callable[..., Any], arrays: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    """Evaluate a formula, on the fast path if it has guards."""
    traced = tuple(name for name, value in options.items() if isinstance(value, jax.Array))
    args = (*arrays, *(options[name] for name in traced))

    def split(args: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        traced_options = dict(zip(traced, args[len(arrays) :], strict=True))
        return tuple(args[: len(arrays)]), {**options, **traced_options}

    def guarded(*args: Any) -> Any:
        arrays, options = split(args)
        return formula(*arrays, **options)

    def fast(*args: Any) -> Any:
        result, _ = without_guards(formula, *split(args))
        return jax.lax.cond(jnp.all(jnp.isfinite(result)), lambda *_: result, guarded, *args)

    return _with_fast_values(guarded, fast, args) if _has_guards(formula, split, args) else guarded(*args)


def _has_guards(formula: Callable[..., Any], split: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    """Return True if the formula has guards to skip."""
    skipped = False

    def run(*args: Any) -> Any:
        nonlocal skipped
        result, skipped = without_guards(formula, *split(args))
        return result

    jax.eval_shape(run, *args)
    return skipped


def _with_fast_values(guarded: Callable[..., Any], fast: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Return the fast value on the CPU, with the derivatives and the batching of the guarded formula."""

    @custom_vmap
    def single(*args: Any) -> Any:
        return jax.lax.platform_dependent(*args, cpu=fast, default=guarded)

    @single.def_vmap
    def batch(_: int, batched: Sequence[bool], *args: Any) -> tuple[Any, bool]:
        return jax.vmap(guarded, [0 if is_batched else None for is_batched in batched])(*args), True

    @jax.custom_jvp
    def terms(*args: Any) -> Any:
        return single(*args)

    def jvp(args: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
        varied = [i for i, tangent in enumerate(tangents) if not isinstance(tangent, SymbolicZero)]

        def of_varied(*values: Any) -> Any:
            new = dict(zip(varied, values, strict=True))
            return guarded(*(new.get(i, x) for i, x in enumerate(args)))

        return jax.jvp(of_varied, [args[i] for i in varied], [tangents[i] for i in varied])

    terms.defjvp(jvp, symbolic_zeros=True)
    return terms(*args)
