"""How many Python functions of this package one small call of a penalty goes through: most of its time goes there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework


def calls_of(function: Callable[[], object]) -> list[str]:
    """The functions of this package that a call goes through, in their order."""
    package = str(Path(xp.__file__).parent)
    names: list[str] = []

    def record(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(package):
            names.append(frame.f_code.co_qualname if hasattr(frame.f_code, "co_qualname") else frame.f_code.co_name)

    before = sys.getprofile()
    sys.setprofile(record)
    try:
        function()
    finally:
        sys.setprofile(before)
    return names


@pytest.mark.parametrize(("penalty", "arrays", "most"), [("kl_divergence", 2, 28), ("entropy", 1, 26)])
@pytest.mark.only("torch", reason="counts what PyTorch's eager calls go through")
def test_a_small_call(fw: Framework, penalty: str, arrays: int, most: int) -> None:
    generator = np.random.default_rng(0)
    logits = [fw.array(generator.standard_normal((4, 5))).requires_grad_() for _ in range(arrays)]

    def call() -> None:
        getattr(xp, penalty)(*logits, from_logits=True)

    call()
    names = calls_of(call)
    assert penalty in names
    assert len(names) <= most, names
