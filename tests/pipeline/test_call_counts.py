"""Bounds on the number of Python calls inside of the package that one small computation makes, on eager PyTorch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import xpenalties
from tests.helpers.harness import Framework
from xpenalties import Penalty, Pipeline

pytestmark = [pytest.mark.only("torch", reason="counts the calls on PyTorch"), pytest.mark.usefixtures("fw")]

PACKAGE = str(Path(xpenalties.__file__).parent)


def calls_of(compute: Callable[[], Any]) -> int:
    """Return how many functions of the package a second call enters."""
    compute()
    count = 0

    def profile(frame: FrameType, event: str, arg: Any) -> None:
        nonlocal count
        count += event == "call" and frame.f_code.co_filename.startswith(PACKAGE)

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        compute()
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize(("names", "most"), [(["l1"], 160), (["l1", "l2"], 300)])
def test_tracking(fw: Framework, names: list[str], most: int) -> None:
    pipe = Pipeline([Penalty(name, weight=0.1, inputs="student") for name in names])
    student = fw.array(np.ones((4, 5)), "float32").requires_grad_()
    assert calls_of(lambda: pipe.compute({"student": student}, track_grad_norms=True)) <= most
