"""The Dask backend."""

from ._backend import KNOWN, find

__all__ = ["KNOWN", "find"]
