"""Reports in loggers: TensorBoard's own files are read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import integration
from xpenalties import Pipeline

integration("tensorboard")

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

pytestmark = pytest.mark.integrations


def test_tensorboard(tmp_path: Path) -> None:
    pipe = Pipeline({"l1": 0.5, "l2": 0.1})
    expected: dict[str, list[float]] = {}
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(3):
            _, report = pipe.compute(torch.arange(3.0) * step, track_grad_norms=True)
            for name, value in report.flat("train/").items():
                writer.add_scalar(name, value, step)
                expected.setdefault(name, []).append(value)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert set(events.Tags()["scalars"]) == set(expected)
    for name, values in expected.items():
        result = events.Scalars(name)
        assert [each.step for each in result] == [0, 1, 2]
        assert [each.value for each in result] == pytest.approx(values)
    assert expected["train/l2/contribution"] == pytest.approx([0.0, 0.5, 2.0])


def test_figures_without_reading_them() -> None:
    _, report = Pipeline({"l1": 0.5}).compute(torch.ones(3))
    figures = report.flat("p/", floats=False)
    assert isinstance(figures["p/l1/value"], torch.Tensor) and figures["p/l1/weight"] == 0.5
    assert {name: float(x) for name, x in figures.items()} == report.flat("p/")
    assert json.loads(json.dumps(report.flat()))["l1/value"] == 3.0  # what wandb.log and mlflow.log_metrics take
