"""Random numbers for DTensors: the same on every process that needs the same ones.

Processes may have generators in different states. So what every process needs is drawn by the first. Arrays as large as
the input are drawn part by part, from a seed that the first process draws.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed.tensor import DTensor, Partial

from ._dtensor_moves import assembled, copies, held, moved_shard, replicated, without_partials
from ._random import TorchRandom

__all__ = ["DTensorRandom"]


class DTensorRandom(TorchRandom):
    def uniform(self, caller: str, rng: Any, shape: tuple[int, ...], like: Any) -> Any:
        return self._drawn(super().uniform, torch.rand, caller, rng, shape, like)

    def normal(self, caller: str, rng: Any, shape: tuple[int, ...], like: Any) -> Any:
        return self._drawn(super().normal, torch.randn, caller, rng, shape, like)

    def _drawn(self, whole: Any, draw: Any, caller: str, rng: Any, shape: tuple[int, ...], like: Any) -> Any:
        if not isinstance(like, DTensor):
            return whole(caller, rng, shape, like)
        mesh, local = like.device_mesh, held(like)
        leading = len(shape) - like.ndim
        if leading < 0 or tuple(shape[leading:]) != tuple(like.shape):
            return copies(_of_the_first(whole(caller, rng, shape, local), mesh), mesh)
        # float64 holds 2^53 seeds
        number = super().uniform(caller, rng, (), torch.empty((), dtype=torch.float64, device=local.device))
        layout = without_partials(like.placements)
        part = 0  # the number of this process's part; those with the same one have copies
        for i, placement in enumerate(layout):
            if not placement.is_replicate():
                part = part * mesh.size(i) + mesh.get_local_rank(i)
        seed = int(_of_the_first(number, mesh).item() * 2**53)
        generator = torch.Generator(local.device).manual_seed((seed + 0x9E3779B97F4A7C15 * (part + 1)) % 2**63)
        layout = tuple(p if p.is_replicate() else moved_shard(p, p.dim + leading) for p in layout)
        drawn = draw((*shape[:leading], *local.shape), dtype=like.dtype, device=local.device, generator=generator)
        return assembled(drawn, mesh, layout, shape)


def _of_the_first(x: Any, mesh: Any) -> Any:
    """Return the tensor of the first process of the mesh, on every process."""
    if any(mesh.get_local_rank(i) for i in range(mesh.ndim)):
        x = torch.zeros_like(x)
    everywhere = assembled(x, mesh, (Partial(),) * mesh.ndim, x.shape).redistribute(placements=replicated(mesh))
    return held(everywhere)
