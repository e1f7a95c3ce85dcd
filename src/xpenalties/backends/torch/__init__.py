"""The PyTorch backend."""

from ._backend import BACKEND, KNOWN
from ._jagged import REFUSED, find

__all__ = ["BACKEND", "KNOWN", "REFUSED", "find"]
