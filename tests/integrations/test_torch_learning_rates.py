"""Attached decays and proximal steps that follow the learning rates of an optimizer's groups."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import integration
from xpenalties import prox, transforms

integration()

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from tests.integrations.torch_training import STEPS, batches, close, network, sgd
from xpenalties.integrations.torch import attach


def groups(model: nn.Module) -> list[dict[str, Any]]:
    """Two groups with learning rates of their own."""
    first = {"params": [*model[:2].named_parameters()], "lr": 0.02}
    return [first, {"params": [*model[2:].named_parameters("rest")], "lr": 0.1}]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, after: Callable[[], Any] = lambda: None) -> None:
    """Train with a learning rate that warms up from 0 and falls again."""
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=[0.02, 0.1], total_steps=STEPS, cycle_momentum=False
    )
    for x, y in batches():
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
        after()
        scheduler.step()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("tensors", [False, True])
def test_decoupled_decay_is_that_of_adamw(tensors: bool) -> None:
    ours, theirs = network(), network()
    mine = torch.optim.Adam(groups(ours))
    if tensors:
        for group in mine.param_groups:
            group["lr"] = torch.tensor(group["lr"])
    transform = transforms.add_l2_decay(0.3, decoupled=True)
    attach(mine, transform, to="updates", scale_by_learning_rate=True)
    train(ours, mine)
    train(theirs, torch.optim.AdamW(groups(theirs), weight_decay=0.3))
    close(ours, theirs)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "transform",
    [
        transforms.proximal(prox.l1, scale=0.2),
        transforms.add_l1_decay(0.2, decoupled=True),
        transforms.chain(transforms.clip_by_global_norm(100.0), transforms.proximal(prox.l1, scale=0.2)),
    ],
    ids=["proximal", "decay", "chain"],
)
def test_proximal_gradient_descent(transform: Any) -> None:
    ours, theirs = network(), network()
    mine = torch.optim.SGD(groups(ours))
    attached = attach(mine, transform, to="updates", scale_by_learning_rate=True)
    train(ours, mine)
    other = torch.optim.SGD(groups(theirs))

    def shrink() -> None:
        with torch.no_grad():
            for group in other.param_groups:
                for param in group["params"]:
                    param.copy_(param.sign() * (param.abs() - 0.2 * group["lr"]).clamp(min=0))

    train(theirs, other, shrink)
    close(ours, theirs)
    copied, _ = copy.deepcopy((ours, attached))
    close(copied, theirs)


class WithoutRate(torch.optim.Optimizer):
    def __init__(self, params: Any) -> None:
        super().__init__(params, {})


DECAY = transforms.add_l2_decay(0.1, decoupled=True)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: attach(sgd(network()), DECAY, scale_by_learning_rate=True),
            ValueError,
            "^attach: `scale_by_learning_rate` must come with to='updates', got to='gradients'",
        ),
        (
            lambda: attach(sgd(network()), DECAY, to="updates", scale_by_learning_rate=1),  # type: ignore[arg-type]
            TypeError,
            "^attach: `scale_by_learning_rate` must be True or False, got 1",
        ),
        *(
            (
                lambda transform=transform: attach(
                    sgd(network()), transform, to="updates", scale_by_learning_rate=True
                ),
                ValueError,
                "^attach: `transform` must be a decoupled decay, .* got one that takes no learning rate",
            )
            for transform in (
                transforms.add_l2_decay(0.1),
                transforms.proximal(prox.box, low=0.0),
                transforms.chain(transforms.centralize(), transforms.chain(transforms.clip_by_global_norm(1.0))),
            )
        ),
        (
            lambda: attach(WithoutRate(network().named_parameters()), DECAY, to="updates", scale_by_learning_rate=True),
            ValueError,
            "^attach: the groups of `optimizer` must have an 'lr', got WithoutRate without",
        ),
    ],
)
def test_errors(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
