"""Switch autocast off, for products that would lose digits and for backward passes.

Outside autocast, the backward pass of an operation runs in the dtype that autocast chose for the forward pass. Inside,
autocast would cast the operations of the backward pass once more.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

__all__ = ["without_autocast"]


def without_autocast(device_type: str) -> AbstractContextManager[Any]:
    """Switch autocast off for a type of device, inside the returned context manager."""
    if device_type == "meta" or not torch.is_autocast_enabled(device_type):
        return nullcontext()
    off: AbstractContextManager[Any] = torch.autocast(device_type, enabled=False)
    return off
