"""The PyTorch backend."""

from ._backend import BACKEND, KNOWN, PARTS
from ._jagged import REFUSED, find
from ._parts import group_of

__all__ = ["BACKEND", "KNOWN", "PARTS", "REFUSED", "find", "group_of"]
