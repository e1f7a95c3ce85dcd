"""Pass arrays from one framework to another and back, by DLPack."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import array_api_compat

__all__ = ["Exchange"]


class Exchange:
    """Exports and imports arrays of a framework, without a copy if the two frameworks can share memory."""

    def __init__(self, xp: Any) -> None:
        self.xp = xp

    def exported(self, x: Any) -> Any:
        """Return an array of this library in a form that others can import by DLPack, or None if they cannot.

        Copy it if a stride is negative or the strides are unknown: PyTorch's from_dlpack ends the process at a negative
        stride.
        """
        strides = getattr(x, "strides", None)
        return self.xp.asarray(x, copy=True) if strides is None or any(stride < 0 for stride in strides) else x

    def borrowed(self, x: Any) -> Any:
        """Return an array of another library as one of this library."""
        return self.xp.from_dlpack(x)

    def borrowing(self) -> AbstractContextManager[Any]:
        """Return a context manager that is active while this library works on borrowed arrays."""
        return nullcontext()

    def return_to(self, owner: Any, x: Any, device: Any) -> Any:
        """Return an array of this library as an array of `owner`, on `device`."""
        returned = owner.xp.from_dlpack(x)
        return returned if owner.device(returned) == device else array_api_compat.to_device(returned, device)
