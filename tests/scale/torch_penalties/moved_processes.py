"""What a penalty of DTensors moves between processes, for the test that starts this script on several processes."""

from __future__ import annotations

import json
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor, placement_types
from torch.utils._python_dispatch import TorchDispatchMode

import xpenalties as xp
from tests.helpers.processes import leave

ROWS, CLASSES, FEATURES = 64, 96, 8
COLLECTIVES = ("_c10d_functional", "_dtensor", "c10d")


class Moved(TorchDispatchMode):
    """Record the collectives that run, with the number of elements that a process passes to each."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, int]] = []
        self.exchanging = False

    def __enter__(self) -> Any:
        self.exchange = placement_types.shard_dim_alltoall
        placement_types.shard_dim_alltoall = self.exchanged
        return super().__enter__()

    def __exit__(self, *exception: Any) -> Any:
        placement_types.shard_dim_alltoall = self.exchange
        return super().__exit__(*exception)

    def exchanged(self, *args: Any) -> Any:
        """Exchange parts. On the CPU, PyTorch gathers and drops most of what it got."""
        self.exchanging = True
        try:
            return self.exchange(*args)
        finally:
            self.exchanging = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(cls, DTensor) for cls in types):
            return NotImplemented  # DTensor's own operations come first, and then what they are made of
        space, _, name = func._schema.name.partition("::")
        if space in COLLECTIVES and "wait" not in name and "wrap" not in name:
            tensors = args[0] if isinstance(args[0], (list, tuple)) else [args[0]]
            name = "exchange" if self.exchanging else name
            self.calls.append((name, sum(x.numel() for x in tensors if isinstance(x, torch.Tensor))))
        return func(*args, **(kwargs or {}))


def cells() -> Iterator[tuple[str, Callable[..., Any], list[torch.Tensor], int]]:
    """Yield a name, a function of arrays, and the most elements that one collective may move beside an all-to-all."""
    torch.manual_seed(0)
    x, y = torch.randn(2, ROWS, CLASSES, dtype=torch.float64)
    log_p, log_q = x.log_softmax(-1), y.log_softmax(-1)
    gram = min(ROWS, CLASSES) ** 2
    for name in ("l1", "l2", "elastic_net", "huber", "output_magnitude"):
        yield name, getattr(xp, name), [x], 2
    yield "total_variation", xp.total_variation, [x], 2
    yield "total_variation(axis)", lambda x: xp.total_variation(x, axis=(0, 1), mode="isotropic"), [x], 2
    yield "l2(center='mean')", lambda x: xp.l2(x, center="mean"), [x], 2
    for name in ("group_lasso", "z_loss", "entropy"):
        yield name, getattr(xp, name), [log_p], 2 * ROWS
    for name in ("kl_divergence", "js_divergence"):
        for direction in ({}, {"from_logits": True}, {"from_logits": True, "temperature": 2.0}):
            call = lambda p, q, name=name, direction=direction: getattr(xp, name)(p, q, **direction)  # noqa: E731
            yield f"{name}({direction or ''})", call, [x, y] if direction else [log_p, log_q], 2 * ROWS
    yield "entropy(from_logits)", lambda x: xp.entropy(x, from_logits=True), [x], 2 * ROWS
    for tail in ("bucket", "renormalize", "truncate", "included"):
        call = lambda p, q, tail=tail: xp.topk_kl_divergence(p - 1, q - 1, tail=tail)  # noqa: E731
        yield f"topk_kl_divergence({tail})", call, [log_p, log_q], 2 * ROWS
    yield "sampled_kl", xp.sampled_kl, [log_p, log_q], 2
    for metric in ("mse", "l1", "cosine", "kl", "js"):
        call = lambda a, b, metric=metric: xp.consistency(a, b, metric=metric)  # noqa: E731
        yield f"consistency({metric})", call, [log_p, log_q], 2 * ROWS
    for mode in ("soft", "hard", "spectral"):
        for rows, columns in ((ROWS, CLASSES), (CLASSES, ROWS)):
            z = torch.randn(rows, columns, dtype=torch.float64)
            yield f"orthogonality({mode}) {rows}x{columns}", lambda x, m=mode: xp.orthogonality(x, mode=m), [z], gram
    for rows, columns in ((ROWS, CLASSES), (CLASSES, ROWS)):
        z, w = torch.randn(rows, columns, dtype=torch.float64), torch.rand(rows, dtype=torch.float64)
        yield f"covariance {rows}x{columns}", xp.covariance, [z], gram
        yield f"covariance(weights) {rows}x{columns}", lambda x, w=w: xp.covariance(x, weights=w), [z], gram
        call = lambda x, w=w: xp.orthogonality(x, where=w > 0.2, weights=w)  # noqa: E731
        yield f"orthogonality(weights) {rows}x{columns}", call, [z], gram
    z = torch.randn(8, 6, 64, dtype=torch.float64)
    for axis, n in (("rows", 48), ("sequence", 6), ("vocabulary", 48)):
        yield f"orthogonality({axis})", lambda x, a=axis: xp.orthogonality(x, axis=a), [z], n * n
    yield "orthogonality(per_sample)", lambda x: xp.orthogonality(x, per_sample=True), [z], 8 * 36
    yield "gradient_penalty", lambda x: xp.gradient_penalty(_samples, x), [x], 2 * ROWS
    alpha = torch.rand(ROWS, dtype=torch.float64)
    call = lambda x, y: xp.interpolated_gradient_penalty(_samples, x, y, alpha=alpha)  # noqa: E731
    yield "interpolated_gradient_penalty", call, [x, y], 2 * ROWS
    call = lambda x, y: xp.interpolated_gradient_penalty(_samples, x, y)  # noqa: E731
    yield "interpolated_gradient_penalty(rng)", call, [x, y], 2 * ROWS
    yield "jacobian_penalty", lambda x: xp.jacobian_penalty(lambda x: x * xp.namespace(x).sin(x), x), [x], 2 * ROWS


def _samples(x: Any) -> Any:
    space = xp.namespace(x)
    return space.sum(x * space.sin(x), axis=-1)


def measured(function: Callable[..., Any], arrays: list[Any]) -> tuple[Any, list[Any], list[tuple[str, int]]]:
    leaves = [x.detach().requires_grad_() for x in arrays]
    with Moved() as moved:
        value = function(*leaves)
        gradients = torch.autograd.grad(value, leaves)
    return value, list(gradients), moved.calls


def main(count: int, out: Path) -> None:
    """Measure every cell. The first process writes the results."""
    warnings.simplefilter("ignore")
    torch.distributed.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (2,) if count == 2 else (2, 2))
    layouts = {"rows": [Shard(0)], "classes": [Shard(-1)], "copies": [Replicate()]}
    if count == 4:
        layouts = {"rows x classes": [Shard(0), Shard(-1)], "copies x classes": [Replicate(), Shard(-1)]}
        layouts |= {"classes x rows": [Shard(-1), Shard(0)], "rows x rows": [Shard(0), Shard(0)]}
    rows = []
    for name, function, arrays, most in cells():
        want, wanted, _ = measured(function, arrays)
        for kind, layout in layouts.items():
            parts = [distribute_tensor(x, mesh, layout) for x in arrays]
            # a Gram matrix needs another axis cut, for the array and for its gradient
            exchanges = 2 * mesh.ndim if name.startswith(("orthogonality", "covariance")) else 0
            if name.startswith("total_variation"):  # there and back, and so for the gradient
                exchanges = 4 * mesh.ndim
            row = {"function": name, "sharding": kind, "most": most, "exchanges": exchanges}
            try:
                got, gradients, calls = measured(function, parts)
                random = "jacobian" in name or "rng" in name
                pairs = [(got, want), *zip([x.full_tensor() for x in gradients], wanted, strict=True)]
                right = random or all(torch.allclose(a, b, rtol=1e-9, atol=1e-11) for a, b in pairs)
                row |= {"result": "right" if right else "wrong", "calls": calls}
            except Exception as error:  # noqa: BLE001 - all failures are reported together
                row |= {"result": f"wrong: {type(error).__name__}: {error}", "calls": []}
            row |= {"size": math.prod(arrays[0].shape), "shard": parts[0].to_local().numel()}
            rows.append(row)
    if torch.distributed.get_rank() == 0:
        (out / "moved.json").write_text(json.dumps(rows))
    leave()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
