"""The JAX backend."""

from ._backend import BACKEND, KNOWN, PARTS, find, is_tree, parameters_of, paths_of_instances, paths_of_none
from ._parts import group_of

__all__ = [
    "BACKEND",
    "KNOWN",
    "PARTS",
    "find",
    "group_of",
    "is_tree",
    "parameters_of",
    "paths_of_instances",
    "paths_of_none",
]
