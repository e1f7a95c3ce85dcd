"""Import the examples as modules, for the tests that run them."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import SELECTED

__all__ = ["EXAMPLES", "example", "is_picture"]

EXAMPLES = Path(__file__).parents[2] / "examples"


@contextmanager
def example(name: str) -> Iterator[Callable[[list[str]], Any]]:
    """Import an example as a module, and yield its `main`. Global settings are restored."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    torch: Any = importlib.import_module("torch") if "torch" in SELECTED else None
    threads = torch and torch.get_num_threads()
    try:
        spec.loader.exec_module(module)
        yield module.main
    finally:
        del sys.modules[name]
        if torch:
            torch.set_num_threads(threads)


def is_picture(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 20_000
