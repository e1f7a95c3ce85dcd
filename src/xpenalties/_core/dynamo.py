"""Whether torch.compile is reading the code that runs."""

from __future__ import annotations

import sys

__all__ = ["in_dynamo"]


def in_dynamo() -> bool:
    """Whether torch.compile reads this: an error must then not ask for what it cannot, or it hides the error."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.compiler.is_compiling())
