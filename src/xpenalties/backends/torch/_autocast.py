"""Switch autocast off: for products that would lose digits, and for backward passes.

PyTorch runs the backward pass of an operation in the dtype that autocast chose for it, if the pass runs outside of
autocast. Inside, autocast would also cast the operations of the pass itself.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

__all__ = ["without_autocast"]


def without_autocast(device_type: str) -> AbstractContextManager[Any]:
    """Return a context manager in which autocast is off for a type of device."""
    if device_type == "meta" or not torch.is_autocast_enabled(device_type):
        return nullcontext()
    off: AbstractContextManager[Any] = torch.autocast(device_type, enabled=False)
    return off
