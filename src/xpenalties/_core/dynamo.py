"""Detect torch.compile."""

from __future__ import annotations

import sys

__all__ = ["in_dynamo"]


def in_dynamo() -> bool:
    """Return True while torch.compile traces this code. An error must then do only what it traces, or it is hidden."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.compiler.is_compiling())
