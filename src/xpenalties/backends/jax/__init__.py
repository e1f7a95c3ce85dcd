"""The JAX backend."""

from ._backend import BACKEND, KNOWN, find, is_tree, parameters_of

__all__ = ["BACKEND", "KNOWN", "find", "is_tree", "parameters_of"]
