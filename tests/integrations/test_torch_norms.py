"""Gradient norms in a loop of PyTorch and in `train_step`, beside torch.autograd.grad of each part by hand."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from typing import Any

import pytest

from tests.conftest import integration
from xpenalties import Penalty, Pipeline, trees

integration()

import torch
from torch.nn.functional import cross_entropy, log_softmax, mse_loss

from tests.integrations.torch_training import batches, network, sgd
from xpenalties.integrations.torch import capture, train_step, wrap_loss

WEIGHTS = {"base_loss": 1.0, "entropy": 0.1, "activity": 0.01, "sparse": 0.02}
PIPE = Pipeline(
    [
        Penalty("entropy", inputs="outputs", weight=0.1, options={"from_logits": True}),
        Penalty("l1", name="activity", inputs="hidden", weight=0.01),
        Penalty(trees.over_tree("l1", match="weight"), name="sparse", inputs="params", weight=0.02),
        Penalty(lambda x: x.double().sum(), name="data", inputs="targets"),
    ]
)
BFLOAT16 = partial(torch.autocast, "cpu", torch.bfloat16)
FLOAT16 = partial(torch.autocast, "cpu", torch.float16)


def norms_by_hand(model: Any, x: Any, y: Any, arrays: list[Any] | None = None) -> dict[str, Any]:
    hidden = model[:2](x)
    logits = model[2:](hidden)
    log_p = log_softmax(logits, -1)
    parts = {
        "base_loss": cross_entropy(logits, y),
        "entropy": -(log_p.exp() * log_p).sum(-1).mean(),
        "activity": hidden.abs().sum(),
        "sparse": sum(p.abs().sum() for name, p in model.named_parameters() if "weight" in name),
    }
    parts["total"] = sum(WEIGHTS[name] * part for name, part in parts.items())

    def norm(part: Any) -> float | None:
        by = list(model.parameters()) if arrays is None else arrays
        found = torch.autograd.grad(part, by, retain_graph=True, allow_unused=True)
        used = [g.flatten() for g in found if g is not None]
        return float(torch.cat(used).norm()) if used else None

    return {name: norm(part) for name, part in parts.items()}


def found_norms(report: Any) -> dict[str, float | None]:
    figures = report.to_dict()
    norms = {name: part["grad_norm"] for name, part in figures["regularizers"].items()}
    return {"base_loss": figures["base_loss"]["grad_norm"], **norms, "total": figures["total_grad_norm"]}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("wrt", ["default", "module", "generator", "name"])
def test_a_loop(wrt: str) -> None:
    model = network()
    x, y = batches()[0]
    choices: dict[str, Any] = {"module": model, "name": "params"}

    def options() -> dict[str, Any]:
        """Return new ones for each call, because a generator is empty the second time."""
        return {} if wrt == "default" else {"wrt": choices.get(wrt, model.parameters())}

    with capture(model, {"hidden": "1"}) as activities:
        loss = wrap_loss(cross_entropy, PIPE, activities)
        total, report = loss.compute(model(x), y, inputs={"params": model}, track_grad_norms=True, **options())
        _, plain = loss.compute(model(x), y, inputs={"params": model}, **options())
    found = found_norms(report)
    assert found.pop("data") is None and report.regularizers["data"].error == "does not depend on wrt (params)"
    assert found == pytest.approx(norms_by_hand(model, x, y), rel=1e-9)
    assert report.wrt == "params" and plain.wrt is None
    total.backward()
    want = norms_by_hand(model, x, y)["total"]
    assert float(torch.cat([p.grad.flatten() for p in model.parameters()]).norm()) == pytest.approx(want, rel=1e-9)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("wrt", ["default", "params", "hidden", "third", "module"])
def test_a_step(wrt: str) -> None:
    model = network()
    before = copy.deepcopy(model)
    x, y = batches()[0]
    with capture(model, {"hidden": "1", "third": "3"}) as activities:
        step = train_step(model, sgd(model), wrap_loss(cross_entropy, PIPE, activities))
        options = {"default": {}, "module": {"wrt": model[2]}}.get(wrt, {"wrt": wrt})
        _, report = step(x, y, inputs={"params": model}, gradient_conflicts=True, **options)
    found = found_norms(report)
    if wrt == "module":
        want = norms_by_hand(before, x, y, list(before[2].parameters()))
    elif wrt in ("default", "params"):
        want = norms_by_hand(before, x, y)
    else:  # activities, which `third` is even if no penalty uses it
        hidden = before[:2](x) if wrt == "hidden" else before[:4](x)
        logits = (before[2:] if wrt == "hidden" else before[4:])(hidden)
        (gradient,) = torch.autograd.grad(cross_entropy(logits, y), hidden)
        assert found["base_loss"] == pytest.approx(float(gradient.norm()), rel=1e-9)
        assert found["sparse"] is None and found["activity"] == (pytest.approx(128**0.5) if wrt == "hidden" else None)
        assert report.wrt == wrt
        return
    if wrt == "module":
        assert found["activity"] is want.pop("activity") is None
    assert found.pop("data") is None
    assert {name: found[name] for name in want} == pytest.approx(want, rel=1e-9)
    assert report.wrt == "params" and "data" not in report.conflicts()


def test_only_what_is_trained_counts() -> None:
    """The optimizer's parameters, even if the model has others."""
    model = network().double()
    before = copy.deepcopy(model)
    x, y = batches()[0]
    optimizer = torch.optim.SGD(model[4].parameters(), lr=0.1)
    step = train_step(lambda x: model(x.double()), optimizer, wrap_loss(cross_entropy, Pipeline()))
    _, report = step(x, y, track_grad_norms=True)
    want = norms_by_hand(before, x.double(), y, list(before[4].parameters()))["base_loss"]
    assert float(report.base_loss.grad_norm) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("how", ["plain", "bfloat16", "scaled", "disabled", "conflicts"])
