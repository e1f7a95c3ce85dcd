"""Every row of the matrix on DTensors, for the test that starts this script on several processes."""

from __future__ import annotations

import json
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

import xpenalties as xp
from tests.helpers.processes import leave
from tests.helpers.scale_results import record
from tests.matrix.cases import CASES, KEY, Case

Layout = tuple[Any, ...]


def whole(x: Any) -> np.ndarray:
    x = x.detach()
    return (x.full_tensor() if isinstance(x, DTensor) else x).clone().numpy()


def close(got: Any, want: Any) -> None:
    np.testing.assert_allclose(whole(got), whole(want), rtol=1e-9, atol=1e-11)


def layouts(mesh: Any) -> Iterator[tuple[str, Layout]]:
    """Yield how to cut the arrays, with names."""
    one = {"rows": Shard(0), "classes": Shard(-1), "copies": Replicate()}
    if mesh.ndim == 1:
        yield from ((name, (placement,)) for name, placement in one.items())
    else:
        yield "rows and classes", (Shard(0), Shard(-1))
        yield "classes and rows", (Shard(-1), Shard(0))


def arrays_of(case: Case) -> list[Any]:
    return [torch.from_numpy(np.array(x)) for x in case.arrays]


def cut(case: Case, arrays: list[Any], mesh: Any, layout: Layout) -> list[Any]:
    """Cut arrays. A linear layer's weight has a part of the classes where hidden states have a part of the features."""
    if not case.is_linear:
        return [distribute_tensor(x, mesh, layout) for x in arrays]
    matrices = case.function.spec.matrices
    of_hidden = [Replicate() if p == Shard(-1) else p for p in layout]
    of_weight = [Shard(0) if p == Shard(-1) else Replicate() for p in layout]
    return [distribute_tensor(x, mesh, of_weight if i in matrices else of_hidden) for i, x in enumerate(arrays)]


def options_of(case: Case) -> dict[str, Any]:
    return {
        name: torch.from_numpy(np.array(v)) if isinstance(v, np.ndarray) else None if v is KEY else v
        for name, v in case.options.items()
    }


def gradients(fn: Callable[..., Any], arrays: list[Any]) -> tuple[Any, list[Any], list[Any]]:
    """Return a value, its gradients, and the gradients of a function of the gradients."""
    leaves = [x.detach().requires_grad_() for x in arrays]
    value = fn(*leaves)
    first = torch.autograd.grad(value, leaves, create_graph=True, materialize_grads=True)
    # weights make every second derivative count
    product = sum(xp.namespace(g).sum(g * g * (1 + g.detach())) for g in first if g.requires_grad)
    if not torch.is_tensor(product):  # linear
        return value, list(first), [torch.zeros_like(x) for x in leaves]
    return value, list(first), list(torch.autograd.grad(product, leaves, materialize_grads=True))


def compare(case: Case, mesh: Any, layout: Layout, options: dict[str, Any]) -> None:
    arrays = arrays_of(case)
    parts = cut(case, arrays, mesh, layout)
    want = gradients(lambda *leaves: case(*leaves, **options), arrays)
    got = gradients(lambda *leaves: case(*leaves, **options), parts)
    assert not isinstance(got[0], DTensor), "the value is a DTensor"
    for name, a, b in zip(("value", "gradient", "second gradient"), got, want, strict=True):
        for i, (x, y) in enumerate(zip(*((z if isinstance(z, list) else [z]) for z in (a, b)), strict=True)):
            np.testing.assert_allclose(whole(x), whole(y), rtol=1e-9, atol=1e-11, err_msg=f"{name} {i}")
            if name == "gradient":
                assert x.placements == parts[i].placements, f"{name} {i}: {x.placements}"


def calls(case: Case) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the shared options to call a row with."""
    shape = tuple(case.selected_shape)
    rng = np.random.default_rng(7)
    mask = torch.asarray(rng.random(shape) < 0.6)
    weights = torch.asarray(rng.random(shape))
    yield "sum", {"reduction": "sum"}
    yield "mean", {"reduction": "mean"}
    yield "where", {"reduction": "mean", "where": mask}
    yield "weights", {"reduction": "mean", "weights": weights, "where": mask}
    yield "normalizer", {"normalizer": torch.tensor(3.0, dtype=torch.float64)}


def every_row(mesh: Any, selected: list[str]) -> list[str]:
    failures = []
    for case in CASES:
        if selected and not any(part in case.id for part in selected):
            continue
        for name, shared in calls(case):
            for kind, layout in layouts(mesh):
                if mesh.ndim == 2 and (case.arrays[0].ndim == 1 or name not in ("mean", "weights")):
                    continue
                if kind == "copies" and name != "weights":
                    continue
                try:
                    compare(case, mesh, layout, {**options_of(case), **shared})
                except Exception as error:  # noqa: BLE001 - all failures are reported together
                    places = [f"{f.filename}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)]
                    failures.append(f"{case.id} {name} {kind}: {type(error).__name__}: {error} {places[-4:]}")
                if torch.distributed.get_rank() == 0:
                    failed = bool(failures) and failures[-1].startswith(f"{case.id} {name} {kind}:")
                    record(case.name, "DTensor", kind, "wrong" if failed else "right")
    return failures


def main(count: int, out: Path) -> None:
    warnings.simplefilter("ignore")
    torch.distributed.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (2,) if count == 2 else (2, 2))
    failures = every_row(mesh, sys.argv[3:])
    (out / f"{torch.distributed.get_rank()}.json").write_text(json.dumps(failures))
    leave()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
