"""The size of the blocks of rows that penalties are evaluated in.

NumPy, CuPy and eager PyTorch evaluate a penalty that has one term for each row on a few rows at a time, with the same
formula. Intermediate results then stay in the cache, and never exist for all rows. A compiler fuses operations better
than this, so it gets all rows at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

from .._core.shown import shown

__all__ = ["AUTOMATIC", "BLOCK_SIZE", "LEAST", "PART", "block_size", "keep_pages"]

AUTOMATIC = 0
LEAST = 2**18  # elements; smaller arrays fit into a CPU's caches
PART = 2**22  # elements of a half-precision weight to cast to float32 at once
#: Elements in a block, as `block_size` sets it. AUTOMATIC: chosen for the device. None: no blocks.
BLOCK_SIZE: ContextVar[int | None] = ContextVar("BLOCK_SIZE", default=AUTOMATIC)


@contextmanager
def block_size(elements: int | None) -> Iterator[None]:
    """Set the size of the blocks of rows that penalties are evaluated in.

    By default, the size is chosen for the device. The value is the same for every size, up to rounding.

    NumPy, CuPy and eager PyTorch evaluate penalties with one term for each row in blocks: `group_lasso`, `z_loss`,
    `consistency` with "cosine", "kl" or "js", and all divergences and entropies except `sampled_kl`. If PyTorch needs a
    gradient, it runs each block forward and backward at once, so nothing as large as the inputs is stored except their
    gradients. The same holds for `linear_log_probabilities`. JAX uses blocks only for the functions whose names begin
    with ``linear_``, also under jax.jit. torch.compile gets all rows at once.

    Parameters
    ----------
    elements : int or None
        Maximum number of elements in a block, counted in one input or in the logits. A block has at least one row. None
        means no blocks.

    Raises
    ------
    TypeError, ValueError
        If `elements` is neither None nor an integer >= 1.

    Notes
    -----
    The size applies inside the `with` block, in this thread or asyncio task and in the threads that a pipeline starts
    there. A function compiled by jax.jit keeps the size that it was compiled with.

    Examples
    --------
    >>> log_p = np.log(np.full((1000, 4), 0.25))
    >>> with block_size(2**10):
    ...     round(float(entropy(log_p)), 4)
    1.3863
    """
    if elements is not None:
        if isinstance(elements, bool) or not isinstance(elements, int):
            raise TypeError(
                f"block_size: `elements` must be an integer or None, got {shown(elements)}. Pass a Python int."
            )
        if elements < 1:
            raise ValueError(f"block_size: `elements` must be at least 1, got {elements}. Pass None for no blocks.")
    token = BLOCK_SIZE.set(elements)
    try:
        yield
    finally:
        BLOCK_SIZE.reset(token)


@cache
def keep_pages(empty: Callable[[int], Any]) -> None:
    """Make the C library keep the memory that a block frees, for the next block. `empty(n)` allocates n bytes.

    glibc returns free memory at the end of its heap to the system if it exceeds a limit: twice the largest allocation
    that the process has freed so far. Only allocations of up to 32 MiB raise the limit (mallopt(3), M_MMAP_THRESHOLD).
    So this function allocates and frees almost 32 MiB. Otherwise each block would get new pages. The system zeroes them
    first, which takes longer than computing the block.
    """
    empty(2**25 - 2**16)
