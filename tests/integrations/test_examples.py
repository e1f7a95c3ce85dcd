"""The examples of the integrations run, and learn what they say they learn."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import integration
from tests.helpers.example_runs import EXAMPLES, example

integration("keras", "lightning", "transformers", "flax", "equinox", "tinker", "tensorboard", backends=("torch", "jax"))

pytestmark = pytest.mark.integrations


def fits(out: str) -> bool:
    return max(map(len, out.splitlines())) <= 100


def test_lightning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with example("lightning_digits") as main:
        without, with_penalties, tags = main(["--logs", str(tmp_path)])
    assert with_penalties[0] >= 0.95 and without[0] >= 0.95
    assert with_penalties[2] > 0.7 > 0.5 > without[2]
    assert with_penalties[1] > without[1] + 0.1
    assert {"train/activities/value", "train/base_loss/value", "train/decay/grad_norm", "train/loss_total"} <= set(tags)
    assert fits(capsys.readouterr().out)


def test_trainer(capsys: pytest.CaptureFixture[str]) -> None:
    with example("trainer_texts") as main:
        before, alone, penalized = main([])
    assert alone[0] < before[0] and penalized[0] < before[0]
    assert penalized[1] - before[1] < 0.5 * (alone[1] - before[1])
    out = capsys.readouterr().out
    assert "penalties/kl/value" in out and fits(out)


@pytest.mark.parametrize("library", ["flax", "equinox"])
def test_jax_libraries(library: str, capsys: pytest.CaptureFixture[str]) -> None:
    with example("jax_libraries") as main:
        accuracy, divergence, zeros = main(["--library", library])
    assert accuracy >= 0.95
    assert abs(divergence / 0.05 - 1) < 0.25
    assert zeros > 0.3
    out = capsys.readouterr().out
    assert library in out and "consistency" in out and fits(out)


def test_keras() -> None:
    """In a process of its own: Keras has one backend for good."""
    command = [sys.executable, str(EXAMPLES / "keras_digits.py"), "--backend", "jax"]
    env = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "the same loss: True" in result.stdout and "jax: " in result.stdout and fits(result.stdout)
    theirs, ours = map(int, re.findall(r"(\d+) of 64", result.stdout))
    assert ours >= theirs + 5


def test_tinker(capsys: pytest.CaptureFixture[str]) -> None:
    with example("tinker_distillation") as main:
        teacher, alone, with_teacher = main([])
    assert teacher[0] < 1.45 and teacher[1] > 0.8
    assert with_teacher[0] < alone[0] - 0.1 and with_teacher[1] > alone[1] + 0.05
    out = capsys.readouterr().out
    assert "penalties/distill/value" in out and "surrogate_loss:sum" in out and fits(out)
