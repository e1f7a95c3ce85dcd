"""Write files whole or not at all: a full disk must not cost the file that was there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["replacing"]


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the path of a new file. When the block ends, the new file replaces the file at `path`.

    If the block raises, the file at `path` stays as it is. The new file is in the same folder, and has the same suffix.
    A device or a pipe is written directly.
    """
    target = Path(os.path.realpath(path))  # a link stays a link
    if target.exists() and not target.is_file():
        yield target
        return
    new = target.with_name(f".{os.urandom(8).hex()}{target.suffix}")
    try:
        yield new
        if target.exists():
            shutil.copymode(target, new)
        os.replace(new, target)
    except OSError as error:
        error.filename = os.fspath(path)  # the user's path, not that of the new file
        error.filename2 = None
        raise
    finally:
        new.unlink(missing_ok=True)
