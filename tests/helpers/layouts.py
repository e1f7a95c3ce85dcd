"""Cut tensors over processes, and compare what comes of them with one process."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from tests.helpers.gloo import World

__all__ = ["LAYOUTS", "close", "cut", "layouts", "whole"]

LAYOUTS = {
    "rows": ("line", (Shard(0),)),
    "columns": ("line", (Shard(-1),)),
    "copies": ("line", (Replicate(),)),
    "rows and columns": ("square", (Shard(0), Shard(1))),
    "columns and rows": ("square", (Shard(1), Shard(0))),
    "rows, copied": ("square", (Replicate(), Shard(0))),
    "rows twice": ("square", (Shard(0), Shard(0))),
}


def layouts(world: World) -> list[str]:
    """Return the names of the layouts that exist in these processes."""
    return [name for name, (mesh, _) in LAYOUTS.items() if getattr(world, mesh) is not None]


def cut(world: World, x: torch.Tensor, layout: str) -> DTensor:
    """Return a tensor that is the same on every process as a DTensor: a leaf that requires a gradient if `x` does.

    An axis that the tensor does not have is not cut.
    """
    mesh, placements = LAYOUTS[layout]
    fitting = [p if p.is_replicate() or -x.ndim <= p.dim < x.ndim else Replicate() for p in placements]
    result = distribute_tensor(x.detach(), getattr(world, mesh), fitting)
    return result.requires_grad_(x.requires_grad)


def whole(x: Any) -> Any:
    """Return a detached tensor, whole if it is cut."""
    return x.detach().full_tensor() if isinstance(x, DTensor) else x.detach()


def close(actual: Any, expected: Any, what: str = "") -> None:
    """Compare with one process, in float64."""
    torch.testing.assert_close(
        whole(actual), whole(expected), rtol=1e-9, atol=1e-9, equal_nan=True, msg=lambda text: f"{what}: {text}"
    )
