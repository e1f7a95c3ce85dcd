"""The JAX backend."""

from ._backend import BACKEND, KNOWN, find, is_tree, parameters_of, paths_of_instances, paths_of_none

__all__ = ["BACKEND", "KNOWN", "find", "is_tree", "parameters_of", "paths_of_instances", "paths_of_none"]
