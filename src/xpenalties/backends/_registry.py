"""Whose arrays are these: a dictionary from type to backend, filled on first sight.

A look-up costs a tenth of what `array_api_compat.array_namespace` does, and torch.compile traces it without a
warning. A framework's file is imported when an array of it turns up, so `import xpenalties` imports none of them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from numbers import Real
from typing import Any

import array_api_compat

from .._core.dynamo import in_dynamo
from .._core.pytrees import Rebuild, flatten, flatten_with_paths
from .base import Backend, NoAutodiffError

__all__ = [
    "Backend",
    "NoAutodiffError",
    "backend_of",
    "common_backend",
    "flatten_of",
    "flatten_with_paths_of",
    "in_dynamo",
    "is_array",
    "is_array_beside",
    "lender_of",
    "namespace",
    "register_loaded",
]

_FRAMEWORKS = ("torch", "jax", "numpy", "cupy")  # torch first: torch.compile may have to trace the search
_BACKENDS: dict[type, Backend] = {}  # written whole entries at a time, so threads can share it
_GENERIC: dict[Any, Backend] = {}


def register_loaded() -> None:
    """Prepare the backends whose frameworks are imported already, so that nothing is left to do in a trace."""
    _BACKENDS.update(_loaded())


def _loaded() -> dict[type, Backend]:
    """The array types of all frameworks that are imported already."""
    loaded = [name for name in _FRAMEWORKS if sys.modules.get(name) is not None]  # None: tests block an import so
    return {cls: backend for name in loaded for cls, backend in _module(name).KNOWN.items()}


def _module(name: str) -> Any:
    """This package's file for a framework. Import statements, for torch.compile cannot trace import_module."""
    if name == "numpy":
        from . import numpy as module
    elif name == "torch":
        from . import torch as module  # type: ignore[no-redef]
    elif name == "jax":
        from . import jax as module  # type: ignore[no-redef]
    else:  # pragma: no cover - imports cupy, which needs a CUDA device
        from . import cupy as module  # type: ignore[no-redef]
    return module


def flatten_of(nest: Any) -> tuple[list[Any], Rebuild]:
    """The leaves of a nest and the way back, by the framework of its arrays where that has nests of its own: JAX."""
    leaves, rebuild = flatten(nest)
    return _jax().flatten(nest) if _is_of_jax(leaves) else (leaves, rebuild)


def flatten_with_paths_of(nest: Any) -> tuple[list[Any], Rebuild, list[str]]:
    """The same, and where each leaf is, with dots between keys, fields and indices."""
    leaves, rebuild, paths = flatten_with_paths(nest)
    return _jax().flatten_with_paths(nest) if _is_of_jax(leaves) else (leaves, rebuild, paths)


def _is_of_jax(leaves: list[Any]) -> bool:
    """Whether JAX is to say what a nest is made of: where its arrays are in it, or it alone may know."""
    asked = sys.modules.get("jax") is not None and not in_dynamo()  # which cannot read JAX
    for leaf in leaves:
        known = _BACKENDS.get(type(leaf))
        # a variable of Flax's has an array's methods, and is a nest
        unknown = leaf is not None and (known is None or type(known) is Backend)
        if unknown and asked and _module("jax").is_nest(leaf):
            return True
        backend = backend_of(leaf)
        if backend is not None and backend.name == "jax":
            return True
    return False


def _jax() -> Backend:
    backend: Backend = _module("jax").BACKEND
    return backend


def backend_of(x: object) -> Backend | None:
    """The backend of one array, or None for what is no array."""
    backend = _BACKENDS.get(type(x))
    return _discover(x) if backend is None else backend


def is_array(x: object) -> bool:
    """Whether `x` is an array of a framework that is known."""
    return backend_of(x) is not None


def is_array_beside(x: object, array: object) -> bool:
    """Whether `x` is an array where `array` is one: NumPy's scalars are, but numbers beside another framework's."""
    backend, other = backend_of(x), backend_of(array)
    if backend is None or other is None:
        return False
    return backend.library == other.library or not isinstance(x, Real)


