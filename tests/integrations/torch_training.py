"""A network of PyTorch, its data, and how it compares with another after training."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["STEPS", "batches", "close", "network", "sgd"]

STEPS = 20


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


def batches(steps: int = STEPS) -> list[tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(1)
    return [(torch.randn(16, 6), torch.randint(3, (16,))) for _ in range(steps)]


def close(a: nn.Module, b: nn.Module) -> None:
    """Compare parameters that were trained in float64, see the fixture of that name."""
    for (name, mine), theirs in zip(a.named_parameters(), b.parameters(), strict=True):
        assert mine.dtype == theirs.dtype == torch.float64
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9, msg=name)


def sgd(model: nn.Module, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.named_parameters(), **{"lr": 0.1, "momentum": 0.9, **options})
