"""Training steps beside those of one process: tensor parallel layers, and rows cut by hand. Started by a test.

`DistributedDataParallel` and FSDP average gradients, so the examples of the guide divide by the mean number of tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, loss_parallel, parallelize_module
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from tests.helpers.gloo import World, main
from tests.helpers.layouts import close
from xpenalties import Penalty, Pipeline, RegularizedLoss, entropy, kl_divergence, transforms, trees
from xpenalties.integrations.torch import attach, train_step, wrap_loss

FEATURES, HIDDEN, CLASSES, ROWS = 6, 8, 12, 8

PIPE = Pipeline(
    [
        Penalty("kl_divergence", inputs=("teacher", "logits"), weight=0.7, from_logits=True),
        Penalty("entropy", inputs="logits", weight=0.3, mode="bonus", from_logits=True),
        Penalty("z_loss", inputs="logits", weight=0.01),
        Penalty("l2", tree={"match": "weight"}, name="decay", inputs="params", weight=0.01),
        Penalty("orthogonality", tree={"match": "up.weight"}, name="orthogonal", inputs="params", weight=0.01),
    ]
)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up = nn.Linear(FEATURES, HIDDEN)
        self.down = nn.Linear(HIDDEN, FEATURES)
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Any) -> Any:
        return self.head(x + self.down(torch.tanh(self.up(x))))


PLAN = {
    "up": ColwiseParallel(),
    "down": RowwiseParallel(),
    "head": ColwiseParallel(output_layouts=Shard(-1), use_local_output=False),
}


def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, teacher = torch.randn(ROWS, FEATURES, generator=generator), torch.randn(ROWS, CLASSES, generator=generator)
    return x, torch.randint(CLASSES, (ROWS,), generator=generator), teacher


def base(given: dict[str, Any]) -> Any:
    return cross_entropy(given["logits"], given["labels"])


def case_tensor_parallel_logits(world: World) -> None:
    """With PyTorch's `loss_parallel` around the cross-entropy, and the penalties inside it or after it."""
    x, labels, teacher = data()
    one = Network()
    loss = RegularizedLoss(base, PIPE)
    expected, expected_report = loss.compute({"logits": one(x), "labels": labels, "teacher": teacher, "params": one})
    expected.backward()
    for inside in (True, False):
        for own_teacher in (True, False):
            many = parallelize_module(Network(), world.line, PLAN)
            with world.moves() as moves, loss_parallel():
                logits = many(x)
                assert logits.placements[0].is_shard()
                of_teacher = teacher
                if own_teacher:  # a teacher's logits are cut, too
                    of_teacher = logits.detach() * 0 + torch.distributed.tensor.distribute_tensor(
                        teacher, world.line, [Shard(-1)]
                    )
                given = {"logits": logits, "labels": labels, "teacher": of_teacher, "params": many}
                if inside:
                    total, report = loss.compute(given)
                    assert world.same(report.to_json())
                    for name, number in expected_report.flat().items():
                        close(torch.tensor(report.flat()[name]), torch.tensor(number), name)
                else:
                    total = base(given) + PIPE(given)
                close(total, expected)
                total.backward()
            del moves
            for (name, p), q in zip(many.named_parameters(), one.parameters(), strict=True):
                close(p.grad, q.grad, f"{name}, inside: {inside}, cut teacher: {own_teacher}")


def case_norms_through_tensor_parallel_layers(world: World) -> None:
    """With respect to parameters that are cut, through the layers that use them."""
    x, labels, teacher = data()
    one, many = Network(), parallelize_module(Network(), world.line, PLAN)
    loss = RegularizedLoss(base, PIPE)
    options: dict[str, Any] = {"track_grad_norms": True, "gradient_conflicts": True}
    given = {"logits": one(x), "labels": labels, "teacher": teacher, "params": one}
    expected = loss.compute(given, wrt=one, **options)[1]
    with loss_parallel():
        given = {"logits": many(x), "labels": labels, "teacher": teacher, "params": many}
        total, report = loss.compute(given, wrt=many, **options)
        total.backward()
    world.same(report.to_json())
    for name, number in expected.flat().items():
        close(torch.tensor(report.flat()[name]), torch.tensor(number), name)
    for a, row in expected.conflicts().items():
        for b, cosine in row.items():
            close(torch.tensor(report.conflicts()[a][b]), torch.tensor(cosine), f"{a} {b}")


