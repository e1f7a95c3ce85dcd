"""The PyTorch backend."""

from ._backend import BACKEND, KNOWN, find

__all__ = ["BACKEND", "KNOWN", "find"]
