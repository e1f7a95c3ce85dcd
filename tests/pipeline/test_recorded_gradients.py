"""Gradients through PyTorch's graph, with respect to tensors that need not be inputs of the pipeline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.conftest import selected
from tests.helpers.harness import Framework
from tests.helpers.samples import without_gradient
from xpenalties import Penalty, Pipeline, RegularizedLoss, block_size, trees
from xpenalties._arrays.numerics import array_backend

pytestmark = [pytest.mark.only("torch", reason="is about PyTorch's graphs"), pytest.mark.usefixtures("fw")]
WEIGHTS = {"base_loss": 1.0, "entropy": 0.1, "activity": 0.01, "sparse": 0.2}
PIPE = Pipeline(
    [
        Penalty("entropy", inputs="logits", weight=0.1, options={"from_logits": True}),
        Penalty("l1", name="activity", inputs="hidden", weight=0.01),
        Penalty(trees.over_tree("l1", match="weight"), name="sparse", inputs="params", weight=0.2),
        Penalty("l2", name="data", inputs="x", weight=0.5),
    ],
    name="recorded",
)


def torch_() -> Any:
    return selected("torch", reason="is about PyTorch's graphs")


def base(inputs: Any) -> Any:
    return torch_().nn.functional.cross_entropy(inputs["logits"], inputs["labels"])


LOSS = RegularizedLoss(base, PIPE)


class Trained:
    """A model, its inputs to the pipeline, and each part of the loss by hand."""

    def __init__(self) -> None:
        torch = torch_()
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3)).double()
        self.x = torch.randn(5, 4, dtype=torch.float64)
        self.forward()

    def forward(self) -> None:
        torch = torch_()
        hidden = self.model[:2](self.x)
        labels = torch.arange(5) % 3
        self.inputs = {
            "logits": self.model[2](hidden),
            "hidden": hidden,
            "params": self.model,
            "labels": labels,
            "x": self.x,
        }

    def parts(self) -> dict[str, Any]:
        hidden = self.model[:2](self.x)
        logits = self.model[2](hidden)
        log_p = logits.log_softmax(-1)
        return {
            "base_loss": base({"logits": logits, "labels": self.inputs["labels"]}),
            "entropy": -(log_p.exp() * log_p).sum(-1).mean(),
            "activity": hidden.abs().sum(),
            "sparse": self.model[0].weight.abs().sum() + self.model[2].weight.abs().sum(),
        }

    def norms(self, arrays: list[Any]) -> dict[str, float | None]:
        """The norm of each part and of the total, by torch.autograd.grad."""
        parts = self.parts()
        total = sum(WEIGHTS[name] * part for name, part in parts.items())
        return {name: self.norm(part, arrays) for name, part in {**parts, "total": total}.items()}

    def norm(self, value: Any, arrays: list[Any]) -> float | None:
        torch = torch_()
        found = torch.autograd.grad(value, arrays, retain_graph=True, allow_unused=True)
        used = [g.flatten() for g in found if g is not None]
        return float(torch.cat(used).norm()) if used else None


def found_norms(report: Any) -> dict[str, float | None]:
    figures = report.to_dict()
    norms = {name: part["grad_norm"] for name, part in figures["regularizers"].items()}
    return {"base_loss": figures["base_loss"]["grad_norm"], **norms, "total": figures["total_grad_norm"]}


WRT: dict[str, tuple[Callable[[Trained], Any], Callable[[Trained], list[Any]], str]] = {
    "module": (lambda t: t.model, lambda t: list(t.model.parameters()), "params"),
    "generator": (lambda t: t.model.parameters(), lambda t: list(t.model.parameters()), "params"),
    "pairs": (lambda t: t.model.named_parameters(), lambda t: list(t.model.parameters()), "params"),
    "dict": (lambda t: dict(t.model.named_parameters()), lambda t: list(t.model.parameters()), "params"),
    "name": (lambda t: "params", lambda t: list(t.model.parameters()), "params"),
    "layer": (lambda t: t.model[2], lambda t: list(t.model[2].parameters()), "params"),
    "tensor": (lambda t: t.model[0].weight, lambda t: [t.model[0].weight], "params"),
    "twice": (lambda t: [t.model, t.model[0].weight], lambda t: list(t.model.parameters()), "params"),
    "names": (
        lambda t: ("params", t.model[0]),
        lambda t: list(t.model.parameters()),
        "params",
    ),
}


@pytest.mark.parametrize("wrt", WRT)
def test_each_part_by_hand(wrt: str) -> None:
    trained = Trained()
    given, arrays, label = WRT[wrt]
    total, report = LOSS.compute(trained.inputs, track_grad_norms=True, wrt=given(trained))
    want = trained.norms(arrays(trained))
    found = found_norms(report)
    assert found.pop("data") is None
    assert report.regularizers["data"].error == f"does not depend on wrt ({label})"
    assert found == {name: None if norm is None else pytest.approx(norm, rel=1e-12) for name, norm in want.items()}
    for name, part in report.regularizers.items():
        if part.grad_norm is not None:
            assert part.error is None
            assert float(part.grad_norm_weighted) == pytest.approx(WEIGHTS[name] * found[name], rel=1e-12)
    assert report.wrt == label and f"grad norm ({label})" in str(report)
    assert float(total.detach()) == pytest.approx(float(LOSS(trained.inputs).detach()), rel=1e-12)


def test_with_respect_to_activities() -> None:
    """From each part to the activities, through the layers in between. What is before them is not part of it."""
    trained = Trained()
    hidden = trained.inputs["hidden"]
    for wrt in (hidden, "hidden"):
        _, report = LOSS.compute(trained.inputs, track_grad_norms=True, wrt=wrt)
        logits = trained.model[2](hidden)
        assert float(report.base_loss.grad_norm) == pytest.approx(
            trained.norm(base({"logits": logits, "labels": trained.inputs["labels"]}), [hidden]), rel=1e-12
        )
        assert float(report.regularizers["activity"].grad_norm) == pytest.approx(hidden.numel() ** 0.5, rel=1e-12)
        sparse = report.regularizers["sparse"]
        assert sparse.grad_norm is None and sparse.error == "does not depend on wrt (hidden)"
        assert report.wrt == "hidden"
    alone = hidden * 2
    _, report = Pipeline([Penalty("l2", inputs="logits")]).compute(
        {"logits": alone * alone}, track_grad_norms=True, wrt=alone
    )
    assert report.wrt == "arrays"
    _, report = LOSS.compute(trained.inputs, track_grad_norms=True, wrt=[hidden, trained.model[0].bias])
    assert report.wrt == "hidden, params"
    names = ["logits", "hidden", hidden * 1, *trained.model[0].parameters(), "params"]
    many = {**trained.inputs, "an input with a long name": hidden}
    _, report = LOSS.compute(many, track_grad_norms=True, wrt=["an input with a long name", *names])
    assert report.wrt == "7 inputs"


def test_training_is_the_same() -> None:
    """With and without tracking, and with gradients that are accumulated."""
    torch = torch_()
    gradients = []
    for options in ({}, {"track_grad_norms": True}, {"gradient_conflicts": True}):
        trained = Trained()
        for _ in range(2):
            trained.forward()
            total, _ = LOSS.compute(trained.inputs, **options, wrt=trained.model if options else None)
            (total / 2).backward()
        gradients.append([p.grad for p in trained.model.parameters()])
    for others in gradients[1:]:
        for mine, other in zip(gradients[0], others, strict=True):
            assert torch.equal(mine, other)


def test_one_graph() -> None:
    """Penalties are evaluated once, and each is differentiated once. Then the total is."""
    torch = torch_()
    passes: list[str] = []

    class Counted(torch.autograd.Function):  # type: ignore[misc, name-defined]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            passes.append("forward")
            return x.clone()

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            passes.append("backward")
            return g

    weight = torch.ones(3, dtype=torch.float64, requires_grad=True)
    outputs = Counted.apply(weight)
    total, report = Pipeline({"l1": 1.0, "l2": 0.5}).compute(outputs, track_grad_norms=True, wrt=weight)
    assert passes == ["forward", "backward", "backward"] and weight.grad is None
    total.backward()
    assert passes == ["forward", *["backward"] * 3]
    np.testing.assert_allclose(weight.grad.numpy(), 2.0)
    assert float(report.total_grad_norm) == pytest.approx(2 * 3**0.5)


def test_parameters_in_a_closure() -> None:
    trained = Trained()
    decay = Penalty(lambda logits: xp.l2(trained.model[0].weight), name="closure", inputs="logits", weight=0.5)
    _, report = Pipeline([decay]).compute(trained.inputs, track_grad_norms=True, wrt=trained.model)
    want = 2 * float(trained.model[0].weight.detach().norm())
    assert float(report.regularizers["closure"].grad_norm) == pytest.approx(want, rel=1e-12)


@pytest.mark.filterwarnings("ignore:.*gradient norms are with respect to different inputs")
def test_parameters_that_are_no_inputs() -> None:
    """Without `wrt`, only inputs count. The reason says that there is more."""
    _, report = LOSS.compute(Trained().inputs, track_grad_norms=True)
    assert report.regularizers["sparse"].error == (
        "does not depend on wrt (inputs), but on other tensors that require gradients. Pass these as `wrt`"
    )
    assert report.regularizers["data"].error == "does not depend on wrt (inputs)"
    assert report.wrt == "different inputs" and report.regularizers["activity"].error is None


def test_frozen_parameters_do_not_count() -> None:
    trained = Trained()
    trained.model[0].requires_grad_(False)
    trained.forward()
    _, report = LOSS.compute(trained.inputs, track_grad_norms=True, wrt=trained.model)
    found, last = found_norms(report), list(trained.model[2].parameters())
    assert found["base_loss"] == pytest.approx(trained.norm(trained.parts()["base_loss"], last))
    assert found["sparse"] == pytest.approx(18**0.5)
    assert found["activity"] is None and report.regularizers["activity"].error == "does not depend on wrt (params)"


def test_sharded_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """FSDP computes with copies of them. tests/scale/torch_fsdp.py trains with FSDP itself."""
    trained = Trained()
    weight = trained.model[2].weight
    monkeypatch.setattr(array_backend(weight).autodiff, "may_be_copied", lambda x: x is weight)
    _, report = PIPE.compute(trained.inputs, track_grad_norms=True, wrt=trained.model[2])
    reason = "does not depend on wrt (params), or FSDP has replaced its sharded parameters by copies"
    assert report.regularizers["activity"].error == reason and report.regularizers["sparse"].error is None


def test_a_gradient_that_fails() -> None:
    trained = Trained()
    pipe = Pipeline([Penalty(without_gradient(torch_()), name="once", inputs="hidden"), Penalty("l1", inputs="hidden")])
    total, report = pipe.compute(trained.inputs, track_grad_norms=True, wrt=trained.model)
    assert report.regularizers["once"].error == "no gradient: ArithmeticError: no way back"
    assert report.regularizers["l1"].grad_norm is not None and report.total_grad_norm is None
    hidden = trained.inputs["hidden"].detach()
    assert float(total.detach()) == pytest.approx(float(hidden.sum() + hidden.abs().sum()))


def test_sparse_gradients() -> None:
    torch = torch_()
    table = torch.nn.Embedding(10, 3, sparse=True, dtype=torch.float64)
    rows = table(torch.tensor([1, 1, 4]))
    total, report = Pipeline([Penalty("l2", weight=0.5)]).compute(rows, track_grad_norms=True, wrt=table)
    weight = table.weight.detach()
    want = torch.cat([2 * 2 * weight[1], 2 * weight[4]]).norm()
    assert float(report.regularizers["l2"].grad_norm) == pytest.approx(float(want), rel=1e-12)
    total.backward()
    assert table.weight.grad.is_sparse


def test_penalties_in_blocks() -> None:
    """They compute their gradient in the forward pass, which several backward passes use."""
    torch = torch_()
    torch.manual_seed(0)
    layer = torch.nn.Linear(8, 50)
    x, teacher = torch.randn(64, 8), torch.randn(64, 50)
    pipe = Pipeline([Penalty("kl_divergence", inputs=("teacher", "logits"), options={"from_logits": True})])
    with block_size(7):
        total, report = pipe.compute({"logits": layer(x), "teacher": teacher}, track_grad_norms=True, wrt=layer)
    total.backward()
    by_hand = torch.cat([p.grad.flatten() for p in layer.parameters()]).norm()
    assert float(report.regularizers["kl_divergence"].grad_norm) == pytest.approx(float(by_hand), rel=1e-6)


def test_autocast_does_not_reach_backward_passes() -> None:
    torch = torch_()
    torch.manual_seed(0)
    layer = torch.nn.Linear(40, 30)
    outputs = layer(torch.randn(20, 40))  # in float32
    pipe = Pipeline({"l2": 0.5})
    _, want = pipe.compute(outputs, track_grad_norms=True, wrt=layer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, report = pipe.compute(outputs, track_grad_norms=True, wrt=layer)
    assert float(report.total_grad_norm) == float(want.total_grad_norm) > 0


def test_on_threads() -> None:
    trained = Trained()
    want = found_norms(LOSS.compute(trained.inputs, track_grad_norms=True, wrt=trained.model)[1])
    _, report = LOSS.compute(trained.inputs, track_grad_norms=True, wrt=trained.model, execution="threads")
    assert found_norms(report) == {name: norm and pytest.approx(norm, rel=1e-12) for name, norm in want.items()}


@pytest.mark.parametrize("how", ["no_grad", "inference_mode", "enable_grad"])
def test_where_nothing_is_recorded(how: str) -> None:
    torch = torch_()
    trained = Trained()

    def compute(x: Any) -> Any:
        with getattr(torch, how)():
            wrt = [x * 1] if how == "enable_grad" else trained.model
            return LOSS.compute({**trained.inputs, "x": x}, track_grad_norms=True, wrt=wrt)[0]

    message = r"^recorded: tensors in `wrt` must require gradients, and the call must be outside torch\.no_grad, torch"
    with pytest.raises(ValueError, match=message):
        torch.func.grad(compute)(trained.x) if how == "enable_grad" else compute(trained.x)


def test_tensors_that_need_no_graph() -> None:
    """Tensors that require no gradients, but are inputs."""
    torch = torch_()
    x, y = torch.ones(3, dtype=torch.float64), torch.full((2,), 2.0, dtype=torch.float64)
    pipe = Pipeline([Penalty("l2", inputs="x"), Penalty("l1", inputs="y")])
    for wrt in (y, [y, y], {"y": y}):
        _, report = pipe.compute({"x": x, "y": y}, track_grad_norms=True, wrt=wrt)
        assert report.regularizers["l2"].grad_norm is None
        assert float(report.regularizers["l1"].grad_norm) == pytest.approx(2**0.5)
    with pytest.raises(ValueError, match=r"^pipeline: tensors in `wrt` must require gradients, and the call must"):
        pipe.compute({"x": x, "y": y}, track_grad_norms=True, wrt=[y, torch.ones(2)])


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # Dynamo reads it
def test_compiled_pipelines() -> None:
    """Steps that need the graph are computed without compilation."""
    torch = torch_()
    trained = Trained()
    compiled = xp.compile(LOSS, torch={"backend": "aot_eager"})
    want = found_norms(LOSS.compute(trained.inputs, track_grad_norms=True, wrt=trained.model)[1])
    for wrt in (trained.model, "params", trained.model.parameters(), list(trained.model.parameters())):
        _, report = compiled.compute(trained.inputs, track_grad_norms=True, wrt=wrt)
        found = found_norms(report)
        assert found == {name: None if norm is None else pytest.approx(norm) for name, norm in want.items()}
    _, report = compiled.compute(trained.inputs, wrt=trained.model)
    assert report.base_loss.grad_norm is None and report.wrt is None

    def user_step(x: Any) -> Any:
        return PIPE.disable("sparse", "entropy", "activity").compute({"x": x}, track_grad_norms=True, wrt=trained.x)

    with pytest.raises((ValueError, torch._dynamo.exc.TorchDynamoException), match="must require gradients"):
        torch.compile(user_step, fullgraph=True, backend="aot_eager")(trained.x * 1)


@pytest.mark.parametrize("wrt", [1.5, True, (0.0,), ("logits", None), {"a": 1}])
def test_what_is_refused(fw: Framework, wrt: Any) -> None:
    message = r"^pipeline: `wrt` must be names or positions of inputs, arrays, or a module with parameters, got "
    with pytest.raises(TypeError, match=message):
        Pipeline({"l1": 1.0}).compute(fw.array(np.ones(2)), track_grad_norms=True, wrt=wrt)
