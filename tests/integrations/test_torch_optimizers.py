"""Transforms and parameter groups in PyTorch's optimizers, beside PyTorch's own."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import integration
from xpenalties import prox, schedules, transforms, trees

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
    assert not any(key.startswith("xpenalties") for key in optimizer.state_dict()["param_groups"][0])


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
    assert {"xpenalties.0.0", "xpenalties.1.0", "xpenalties.1.1"} < set(optimizer.param_groups[0])
    without["param_groups"][0]["xpenalties.1.0"] = torch.tensor(3)
    with pytest.raises(ValueError, match="the saved state must be of the same transform, got 1 arrays instead of 2"):
        optimizer.load_state_dict(without)
    assert int(noise.state.step) == 2 * STEPS


def test_paths_are_those_of_the_attached_parameters() -> None:
    """A checkpoint brings its own names, such as those of a compiled model. Groups that are added later have theirs."""
    model, late = network(), nn.Parameter(torch.ones(2))
    compiled = {f"_orig_mod.{name}": param for name, param in network().named_parameters()}
    saved = torch.optim.SGD([*compiled.items()], lr=1.0).state_dict()
    optimizer = sgd(model, momentum=0, lr=1.0)
    attach(optimizer, transforms.add_l2_decay(0.5, match=[r"^0\.weight$", r"^2\.weight$"]))
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["param_names"][0] == "_orig_mod.0.weight"
    attach(optimizer, transforms.add_l2_decay(0.25, match=r"0\.weight$"))
    optimizer.add_param_group({"params": [("10.weight", late)]})
    before = copy.deepcopy(model)
    for param in (*model.parameters(), late):
        param.grad = torch.zeros_like(param)
    optimizer.step()
    torch.testing.assert_close(model[0].weight, (0.5 - 0.25) * before[0].weight)
    torch.testing.assert_close(model[2].weight, 0.5 * before[2].weight)
    torch.testing.assert_close(model[4].weight, before[4].weight)
    torch.testing.assert_close(late.detach(), torch.full((2,), 0.75))


def test_places_of_states_are_free() -> None:
    optimizer = sgd(network())
    first, second = (attach(optimizer, transforms.add_l2_decay(schedules.constant(0.1))) for _ in range(2))
    first.remove()
    optimizer.param_groups[0]["params"][0].grad = torch.zeros(8, 6)
    optimizer.step()
    attach(optimizer, transforms.add_l2_decay(schedules.constant(0.1)))
    group = optimizer.state_dict()["param_groups"][0]
    states = {key: int(value) for key, value in group.items() if key.startswith("xpenalties.")}
    assert states == {"xpenalties.1.0": 1, "xpenalties.0.0": 0}
    assert int(second.state.step) == 1


def test_transforms_without_a_state_have_places_too() -> None:
    def made() -> tuple[torch.optim.Optimizer, Any]:
        optimizer = sgd(network())
        attach(optimizer, transforms.centralize())
        attach(optimizer, transforms.clip_by_global_norm(1.0))
        return optimizer, attach(optimizer, transforms.add_l2_decay(schedules.constant(0.1)))

    optimizer, _ = made()
    optimizer.step()
    again, decay = made()
    again.load_state_dict(optimizer.state_dict())
    assert int(decay.state.step) == 1


def test_states_of_ones_own() -> None:
    """A state may hold numbers, and arrays of the parameters' shapes."""

    def made() -> tuple[torch.optim.Optimizer, Any]:
        def init(params: Any) -> Any:
            return {"count": 0, "sums": {path: torch.zeros_like(param) for path, param in params.items()}}

        def update(updates: Any, state: Any, params: Any = None) -> Any:
            sums = {path: state["sums"][path] + update for path, update in updates.items()}
            return updates, {"count": state["count"] + 1, "sums": sums}

        optimizer = sgd(network())
        return optimizer, attach(optimizer, transforms.GradientTransformation(init, update))

    optimizer, attached = made()
    for param in optimizer.param_groups[0]["params"]:
        param.grad = torch.ones_like(param)
    optimizer.step()
    optimizer.step()
    again, loaded = made()
    again.load_state_dict(optimizer.state_dict())
    assert loaded.state["count"] == 2
    assert all(torch.equal(sums, torch.full_like(sums, 2.0)) for sums in loaded.state["sums"].values())
    assert loaded.state["sums"]["0.weight"] is not attached.state["sums"]["0.weight"]


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


