"""Bounds on the number of the package's functions that one tracked computation enters, on eager PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.call_counts import calls_of
from tests.helpers.harness import Framework
from xpenalties import Penalty, Pipeline

pytestmark = [pytest.mark.only("torch", reason="counts the calls on PyTorch"), pytest.mark.usefixtures("fw")]


@pytest.mark.parametrize(("names", "most"), [(["l1"], 160), (["l1", "l2"], 300)])
def test_tracking(fw: Framework, names: list[str], most: int) -> None:
    pipe = Pipeline([Penalty(name, weight=0.1, inputs="student") for name in names])
    student = fw.array(np.ones((4, 5)), "float32").requires_grad_()
    calls = calls_of(lambda: pipe.compute({"student": student}, track_grad_norms=True))
    assert "Pipeline.compute" in calls and len(calls) <= most, calls
