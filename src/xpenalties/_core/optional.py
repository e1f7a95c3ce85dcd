"""Check which optional packages are imported or installed, and raise errors that say how to install one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

__all__ = ["is_imported", "is_installed", "require"]

#: A name in each framework's module. It is missing if the import failed, or if another thread is still importing.
_NAMES = {
    "torch": "Tensor",
    "torch.distributed.fsdp": "FSDPModule",
    "jax": "Array",
    "numpy": "ndarray",
    "cupy": "ndarray",
    "autograd": "grad",
    "dask.array": "Array",
}


def is_imported(framework: str) -> bool:
    """Return True if a framework is imported. An empty module, as a failed import leaves it, does not count."""
    return hasattr(sys.modules.get(framework), _NAMES[framework])


def is_installed(framework: str) -> bool:
    """Return True if a framework can be imported."""
    if framework in sys.modules and not is_imported(framework):
        return False
    return find_spec(framework) is not None


@contextmanager
def require(package: str, *, needed_by: str, install: str, remedy: str = "") -> Iterator[None]:
    """Turn an ImportError inside the block into a ModuleNotFoundError that gives the pip command.

    Parameters
    ----------
    package : str
        The package's name for readers: ``"JAX"``.
    needed_by : str
        The module or method that needs it.
    install : str
        The requirement for pip: ``"xpenalties[jax]"``.
    remedy : str, default ""
        Appended to the pip command: another package to install, or a way to do without.

    Examples
    --------
    >>> with require("JAX", needed_by=__name__, install="xpenalties[jax]"):
    ...     import jax
    """
    try:
        yield
    except ImportError as error:  # also if another package has the same name and lacks the attribute
        requirement = f'"{install}"' if "[" in install else install  # some shells expand brackets
        raise ModuleNotFoundError(
            f"{needed_by} needs {package}. Install it: pip install {requirement}{remedy}.", name=error.name
        ) from error