def _discover(x: object) -> Backend | None:
    cls = type(x)
    if cls.__module__ == "builtins":
        return None
    for name in _FRAMEWORKS:  # an array's framework has been imported
        if sys.modules.get(name) is not None:
            module = _module(name)
            if issubclass(cls, getattr(module, "REFUSED", ())):
                return None
            backend: Backend | None = module.find(cls)
            if backend is not None:
                known = (
                    {} if in_dynamo() else _loaded()
                )  # all at once: torch.compile compiles again where there are more
                _BACKENDS.update({**known, cls: backend})
                return backend
    if not array_api_compat.is_array_api_obj(x):
        return None
    xp = array_api_compat.array_namespace(x)
    backend = _GENERIC.setdefault(xp, Backend(cls.__module__.partition(".")[0], xp))
    _BACKENDS[cls] = backend
    return backend


def common_backend(function: str, names: Sequence[str], arrays: Sequence[object]) -> Backend:
    """The one backend of several arrays; the errors name the function and the argument."""
    cls = type(arrays[0])
    common = _BACKENDS.get(cls)
    if common is not None and (len(arrays) == 1 or (len(arrays) == 2 and type(arrays[1]) is cls)):
        return common
    common = None
    for name, x in zip(names, arrays, strict=True):
        backend = _BACKENDS.get(type(x)) or _discover(x)
        if backend is common and backend is not None:
            continue
        if backend is None:
            raise TypeError(
                f"{function}: `{name}` must be an array, got {type(x).__module__}.{type(x).__qualname__}. "
                "Pass a NumPy, CuPy, PyTorch or JAX array, or one of another library that follows the array API."
            )
        if common is None:
            common, first = backend, name
        elif backend.library != common.library:
            raise TypeError(
                f"{function}: `{first}` and `{name}` must be arrays of one framework, got {common.library} and "
                f"{backend.library}. Convert one of them first, with asarray or from_dlpack."
            )
        elif backend.traces:  # it takes plain arrays too, the plain namespace takes no tracers
            common = backend
    assert common is not None  # callers pass at least one array
    return common


def namespace(*arrays: Any) -> Any:
    """The array API namespace of `arrays`, for functions that should run on any framework.

    Parameters
    ----------
    *arrays : array
        One or more arrays of one framework. Arrays that autograd traces may be mixed with plain NumPy ones.

    Returns
    -------
    module
        A namespace with the functions of the Python array API standard.

    Raises
    ------
    TypeError
        For something that is no array, or for arrays of several frameworks.

    Examples
    --------
    >>> x = np.asarray([3.0, 4.0])
    >>> xp = namespace(x)
    >>> float(xp.sqrt(xp.sum(x * x)))
    5.0
    """
    if not arrays:
        raise TypeError("namespace: takes one array at least, got none. Pass the arrays to compute with.")
    cls = type(arrays[0])
    backend = _BACKENDS.get(cls)
    if backend is not None and (len(arrays) == 1 or (len(arrays) == 2 and type(arrays[1]) is cls)):
        return backend.xp
    return common_backend("namespace", [f"arrays[{i}]" for i in range(len(arrays))], arrays).xp


def lender_of(owner: Backend) -> Backend:
    """The backend whose `vjp` serves arrays of `owner`: itself, or PyTorch, or else JAX, which take them by DLPack."""
    if owner.autodiff.differentiates():
        return owner
    if not hasattr(owner.xp, "from_dlpack"):
        raise NoAutodiffError(
            f"{owner.name} arrays have no automatic differentiation, and no DLPack to borrow it by. Convert them to "
            "PyTorch, JAX or NumPy arrays first."
        )
    lender = next((name for name in ("torch", "jax") if find_spec(name) is not None), None)
    if lender is None:
        raise NoAutodiffError(
            f"{owner.name} arrays have no automatic differentiation {owner.autodiff.lacks}and there is neither PyTorch "
            f"nor JAX to borrow it from. Install one of them{owner.autodiff.remedy}."
        )
    backend: Backend = _module(lender).BACKEND
    return backend
