"""Import optional packages: if an import fails, the error says what needs the package and how to install it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["require"]


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
