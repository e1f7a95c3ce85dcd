"""The integration with PyTorch, beside the same written by hand in PyTorch's own words."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import integration
from xpenalties import Penalty, Pipeline, schedules, transforms, trees

integration()

import torch
from torch import nn
from torch.nn.functional import cross_entropy, log_softmax, mse_loss
from torch.utils.checkpoint import checkpoint

from tests.integrations.torch_training import batches, close, network, sgd
from xpenalties.integrations.torch import attach, capture, parameter_groups, train_step, wrap_loss

# activities


def test_activities_by_name() -> None:
    model = network()
    x = torch.randn(4, 6)
    with capture(model, {"early": "1", "late": "3"}) as activities:
        output = model(x)
        assert list(activities) == ["early", "late"] and len(activities) == 2
        torch.testing.assert_close(activities["early"], torch.tanh(model[0](x)))
        (activities["late"].sum() + output.sum()).backward()
        assert model[2].weight.grad is not None
        first = activities["early"]
        model(x + 1)
        assert not torch.equal(activities["early"], first)  # of the latest call
    kept = activities["early"]
    model(x)
    assert activities["early"] is kept  # there are no hooks any more
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_patterns_are_paths() -> None:
    model = network()
    with capture(model, r"^[13]$") as activities:
        model(torch.zeros(1, 6))
    assert list(activities) == ["1", "3"]
    with capture(model, ["0", "4"]) as activities:
        model(torch.zeros(1, 6))
    assert list(activities) == ["0", "4"]


def test_hooks_go_where_there_is_an_error() -> None:
    model = network()
    with pytest.raises(RuntimeError, match="shapes"), capture(model, "1"):
        model(torch.zeros(1, 5))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(3, 3)
        self.unused = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            x = torch.tanh(self.cell(x))
        return x


def test_copies_of_a_model_are_other_models() -> None:
    model = network()
    x = torch.randn(4, 6)
    with capture(model, {"hidden": "1"}) as activities:
        model(x)
        teacher = copy.deepcopy(model)
        model(x)
        hidden = activities["hidden"]
        with torch.no_grad():
            teacher(10 * x)
        assert activities["hidden"] is hidden and hidden.requires_grad


def test_inputs_that_are_picked() -> None:
    model = network()
    pipe = Pipeline([Penalty("l2", inputs=lambda found: found["1"][0] - found["1"][1])])
    with capture(model, [r"^1$", r"^3$"]) as activities:
        loss = wrap_loss(mse_loss, pipe, activities)
        activities.begin()
        first, second = model[:2](torch.ones(2, 6)), model[:2](torch.zeros(2, 6))
        activities.end()
        assert set(activities.seen()) == {"1"}  # nothing of what was not called
        value = loss(torch.zeros(1), torch.zeros(1))
    torch.testing.assert_close(value, ((first - second) ** 2).sum())
    named = wrap_loss(mse_loss, Pipeline([Penalty("l2", inputs="hiden")]), {"hidden": torch.ones(2)})
    with pytest.raises(
        ValueError, match=r"must have 'hiden', got 'outputs', 'targets', 'hidden'\. Did you mean 'hidden'"
    ):
        named(torch.zeros(1), torch.zeros(1))


def test_modules_that_are_called_several_times() -> None:
    model = Recurrent()
    pipe = Pipeline([Penalty(trees.over_tree("l2"), inputs=lambda seen: seen.calls("cell"), name="l2")])
    with capture(model, {"cell": "cell", "unused": "unused"}) as activities:
        with pytest.raises(ValueError, match=r"'cell' must have been called once .*, got 0 calls\. Call the model"):
            activities["cell"]
        assert "cell" in activities and "other" not in activities
        model(torch.ones(2, 3))
        assert len(activities.calls("cell")) == 3
        torch.testing.assert_close(pipe(activities), sum((x**2).sum() for x in activities.calls("cell")))
        with pytest.raises(
            ValueError, match=r"'cell' must have been called once .*, got 3 calls\. Take all of them by"
        ):
            activities["cell"]
        with pytest.raises(ValueError, match=r"'unused' must have been called once .*, got 0 calls"):
            activities["unused"]
        with pytest.raises(KeyError, match="other"):
            activities["other"]


def test_what_is_checkpointed_is_seen_once() -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return checkpoint(self.inner, x, use_reentrant=False)  # type: ignore[no-any-return]

    model, plain = Checkpointed(), network()
    x = torch.randn(4, 6)
    with capture(model, {"hidden": "inner.1"}) as activities:
        output = model(x)
        (output.sum() + activities["hidden"].square().sum()).backward()
        assert len(activities.calls("hidden")) == 1
    hidden = torch.tanh(plain[0](x))
    (plain[4](torch.tanh(plain[2](hidden))).sum() + hidden.square().sum()).backward()
    torch.testing.assert_close(model.inner[0].weight.grad, plain[0].weight.grad)


def test_a_compiled_model_is_compiled_once() -> None:
    from torch._dynamo.testing import CompileCounterWithBackend

    model = network()
    torch.compiler.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    with capture(model, {"hidden": "1"}) as activities:
        for _ in range(4):
            x = torch.randn(4, 6)
            compiled(x)
            activities["hidden"].square().sum().backward()
            torch.testing.assert_close(activities["hidden"], torch.tanh(model[0](x)))
            model.zero_grad()
    assert counter.frame_count == 1


def test_activities_under_autocast() -> None:
    model = network()
    pipe = Pipeline([Penalty("l2", inputs="hidden")])
    with capture(model, {"hidden": "0"}) as activities, torch.autocast("cpu", torch.bfloat16):
        model(torch.randn(4, 6))
        assert activities["hidden"].dtype == torch.bfloat16
        assert pipe(activities).dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: capture(3, "1"), TypeError, "^capture: `model` must be a torch.nn.Module, got int"),  # type: ignore[arg-type]
        (lambda: capture(network(), {"a": "5"}), ValueError, "^capture: `names` must have paths of modules, got '5'"),
        (
            lambda: capture(network(), "x"),
            ValueError,
            "^capture: each of `names` must match a path of a module, got 'x'",
        ),
        (lambda: capture(network(), {}), ValueError, "^capture: `names` must name a module, got none"),
        (lambda: wrap_loss(3, Pipeline()), TypeError, "^wrap_loss: `loss_fn` must be callable, got int"),  # type: ignore[arg-type]
        (
            lambda: wrap_loss(mse_loss, Pipeline())(torch.ones(1)),
            TypeError,
            "takes outputs, targets, got 1 arguments",
        ),
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
            lambda: parameter_groups(network(), [("bias", {}), ("bias$", {})]),
            ValueError,
            r"^parameter_groups: each pattern must match a parameter that is left, got 'bias\$'",
        ),
    ],
)
def test_errors(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_capture_is_entered_once() -> None:
    with capture(network(), "1") as activities, pytest.raises(RuntimeError, match="must not be entered twice"):
        activities.__enter__()


def test_without_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "torch", None)
        patched.delitem(sys.modules, "xpenalties.integrations.torch")
        with pytest.raises(ModuleNotFoundError, match=r'needs PyTorch\. Install it: pip install "xpenalties\[torch\]"'):
            importlib.import_module("xpenalties.integrations.torch")


@pytest.mark.usefixtures("float64")
def test_training_as_by_hand() -> None:
    weight = schedules.linear(0.0, 0.1, steps=10)
    pipe = Pipeline(
        [
            Penalty("l1", inputs="hidden", weight=0.01),
            Penalty("entropy", inputs="outputs", weight=weight, options={"mode": "bonus", "from_logits": True}),
            Penalty(trees.over_tree("l2", match="weight"), inputs="params", name="decay", weight=1e-3),
        ]
    )
    ours, theirs = network(), network()
    with capture(ours, {"hidden": "1", "not asked for": "2"}) as activities:
        loss = wrap_loss(cross_entropy, pipe, activities)
        step = train_step(ours, sgd(ours), loss)
        for i, (x, y) in enumerate(batches()):
            total, report = step(
                x,
                y,
                step=i,
                inputs={"params": ours},
                **({"track_grad_norms": True, "wrt": "outputs"} if i == 3 else {}),
            )
            assert not total.requires_grad and report.base_loss is not None
            if i == 3:
                assert report.regularizers["entropy"].grad_norm is not None

    optimizer = sgd(theirs)
    for i, (x, y) in enumerate(batches()):
        optimizer.zero_grad()
        hidden = torch.tanh(theirs[0](x))
        logits = theirs[4](torch.tanh(theirs[2](hidden)))
        log_p = log_softmax(logits, -1)
        by_hand = cross_entropy(logits, y) + 0.01 * hidden.abs().sum()
        by_hand = by_hand + min(i / 10, 1) * 0.1 * (log_p.exp() * log_p).sum(-1).mean()
        by_hand = by_hand + 1e-3 * sum((p**2).sum() for name, p in theirs.named_parameters() if "weight" in name)
        by_hand.backward()
        optimizer.step()
    torch.testing.assert_close(total, by_hand.detach())
    close(ours, theirs)


def test_activities_that_no_penalty_asks_for() -> None:
    model = Recurrent()
    pipe = Pipeline([Penalty("l2", inputs="outputs", weight=0.5)])
    with capture(model, {"cell": "cell", "unused": "unused"}) as activities:
        loss = wrap_loss(mse_loss, pipe, activities)
        outputs = model(torch.ones(2, 3))
        torch.testing.assert_close(loss(outputs, outputs), 0.5 * (outputs**2).sum())


def test_a_call_of_the_loss() -> None:
    pipe = Pipeline([Penalty("l2", inputs=("more",), weight=lambda step: 0.5 * step)])
    loss = wrap_loss(mse_loss, pipe, names=("outputs", "targets"))
    value = loss(torch.ones(2), torch.zeros(2), step=2, inputs={"more": torch.full((3,), 2.0)})
    assert float(value) == 13.0


def test_half_precision_as_by_hand() -> None:
    """Each step starts from the same parameters: by then, bfloat16 may have rounded a few numbers to their neighbours.

    Those are 2**-8 apart, so four of them bound what a step may differ by.
    """
    pipe = Pipeline([Penalty("z_loss", inputs="outputs", weight=0.5)])

    def autocast() -> Any:
        return torch.autocast("cpu", torch.bfloat16)

    ours, theirs = network(), network()
    step = train_step(
        ours,
        sgd(ours, momentum=0),
        wrap_loss(cross_entropy, pipe),
        autocast=autocast,
        scaler=torch.amp.GradScaler("cpu"),
    )
    optimizer, scaler = sgd(theirs, momentum=0), torch.amp.GradScaler("cpu")
    for x, y in batches():
        theirs.load_state_dict(ours.state_dict())
        before = copy.deepcopy(theirs)
        total, _ = step(x, y)
        optimizer.zero_grad()
        with autocast():
            logits = theirs(x)
            by_hand = cross_entropy(logits, y) + 0.5 * logits.float().logsumexp(-1).square().mean()
        scaler.scale(by_hand).backward()
        scaler.step(optimizer)
        scaler.update()
        torch.testing.assert_close(total, by_hand.detach(), rtol=2**-6, atol=0)
        for mine, other, old in zip(ours.parameters(), theirs.parameters(), before.parameters(), strict=True):
            largest = float((other - old).detach().abs().max())
            torch.testing.assert_close(mine, other, rtol=0, atol=2**-6 * largest)
            assert 0 < largest < 0.3  # the scale is gone
