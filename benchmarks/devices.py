"""Weak scaling: what a device sends and stores as the number of devices grows, and its part of the arrays stays equal.

    python benchmarks/devices.py

writes devices.json, which docs/guide/growth.md plots. Nothing here is a time: on one machine, devices share its cores
and its memory. JAX compiles for up to 8 simulated devices, and the compiled program says what it sends and stores.
PyTorch runs on up to 8 processes, and a dispatch mode counts what they send.

An all-reduce of b bytes on n devices sends and receives 2 b (n - 1) / n bytes on each of them, in a ring. An
all-gather, a reduce-scatter and an all-to-all whose larger side has b bytes send b (n - 1) / n.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
COUNTS = (1, 2, 4, 8)
ROWS, CLASSES, FEATURES = 256, 4096, 64  # on each device

KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
BYTES = {"pred": 1, "bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8}

CUT_ROWS, CUT_CLASSES, WHOLE = "rows", "classes", "whole"


class Problem(NamedTuple):
    """A penalty, its arrays on one device, and how they are cut."""

    name: str
    function: str
    options: dict[str, Any]
    shapes: tuple[tuple[int, int], ...]
    cuts: tuple[str, ...]  # of each array; WHOLE: each device has all of it
    learned: tuple[int, ...]  # arrays to differentiate with respect to

    def shape(self, i: int, devices: int) -> tuple[int, int]:
        """Return the shape of a whole array."""
        axis = self.axis(i)
        return tuple(size * devices if k == axis else size for k, size in enumerate(self.shapes[i]))

    def axis(self, i: int) -> int | None:
        """Return the axis along which an array is cut."""
        if self.cuts[i] == WHOLE:
            return None
        is_weight = self.function.startswith("linear_")
        return 0 if self.cuts[i] == CUT_ROWS or is_weight else 1


LOGITS = ((ROWS, CLASSES), (ROWS, CLASSES))
HEADS = ((ROWS, FEATURES), (CLASSES, FEATURES)) * 2
PROBLEMS = (
    Problem("KL, rows cut", "kl_divergence", {"from_logits": True}, LOGITS, (CUT_ROWS,) * 2, (1,)),
    Problem("KL, classes cut", "kl_divergence", {"from_logits": True}, LOGITS, (CUT_CLASSES,) * 2, (1,)),
    Problem("KL of layers, classes cut", "linear_kl_divergence", {}, HEADS, (WHOLE, CUT_CLASSES) * 2, (2, 3)),
    Problem("orthogonality, rows cut", "orthogonality", {}, ((16 * ROWS, FEATURES),), (CUT_ROWS,), (0,)),
    Problem("covariance, rows cut", "covariance", {}, ((16 * ROWS, FEATURES),), (CUT_ROWS,), (0,)),
)


def sent(kind: str, size: int, devices: int) -> float:
    """Return the bytes that one device sends in a collective whose larger side has `size` bytes."""
    return (2 if kind == "all-reduce" else 1) * size * (devices - 1) / devices


def on_jax() -> list[dict[str, Any]]:
    """Compile each problem for each number of devices, in this process."""
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    import xpenalties

    results = []
    for devices in COUNTS:
        mesh = Mesh(np.asarray(jax.devices()[:devices]), ("devices",))
        for problem in PROBLEMS:
            arrays = []
            for i in range(len(problem.shapes)):
                spec = PartitionSpec(*("devices" if k == problem.axis(i) else None for k in (0, 1)))
                shape = problem.shape(i, devices)
                arrays.append(jax.ShapeDtypeStruct(shape, "float32", sharding=NamedSharding(mesh, spec)))
            function = getattr(xpenalties, problem.function)
            fn = jax.value_and_grad(lambda *xs, f=function, p=problem: f(*xs, **p.options), argnums=problem.learned)
            program = jax.jit(fn).lower(*arrays).compile()
            collectives = collectives_in(program.as_text())
            memory = program.memory_analysis()
            results.append(
                {
                    "framework": "jax",
                    "problem": problem.name,
                    "devices": devices,
                    "collectives": len(collectives),
                    "sent": sum(sent(kind, size, devices) for kind, size in collectives),
                    "inputs": memory.argument_size_in_bytes,
                    "stored": memory.temp_size_in_bytes + memory.output_size_in_bytes,
                }
            )
    return results


def collectives_in(text: str) -> list[tuple[str, int]]:
    """Return the kind of each collective that a compiled program runs, and the bytes of its larger side."""
    parts = re.split(r"\n(?=(?:ENTRY )?%\S+ \()", text)
    bodies = {part.removeprefix("ENTRY ").partition(" ")[0]: part for part in parts}
    (entry,) = [part.removeprefix("ENTRY ").partition(" ")[0] for part in parts if part.startswith("ENTRY ")]

    def of(name: str) -> list[tuple[str, int]]:
        found = []
        for line in bodies[name].splitlines():
            if match := re.search(rf"= (.*?) ({KINDS})(?:-start)?\((.*?)\)", line):
                found.append((match[2], max(_bytes(match[1]), _bytes(match[3]))))
            elif match := re.search(r" while\(.*body=(%[\w.-]+)", line):
                times = int(re.search(r'"known_trip_count":\{"n":"(\d+)"', line)[1])
                found += of(match[1]) * times
            else:  # conditional branches and calls
                for called in re.findall(r"(?:to_apply|_computation|calls)=(%[\w.-]+)", line):
                    found += of(called) if "reduce" not in line else []
        return found

    return of(entry)


def _bytes(shapes: str) -> int:
    """Return the bytes of all arrays in a list of HLO's shapes."""
    found = re.findall(r"\b(\w+)\[([\d,]*)\]", shapes)
    return sum(BYTES[dtype] * math.prod(map(int, filter(None, dims.split(",")))) for dtype, dims in found)


