"""Penalties of parts on eight devices of JAX, in processes of their own: the number of devices is set at the start."""

from __future__ import annotations

import pytest

from tests.scale.over_cases import FAMILIES, LAYOUTS
from tests.scale.over_runs import on_devices, verify, verify_matrix

pytestmark = pytest.mark.scale


@pytest.mark.parametrize("name", FAMILIES)
def test_values_and_derivatives_are_those_of_the_whole(name: str) -> None:
    checks = on_devices("over_jax_processes", name)
    verify_matrix(checks, "over, JAX", name, LAYOUTS, variants=1)


def test_uses() -> None:
    """Ways to differentiate, masks, blocks, pipelines, communication, errors: see the script."""
    verify(on_devices("over_jax_uses_processes"), 21)
