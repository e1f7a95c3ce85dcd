"""Captured outputs of modules: by name, by pattern, of compiled, copied and recurrent models."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import integration
from xpenalties import Penalty, Pipeline, trees

integration()

import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.checkpoint import checkpoint

from tests.integrations.torch_training import network
from xpenalties.integrations.torch import capture, wrap_loss


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


def test_a_captured_model_is_copied_and_pickled() -> None:
    """Alone, the copy is another model, whose outputs nothing keeps. With its capture, both are of the copy."""
    model = network()
    x = torch.randn(4, 6)
    with capture(model, {"hidden": "1"}) as activities:
        model(x)
        for copied in (copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))):
            alone = copied(model)
            output = alone(x)
            output.sum().backward()
            other, others = copied((model, activities))
            with pytest.raises(ValueError, match="got 0 calls"):
                others["hidden"]
            other(2 * x)
            torch.testing.assert_close(others["hidden"], torch.tanh(model[0](2 * x)))
            others.__exit__()
            assert not other[1]._forward_hooks and model[1]._forward_hooks
        torch.testing.assert_close(activities["hidden"], torch.tanh(model[0](x)))


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
            ValueError, match=r"'cell' must have been called once .*, got 3 calls\. Get all of them with"
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


class Nested(nn.Module):
    """A model of its own class, in two compiled parts."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.inner = nn.Sequential(nn.Tanh())
        self.last = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.inner(self.first(x))
        torch._dynamo.graph_break()
        return self.last(hidden)  # type: ignore[no-any-return]


@pytest.mark.parametrize("make", [Nested, lambda: nn.Sequential(nn.Linear(6, 8), nn.Sequential(nn.Tanh()))])
@pytest.mark.parametrize("how", ["compile", "compiled", "in place", "parts"])
def test_a_model_that_has_run_compiled(make: Callable[[], Any], how: str) -> None:
    """Compiled code does not look for new hooks. It is compiled again, for each capture."""
    torch.compiler.reset()
    model = make()
    path = "inner.0" if isinstance(model, Nested) else "1.0"
    run = captured = model
    if how.startswith("compile"):
        run = torch.compile(model, backend="eager")
        captured, path = (model, path) if how == "compile" else (run, f"_orig_mod.{path}")
    for part in [model] if how == "in place" else [*model.children()] if how == "parts" else []:
        part.compile(backend="eager")
    x = torch.randn(4, 6)
    with torch.no_grad():
        run(x)
    for _ in range(2):
        with capture(captured, {"hidden": path}) as activities, torch.no_grad():
            for scale in (1, 2):
                run(scale * x)
                first = model.first if isinstance(model, Nested) else model[0]
                torch.testing.assert_close(activities["hidden"], torch.tanh(first(scale * x)))


def test_activities_under_autocast() -> None:
    model = network()
    pipe = Pipeline([Penalty("l2", inputs="hidden")])
    with capture(model, {"hidden": "0"}) as activities, torch.autocast("cpu", torch.bfloat16):
        model(torch.randn(4, 6))
        assert activities["hidden"].dtype == torch.bfloat16
        assert pipe(activities).dtype == torch.float32


def test_activities_that_no_penalty_asks_for() -> None:
    model = Recurrent()
    pipe = Pipeline([Penalty("l2", inputs="outputs", weight=0.5)])
    with capture(model, {"cell": "cell", "unused": "unused"}) as activities:
        loss = wrap_loss(mse_loss, pipe, activities)
        outputs = model(torch.ones(2, 3))
        torch.testing.assert_close(loss(outputs, outputs), 0.5 * (outputs**2).sum())


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
        (
            lambda: capture(network(), "("),
            ValueError,
            r"^capture: each of `names` must be a regular expression, got '\('",
        ),
        (lambda: capture(network(), {}), ValueError, "^capture: `names` must name a module, got none"),
    ],
)
def test_errors(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_capture_is_entered_once() -> None:
    with capture(network(), "1") as activities, pytest.raises(RuntimeError, match="must not be entered twice"):
        activities.__enter__()
