"""Packages that only some functions need."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["require"]


def require(caller: str, module: str, remedy: str) -> Any:
    """Import a module, or raise an error that names the caller and how to install it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{caller}: {module} must be installed, got {error}. {remedy}") from error
