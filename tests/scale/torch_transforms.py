"""Gradient transforms and proximal operators of DTensors beside those of one process. Started by a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tests.helpers.gloo import World, main
from tests.helpers.layouts import close, cut, layouts, whole
from xpenalties import prox, schedules, transforms

__all__ = ["TRANSFORMS", "updated"]

TRANSFORMS: dict[str, Callable[[], Any]] = {
    "clip": lambda: transforms.clip(0.1),
    "clip_by_block_rms": lambda: transforms.clip_by_block_rms(0.1),
    "clip_by_global_norm": lambda: transforms.clip_by_global_norm(0.1),
    "clip_by_global_norm of a number": lambda: transforms.clip_by_global_norm(torch.tensor(0.1)),
    "adaptive_gradient_clipping": lambda: transforms.adaptive_gradient_clipping(0.05),
    "adaptive_gradient_clipping of columns": lambda: transforms.adaptive_gradient_clipping(0.05, unit_axis=-1),
    "centralize": transforms.centralize,
    "centralize columns": lambda: transforms.centralize(unit_axis=-1),
    "add_l2_decay": lambda: transforms.add_l2_decay(0.3),
    "add_l1_decay": lambda: transforms.add_l1_decay(0.3),
    "add_elastic_net_decay": lambda: transforms.add_elastic_net_decay(schedules.linear(0.0, 1.0, steps=3)),
    "add_elastic_net_decay of a number": lambda: transforms.add_elastic_net_decay(torch.tensor(0.2)),
    "add_l2_decay, decoupled": lambda: transforms.add_l2_decay(0.3, decoupled=True),
    "add_l1_decay, decoupled": lambda: transforms.add_l1_decay(0.1, decoupled=True),
    "add_elastic_net_decay, decoupled": lambda: transforms.add_elastic_net_decay(0.3, decoupled=True),
    "proximal l1": lambda: transforms.proximal(prox.l1, scale=schedules.linear(0.0, 0.2, steps=3)),
    "proximal l2": lambda: transforms.proximal(prox.l2, scale=0.1),
    "proximal elastic_net": lambda: transforms.proximal(prox.elastic_net, scale=0.1, l1_ratio=0.3),
    "proximal group_lasso": lambda: transforms.proximal(prox.group_lasso, scale=0.1),
    "proximal group_lasso of columns": lambda: transforms.proximal(prox.group_lasso, scale=0.1, axis=0),
    "proximal nuclear_norm": lambda: transforms.proximal(prox.nuclear_norm, scale=0.3, match="matrix"),
    "proximal box": lambda: transforms.proximal(prox.box, low=-0.1, high=0.2),
    "proximal simplex": lambda: transforms.proximal(prox.simplex),
    "proximal simplex of columns": lambda: transforms.proximal(prox.simplex, axis=0),
    "chain": lambda: transforms.chain(
        transforms.clip_by_global_norm(0.5), transforms.add_l2_decay(0.1), transforms.centralize()
    ),
}


def parameters() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    shapes = {"matrix": (5, 7), "tall matrix": (9, 2), "bias": (5,), "row": (1, 3), "kernel": (3, 2, 5)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def updated(transform: Any, updates: dict[str, Any], params: dict[str, Any], steps: int = 2) -> dict[str, Any]:
    """Return the transformed updates of the last step."""
    state, result = transform.init(params), updates
    with torch.no_grad():
        for _ in range(steps):
            result, state = transform.update(updates, state, params)
    return dict(result)


def case_transforms(world: World) -> None:
    params = parameters()
    updates = {name: 0.5 * torch.sin(7 * x) for name, x in params.items()}
    for layout in layouts(world):
        cut_params = {name: cut(world, x, layout) for name, x in params.items()}
        cut_updates = {name: cut(world, x, layout) for name, x in updates.items()}
        for name, make in TRANSFORMS.items():
            try:
                expected = updated(make(), updates, params)
                actual = updated(make(), cut_updates, cut_params)
                for path, x in actual.items():
                    close(x, expected[path], f"{name}, {layout}: {path}")
                    assert x.placements == cut_updates[path].placements, (name, layout, path, x.placements)
            except Exception as error:
                error.add_note(f"{name}, {layout}")
                raise
            world.record(f"transforms.{name.partition(' ')[0].rstrip(',')}", layout)


def case_transforms_move_rows(world: World) -> None:
    """Never updates or parameters."""
    rows, columns = 64, 48
    for layout in layouts(world):
        params = {"matrix": cut(world, torch.randn(rows, columns), layout)}
        for name, make in TRANSFORMS.items():
            with world.moves() as moves:
                updated(make(), params, params, steps=1)
            most = max(rows, columns) * 2 if "nuclear" not in name else world.size * columns**2
            assert moves.largest <= most, (name, layout, moves.sizes)


PROX: dict[str, Callable[[Any], Any]] = {
    "l1": lambda x: prox.l1(x, scale=0.3),
    "l1 with a scale for each": lambda x: prox.l1(x, scale=torch.linspace(0.1, 0.5, x.shape[-1])),
    "l2": lambda x: prox.l2(x, scale=0.3),
    "elastic_net": lambda x: prox.elastic_net(x, scale=0.3),
    "group_lasso": lambda x: prox.group_lasso(x, scale=0.5),
    "group_lasso of columns": lambda x: prox.group_lasso(x, scale=0.5, axis=0),
    "group_lasso of all": lambda x: prox.group_lasso(x, scale=0.3, axis=(0, 1)),
    "nuclear_norm": lambda x: prox.nuclear_norm(x, scale=1.0),
    "box": lambda x: prox.box(x, low=-0.3, high=0.2),
    "box with bounds": lambda x: prox.box(x, low=torch.linspace(-1.0, 0.0, x.shape[-1])),
    "simplex": prox.simplex,
    "simplex of columns": lambda x: prox.simplex(x, axis=0, radius=2.0),
    "simplex with a radius for each": lambda x: prox.simplex(x, radius=torch.linspace(0.5, 1.5, x.shape[0])),
    "sparse_group_lasso": lambda x: prox.sparse_group_lasso(x, scale=0.3, l1_ratio=0.4),
    "mcp": lambda x: prox.mcp(x, scale=0.3, threshold=1.0),
    "scad": lambda x: prox.scad(x, scale=0.3, knee=0.5),
    "log_sum": lambda x: prox.log_sum(x, scale=0.3, eps=0.1),
    "lp": lambda x: prox.lp(x, scale=0.3, p=0.5),
    "non_negative": prox.non_negative,
    "l1_ball": lambda x: prox.l1_ball(x, radius=2.0),
    "l1_ball of columns": lambda x: prox.l1_ball(x, radius=2.0, axis=0),
    "l2_ball": lambda x: prox.l2_ball(x, radius=2.0),
    "l2_sphere": lambda x: prox.l2_sphere(x, axis=0),
    "spectral_ball": lambda x: prox.spectral_ball(x, radius=2.0),
    "top_k": lambda x: prox.top_k(x, k=1),
    "top_k of columns": lambda x: prox.top_k(x, k=1, axis=0),
}
SPECTRAL = ("nuclear_norm", "spectral_ball")


def case_proximal_operators(world: World) -> None:
    """Values, gradients, and what moves."""
    for shape in ((40, 24), (24, 40), (5, 3), (1, 4)):
        x = torch.randn(shape).requires_grad_()
        for layout in layouts(world):
            y = cut(world, x, layout)
            for name, operator in PROX.items():
                what = f"{name}, {layout}, {shape}"
                try:
                    with world.moves() as moves:
                        actual = operator(y)
                    close(actual, operator(x), what)
                    assert actual.placements == y.placements, (what, actual.placements)
                    if not name.startswith((*SPECTRAL, "top_k")) and shape[0] > 20:
                        assert moves.largest <= 2 * max(shape), (what, moves.sizes)
                    g, h = (torch.autograd.grad((f * f).sum(), z)[0] for f, z in ((actual, y), (operator(x), x)))
                    close(g, h, f"{what}: gradient")
                    world.record(f"prox.{name.partition(' ')[0]}", layout, moved=moves.largest / x.numel())
                except Exception as error:
                    error.add_note(what)
                    raise


def case_noise(world: World) -> None:
    """Copies get equal noise, parts different noise, and all of it is normal. Each process has the same seed."""
    for layout in layouts(world):
        zeros = torch.zeros(64, 48)
        x = cut(world, zeros, layout)
        for make in (lambda: torch.Generator().manual_seed(5), lambda: np.random.default_rng(5)):
            runs = []
            for _ in range(2):
                noise = transforms.add_noise(1.0, gamma=0.0, rng=make())
                state = noise.init([x, x])
                with world.moves() as moves:
                    first, state = noise.update([x, x], state)
                    second, state = noise.update([x, x], state)
                assert moves.largest <= 1, moves.sizes  # a seed
                runs.append([whole(y) for y in (*first, *second)])
                for y in (*first, *second):
                    assert y.placements == x.placements
                    _check_copies(world, y)
            assert all(map(torch.equal, *runs)), layout  # the same seed, the same noise
            for y in runs[0]:
                world.same(y.sum().item())
                assert abs(y.mean().item()) < 0.1, layout
                assert abs(y.std().item() - 1) < 0.05, layout
                assert len(y.unique()) == y.numel(), layout  # no part has the noise of another
            world.record("transforms.add_noise", layout)
            assert not any(torch.equal(a, b) for a, b in zip(runs[0], runs[0][1:], strict=False))


def _check_copies(world: World, x: Any) -> None:
    """Check that copies are equal. `full_tensor` would take one of them."""
    mesh = x.device_mesh
    place = tuple(mesh.get_local_rank(i) if p.is_shard() else 0 for i, p in enumerate(x.placements))
    parts: dict[Any, Any] = {}
    for other, part in world.gathered((place, x.to_local())):
        assert torch.equal(parts.setdefault(other, part), part)


if __name__ == "__main__":
    main(globals())
