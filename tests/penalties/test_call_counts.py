"""Bounds on the number of the package's functions that a small call of a penalty enters, on eager PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.call_counts import calls_of
from tests.helpers.harness import Framework


@pytest.mark.parametrize(("penalty", "arrays", "most"), [("kl_divergence", 2, 31), ("entropy", 1, 30)])
@pytest.mark.only("torch", reason="counts what PyTorch's eager calls go through")
def test_a_small_call(fw: Framework, penalty: str, arrays: int, most: int) -> None:
    generator = np.random.default_rng(0)
    logits = [fw.array(generator.standard_normal((4, 5))).requires_grad_() for _ in range(arrays)]

    def call() -> None:
        getattr(xp, penalty)(*logits, from_logits=True)

    names = calls_of(call)
    assert penalty in names
    assert len(names) <= most, names
