"""Hide parameters that only exist to refuse arguments, with errors that are clearer than Python's."""

from __future__ import annotations

import inspect
from typing import Any

__all__ = ["hide_parameters"]


def hide_parameters(function: Any, *names: str) -> None:
    """Remove parameters from the signature that editors and the documentation show."""
    signature = inspect.signature(function)
    visible = [parameter for name, parameter in signature.parameters.items() if name not in names]
    function.__signature__ = signature.replace(parameters=visible)
