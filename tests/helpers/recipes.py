"""The files that pages of the documentation show: fenced blocks of code whose caption is the name of a file."""

from __future__ import annotations

import re
from pathlib import Path
from types import CodeType

__all__ = ["files_of", "recipe"]

GUIDE = Path(__file__).parents[2] / "docs" / "guide"
FILE = re.compile(r"^```\{code-block\} \w+\n:caption: (\S+)\n\n(.*?)^```", re.DOTALL | re.MULTILINE)


def files_of(page: str) -> dict[str, str]:
    """Return the files of a page of the guide, by name."""
    return dict(FILE.findall((GUIDE / f"{page}.md").read_text("utf-8")))


def recipe(name: str) -> CodeType:
    """Return a file of the page about trainers, compiled."""
    return compile(files_of("trainers")[name], name, "exec")
