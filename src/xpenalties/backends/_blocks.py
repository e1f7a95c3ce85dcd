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
LEAST = 2**18  # elements: smaller arrays stay in the caches of a CPU as a whole
#: Elements of a block as `block_size` says; AUTOMATIC: as the device likes it, None: no blocks.
BLOCK_SIZE: ContextVar[int | None] = ContextVar("BLOCK_SIZE", default=AUTOMATIC)


@contextmanager
def block_size(elements: int | None) -> Iterator[None]:
    """Set the size of blocks in which penalties of rows are evaluated, in place of the one chosen for the device.

    NumPy, CuPy and eager PyTorch evaluate penalties with one term for each row (all divergences but `sampled_kl`,
    `group_lasso`, `consistency` by "cosine", "kl" and "js") a block of rows at a time, and forward and backward at once
    if PyTorch needs a gradient: nothing as large as the inputs is stored except their gradients. The divergences of
    linear maps are evaluated in blocks by JAX and under torch.compile too. The value is the same up to rounding.

    Parameters
    ----------
    elements : int or None
        Maximal number of elements of an input, or logits, in a block, which has at least one row. None: no blocks.

    Raises
    ------
    TypeError, ValueError
        If `elements` is not None or an integer >= 1.

    Notes
    -----
    It holds inside the `with` block, for this thread or asyncio task, and for threads that a pipeline starts there.
    Functions that torch.compile and jax.jit have compiled keep the size that they were compiled with.

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
    """Make the C library keep the memory that one block frees for the next one. `empty` allocates so many bytes.

    glibc returns free memory at the end of its heap to the system if it is more than twice the largest allocation, of
    up to 32 MiB, that the process has freed so far (mallopt(3), M_MMAP_THRESHOLD). So one is freed here. Pages that
    come back from the system are zeroed, which takes longer than the computation of a block.
    """
    empty(2**25 - 2**16)
