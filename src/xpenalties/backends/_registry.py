"""Find the backend of an array, in a dictionary from types to backends that is filled when a type is first seen.

A lookup takes a tenth of the time of `array_api_compat.array_namespace`, and torch.compile traces it without a warning.
A framework's file is imported when the first of its arrays appears, so `import xpenalties` imports no framework.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import array_api_compat

from .._core.dynamo import in_dynamo
from .._core.optional import is_imported, is_installed
from .._core.pytrees import Rebuild, flatten, flatten_with_paths, paths_of_instances
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

# torch first: torch.compile may have to trace the search; dask before numpy, of whose arrays it has a subclass
_FRAMEWORKS = ("torch", "jax", "dask.array", "numpy", "cupy")
_BACKENDS: dict[type, Backend] = {}  # entries are written whole, so threads can share it
_GENERIC: dict[Any, Backend] = {}


def register_loaded() -> None:
    """Register the backends of frameworks that are imported already, so that no trace has to do it."""
    if in_dynamo():  # pragma: no cover - a check of imports would make torch.compile compile again after any import
        return
    _BACKENDS.update(_loaded())


def _loaded() -> dict[type, Backend]:
    """Return the array types, and their backends, of all frameworks that are imported already."""
    loaded = filter(is_imported, _FRAMEWORKS)
    return {cls: backend for name in loaded for cls, backend in _module(name).KNOWN.items()}


def _module(name: str) -> Any:
    """Import the backend of a framework. By import statements, because torch.compile cannot trace import_module."""
    if name == "numpy":
        from . import numpy as module
    elif name == "torch":
        from . import torch as module  # type: ignore[no-redef]
    elif name == "jax":
        from . import jax as module  # type: ignore[no-redef]
    elif name == "dask.array":
        from . import dask as module  # type: ignore[no-redef]
    else:  # pragma: no cover - imports cupy, which needs a CUDA device
        from . import cupy as module  # type: ignore[no-redef]
    return module


def flatten_of(tree: Any) -> tuple[list[Any], Rebuild]:
    """Return the leaves of a pytree and a function that rebuilds it. JAX flattens a tree with JAX arrays in it."""
    leaves, rebuild = flatten(tree)
    return _jax().flatten(tree) if _is_of_jax(leaves) else (leaves, rebuild)


def flatten_with_paths_of(tree: Any) -> tuple[list[Any], Rebuild, list[str]]:
    """Flatten like `flatten_of`. Also returns the path of each leaf: keys, fields and indices, joined with dots."""
    leaves, rebuild, paths = flatten_with_paths(tree)
    return _jax().flatten_with_paths(tree) if _is_of_jax(leaves) else (leaves, rebuild, paths)


def instances_in(tree: Any, classes: tuple[type, ...]) -> list[str]:
    """Return the paths of the outermost nodes of a tree that are instances of `classes`."""
    paths = paths_of_instances(tree, classes)
    return paths if paths or not is_imported("jax") else _module("jax").paths_of_instances(tree, classes)


def paths_of_none(tree: Any) -> list[str]:
    """Return the paths at which a pytree has None."""
    leaves, _, paths = flatten_with_paths(tree)
    if _is_of_jax(leaves):
        nones: list[str] = _module("jax").paths_of_none(tree)
        return nones
    return [path for path, leaf in zip(paths, leaves, strict=True) if leaf is None]


def _is_of_jax(leaves: list[Any]) -> bool:
    """Return True if JAX must flatten the pytree: it holds a JAX array, or a node that only JAX knows."""
    for leaf in leaves:
        backend = _BACKENDS.get(type(leaf))
        # a Flax variable has the methods of an array, but is a pytree
        is_unknown = leaf is not None and (backend is None or type(backend) is Backend)
        if is_unknown and not in_dynamo() and is_imported("jax") and _module("jax").is_tree(leaf):
            return True  # Dynamo cannot read JAX
        backend = backend_of(leaf)
        if backend is not None and backend.name == "jax":
            return True
    return False


def _jax() -> Backend:
    backend: Backend = _module("jax").BACKEND
    return backend


def parameters_of(tree: Any) -> Any:
    """Return a module's parameters by name, shared ones once. Any other tree is returned unchanged."""
    if not in_dynamo() and is_imported("jax"):  # Dynamo cannot read JAX
        parameters = _module("jax").parameters_of(tree)
        if parameters is not None:
            return parameters
    if isinstance(tree, Mapping) or not callable(getattr(type(tree), "named_parameters", None)):
        return tree
    return dict(tree.named_parameters())


def reshard(trees: Iterable[Any]) -> None:
    """Put the sharded parameters of FSDP2 back into the modules among `trees`.

    After a forward pass, a module may still hold whole parameters, whose memory FSDP frees in the next backward pass.
    Call this before the first of several backward passes, if parameters are read after it.
    """
    if not is_imported("torch.distributed.fsdp"):
        return
    from torch.distributed.fsdp import FSDPModule

    for tree in trees:
        for module in tree.modules() if callable(getattr(tree, "modules", None)) else ():
            if isinstance(module, FSDPModule):
                module.reshard()


def backend_of_shapes() -> Backend | None:
    """Return the backend for pytrees without arrays (empty, or shapes only): JAX's if it is imported, else None."""
    return _jax() if is_imported("jax") else None


def group_of(value: Any) -> Any:
    """Return the group of devices that an axis name or a process group stands for, or None for anything else."""
    names = ("jax",) if isinstance(value, str | tuple) else ("torch",)
    return next((_module(name).group_of(value) for name in names if is_imported(name)), None)


