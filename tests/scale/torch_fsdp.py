"""Penalties and transforms of the parameters of FSDP2, beside those of one process. Started by a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor

from tests.helpers.gloo import World, main
from tests.helpers.layouts import close
from tests.scale.torch_transforms import TRANSFORMS, updated
from xpenalties import Penalty, Pipeline, importance, prox, schedules, transforms, trees
from xpenalties.integrations.torch import attach

STEPS = 4
SHARDINGS = {"line": "parameters", "square": "parameters, copied"}


def network() -> nn.Module:
    """Return a model with rows that no number of processes divides, a 3-d kernel and a parameter that is a number."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 5), nn.Tanh(), nn.Linear(5, 3))


def meshes(world: World) -> dict[str, Any]:
    """Return the meshes of FSDP: of two axes, the first has copies and the second parts."""
    return {"line": world.line} | ({} if world.square is None else {"square": world.square})


def sharded(mesh: Any, *, but: tuple[str, ...] = ()) -> nn.Module:
    """Return the network with its parameters cut, layer by layer, except those of some layers."""
    model = network()
    for name, layer in model.named_children():
        if isinstance(layer, nn.Linear) and name not in but:
            fully_shard(layer, mesh=mesh)
    if not but:
        fully_shard(model, mesh=mesh)
    return model


