"""Objects of PyTorch's integration survive torch.distributed.checkpoint, pickle and copy.deepcopy."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import integration
from xpenalties import Penalty, Pipeline, prox, schedules, transforms

integration()

import torch
from torch import nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.nn.functional import cross_entropy, mse_loss

from tests.integrations.torch_training import STEPS, batches, close, network, sgd
from xpenalties.integrations.torch import attach, capture, train_step, wrap_loss


def train(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for x, y in batches():
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()


def made(kind: Any = torch.optim.Adam) -> tuple[nn.Module, torch.optim.Optimizer, list[Any]]:
    """A model, its optimizer, and transforms in it: with schedules, without a state, and with a generator."""
    model = network()
    groups = [{"params": [*model[:2].named_parameters()]}, {"params": [*model[2:].named_parameters("rest")]}]
    optimizer = kind(groups, lr=0.01)
    return (
        model,
        optimizer,
        [
            attach(optimizer, transforms.add_l2_decay(schedules.linear(0.0, 0.5, steps=30))),
            attach(optimizer, transforms.clip_by_global_norm(1.0)),
            attach(optimizer, transforms.add_noise(0.01, rng=torch.Generator().manual_seed(3))),
            attach(
                optimizer,
                transforms.proximal(prox.l1, scale=schedules.linear(0.0, 0.01, steps=30)),
                to="updates",
            ),
        ],
    )


def trained_twice() -> nn.Module:
    model, optimizer, _ = made()
    train(model, optimizer)
    train(model, optimizer)
    return model


# torch.distributed.checkpoint


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "options",
    [{}, {"full_state_dict": True}, {"flatten_optimizer_state_dict": True}],
    ids=["sharded", "full", "flat"],
)
def test_distributed_checkpoints(options: dict[str, bool], tmp_path: Path) -> None:
    model, optimizer, _ = made()
    train(model, optimizer)
    parameters, state = get_state_dict(model, optimizer, options=StateDictOptions(**options))
    checkpoint.save({"model": parameters, "optimizer": state}, checkpoint_id=tmp_path, no_dist=True)

    model, optimizer, attached = made()
    parameters, state = get_state_dict(model, optimizer, options=StateDictOptions(**options))
    loaded = {"model": parameters, "optimizer": state}
    checkpoint.load(loaded, checkpoint_id=tmp_path, no_dist=True)
    set_state_dict(
        model,
        optimizer,
        model_state_dict=loaded["model"],
        optim_state_dict=loaded["optimizer"],
        options=StateDictOptions(**options),
    )
    assert [int(each.state.step) for each in (attached[0], *attached[2:])] == [STEPS] * 3
    train(model, optimizer)
    close(model, trained_twice())


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_reading_a_state_changes_nothing(kind: Any) -> None:
    model, optimizer, attached = made(kind)
    before = [param.detach().clone() for param in model.parameters()]
    get_optimizer_state_dict(model, optimizer)  # makes a step, to create the optimizer's state
    assert all(map(torch.equal, before, model.parameters()))
    assert [int(each.state.step) for each in (attached[0], *attached[2:])] == [0] * 3


@pytest.mark.parametrize("call", ["without a closure", "with None"])
@pytest.mark.parametrize("rate", [0.0, 0.1])
@pytest.mark.parametrize("gradient", [0.0, 1.0])
def test_only_what_reads_a_state_is_no_step(call: str, rate: float, gradient: float) -> None:
    """A warmup begins with a learning rate of 0, and gradients may all be 0."""
    param = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([("p", param)], lr=rate)
    decay = attach(optimizer, transforms.add_l2_decay(schedules.constant(0.5), decoupled=True), to="updates")
    param.grad = torch.full((2,), gradient)
    optimizer.step() if call == "without a closure" else optimizer.step(closure=None)
    reads = (call, rate, gradient) == ("with None", 0.0, 0.0)
    assert int(decay.state.step) == (0 if reads else 1)
    torch.testing.assert_close(param.detach(), torch.full((2,), 1.0 if reads else 0.5 - rate * gradient))


def test_optimizers_without_a_learning_rate() -> None:
    class Fixed(torch.optim.Optimizer):
        def __init__(self, params: Any) -> None:
            super().__init__(params, {})

        def step(self, closure: Any = None) -> Any:
            return None

    param = nn.Parameter(torch.ones(2))
    optimizer = Fixed([("p", param)])
    decay = attach(optimizer, transforms.add_l2_decay(schedules.constant(0.5)))
    optimizer.step(closure=None)
    assert int(decay.state.step) == 1


# copies and pickles


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_copies_go_on_as_the_original(copied: Callable[[Any], Any]) -> None:
    model, optimizer, attached = made()
    train(model, optimizer)
    attached[1].remove()
    other, other_optimizer, other_attached = copied((model, optimizer, attached))
    train(other, other_optimizer)
    assert [int(each.state.step) for each in (attached[0], other_attached[0])] == [STEPS, 2 * STEPS]
    assert len(other_optimizer._optimizer_step_pre_hooks) == 3  # without the removed one
    with pytest.raises(TypeError, match=r"^attach: an Attached must be copied with its optimizer, .* copy.deepcopy"):
        copy.copy(attached[0])
    train(model, optimizer)
    close(model, other)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_copies_of_a_step(copied: Callable[[Any], Any]) -> None:
    """The copy of a step has its transforms and its capture: it trains its own model."""

    def step() -> Any:
        model = network()
        optimizer = sgd(model)
        attach(optimizer, transforms.add_l2_decay(schedules.linear(0.0, 0.5, steps=STEPS)))
        activities = capture(model, {"hidden": "1"})
        activities.__enter__()
        pipe = Pipeline([Penalty("l2", inputs="hidden", weight=0.1), Penalty("l1", inputs="outputs", weight=0.1)])
        return train_step(model, optimizer, wrap_loss(cross_entropy, pipe, activities)), model

    original, model = step()
    for x, y in batches():
        original(x, y)
    other, other_model = copied((original, model))
    assert other_model is not model
    for x, y in batches():
        total, report = other(x, y)
        expected, expected_report = original(x, y)
        torch.testing.assert_close(total, expected)
        torch.testing.assert_close(report.regularizers["l2"].value, expected_report.regularizers["l2"].value)
    close(model, other_model)


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_copies_of_a_loss(copied: Callable[[Any], Any]) -> None:
    loss = wrap_loss(mse_loss, Pipeline([Penalty("l2", inputs="outputs", weight=0.1)]))
    x, y = torch.ones(2), torch.zeros(2)
    torch.testing.assert_close(copied(loss)(x, y), loss(x, y))


def test_a_loss_that_cannot_be_pickled() -> None:
    loss = wrap_loss(lambda x, y: (x - y).square().mean(), Pipeline([Penalty("l2", inputs="outputs")]))
    with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
        pickle.dumps(loss)
    assert float(copy.deepcopy(loss)(torch.ones(1), torch.zeros(1))) == 2.0


def test_noise_in_an_optimizer_whose_first_group_is_empty() -> None:
    param = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([{"params": []}, {"params": [param]}], lr=0.0)
    attach(optimizer, transforms.add_noise(0.1, rng=torch.Generator().manual_seed(0)))
    param.grad = torch.zeros(2)
    optimizer.step()
    assert param.grad.abs().min() > 0
    optimizer.load_state_dict(optimizer.state_dict())
