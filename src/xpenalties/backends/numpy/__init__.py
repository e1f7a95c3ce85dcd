"""The NumPy backend."""

from ._backend import KNOWN, REFUSED, find

__all__ = ["KNOWN", "REFUSED", "find"]
