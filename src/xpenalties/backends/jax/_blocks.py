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
    step = max(1, elements * rows // work.size())
    count = -(-rows // step)

    def cut(x: Any) -> Any:
        flat = jnp.reshape(x, (rows, *x.shape[features:]))
        return jnp.reshape(jnp.pad(flat, ((0, count * step - rows), (0, 0))), (count, step, *x.shape[features:]))

    def terms(block: Any) -> Any:
        mask, *rows_of_block = block
        remaining = iter(rows_of_block)
        return work.terms(tuple(x if i in work.matrices else next(remaining) for i, x in enumerate(work.arrays)), mask)

    blocks = [cut(x) for i, x in enumerate(work.arrays) if i not in work.matrices]
    mask = None if work.mask is None else cut(work.mask)
    padded = jax.lax.map(jax.checkpoint(terms), (mask, *blocks))
    return jnp.reshape(jnp.reshape(padded, (-1,))[:rows], work.terms_shape)
