"""The examples whose output layer is cut learn, and as they do on one device."""

from __future__ import annotations

import math
import re
import sys

import pytest

from tests.helpers.example_runs import EXAMPLES
from tests.helpers.processes import run_together, simulated_devices, torch_launcher

pytestmark = pytest.mark.scale

WORDS = 3118


def verify(printed: str) -> None:
    assert f"{WORDS} different ones" in printed or "3120 different ones" in printed
    (cross_entropy,) = re.findall(r"teacher, 48 features: cross-entropy ([\d.]+)", printed)
    assert float(cross_entropy) < 0.8 * math.log(WORDS)
    (difference,) = re.findall(r"largest difference of a step's loss from one \w+: (\S+)", printed)
    assert float(difference) < 1e-5
    assert "distillation" in printed and "entropy" in printed


def test_jax() -> None:
    (printed,) = run_together([[sys.executable, EXAMPLES / "scale_jax.py", "--steps", 100]], **simulated_devices(4))
    assert "on each of 4 devices" in printed
    verify(printed)


def test_torch() -> None:
    (printed,) = run_together([[*torch_launcher(2), EXAMPLES / "scale_torch.py", "--steps", 100]])
    assert "cut over 2 processes" in printed
    verify(printed)
