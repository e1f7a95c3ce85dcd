"""jax."""

from ._backend import BACKEND, KNOWN, find, is_nest, parameters_of

__all__ = ["BACKEND", "KNOWN", "find", "is_nest", "parameters_of"]
