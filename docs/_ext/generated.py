"""Write pages that are generated before the build."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

__all__ = ["write"]


def write(folder: Path, texts: Mapping[str, str], made: str) -> None:
    """Write files by their paths in `folder`, and remove others that the pattern `made` matches.

    Files that do not change are not written, so that they are not read or executed again.
    """
    for old in folder.glob(made):
        if old.relative_to(folder).as_posix() not in texts:
            old.unlink()
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
