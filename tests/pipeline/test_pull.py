"""Gradients that are pulled back through a model, with respect to arrays that are no inputs of the pipeline."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.helpers.harness import Framework
from xpenalties import Penalty, Pipeline
from xpenalties._pipeline.computation import Computation
from xpenalties._pipeline.settings import Settings


@pytest.mark.only("torch", reason="is about PyTorch's graphs")
def test_through_a_model(fw: Framework) -> None:
    torch = fw.module
    weight = fw.array(np.asarray([1.0, -2.0])).requires_grad_()
    hidden = 3.0 * weight
    pulled: list[Any] = []

    def pull(value: Any, arrays: list[Any]) -> list[Any]:
        pulled.append(arrays)
        return list(torch.autograd.grad(value, arrays, retain_graph=True))

    constant = Penalty("l2", name="constant", inputs="hidden", differentiable=False)
    pipe = Pipeline([Penalty("l1", weight=0.5, inputs="hidden"), Penalty("l2", inputs="hidden"), constant])
    settings, inputs = Settings(track=True), ({"hidden": hidden},)
    computation = Computation(
        pipe.name, pipe.penalties, inputs, None, settings, pull=pull, pull_inputs=({"weight": weight},)
    )
    total, report = computation.total_and_report()
    assert len(pulled) == 2 and all(len(arrays) == 1 and arrays[0] is weight for arrays in pulled)
    l1, l2 = np.asarray([3.0, -3.0]), np.asarray([18.0, -36.0])
    assert float(report.regularizers["l1"].grad_norm) == pytest.approx(np.linalg.norm(l1))
    assert float(report.regularizers["l2"].grad_norm_weighted) == pytest.approx(np.linalg.norm(l2))
    assert report.regularizers["constant"].grad_norm is None
    assert float(report.total_grad_norm) == pytest.approx(np.linalg.norm(0.5 * l1 + l2))
    total.backward()  # through the model, not by what was pulled
    np.testing.assert_allclose(fw.numpy(weight.grad), 0.5 * l1 + l2)
