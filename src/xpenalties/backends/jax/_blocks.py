"""Evaluate linear maps in blocks of rows, so that the logits never exist for all rows."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from .._work import Work

__all__ = ["mapped"]


def mapped(work: Work, elements: int) -> Any:
    """Evaluate the terms of a linear map block by block; the backward pass evaluates each block again."""
    rows, features = math.prod(work.terms_shape), work.arrays[0].ndim - 1
    step = max(1, elements // work.classes_of_row)
    # float32 at least, because JAX sums the gradients of a weight in its dtype
    maps = {i: jnp.astype(x, jnp.result_type(x, jnp.float32)) for i, x in enumerate(work.arrays) if i in work.matrices}
    count = -(-rows // step)

    def cut(x: Any) -> Any:
        flat = jnp.reshape(x, (rows, *x.shape[features:]))
        return jnp.reshape(jnp.pad(flat, ((0, count * step - rows), (0, 0))), (count, step, *x.shape[features:]))

    def terms(block: Any) -> Any:
        mask, *rows_of_block = block
        remaining = iter(rows_of_block)
        return work.terms(tuple(maps[i] if i in maps else next(remaining) for i in range(len(work.arrays))), mask)

    blocks = [cut(x) for i, x in enumerate(work.arrays) if i not in maps]
    mask = None if work.mask is None else cut(work.mask)
    padded = jax.lax.map(jax.checkpoint(terms), (mask, *blocks))
    return jnp.reshape(jnp.reshape(padded, (-1, *work.values))[:rows], work.terms_shape + work.values)