def on_torch_process(out: Path) -> None:
    """Run each problem on this process, one of several, and write what it sent and stored."""
    import torch
    import torch.distributed as dist
    from peaks import of_process
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Replicate, Shard
    from torch.utils._python_dispatch import TorchDispatchMode

    import xpenalties

    class Counter(TorchDispatchMode):
        """Counts collectives and their bytes."""

        def __init__(self) -> None:
            super().__init__()
            self.found: list[tuple[str, int]] = []

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if func.namespace in ("_c10d_functional", "_dtensor") and isinstance(result, torch.Tensor):
                name = func._opname.replace("_", "-")
                if "wait" not in name and "wrap" not in name:  # these two move nothing
                    kind = next((k for k in ("all-reduce", "all-gather", "reduce-scatter") if k in name), "all-to-all")
                    self.found.append((kind, max(x.nbytes for x in (result, *args) if isinstance(x, torch.Tensor))))
            return result

    dist.init_process_group("gloo")
    devices = dist.get_world_size()
    mesh = init_device_mesh("cpu", (devices,))
    torch.manual_seed(dist.get_rank())
    results = []
    for problem in PROBLEMS:
        arrays = []
        for i, shape in enumerate(problem.shapes):
            axis = problem.axis(i)
            if axis is None:
                torch.manual_seed(i)
            placement = Replicate() if axis is None else Shard(axis)
            x = DTensor.from_local(torch.randn(shape), mesh, [placement], run_check=False)
            arrays.append(x.requires_grad_(i in problem.learned))

        def call(arrays: list[Any] = arrays, problem: Problem = problem) -> Any:
            value = getattr(xpenalties, problem.function)(*arrays, **problem.options)
            return value, torch.autograd.grad(value, [arrays[i] for i in problem.learned])

        call()
        with Counter() as counter:
            call()
        stored, _ = of_process(call)
        results.append(
            {
                "framework": "torch",
                "problem": problem.name,
                "devices": devices,
                "collectives": len(counter.found),
                "sent": sum(sent(kind, size, devices) for kind, size in counter.found),
                "inputs": sum(4 * math.prod(shape) for shape in problem.shapes),
                "stored": stored,
            }
        )
    if dist.get_rank() == 0:
        out.write_text(json.dumps(results), "utf-8")
    dist.barrier()
    os._exit(0)  # a normal exit is sometimes aborted by Gloo's threads


def run(command: Sequence[str], **environment: str) -> list[dict[str, Any]]:
    """Run this file as another process, which writes its results to a file."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "results.json"
        env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        subprocess.run([*command, "--out", str(out)], check=True, env=env, cwd=HERE)
        return json.loads(out.read_text("utf-8"))


def main() -> None:
    """Measure, and write devices.json."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", choices=("jax", "torch"), help="measure in this process: used by the program itself")
    parser.add_argument("--out", type=Path, default=HERE / "devices.json")
    given = parser.parse_args()
    parts: dict[str, Callable[[Path], Any]] = {
        "jax": lambda out: out.write_text(json.dumps(on_jax()), "utf-8"),
        "torch": on_torch_process,
    }
    if given.part:
        parts[given.part](given.out)
        return
    this = str(Path(__file__))
    results = run(
        [sys.executable, this, "--part", "jax"],
        JAX_PLATFORMS="cpu",
        XLA_FLAGS=f"--xla_force_host_platform_device_count={max(COUNTS)}",
    )
    for devices in COUNTS:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"]
        results += run([*launcher, f"--nproc-per-node={devices}", this, "--part", "torch"])
    given.out.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    for each in results:
        print(
            f"{each['framework']:6}{each['problem']:28}{each['devices']:3} devices {each['collectives']:3} collectives"
            f"{each['sent'] / 1024:12.1f} KiB sent {each['stored'] / 2**20:8.1f} MiB stored"
        )


if __name__ == "__main__":
    main()
