"""A file is written whole or stays as it was."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from xpenalties._core.files import replacing


def test_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with replacing(path) as new:
        assert new.parent == tmp_path and new.suffix == ".json" and not path.exists()
        new.write_text("new")
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["a.json"]


def test_a_file_that_exists(tmp_path: Path) -> None:
    """It keeps its mode, and a link to it stays one."""
    path, link = tmp_path / "a.json", tmp_path / "link.json"
    path.write_text("old")
    path.chmod(0o600)
    link.symlink_to(path)
    with replacing(str(link)) as new:
        new.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(os.listdir(tmp_path)) == ["a.json", "link.json"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("a value")])
def test_a_failure(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def write() -> None:
        with replacing(path) as new:
            new.write_text("ne")
            raise error

    with pytest.raises(type(error)) as caught:
        write()
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.json"]
    if isinstance(caught.value, OSError):
        assert caught.value.filename == str(path)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "no" / "a.json"
    with pytest.raises(FileNotFoundError) as caught, replacing(path) as new:
        new.write_text("new")
    assert caught.value.filename == str(path)


def test_a_device(tmp_path: Path) -> None:
    """It is written, not replaced."""
    with replacing(os.devnull) as new:
        new.write_text("new")
    assert not Path(os.devnull).is_file()
