"""L2 over the parameters of a model in eager PyTorch: `over_tree`, the obvious sum, and torch._foreach_norm.

    python benchmarks/over_trees.py

Not in the table, because there is no goal. Ratios compare with the obvious sum. Ours uses torch._foreach_norm only for
small leaves, because its float32 sums of large leaves have the error in the last column.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from xpenalties.trees import over_tree

ROUNDS = 15


def transformer(layers: int, width: int) -> list[tuple[int, ...]]:
    """Return the shapes of a transformer's parameters."""
    one = [
        (width, 4 * width),
        (4 * width,),
        (4 * width, width),
        (width,),
        *[(width, width), (width,)] * 4,
        *[(width,)] * 4,
    ]
    return one * layers


SHAPES = {
    "12 layers of 64": transformer(12, 64),
    "12 layers of 256": transformer(12, 256),
    "4 matrices of 2048 x 2048": [(2048, 2048)] * 4,
}
DECAY = over_tree("l2")


def ours(params: list[torch.Tensor]) -> torch.Tensor:
    value: torch.Tensor = DECAY(params)
    return value


def obvious(params: list[torch.Tensor]) -> torch.Tensor:
    return sum((x * x).sum() for x in params)  # type: ignore[return-value]


def joined(params: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([x.reshape(-1) for x in params]).square().sum()


def foreach(params: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(torch._foreach_norm(params)).square().sum()


WAYS = (obvious, ours, joined, foreach)


def best(ways: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Return milliseconds of each, measured in turns."""
    found = dict.fromkeys(ways, float("inf"))
    for i in range(ROUNDS + 2):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if i > 1:
                found[name] = min(found[name], 1e3 * (time.perf_counter() - began))
    return found


def main() -> None:
    torch.manual_seed(0)
    print(
        f"{'':28}{'':20}{'ms':>8}" + "".join(f"{way.__name__:>10}" for way in WAYS[1:]) + f"{'foreach is off by':>20}"
    )
    for name, shapes in SHAPES.items():
        params = [torch.randn(shape, requires_grad=True) for shape in shapes]
        exact = sum(x.detach().double().square().sum().item() for x in params)
        off = abs(foreach(params).item() / exact - 1)
        for backward in (False, True):

            def run(way: Callable[[Any], Any], backward: bool = backward, params: Any = params) -> Any:
                with torch.set_grad_enabled(backward):
                    value = way(params)
                return torch.autograd.grad(value, params) if backward else value

            took = best({way.__name__: lambda way=way: run(way) for way in WAYS})  # type: ignore[misc]
            ratios = "".join(f"{took[way.__name__] / took['obvious']:>10.2f}" for way in WAYS[1:])
            what = "forward + backward" if backward else "forward"
            print(f"{name:28}{what:20}{took['obvious']:>8.2f}{ratios}{off:>20.0e}")


if __name__ == "__main__":
    main()
