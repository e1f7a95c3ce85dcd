"""The size of blocks of rows.

NumPy, CuPy and eager PyTorch evaluate a penalty of rows on a few rows at a time, by the same formula: what it needs
between inputs and terms stays in the cache, and never exists for all rows. A compiler fuses operations better than
that, and gets all rows at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

__all__ = ["AUTOMATIC", "BLOCK_SIZE", "LEAST", "block_size", "keep_pages"]

AUTOMATIC = 0
LEAST = 2**18  # elements: what is smaller stays in the caches of a CPU as a whole
#: Elements of a block as `block_size` says; AUTOMATIC: as the device likes it, None: no blocks.
BLOCK_SIZE: ContextVar[int | None] = ContextVar("BLOCK_SIZE", default=AUTOMATIC)


@contextmanager
def block_size(elements: int | None) -> Iterator[None]:
    """Evaluate penalties of rows in blocks of another size than the one chosen for the device.

    NumPy, CuPy and eager PyTorch evaluate penalties with one term for each row (all divergences but `sampled_kl`,
    `group_lasso`, `consistency` by "cosine", "kl" and "js") a block of rows at a time, and forward and backward at once
    where PyTorch wants a gradient: nothing as large as the inputs is stored but their gradients. The divergences of
    linear maps are evaluated so in JAX and under torch.compile too. The value is the same but for rounding.

    Parameters
    ----------
    elements : int or None
        How many elements of an input, or logits, a block has at most, but for one row at least; None: never in blocks.

    Raises
    ------
    TypeError, ValueError
        For what is not an integer >= 1 or None.

    Notes
    -----
    Holds for what this thread, or asyncio task, calls within the block, and for the threads that a pipeline starts
    there. What torch.compile and jax.jit have compiled keeps the size it was compiled with.

    Examples
    --------
    >>> log_p = np.log(np.full((1000, 4), 0.25))
    >>> with block_size(2**10):
    ...     round(float(entropy(log_p)), 4)
    1.3863
    """
    if elements is not None:
        if isinstance(elements, bool) or not isinstance(elements, int):
            raise TypeError(f"block_size: `elements` must be an integer or None, got {elements!r}. Pass a Python int.")
        if elements < 1:
            raise ValueError(f"block_size: `elements` must be 1 at least, got {elements}. Pass None for no blocks.")
    token = BLOCK_SIZE.set(elements)
    try:
        yield
    finally:
        BLOCK_SIZE.reset(token)


@cache
def keep_pages(empty: Callable[[int], Any]) -> None:
    """Have the C library keep the memory that one block frees for the next one; `empty` allocates so many bytes.

    glibc gives back what is free at the end of its heap, if that is more than twice the largest allocation of up to
    32 MiB that the process has freed so far (mallopt(3), M_MMAP_THRESHOLD): here is one. Pages that come again from the
    system are zeroed, which takes longer than what blocks compute.
    """
    empty(2**25 - 2**16)
