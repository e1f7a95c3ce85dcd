"""The precision in which trainings are compared with the same written by hand."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture
def float64() -> Iterator[None]:
    """Let PyTorch and JAX compute in float64 by default, so that a whole training may be compared.

    Processors and numbers of threads round differently, and training steps amplify that: in float32 two correct
    trainings drift apart by more than a wrong formula may cost. In float64 the drift stays near 1e-14.
    """
    torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
    dtype = torch and torch.get_default_dtype()
    x64 = jax and jax.config.jax_enable_x64
    if torch is not None:
        torch.set_default_dtype(torch.float64)
    if jax is not None:
        jax.config.update("jax_enable_x64", True)
    yield
    if torch is not None:
        torch.set_default_dtype(dtype)
    if jax is not None:
        jax.config.update("jax_enable_x64", x64)