def case_a_training_step(world: World) -> None:
    """`train_step` and transforms, with parameters cut by tensor parallelism, and by FSDP over it on a 2-d mesh."""
    x, labels, _ = data()
    pipe = PIPE.remove("kl_divergence")
    pipe = Pipeline(
        [
            penalty
            if penalty.inputs == "params"
            else Penalty(
                penalty.fn, name=penalty.name, inputs="outputs", weight=penalty.weight, options=dict(penalty.options)
            )
            for penalty in pipe
        ]
    )
    kinds = ["tensor parallel"] + ([] if world.square is None else ["FSDP over it"])
    for kind in kinds:
        one = Network()
        if kind == "tensor parallel":
            many, rows = parallelize_module(Network(), world.line, PLAN), slice(None)
        else:
            many = parallelize_module(Network(), world.square["inner"], PLAN)
            half = ROWS // 2
            outer = world.square.get_local_rank("outer")
            rows = slice(half * outer, half * (outer + 1))
            for layer in (many.up, many.down, many.head, many):
                fully_shard(layer, mesh=world.square["outer"])
        reports = []
        for model, own in ((one, slice(None)), (many, rows)):
            optimizer = torch.optim.Adam(model.named_parameters(), lr=0.05)
            attach(optimizer, transforms.clip_by_global_norm(0.5))
            attach(optimizer, transforms.add_elastic_net_decay(0.1, match="weight"))
            attach(optimizer, transforms.add_l1_decay(0.01, decoupled=True), to="updates")
            step = train_step(model, optimizer, wrap_loss(cross_entropy, pipe))
            with loss_parallel():
                for i in range(4):
                    total, report = step(x[own], labels[own], step=i)
            reports.append(report)
            assert torch.isfinite(total)
        for (name, p), q in zip(many.named_parameters(), one.parameters(), strict=True):
            close(p, q, f"{kind}: {name}")
        if kind == "tensor parallel":
            world.same(reports[1].to_json())
            for name, number in reports[0].flat().items():
                close(torch.tensor(reports[1].flat()[name]), torch.tensor(number), name)


def case_rows_of_each_process(world: World) -> None:
    """The recipe of the guide for `DistributedDataParallel` and FSDP: divide by the mean number of tokens."""
    x, _, teacher = data()
    mask = torch.tensor([True, False, True, True, False, True, False, True])  # of two processes, 3 and 2 rows count
    count = mask.sum()
    size = ROWS // world.size
    own = slice(size * world.rank, size * (world.rank + 1))
    local_count = mask[own].sum()
    torch.distributed.all_reduce(local_count)
    assert int(local_count) == int(count)

    def loss(model: Any, rows: slice, normalizer: Any) -> Any:
        logits = model(x[rows])
        options = {"from_logits": True, "where": mask[rows], "normalizer": normalizer}
        return kl_divergence(teacher[rows], logits, **options) + 0.1 * entropy(logits, mode="bonus", **options)

    one = Network()
    loss(one, slice(None), count).backward()
    for kind in ("DDP", "FSDP"):
        many: Any = Network()
        if kind == "DDP":
            many = DistributedDataParallel(many)
        else:
            fully_shard(many, mesh=world.line)
        loss(many, own, local_count / world.size).backward()
        for (name, p), q in zip(many.named_parameters(), one.parameters(), strict=True):
            close(p.grad, q.grad, f"{kind}: {name}")


def case_rows_as_one_tensor(world: World) -> None:
    """The other recipe: the rows of all processes are one DTensor, so whole-batch penalties are of the whole batch."""
    from torch.distributed.tensor import DTensor

    x, _, _ = data()
    size = ROWS // world.size
    own = slice(size * world.rank, size * (world.rank + 1))
    penalty = Pipeline([Penalty("covariance", weight=0.5), Penalty("orthogonality", weight=0.1), Penalty("l2")])
    one = Network()
    expected = penalty(one.up(x))
    expected.backward()
    many: Any = Network()
    ddp = DistributedDataParallel(many.up)
    rows = DTensor.from_local(ddp(x[own]), world.line, [Shard(0)])
    total = penalty(rows)
    close(total, expected)
    (total * world.size).backward()  # DDP divides the sum of the gradients by the number of processes
    close(ddp.module.weight.grad, one.up.weight.grad)
    close(ddp.module.bias.grad, one.up.bias.grad)


def case_penalties_of_parameters_with_copies(world: World) -> None:
    """A replicated parameter counts once."""
    one = Network()
    many = parallelize_module(Network(), world.line, PLAN)
    assert any(p.placements == (Replicate(),) for p in many.parameters() if hasattr(p, "placements"))
    for name in ("l1", "l2", "huber", "output_magnitude"):
        close(trees.over_tree(name)(many), trees.over_tree(name)(one), name)


if __name__ == "__main__":
    main(globals())