def test_training_is_the_same(how: str) -> None:
    results = []
    for track in (False, True):
        model = network()
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, enabled=how == "scaled")
        autocast = {"scaled": FLOAT16, "bfloat16": BFLOAT16}.get(how)
        options: dict[str, Any] = {} if how == "plain" else {"scaler": scaler}
        if autocast is not None:
            options["autocast"] = autocast
        with capture(model, {"hidden": "1"}) as activities:
            step = train_step(model, sgd(model), wrap_loss(cross_entropy, PIPE, activities), **options)
            tracking = {"gradient_conflicts": track} if how == "conflicts" else {"track_grad_norms": track}
            totals = [step(x, y, inputs={"params": model}, **tracking)[0] for x, y in batches()]
        results.append([*model.parameters(), *totals])
    assert all(map(torch.equal, *results))


def test_accumulated_gradients() -> None:
    results = []
    for track in (False, True):
        model = network()
        with capture(model, {"hidden": "1"}) as activities:
            loss = wrap_loss(cross_entropy, PIPE, activities)
            for x, y in batches()[:3]:
                total, _ = loss.compute(model(x), y, inputs={"params": model}, track_grad_norms=track)
                (total / 3).backward()
        results.append([p.grad for p in model.parameters()])
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("scaled", [True, False])
def test_the_scale_is_divided_out(scaled: bool) -> None:
    """Without the scale, the gradients of activations would be 0 in float16."""
    tiny = Pipeline([Penalty(lambda x: 1e-9 * x.float().sum(), name="tiny", inputs="outputs")])
    norms = []
    for half in (False, True):
        model = network()
        scaler = torch.amp.GradScaler("cpu") if scaled and half else None
        autocast = {"autocast": FLOAT16} if half else {}
        step = train_step(model, sgd(model), wrap_loss(cross_entropy, tiny), scaler=scaler, **autocast)
        _, report = step(*batches()[0], track_grad_norms=True)
        norms.append(float(report.regularizers["tiny"].grad_norm))
    assert norms[1] == (pytest.approx(norms[0], rel=1e-2) if scaled else 0.0)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # Dynamo reads it
def test_a_compiled_model() -> None:
    model = network()
    x, y = batches()[0]
    want = norms_by_hand(copy.deepcopy(model), x, y)
    pipe = PIPE.remove("activity")
    step = train_step(
        torch.compile(model, backend="aot_eager"),
        sgd(model),
        wrap_loss(cross_entropy, pipe),
    )
    _, report = step(x, y, inputs={"params": model}, track_grad_norms=True)
    found = found_norms(report)
    for name in ("base_loss", "entropy", "sparse"):
        assert found[name] == pytest.approx(want[name], rel=1e-5)


def test_where_nothing_is_recorded() -> None:
    """In an evaluation, and for inputs that are not computed from others: with respect to the inputs."""
    model = network()
    x, y = batches()[0]
    loss = wrap_loss(cross_entropy, PIPE.remove("activity", "sparse"))
    with torch.no_grad():
        _, report = loss.compute(model(x), y, track_grad_norms=True)
    assert report.wrt == "inputs" and report.base_loss.grad_norm is not None
    outputs = torch.ones(4, requires_grad=True)
    _, report = wrap_loss(mse_loss, Pipeline([Penalty("l2", inputs="outputs")])).compute(
        outputs, torch.zeros(4), track_grad_norms=True
    )
    assert report.wrt == "inputs" and float(report.regularizers["l2"].grad_norm) == 4.0


def test_copies_and_errors() -> None:
    model = network()
    x, y = batches()[0]
    step = train_step(model, sgd(model), wrap_loss(cross_entropy, PIPE.remove("activity", "sparse", "data")))
    copied = pickle.loads(pickle.dumps(step))
    reports = [each(x, y, track_grad_norms=True)[1] for each in (step, copied)]
    assert found_norms(reports[0]) == found_norms(reports[1])
    with pytest.raises(TypeError, match=r"^train_step: `wrt` must have names of inputs, not positions, got 0\. Pass"):
        step(x, y, track_grad_norms=True, wrt=0)
    with pytest.raises(ValueError, match=r"^wrap_loss: `wrt` asks for the input 'output'\. The inputs are 'outputs'"):
        step(x, y, track_grad_norms=True, wrt="output")
    with pytest.raises(TypeError, match=r"^wrap_loss: `wrt` must be names or positions of inputs, arrays, or a mod"):
        step.loss.compute(model(x), y, track_grad_norms=True, wrt=0.5)
    with pytest.raises(TypeError, match=r"^train_step: `track_grad_norm` is not an option of a call"):
        step(x, y, track_grad_norm=True)
