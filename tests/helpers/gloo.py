"""Run a test module as several processes of PyTorch that work together. One start runs many cases.

A module that is started has functions named ``case_...``, which take a `World`. Each case runs in all processes, and
raises in at least one of them if it fails. A process that waits for another for too long raises, too.
"""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.helpers.processes import leave, on_processes
from tests.helpers.scale_results import record

__all__ = ["Moves", "World", "main", "run_cases"]

WAIT = timedelta(seconds=120)  # for one another: far more than it takes on a busy machine


def run_cases(module: str, count: int, path: Path) -> None:
    """Run the cases of a test module in `count` processes, and raise if one fails. `path` is an empty folder."""
    on_processes(count, module, path)
    failures = {rank: json.loads((path / f"{rank}.json").read_text("utf-8")) for rank in range(count)}
    texts = [f"{name} on rank {rank}: {text}" for rank, each in failures.items() for name, text in each.items()]
    assert not texts, "\n".join(texts)


@dataclass
class Moves:
    """What a process passed to collectives: the number of elements of each."""

    sizes: list[int] = field(default_factory=list)

    @property
    def largest(self) -> int:
        return max(self.sizes, default=0)


class World:
    """The processes, as one of them sees them."""

    def __init__(self, path: Path) -> None:
        import torch

        self.rank, self.size, self.path = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), path
        torch.distributed.init_process_group("gloo", timeout=WAIT)
        from torch.distributed.device_mesh import init_device_mesh

        self.line = init_device_mesh("cpu", (self.size,), mesh_dim_names=("line",))
        self.square: Any = None  # 2 x 2
        if self.size == 4:
            self.square = init_device_mesh("cpu", (2, 2), mesh_dim_names=("outer", "inner"))

    def gathered(self, x: Any) -> list[Any]:
        """Return the objects of all processes."""
        import torch

        objects: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(objects, x)
        return objects

    def same(self, x: Any) -> Any:
        """Check that an object is the same on every process, and return it."""
        first, *others = self.gathered(x)
        assert all(other == first for other in others), [first, *others]
        return x

    def record(self, function: str, sharding: str, *, engine: str = "DTensor", moved: float | None = None) -> None:
        """Record in the table of sharded arrays that a check has passed."""
        if self.rank == 0:
            record(function, engine, sharding, moved=moved)

    @contextmanager
    def moves(self) -> Any:
        """Record the collectives of a block."""
        from torch.utils._python_dispatch import TorchDispatchMode

        moves = Moves()

        class Recorder(TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                from torch.distributed.tensor import DTensor

                if any(issubclass(kind, DTensor) for kind in types):
                    return NotImplemented  # it dispatches again, with what each process holds
                if func.namespace in _COLLECTIVES and func._opname not in _WAITS:
                    moves.sizes.append(_elements(args[0]))
                return func(*args, **(kwargs or {}))

        with Recorder():
            yield moves


_COLLECTIVES = frozenset({"c10d", "_c10d_functional", "_c10d_functional_autograd", "_dtensor"})
_WAITS = frozenset({"wait_tensor", "barrier", "monitored_barrier_"})


def _elements(x: Any) -> int:
    return sum(map(_elements, x)) if isinstance(x, (list, tuple)) else x.numel()


def main(cases: dict[str, Any]) -> None:
    """Run the cases among a module's globals in this process, and write the failures."""
    import torch

    path = Path(sys.argv[1])
    torch.set_default_dtype(torch.float64)
    world = World(path)
    failures: dict[str, str] = {}
    for name, case in list(cases.items()):
        if name.startswith("case_") and re.search(os.environ.get("XPENALTIES_CASES", ""), name):  # a part, by hand
            print(name, file=sys.stderr, flush=True)  # shown if a process is killed
            _run(world, name, case, failures)
    (path / f"{world.rank}.json").write_text(json.dumps(failures), "utf-8")
    leave()


def _run(world: World, name: str, case: Callable[[World], None], failures: dict[str, str]) -> None:
    import torch

    torch.manual_seed(0)
    try:
        case(world)
    except Exception:  # noqa: BLE001 - written to the file of failures
        failures[name] = traceback.format_exc()[-3000:]