def test_groups_by_axes_shapes_and_modules() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3))
    patterns = {
        trees.paths_within(model, nn.LayerNorm): {"lr": 0.5},
        trees.Pattern("0", ndim=1): {"lr": 0.4},
        trees.Pattern(shape=(-1, 8)): {"lr": 0.3},
        trees.Pattern("lora", optional=True): {"lr": 0.2},
    }
    groups = parameter_groups(model, patterns)
    assert [(group.get("lr"), [name for name, _ in group["params"]]) for group in groups] == [
        (0.5, ["1.weight", "1.bias"]),
        (0.4, ["0.bias"]),
        (0.3, ["2.weight"]),
        (None, ["0.weight", "2.bias"]),
    ]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    attach(optimizer, transforms.add_l2_decay(1.0, match=trees.Pattern(ndim=2)))
    before = copy.deepcopy(model)
    for param in model.parameters():
        param.grad = torch.zeros_like(param)
    optimizer.step()
    torch.testing.assert_close(model[0].weight, 0.9 * before[0].weight)
    torch.testing.assert_close(model[2].weight, 0.7 * before[2].weight)
    assert all(torch.equal(model[i].bias, before[i].bias) for i in range(3))


class Wrapper(torch.optim.Optimizer):
    """As accelerate's `AcceleratedOptimizer`, which does not initialize its base class."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    @property
    def param_groups(self) -> Any:
        return self.optimizer.param_groups

    def state_dict(self) -> Any:
        return self.optimizer.state_dict()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: attach(Wrapper(sgd(network())), transforms.centralize()),
            TypeError,
            r"^attach: `optimizer` must take hooks, got Wrapper, .* Pass the optimizer inside it: .* `optimizer\.optim",
        ),
        (
            lambda: attach(torch.optim.SGD(network().parameters()), transforms.centralize(match="weight")),
            ValueError,
            r"^centralize: .* must match a path in `params`, got 'weight'.* have no names\. Pass attach\(model=\), or",
        ),
        (
            lambda: attach(
                torch.optim.SGD([*network().named_parameters(), *network().named_parameters()]), transforms.centralize()
            ),
            ValueError,
            "^attach: the optimizer's parameters must have different names, got '0.weight' twice",
        ),
        (lambda: attach(3, transforms.centralize()), TypeError, "^attach: `optimizer` must be a torch.optim.Opt"),  # type: ignore[arg-type]
        (lambda: attach(sgd(network()), transforms.centralize), TypeError, "^attach: `transform` must have `init`"),  # type: ignore[arg-type]
        (
            lambda: attach(sgd(network()), transforms.centralize(), to="update"),  # type: ignore[arg-type]
            ValueError,
            "^attach: `to` must be .*Did you mean 'updates'",
        ),
        *(
            (lambda transform=transform, to=to: attach(sgd(network()), transform, to=to), ValueError, message)
            for transform, to, message in (
                (
                    transforms.chain(transforms.centralize(), transforms.add_l1_decay(0.1, decoupled=True)),
                    "gradients",
                    r"^attach: `to` must be 'updates' for this transform, got 'gradients'\. Pass to='updates'",
                ),
                (transforms.proximal(prox.box, low=0.0), "gradients", "^attach: `to` must be 'updates' for this"),
                (
                    transforms.add_elastic_net_decay(0.1),
                    "updates",
                    r"^attach: `to` must be 'gradients' for this transform, got 'updates'\. Pass decoupled=True",
                ),
                (
                    transforms.chain(transforms.add_l2_decay(0.1), transforms.add_l1_decay(0.1, decoupled=True)),
                    "updates",
                    "^attach: `to` must be 'gradients' and 'updates' for .* Attach the parts of the chain one by one",
                ),
            )
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
            r"^parameter_groups: `options` must be a regular expression, got 'x\{99999999999\}': the rep",
        ),
        (
            lambda: parameter_groups(network(), [("bias", {}), ("bias$", {})]),
            ValueError,
            r"^parameter_groups: each pattern must match a parameter that is left, got 'bias\$'",
        ),
        (
            lambda: parameter_groups(network(), {trees.Pattern(ndim=4): {}}),
            ValueError,
            r"^parameter_groups: each pattern must match a parameter that is left, got Pattern\(ndim=4\)",
        ),
        (
            lambda: parameter_groups(network(), {3: {}}),  # type: ignore[dict-item]
            TypeError,
            "^parameter_groups: `options` must be a regular expression or several, got 3",
        ),
    ],
)
def test_errors(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
