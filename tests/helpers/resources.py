"""Limits of the operating system, as a machine reaches them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["full_disk"]


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Let no file become larger than `size` bytes. The system writes as much, and then fails, as on a full disk.

    The limit is the process's. So keep it out of fixtures: pytest could not write its own output if that is a file.
    """
    import resource  # only POSIX systems have it

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