def part_backend_of(backend: Backend) -> Backend:
    """Return the backend of parts of arrays of `backend`, which is PyTorch's or JAX's."""
    parts: Backend = _module(backend.name).PARTS
    return parts


def backend_of(x: object) -> Backend | None:
    """Return the backend of one array, or None for anything else."""
    backend = _BACKENDS.get(type(x))
    return _discover(x) if backend is None else backend


def is_array(x: object) -> bool:
    """Return True if `x` is an array of any framework."""
    return backend_of(x) is not None


def is_array_beside(x: object, array: object) -> bool:
    """Return True if `x` counts as an array next to `array`.

    Next to arrays of other frameworks, a scalar or 0-d array of NumPy counts as a number.
    """
    backend, other = backend_of(x), backend_of(array)
    if backend is None or other is None:
        return False
    return backend.library == other.library or not is_numpy_number(x)


def is_numpy_number(x: Any) -> bool:
    """Return True if `x` is a scalar or 0-d array of NumPy, which counts as a number next to other arrays."""
    backend = backend_of(x)
    return backend is not None and backend.library == "numpy" and not backend.traces and x.shape == ()


def array_beside(x: Any, array: Any) -> Any:
    """Convert a scalar or 0-d array of NumPy, such as jax.device_get returns, to the framework of `array`.

    Return anything else unchanged. So an eager call takes the same arguments as a compiled one.
    """
    other = backend_of(array)
    if other is None or other.library == "numpy" or not is_numpy_number(x):
        return x
    value = x.item()
    dtype = (other.dtype(array.dtype).working or array.dtype) if isinstance(value, float) else None
    return other.xp.asarray(value, dtype=dtype, device=other.device(array))


def _discover(x: object) -> Backend | None:
    cls = type(x)
    if cls.__module__ == "builtins":
        return None
    for name in _FRAMEWORKS:  # the array's framework is imported already
        if is_imported(name):
            module = _module(name)
            if _remedy_of(cls, module) is not None:
                return None
            backend: Backend | None = module.find(cls)
            if backend is not None:
                # all types at once, because torch.compile recompiles when the dictionary grows
                loaded = {} if in_dynamo() else _loaded()
                _BACKENDS.update({**loaded, cls: backend})
                return backend
    if not array_api_compat.is_array_api_obj(x):
        return None
    xp = array_api_compat.array_namespace(x)
    backend = _GENERIC.setdefault(xp, Backend(cls.__module__.partition(".")[0], xp))
    _BACKENDS[cls] = backend
    return backend


def _remedy_of(cls: type, module: Any) -> str | None:
    """Return what to pass instead, if a framework's backend refuses arrays of this class, else None."""
    refused: dict[type, str] = getattr(module, "REFUSED", {})
    return next((remedy for base, remedy in refused.items() if issubclass(cls, base)), None)


def _not_an_array(function: str, name: str, x: object) -> TypeError:
    cls = type(x)
    loaded = [_module(framework) for framework in _FRAMEWORKS if is_imported(framework)]
    remedies = [remedy for module in loaded if (remedy := _remedy_of(cls, module)) is not None]
    remedy = "Pass a NumPy, CuPy, PyTorch or JAX array, or one of another library that follows the array API"
    return TypeError(
        f"{function}: `{name}` must be an array, got {cls.__module__}.{cls.__qualname__}. {[*remedies, remedy][0]}."
    )


def common_backend(function: str, names: Sequence[str], arrays: Sequence[object]) -> Backend:
    """Return the common backend of several arrays. Errors name the function and the argument."""
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
            raise _not_an_array(function, name, x)
        if common is None:
            common, first = backend, name
        elif backend.library != common.library:
            raise TypeError(
                f"{function}: `{first}` and `{name}` must be arrays of one framework, got {common.library} and "
                f"{backend.library}. Convert one of them first, with asarray or from_dlpack."
            )
        elif backend.traces or backend.ragged:  # their namespaces take plain arrays too
            common = backend
    assert common is not None  # callers pass at least one array
    return common


def namespace(*arrays: Any) -> Any:
    """Return the array API namespace of `arrays`, for functions that run on any framework.

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
        If an argument is not an array, or the arrays are of several frameworks.

    Examples
    --------
    >>> x = np.asarray([3.0, 4.0])
    >>> xp = namespace(x)
    >>> float(xp.sqrt(xp.sum(x * x)))
    5.0
    """
    if not arrays:
        raise TypeError("namespace: takes at least one array, got none. Pass the arrays to compute with.")
    cls = type(arrays[0])
    backend = _BACKENDS.get(cls)
    if backend is not None and (len(arrays) == 1 or (len(arrays) == 2 and type(arrays[1]) is cls)):
        return backend.xp
    return common_backend("namespace", [f"arrays[{i}]" for i in range(len(arrays))], arrays).xp


def autodiff_backend_of(owner: Backend) -> Backend:
    """Return the backend that differentiates arrays of `owner`: its own, or else PyTorch, or else JAX, by DLPack."""
    if owner.autodiff.differentiates():
        return owner
    if not hasattr(owner.xp, "from_dlpack"):
        raise NoAutodiffError(
            f"{owner.name} arrays have no automatic differentiation, and no DLPack to borrow it with. Convert them to "
            "PyTorch, JAX or NumPy arrays first."
        )
    name = next(filter(is_installed, ("torch", "jax")), None)
    if name is None:
        raise NoAutodiffError(
            f"{owner.name} arrays have no automatic differentiation {owner.autodiff.lacks}and there is neither PyTorch "
            f"nor JAX to borrow it from. Install one of them{owner.autodiff.remedy}."
        )
    backend: Backend = _module(name).BACKEND
    return backend
