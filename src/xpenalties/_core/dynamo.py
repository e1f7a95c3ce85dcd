"""Detect torch.compile."""

from __future__ import annotations

import sys

__all__ = ["in_dynamo"]


def in_dynamo() -> bool:
    """Return True while torch.compile traces this code.

    Code that raises an error must then use only what Dynamo can trace, or Dynamo's own error hides it.
    """
    compiler = getattr(sys.modules.get("torch"), "compiler", None)  # None without PyTorch, or if its import failed
    return compiler is not None and bool(compiler.is_compiling())
