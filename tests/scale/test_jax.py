"""Penalties on JAX arrays that are cut over eight devices, or over two processes, equal those on one device.

A process has as many devices as it is started with, so scripts beside this file do the work. Each runs many cells: a
function and a way to cut its arrays. They compare values, gradients and second gradients, and look into the compiled
program for an all-gather as large as the input.
"""

from __future__ import annotations

import pytest

from tests.conftest import selected
from tests.helpers.processes import on_devices_of_jax, on_processes_of_jax

pytestmark = pytest.mark.scale

selected("jax", reason="cuts JAX's arrays")

PARTS = 4  # of the matrix, a process each


def on_eight_devices(script: str, *arguments: object) -> None:
    on_devices_of_jax(8, f"scale.{script}", *arguments)


@pytest.mark.parametrize("part", range(PARTS))
def test_every_penalty(part: int) -> None:
    on_eight_devices("jax_penalties_processes", part, PARTS)


@pytest.mark.parametrize("part", ["grams", "statistics", "penalties", "updates", "blocks"])
@pytest.mark.parametrize("axes", ["auto", "explicit"])
def test_options_pipelines_transforms_and_training(axes: str, part: str) -> None:
    on_eight_devices("jax_training_processes", axes, part)


def test_two_processes() -> None:
    on_processes_of_jax(2, "scale.jax_two_processes")
