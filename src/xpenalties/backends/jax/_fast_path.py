"""Formulas in programs for the CPU: without care, and with it where the result asks for it.

XLA's CPU compiler fuses a product into a sum, but a selection it does not: with one, an array as large as the inputs is
kept, and KL takes four times as long. That is for values. Derivatives are those of the formula with all its care, which
cost no more, and so are values under jax.vmap, where both ways would be taken.
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
    """What a formula returns."""
    traced = tuple(name for name, value in options.items() if isinstance(value, jax.Array))
    given = (*arrays, *(options[name] for name in traced))

    def split(given: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        own = dict(zip(traced, given[len(arrays) :], strict=True))
        return tuple(given[: len(arrays)]), {**options, **own}

    def careful(*given: Any) -> Any:
        own, options = split(given)
        return formula(*own, **options)

    def tried(*given: Any) -> Any:
        found, _ = without_guards(formula, *split(given))
        return jax.lax.cond(jnp.all(jnp.isfinite(found)), lambda *_: found, careful, *given)

    return _evaluated(careful, tried, given) if _takes_care(formula, split, given) else careful(*given)


def _takes_care(formula: Callable[..., Any], split: Callable[..., Any], given: tuple[Any, ...]) -> bool:
    """Whether there is anything to leave out."""
    asked = False

    def ask(*given: Any) -> Any:
        nonlocal asked
        found, asked = without_guards(formula, *split(given))
        return found

    jax.eval_shape(ask, *given)
    return asked


def _evaluated(careful: Callable[..., Any], tried: Callable[..., Any], given: tuple[Any, ...]) -> Any:
    @custom_vmap
    def one(*given: Any) -> Any:
        return jax.lax.platform_dependent(*given, cpu=tried, default=careful)

    @one.def_vmap
    def many(_: int, batched: Sequence[bool], *given: Any) -> tuple[Any, bool]:
        return jax.vmap(careful, [0 if each else None for each in batched])(*given), True

    @jax.custom_jvp
    def terms(*given: Any) -> Any:
        return one(*given)

    def jvp(given: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
        moved = [i for i, tangent in enumerate(tangents) if not isinstance(tangent, SymbolicZero)]

        def of(*some: Any) -> Any:
            new = dict(zip(moved, some, strict=True))
            return careful(*(new.get(i, x) for i, x in enumerate(given)))

        return jax.jvp(of, [given[i] for i in moved], [tangents[i] for i in moved])

    terms.defjvp(jvp, symbolic_zeros=True)
    return terms(*given)