def batches(world: World) -> list[tuple[Any, Any, Any, Any]]:
    """Return batches, and this process's rows of each."""
    generator = torch.Generator().manual_seed(1)
    made = []
    for _ in range(STEPS):
        x, y = torch.randn(8, 6, generator=generator), torch.randint(3, (8,), generator=generator)
        rows = slice(world.rank * 8 // world.size, (world.rank + 1) * 8 // world.size)
        made.append((x, y, x[rows], y[rows]))
    return made


def same_parameters(actual: nn.Module, expected: nn.Module, what: str) -> None:
    for (name, p), q in zip(actual.named_parameters(), expected.parameters(), strict=True):
        close(p, q, f"{what}: {name}")


def trained(
    world: World,
    mesh: Any,
    prepare: Callable[[nn.Module], tuple[torch.optim.Optimizer, Callable[[nn.Module], Any]]],
    what: str,
) -> None:
    """Train with parameters whole and cut, and compare. `prepare` returns the optimizer, and a penalty of the model."""
    one, many = network(), sharded(mesh)
    (optimizer, penalty), (cut_optimizer, cut_penalty) = prepare(one), prepare(many)
    for x, y, own_x, own_y in batches(world):
        (nn.functional.cross_entropy(one(x), y) + penalty(one)).backward()
        (nn.functional.cross_entropy(many(own_x), own_y) + cut_penalty(many)).backward()
        for each in (optimizer, cut_optimizer):
            each.step()
            each.zero_grad()
    same_parameters(many, one, what)


def case_penalties_in_the_loss(world: World) -> None:
    """Their gradient is that of the whole parameters, not summed or averaged over processes once more."""
    for name, options in {
        "l1": {},
        "l2": {},
        "elastic_net": {"l1_ratio": 0.3},
        "huber": {"delta": 0.1},
        "group_lasso": {"match": "weight"},
        "orthogonality": {"match": "weight"},
        "covariance": {"match": "weight"},
        "output_magnitude": {},
        "entropy": {"from_logits": True, "match": "weight"},
    }.items():
        selection = {key: value for key, value in options.items() if key == "match"}
        own = {key: value for key, value in options.items() if key != "match"}
        penalty = trees.over_tree(name, options=own, **selection)
        for kind, mesh in meshes(world).items():

            def prepare(model: nn.Module, penalty: Any = penalty) -> Any:
                return torch.optim.SGD(model.parameters(), lr=0.1), lambda model: 0.01 * penalty(model)

            trained(world, mesh, prepare, f"{name} on a {kind}")
            world.record(f"over_tree({name!r})", SHARDINGS[kind], engine="FSDP2")


def case_options_that_are_trees(world: World) -> None:
    """Masks and centers, whole or cut."""
    for kind, mesh in meshes(world).items():
        one, many = network(), sharded(mesh)
        old = {name: torch.full_like(p, 0.1).detach() for name, p in one.named_parameters()}
        cut_old = {name: torch.full_like(p, 0.1).detach() for name, p in many.named_parameters()}
        masks = {name: p.detach() > 0 for name, p in one.named_parameters()}
        penalty = trees.over_tree("l2")
        expected = penalty(one, center=old, where=masks)
        for centers in (old, cut_old):
            close(penalty(many, center=centers, where=masks), expected, kind)
        actual, wanted = penalty.by_path(many), penalty.by_path(one)
        for path in wanted:
            close(actual[path], wanted[path], path)
        assert str(penalty.explain(many)) == str(penalty.explain(one))


def case_anchored(world: World) -> None:
    """Near an earlier model, with importances. They are cut as their parameters, also if a gradient is not."""

    def output(params: Any, sample: Any) -> Any:
        hidden = torch.tanh((params["0.weight"] * sample).sum(-1) + params["0.bias"])
        return (params["2.weight"] * hidden).sum(-1) + params["2.bias"]

    one = network()
    params = {name: p.detach() for name, p in one.named_parameters()}
    samples = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    for kind, mesh in meshes(world).items():
        many = sharded(mesh)
        cut_params = {name: p.detach() for name, p in many.named_parameters()}
        cut_samples = distribute_tensor(samples, mesh, [Replicate()] * mesh.ndim)
        importances = importance.memory_aware(output, params, samples)
        cut_importances = importance.memory_aware(output, cut_params, cut_samples)
        for name, x in cut_importances.items():
            close(x, importances[name], f"{kind}: {name}")
            assert x.placements == cut_params[name].placements, (kind, name, x.placements)
        old, cut_old = ({name: p + 0.1 for name, p in each.items()} for each in (params, cut_params))
        expected = trees.anchored(old, importance=importances)(one)
        for reference, weights in ((old, importances), (cut_old, cut_importances), (cut_old, importances)):
            actual = trees.anchored(reference, importance=weights)(many)
            close(actual, expected, kind)
            gradients = torch.autograd.grad(actual, list(many.parameters()))
            for g, h in zip(gradients, torch.autograd.grad(expected, one.parameters(), retain_graph=True), strict=True):
                close(g, h, kind)


def case_some_parameters_whole(world: World) -> None:
    """FSDP leaves out parameters it is not applied to."""
    for kind, mesh in meshes(world).items():
        one, many = network(), sharded(mesh, but=("0",))
        assert not isinstance(many[0].weight, DTensor)
        for name in ("l1", "l2", "huber"):
            penalty = trees.over_tree(name)
            expected, actual = penalty(one), penalty(many)
            close(actual, expected, f"{name} on a {kind}")
            gradients = torch.autograd.grad(actual, list(many.parameters()))
            for g, h in zip(gradients, torch.autograd.grad(expected, list(one.parameters())), strict=True):
                close(g, h, f"{name} on a {kind}: gradient")
        pipe = Pipeline([Penalty("l1", tree={}, inputs="params"), Penalty("l2", tree={"match": "0"}, inputs="params")])
        reports = [
            pipe.compute({"params": model}, track_grad_norms=True, gradient_conflicts=True, wrt=model)[1]
            for model in (one, many)
        ]
        for path, number in reports[0].flat().items():
            close(torch.tensor(reports[1].flat()[path]), torch.tensor(number), f"{path} on a {kind}")
        close(reports[1].gradient_conflicts["l1"]["l2"], reports[0].gradient_conflicts["l1"]["l2"])
        params, cut_params = dict(one.named_parameters()), dict(many.named_parameters())
        expected = updated(transforms.clip_by_global_norm(0.5), params, params)
        for name, x in updated(transforms.clip_by_global_norm(0.5), cut_params, cut_params).items():
            close(x, expected[name], f"clip_by_global_norm on a {kind}: {name}")
        close(prox.sparsity(cut_params), prox.sparsity(params))


def case_attached_transforms(world: World) -> None:
    """In the steps of an optimizer, with gradients that FSDP has averaged. SGD and Adam take turns."""
    pairs = [(name, mesh) for name in TRANSFORMS if name != "proximal nuclear_norm" for mesh in meshes(world).values()]
    for i, (name, mesh) in enumerate(pairs):
        kind = (torch.optim.SGD, torch.optim.Adam)[i // len(meshes(world)) % 2]

        def prepare(model: nn.Module, name: str = name, kind: Any = kind) -> Any:
            optimizer = kind(model.named_parameters(), lr=0.05)
            attach(
                optimizer,
                TRANSFORMS[name](),
                to="updates" if "decoupled" in name or "proximal" in name else "gradients",
            )
            return optimizer, lambda model: 0.0

        try:
            trained(world, mesh, prepare, f"{name} in {kind.__name__}")
        except Exception as error:
            error.add_note(f"{name} in {kind.__name__}")
            raise
    for each in meshes(world):
        world.record("attach", SHARDINGS[each], engine="FSDP2")


def case_scaled_by_the_learning_rate(world: World) -> None:
    def prepare(model: nn.Module) -> Any:
        optimizer = torch.optim.Adam(model.named_parameters(), lr=0.05)
        decay = transforms.add_elastic_net_decay(0.3, decoupled=True, match="weight")
        attach(optimizer, decay, to="updates", scale_by_learning_rate=True)
        pipe = Pipeline([Penalty("l2", tree={"match": "weight"}, inputs="params", weight=0.01)])
        return optimizer, lambda model: pipe({"params": model})

    for mesh in meshes(world).values():
        trained(world, mesh, prepare, "")


def case_proximal_steps(world: World) -> None:
    for kind, mesh in meshes(world).items():
        one, many = network(), sharded(mesh)
        with torch.no_grad():
            expected, actual = (prox.prox_step(prox.l1, model, scale=0.1) for model in (one, many))
        for name in expected:
            close(actual[name], expected[name], f"{kind}: {name}")
        close(prox.sparsity(actual), prox.sparsity(expected), kind)
        assert 0 < world.same(float(prox.sparsity(actual))) < 1
        world.same(float(prox.sparsity(many, match="weight")))


def case_norms_of_sharded_parameters(world: World) -> None:
    """A penalty on parameters has norms. One on activities has a reason, or norms of what FSDP computes."""
    pipe = Pipeline(
        [
            Penalty("l2", tree={"match": "weight"}, name="decay", inputs="params", weight=0.1),
            Penalty("l1", tree={}, name="lasso", inputs="params", weight=0.1),
        ]
    )
    for mesh in meshes(world).values():
        one, many = network(), sharded(mesh)
        expected = pipe.compute({"params": one}, track_grad_norms=True, gradient_conflicts=True, wrt=one)[1]
        with world.moves() as moves:
            report = pipe.compute({"params": many}, track_grad_norms=True, gradient_conflicts=True, wrt=many)[1]
        assert moves.largest <= 1, moves.sizes
        assert world.same(report.to_json())
        for name, number in expected.flat().items():
            close(torch.tensor(report.flat()[name]), torch.tensor(number), name)
        _, _, x, _ = batches(world)[0]
        mixed = Pipeline([*pipe, Penalty("l2", name="output", inputs="y")])
        report = mixed.compute({"params": many, "y": many(x)}, track_grad_norms=True, wrt=many)[1]
        assert "FSDP has replaced its sharded parameters by copies" in (report["output"].error or "")
        close(report["decay"].grad_norm, expected["decay"].grad_norm)
        assert report.total_grad_norm is None  # nothing is known of a part of it


def case_norms_after_a_forward_pass(world: World) -> None:
    """The outermost module holds whole parameters then. The backward passes of norms free their memory."""
    output = Penalty("l2", name="output", inputs="y", reduction="mean")
    pipe = Pipeline([output, Penalty("l2", tree={}, name="decay", inputs="params")])
    for kind, mesh in meshes(world).items():
        one, many = nn.Linear(6, 5), nn.Linear(6, 5)
        many.load_state_dict(one.state_dict())
        fully_shard(many, mesh=mesh)
        for x, _, own, _ in batches(world):
            pipe({"y": one(x), "params": one}).backward()
            y = many(own)
            assert not isinstance(many.weight, DTensor)
            total, report = pipe.compute({"y": y, "params": many}, track_grad_norms=True, wrt=(many, y))
            total.backward()
            world.same([float(report["decay"].value), float(report["decay"].grad_norm)])
            assert report["output"].grad_norm is not None
            for (name, p), q in zip(many.named_parameters(), one.parameters(), strict=True):
                close(p.grad, q.grad, f"{kind}: {name}")
                p.grad = q.grad = None


def case_checkpoints(world: World) -> None:
    """Saved and loaded in the middle by torch.distributed.checkpoint."""

    def made(mesh: Any) -> tuple[nn.Module, torch.optim.Optimizer, list[Any]]:
        model = network() if mesh is None else sharded(mesh)
        optimizer = torch.optim.Adam(model.named_parameters(), lr=0.05)
        rising = schedules.linear(0.0, 0.5, steps=6)
        return (
            model,
            optimizer,
            [
                attach(optimizer, transforms.clip_by_global_norm(0.1)),
                attach(optimizer, transforms.add_elastic_net_decay(rising)),
                attach(optimizer, transforms.proximal(prox.simplex, axis=0), to="updates"),
                attach(
                    optimizer, transforms.proximal(prox.l1, scale=rising), to="updates", scale_by_learning_rate=True
                ),
            ],
        )

    def train(model: nn.Module, optimizer: Any, part: slice, *, own: bool) -> None:
        for x, y, own_x, own_y in batches(world)[part]:
            optimizer.zero_grad()
            (
                nn.functional.cross_entropy(model(own_x), own_y) if own else nn.functional.cross_entropy(model(x), y)
            ).backward()
            optimizer.step()

    one, optimizer, _ = made(None)
    train(one, optimizer, slice(None), own=False)
    for kind, mesh in meshes(world).items():
        model, optimizer, _ = made(mesh)
        train(model, optimizer, slice(0, 2), own=True)
        parameters, state = get_state_dict(model, optimizer)
        folder = world.path / f"checkpoint of a {kind}"
        checkpoint.save({"model": parameters, "optimizer": state}, checkpoint_id=folder)
        model, optimizer, attached = made(mesh)
        parameters, state = get_state_dict(model, optimizer)
        loaded = {"model": parameters, "optimizer": state}
        checkpoint.load(loaded, checkpoint_id=folder)
        set_state_dict(model, optimizer, model_state_dict=loaded["model"], optim_state_dict=loaded["optimizer"])
        assert [int(each.state.step) for each in (attached[1], attached[3])] == [2, 2]
        train(model, optimizer, slice(2, None), own=True)
        same_parameters(model, one, kind)
        world.record("Checkpoints of attach", SHARDINGS[kind], engine="FSDP2")


if __name__ == "__main__":
    main(globals())
