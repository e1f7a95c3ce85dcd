"""Random numbers from PyTorch's generators or NumPy's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .._random import from_numpy
from ..base import Random

__all__ = ["TorchRandom"]


class TorchRandom(Random):
    def uniform(self, caller: str, rng: Any, shape: tuple[int, ...], like: Any) -> Any:
        return _drawn(caller, rng, shape, like, torch.rand, "random")

    def normal(self, caller: str, rng: Any, shape: tuple[int, ...], like: Any) -> Any:
        return _drawn(caller, rng, shape, like, torch.randn, "standard_normal")


def _drawn(caller: str, rng: Any, shape: tuple[int, ...], like: Any, draw: Callable[..., Any], numpys: str) -> Any:
    """Draw with a function of PyTorch, or with a method of NumPy's generator."""
    if rng is None:
        return draw(shape, dtype=like.dtype, device=like.device)
    if isinstance(rng, torch.Generator):
        return draw(shape, dtype=like.dtype, device=rng.device, generator=rng).to(like.device)
    drawn = getattr(from_numpy(caller, rng, or_else="torch.Generator or a "), numpys)(shape)
    return torch.asarray(drawn, dtype=like.dtype, device=like.device)
