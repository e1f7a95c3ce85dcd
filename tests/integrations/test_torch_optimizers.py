"""Transforms and parameter groups in PyTorch's optimizers, beside PyTorch's own."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import integration
from xpenalties import prox, schedules, transforms

integration()

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from tests.integrations.torch_training import STEPS, batches, close, network, sgd
from xpenalties.integrations.torch import attach, parameter_groups


def train(model: nn.Module, optimizer: torch.optim.Optimizer, before: Callable[[], Any] = lambda: None) -> None:
    for x, y in batches():
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        before()
        optimizer.step()


@pytest.mark.usefixtures("float64")
def test_clipping_as_pytorch() -> None:
    ours, theirs = network(), network()
    optimizer = sgd(ours)
    attach(optimizer, transforms.clip_by_global_norm(0.1))
    train(ours, optimizer)

    def clip() -> None:
        norm = nn.utils.clip_grad_norm_(theirs.parameters(), float("inf"))
        assert norm > 0.1
        nn.utils.clip_grad_norm_(theirs.parameters(), 0.1 * (1 + 1e-6 / float(norm)))  # it divides by norm + 1e-6

    train(theirs, sgd(theirs), clip)
    close(ours, theirs)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("named", [True, False])
def test_decay_as_adam_and_adamw(named: bool) -> None:
    def adam(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(model.named_parameters() if named else model.parameters(), lr=0.01)

    ours, theirs = network(), network()
    optimizer = adam(ours)
    attach(optimizer, transforms.add_l2_decay(0.3))
    train(ours, optimizer)
    train(theirs, torch.optim.Adam(theirs.parameters(), lr=0.01, weight_decay=0.3))
    close(ours, theirs)

    ours, theirs = network(), network()
    optimizer = adam(ours)
    attach(optimizer, transforms.add_l2_decay(0.01 * 0.3, decoupled=True), to="updates")
    train(ours, optimizer)
    train(theirs, torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=0.3))
    close(ours, theirs)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "transform",
    [
        transforms.proximal(prox.l1, scale=0.02, match=r"weight$"),
        transforms.add_l1_decay(0.02, match=r"weight$", decoupled=True),
    ],
    ids=["proximal", "decay"],
)
def test_exact_zeros(transform: Any) -> None:
    ours, theirs = network(), network()
    optimizer = sgd(ours)
    attached = attach(optimizer, transform, to="updates")
    train(ours, optimizer)
    by_hand = sgd(theirs)
    for x, y in batches():
        by_hand.zero_grad()
        cross_entropy(theirs(x), y).backward()
        by_hand.step()
        with torch.no_grad():
            for name, p in theirs.named_parameters():
                if name.endswith("weight"):
                    p.copy_(p.sign() * (p.abs() - 0.02).clamp(min=0))
    close(ours, theirs)
    assert float(prox.sparsity(ours, match="weight$")) > 0.2
    attached.remove()
    assert not optimizer._optimizer_step_pre_hooks and not optimizer._optimizer_step_post_hooks
    assert not any(key.startswith("xpenalties") for key in optimizer.state_dict())


def test_paths_by_model_and_by_place() -> None:
    model = network()
    by_place = torch.optim.SGD(model.parameters(), lr=1.0)
    attach(by_place, transforms.add_l2_decay(0.5, match=r"^0\.0$"))
    for param in model.parameters():
        param.grad = torch.zeros_like(param)
    before = copy.deepcopy(model)
    by_place.step()
    torch.testing.assert_close(model[0].weight, 0.5 * before[0].weight)
    torch.testing.assert_close(model[2].weight, before[2].weight)

    by_name = torch.optim.SGD(model.parameters(), lr=1.0)
    attach(by_name, transforms.add_l2_decay(0.5, match=r"^2\.weight$"), model=model)
    model[0].weight.grad = None  # it stays as it is
    by_name.step()
    torch.testing.assert_close(model[2].weight, 0.5 * before[2].weight)
    assert model[0].weight.grad is None


@pytest.mark.usefixtures("float64")
def test_the_state_is_saved() -> None:
    def made() -> tuple[nn.Sequential, torch.optim.Optimizer, Any]:
        model = network()
        optimizer = sgd(model)
        noise = transforms.add_noise(0.01, rng=torch.Generator().manual_seed(3))
        decay = transforms.add_l2_decay(schedules.linear(0.0, 0.5, steps=30))
        attach(optimizer, decay)
        return model, optimizer, attach(optimizer, noise)

    whole, optimizer, _ = made()
    train(whole, optimizer)
    train(whole, optimizer)

    half, optimizer, _ = made()
    train(half, optimizer)
    saved = io.BytesIO()
    torch.save({"model": half.state_dict(), "optimizer": optimizer.state_dict()}, saved)
    saved.seek(0)
    loaded = torch.load(saved, weights_only=True)
    again, optimizer, noise = made()
    again.load_state_dict(loaded["model"])
    optimizer.load_state_dict(loaded["optimizer"])
    assert int(noise.state.step) == STEPS
    train(again, optimizer)
    close(again, whole)

    without = sgd(network()).state_dict()
    optimizer.load_state_dict(without)  # as it was
    assert int(noise.state.step) == 2 * STEPS
    with pytest.raises(ValueError, match="the saved state must be of the same transform, got 0 arrays instead of 1"):
        optimizer.load_state_dict({**without, "xpenalties.0": []})


def test_places_of_states_are_free() -> None:
    optimizer = sgd(network())
    first, second = (attach(optimizer, transforms.add_l2_decay(schedules.constant(0.1))) for _ in range(2))
    first.remove()
    optimizer.param_groups[0]["params"][0].grad = torch.zeros(8, 6)
    optimizer.step()
    attach(optimizer, transforms.add_l2_decay(schedules.constant(0.1)))
    states = {key: value for key, value in optimizer.state_dict().items() if key.startswith("xpenalties.")}
    assert {key: int(value[0]) for key, value in states.items()} == {"xpenalties.1": 1, "xpenalties.0": 0}
    assert int(second.state.step) == 1


def test_groups_of_parameters() -> None:
    model = network()
    model[4].bias.requires_grad_(False)
    groups = parameter_groups(model, {r"^4\.": {"lr": 0.5}, r"bias$": {"weight_decay": 0.0}})
    assert [[name for name, _ in group["params"]] for group in groups] == [
        ["4.weight"],
        ["0.bias", "2.bias"],
        ["0.weight", "2.weight"],
    ]
    optimizer = torch.optim.SGD(groups, lr=0.1, weight_decay=0.1)
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [
        (0.5, 0.1),
        (0.1, 0.0),
        (0.1, 0.1),
    ]
    attach(optimizer, transforms.centralize(match=r"^4\.weight$"))
    assert len(parameter_groups(model, {"": {"lr": 0.5}})) == 1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: attach(3, transforms.centralize()), TypeError, "^attach: `optimizer` must be a torch.optim.Opt"),  # type: ignore[arg-type]
        (lambda: attach(sgd(network()), transforms.centralize), TypeError, "^attach: `transform` must have `init`"),  # type: ignore[arg-type]
        (
            lambda: attach(sgd(network()), transforms.centralize(), to="update"),  # type: ignore[arg-type]
            ValueError,
            "^attach: `to` must be .*Did you mean 'updates'",
        ),
        (
            lambda: attach(sgd(network()), transforms.centralize(), model=network()),
            ValueError,
            "^attach: `model` must have all of the optimizer's parameters, got none for place 0 of group 0",
        ),
        (
            lambda: attach(sgd(network()), transforms.centralize(match="kernel")),
            ValueError,
            "^centralize: each pattern must match a path in `params`, got 'kernel'",
        ),
        (
            lambda: parameter_groups(network(), {"x{99999999999}": {}}),
            ValueError,
            r"^parameter_groups: each pattern must be a regular expression, got 'x\{99999999999\}': the rep",
        ),
        (
            lambda: parameter_groups(network(), [("bias", {}), ("bias$", {})]),
            ValueError,
            r"^parameter_groups: each pattern must match a parameter that is left, got 'bias\$'",
        ),
    ],
)
def test_errors(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
