"""Penalties of parts on the processes of a gloo group. The first process prints one line of JSON for each check.

Four processes are two of `batch` by two of `classes`; two processes are both of one group.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from tests.helpers.processes import leave
from tests.matrix.cases import KEY, Case
from tests.scale.over_cases import cut_of, family, is_refused, layouts_of
from xpenalties import over

Results = tuple[Any, list[Any], list[Any]]
GROUPS: dict[str, dict[str, Any]] = {}
PLACES: dict[str, tuple[int, int]] = {}  # of this process, and how many there are


def start(rank: int, count: int, store: str) -> None:
    """Join the other processes, and make the groups."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=count, timeout=timedelta(seconds=120)
    )
    if count == 2:
        for name in ("classes", "batch"):
            GROUPS[name], PLACES[name] = {name: dist.group.WORLD}, (rank, 2)
        return
    mesh = dist.device_mesh.init_device_mesh("cpu", (2, 2), mesh_dim_names=("batch", "classes"))
    for name in ("classes", "batch"):
        GROUPS[name], PLACES[name] = {name: mesh[name]}, (mesh[name].get_local_rank(), 2)
    GROUPS["both"] = {**GROUPS["classes"], **GROUPS["batch"]}


def arguments(case: Case) -> tuple[list[Any], list[str], dict[str, Any]]:
    """Return the arrays, those of options last, their names, and the other options."""
    names = [name for name, value in case.options.items() if isinstance(value, np.ndarray)]
    options = {name: None if v is KEY else v for name, v in case.options.items() if name not in names}
    return [torch.from_numpy(x.copy()) for x in (*case.arrays, *(case.options[n] for n in names))], names, options


def bounds(name: str, size: int, *, uneven: bool = False) -> tuple[int, int]:
    """Return where this process's part of an axis begins and ends. Uneven: the first process has 1 of 4, or nothing."""
    place, count = PLACES[name]
    edges = [size * i // count for i in range(count + 1)]
    if uneven:
        edges[1] = 1 if size == 4 else 0
    return edges[place], edges[place + 1]


def part(x: Any, cut: tuple[str | None, ...], *, uneven: bool = False) -> Any:
    """Return this process's part of an array."""
    for axis, name in enumerate(cut):
        if name is not None:
            begin, end = bounds(name, x.shape[axis], uneven=uneven)
            x = x.narrow(axis, begin, end - begin)
    return x.clone()


def results(value: Callable[..., Any], xs: list[Any], squared: list[int]) -> Results:
    """Return value, gradients, and the gradients of the sum of squares of some of the gradients."""
    xs = [x.clone().requires_grad_() for x in xs]
    first = value(xs)
    gradients = torch.autograd.grad(first, xs, create_graph=True, materialize_grads=True)  # counts are constants
    squares = sum((gradients[i] ** 2).sum() for i in squared)
    plain = torch.autograd.grad(value(xs), xs, materialize_grads=True)  # without a graph, where blocks run at once
    for a, b in zip(gradients, plain, strict=True):
        torch.testing.assert_close(a.detach(), b, rtol=1e-9, atol=1e-11)
    second = torch.autograd.grad(squares, xs, materialize_grads=True) if squares.requires_grad else xs
    if second is xs:
        second = [torch.zeros_like(x) for x in xs]
    return first.detach(), [g.detach() for g in gradients], list(second)


def checked(case: Case, layout: str, *, uneven: bool) -> None:
    arrays, names, options = arguments(case)
    cuts, of_options = cut_of(case, layout)
    all_cuts = [*cuts, *(of_options[name] for name in names)]

    def value(xs: list[Any]) -> Any:
        count = len(case.arrays)
        return case(*xs[:count], **options, **dict(zip(names, xs[count:], strict=True)))

    def inside(xs: list[Any]) -> Any:
        with over(**GROUPS[layout]):
            return value(xs)

    # gradients that the user adds up are not whole, so the square of one is not either
    squared = [i for i, cut in enumerate(all_cuts) if "batch" not in GROUPS[layout] or "batch" in cut]
    expected = results(value, arrays, squared)
    got = results(inside, [part(x, cut, uneven=uneven) for x, cut in zip(arrays, all_cuts, strict=True)], squared)
    torch.testing.assert_close(got[0], expected[0], rtol=1e-9, atol=1e-11)
    for order in (1, 2):
        for i, cut in enumerate(all_cuts):
            gradient = got[order][i]
            if i not in squared:
                group = GROUPS[layout]["batch"]
                gradient = gradient.clone()
                dist.all_reduce(gradient, group=group if isinstance(group, dist.ProcessGroup) else group.get_group())
            torch.testing.assert_close(gradient, part(expected[order][i], cut, uneven=uneven), rtol=1e-9, atol=1e-11)


def refused(case: Case, layout: str, message: str) -> None:
    arrays, names, options = arguments(case)
    try:
        with over(**GROUPS[layout]):
            case(*arrays[: len(case.arrays)], **options, **dict(zip(names, arrays[len(case.arrays) :], strict=True)))
    except (ValueError, NotImplementedError) as error:
        text = str(error)
    else:
        text = "not refused"
    assert message in text, text


def check(name: str, run: Callable[[], None], **details: Any) -> None:
    """Run a check on all processes. An error on any of them fails it, and the others go on."""
    try:
        run()
        error = None
    except Exception:  # noqa: BLE001 - reported, and the other checks go on
        error = traceback.format_exc()[-4000:]
    errors: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(errors, error)
    if dist.get_rank() == 0:
        first = next((e for e in errors if e), None)
        print(json.dumps({"check": name, "error": first, **details}), flush=True)


def main(rank: int, count: int, store: str, name: str) -> None:
    start(rank, count, store)
    for case in family(name):
        for layout in (name for name in layouts_of(case) if name in GROUPS):
            message = is_refused(case, layout)
            if message is not None:
                details = {"function": case.name, "sharding": layout, "refused": message}
                check(f"{case.id} {layout}", partial(refused, case, layout, message), **details)
                continue
            for uneven in (False, True):
                sharding = f"{layout}, uneven" if uneven else layout
                details = {"function": case.name, "sharding": sharding, "refused": None}
                check(f"{case.id} {sharding}", partial(checked, case, layout, uneven=uneven), **details)
    leave()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
