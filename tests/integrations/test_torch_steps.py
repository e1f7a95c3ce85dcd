"""Attached transforms in all kinds of steps: with closures, of frozen parameters, that maximize, and scaled ones."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import integration
from xpenalties import Penalty, Pipeline, prox, schedules, transforms

integration()

import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from tests.integrations.torch_training import STEPS, batches, close, network, sgd
from xpenalties.integrations.torch import attach, train_step, wrap_loss


def train_by_closure(model: nn.Module, optimizer: torch.optim.Optimizer, *, keyword: bool) -> None:
    for x, y in batches():

        def closure(x: torch.Tensor = x, y: torch.Tensor = y) -> torch.Tensor:
            optimizer.zero_grad()
            loss = cross_entropy(model(x), y)
            loss.backward()
            return loss

        loss = optimizer.step(closure=closure) if keyword else optimizer.step(closure)
        assert loss is not None


def train(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for x, y in batches():
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()


def attached(optimizer: torch.optim.Optimizer) -> list[Any]:
    """Transforms of both kinds, two of which count steps."""
    return [
        attach(optimizer, transforms.clip_by_global_norm(0.1)),
        attach(optimizer, transforms.add_l2_decay(schedules.linear(0.0, 0.5, steps=STEPS))),
        attach(optimizer, transforms.proximal(prox.l1, scale=schedules.linear(0.0, 0.02, steps=STEPS)), to="updates"),
    ]


# closures


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("keyword", [True, False])
def test_a_closure_as_a_step_without_one(keyword: bool) -> None:
    ours, theirs = network(), network()
    first, second = sgd(ours), sgd(theirs)
    states = [attached(first), attached(second)]
    train_by_closure(ours, first, keyword=keyword)
    train(theirs, second)
    close(ours, theirs)
    assert [int(each.state.step) for made in states for each in made[1:]] == [STEPS] * 4


class Quadratic:
    """A function whose minimum is where L-BFGS arrives after a few steps, and its evaluations."""

    def __init__(self, decay: float) -> None:
        self.param = nn.Parameter(torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64))
        self.decay = decay
        self.evaluations = 0
        # without a line search, which compares losses
        self.optimizer = torch.optim.LBFGS([("p", self.param)], max_iter=6)

    def __call__(self) -> torch.Tensor:
        self.evaluations += 1
        self.optimizer.zero_grad()
        curvature = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
        loss = 0.5 * (curvature * (self.param - 1) ** 2).sum() + 0.5 * self.decay * (self.param**2).sum()
        loss.backward()
        return loss


def test_lbfgs_calls_a_closure_many_times() -> None:
    ours, theirs = Quadratic(0.0), Quadratic(0.75)
    counting = attach(ours.optimizer, transforms.add_l2_decay(lambda step: 0.75 + 0 * step))
    zeros = attach(ours.optimizer, transforms.proximal(prox.l1, scale=schedules.constant(0.0)), to="updates")
    for _ in range(5):
        ours.optimizer.step(ours)
        theirs.optimizer.step(theirs)  # its loss has the decay, whose gradient ours gets from the transform
    assert ours.evaluations == theirs.evaluations > 6
    torch.testing.assert_close(ours.param, theirs.param, rtol=1e-9, atol=1e-9)
    minimum = torch.tensor([1.0, 2.0, 5.0]) / torch.tensor([1.75, 2.75, 5.75])
    torch.testing.assert_close(ours.param.detach().float(), minimum)
    assert int(counting.state.step) == int(zeros.state.step) == 5  # steps, not evaluations


def test_all_evaluations_of_a_step_start_from_one_state() -> None:
    made = Quadratic(0.0)
    seen: list[int] = []

    def weight(step: torch.Tensor) -> float:
        seen.append(int(step))
        return 0.1

    attach(made.optimizer, transforms.add_l2_decay(weight))
    made.optimizer.step(made)
    first = made.evaluations
    made.optimizer.step(made)
    assert first > 1
    assert seen == [0] * first + [1] * (made.evaluations - first)


# parameters that the optimizer leaves as they are


@pytest.mark.parametrize(
    "transform",
    [
        transforms.proximal(prox.l1, scale=0.01),
        transforms.add_l1_decay(0.01, decoupled=True),
        transforms.add_l2_decay(0.01, decoupled=True),
        transforms.add_noise(0.01, rng=torch.Generator()),
    ],
    ids=["proximal", "l1", "l2", "noise"],
)
@pytest.mark.parametrize("by_closure", [True, False])
def test_parameters_without_a_gradient_stay(transform: Any, by_closure: bool) -> None:
    model = network()
    model[0].requires_grad_(False)
    unused = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([*model.named_parameters(), ("unused", unused)], lr=0.01)
    attach(optimizer, transform, to="updates")
    before = {name: param.detach().clone() for name, param in model.named_parameters()}
    if by_closure:
        train_by_closure(model, optimizer, keyword=True)
    else:
        train(model, optimizer)
    moved = {name for name, param in model.named_parameters() if not torch.equal(param, before[name])}
    assert moved == {"2.weight", "2.bias", "4.weight", "4.bias"}
    assert torch.equal(unused, torch.ones(3))


# groups that maximize


def negated(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return -cross_entropy(model(x), y)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("to", ["gradients", "updates"])
@pytest.mark.parametrize(
    "of",
    [
        lambda decoupled: transforms.add_l2_decay(0.02, decoupled=decoupled),
        lambda decoupled: transforms.add_l1_decay(0.02, decoupled=decoupled),
        lambda decoupled: transforms.chain(
            transforms.clip_by_global_norm(0.05), transforms.add_elastic_net_decay(0.02, decoupled=decoupled)
        ),
    ],
    ids=["l2", "l1", "chain"],
)
def test_maximize_is_minimizing_the_negative(to: Any, of: Any) -> None:
    """One group of two maximizes: its decays shrink its parameters all the same."""
    results = []
    for maximize in (True, False):
        model = network()
        groups = [
            {"params": [*model[:2].named_parameters()], "maximize": maximize},
            {"params": [*model[2:].named_parameters("rest")]},
        ]
        optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
        attach(optimizer, of(to == "updates"), to=to)
        for x, y in batches():
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            for param in () if maximize else model[:2].parameters():
                param.grad.neg_()
            optimizer.step()
        results.append(model)
    close(*results)


def test_maximize_with_the_optimizers_own_decay() -> None:
    ours, theirs = (nn.Parameter(torch.ones(2)) for _ in range(2))
    mine = torch.optim.SGD([("p", ours)], lr=0.1, maximize=True)
    attach(mine, transforms.add_l2_decay(1.0))
    other = torch.optim.SGD([theirs], lr=0.1, maximize=True, weight_decay=1.0)
    for param, optimizer in ((ours, mine), (theirs, other)):
        for _ in range(10):
            optimizer.zero_grad()
            (0 * param).sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours, theirs)
    assert float(ours.detach()[0]) < 0.35


# a GradScaler, which fused optimizers read in their step


def scaled_training(optimizer_kind: Any, *, unscale: bool = False, steps: int = 8, **options: Any) -> Any:
    """Train with a GradScaler that meets infinite gradients in the third step. Return the model and the transforms."""
    model = network()
    optimizer = optimizer_kind(model.named_parameters(), lr=0.1, **options)
    made = [*attached(optimizer), attach(optimizer, transforms.add_noise(1e-4, rng=torch.Generator().manual_seed(0)))]
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=4)
    for i, (x, y) in enumerate(batches(steps)):
        optimizer.zero_grad()
        scaler.scale(cross_entropy(model(x), y) * (float("inf") if i == 2 else 1.0)).backward()
        before = [param.detach().clone() for param in model.parameters()]
        counts = [int(each.state.step) for each in made[1:]]
        if unscale:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        stays = all(map(torch.equal, before, model.parameters()))
        assert stays is (i == 2)
        assert [int(each.state.step) for each in made[1:]] == [count + (i != 2) for count in counts]
        assert not hasattr(optimizer, "grad_scale") and not hasattr(optimizer, "found_inf")
    return model


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW, torch.optim.Adagrad])
@pytest.mark.parametrize("unscale", [True, False], ids=["unscaled", "scaled"])
def test_fused_under_a_scaler_as_not_fused(kind: Any, unscale: bool) -> None:
    close(scaled_training(kind, fused=True, unscale=unscale), scaled_training(kind, fused=False))


@pytest.mark.parametrize("fused", [True, False])
def test_train_step_with_a_scaler(fused: bool) -> None:
    moved = []
    for scale in (1.0, 4096.0):
        model = network()
        optimizer = torch.optim.SGD(model.named_parameters(), lr=0.1, fused=fused)
        attach(optimizer, transforms.clip_by_global_norm(1e-3))
        loss = wrap_loss(mse_loss, Pipeline([Penalty("l2", inputs="outputs", weight=0.1)]))
        step = train_step(model, optimizer, loss, scaler=torch.amp.GradScaler("cpu", init_scale=scale))
        before = model[0].weight.detach().clone()
        step(torch.ones(4, 6), torch.zeros(4, 3))
        moved.append(model[0].weight.detach() - before)
    torch.testing.assert_close(*moved, rtol=1e-4, atol=0)
    assert 1e-5 < float(moved[0].norm()) < 1e-4


def test_a_scale_of_ones_own_stays() -> None:
    param = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([("p", param)], lr=1.0, fused=True)
    optimizer.grad_scale = torch.tensor(4.0)  # type: ignore[attr-defined]
    attach(optimizer, transforms.clip_by_global_norm(100.0))
    for _ in range(2):
        param.grad = torch.full((2,), 4.0)
        optimizer.step()
    assert float(optimizer.grad_scale) == 4.0  # type: ignore[attr-defined]
    torch.testing.assert_close(param.detach(), torch.tensor([-1.0, -1.0]))


def test_float16_gradients_are_not_unscaled() -> None:
    param = nn.Parameter(torch.ones(2, dtype=torch.float16))
    optimizer = torch.optim.SGD([("p", param)], lr=1.0, fused=True)
    attach(optimizer, transforms.clip_by_global_norm(1.0))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(param.sum()).backward()
    with pytest.raises(ValueError, match=r"^attach: gradients must not be float16 in a fused optimizer with a GradSc"):
        scaler.step(optimizer)


@pytest.mark.parametrize("to", ["gradients", "updates"])
def test_optimizers_that_unscale_by_the_scaler(to: Any) -> None:
    class Unscaling(torch.optim.SGD):
        _step_supports_amp_scaling = True

        def step(self, closure: Any = None, *, grad_scaler: Any = None) -> Any:
            raise AssertionError

    param = nn.Parameter(torch.ones(2))
    optimizer = Unscaling([("p", param)], lr=1.0)
    attach(optimizer, transforms.clip_by_global_norm(1.0), to=to)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(param.sum()).backward()
    with (
        pytest.warns(FutureWarning, match="stop passing itself"),
        pytest.raises(ValueError, match=r"^attach: the optimizer's `step` must not take a `grad_scaler`"),
    ):
        scaler.step(optimizer)
