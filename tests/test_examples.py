"""The examples run, on every framework that is there, and learn what they say they learn."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from conftest import SELECTED

pytestmark = pytest.mark.mixed
EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize("backend", [name for name in ("numpy", "torch", "jax") if name in SELECTED])
def test_quickstart(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("quickstart", EXAMPLES / "quickstart.py")
    assert spec is not None and spec.loader is not None
    quickstart = importlib.util.module_from_spec(spec)
    sys.modules["quickstart"] = quickstart
    try:
        spec.loader.exec_module(quickstart)
        without, with_penalties = quickstart.main(["--backend", backend])
    finally:
        del sys.modules["quickstart"]
    assert with_penalties >= 0.95 and without >= 0.90
    out = capsys.readouterr().out
    for shown in ("l1", "kl", "entropy", "orthogonality", "weight", "contribution"):
        assert shown in out.lower()
    assert max(map(len, out.splitlines())) <= 100
