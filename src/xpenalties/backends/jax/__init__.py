"""jax."""

from ._backend import BACKEND, KNOWN, find, is_nest

__all__ = ["BACKEND", "KNOWN", "find", "is_nest"]
