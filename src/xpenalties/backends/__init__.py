"""Backends: which framework an array belongs to, and what it can do. One file or folder for each framework."""

from ._registry import (
    array_beside,
    autodiff_backend_of,
    backend_of,
    backend_of_shapes,
    common_backend,
    flatten_of,
    flatten_with_paths_of,
    in_dynamo,
    instances_in,
    is_array,
    is_array_beside,
    is_numpy_number,
    namespace,
    parameters_of,
    paths_of_none,
    register_loaded,
    reshard,
)
from .base import Backend, NoAutodiffError

__all__ = [
    "Backend",
    "NoAutodiffError",
    "backend_of",
    "backend_of_shapes",
    "common_backend",
    "flatten_of",
    "flatten_with_paths_of",
    "in_dynamo",
    "instances_in",
    "array_beside",
    "is_array",
    "is_array_beside",
    "is_numpy_number",
    "autodiff_backend_of",
    "namespace",
    "parameters_of",
    "paths_of_none",
    "register_loaded",
    "reshard",
]
