"""The integration with PyTorch, compared with the same training written by hand."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import integration
from xpenalties import Penalty, Pipeline, RegularizedLoss, schedules, trees

integration()

import torch
from torch.nn.functional import cross_entropy, log_softmax, mse_loss

from tests.integrations.torch_training import batches, close, network, sgd
from xpenalties.integrations.torch import capture, train_step, wrap_loss


def test_inputs_that_are_picked() -> None:
    model = network()
    pipe = Pipeline([Penalty("l2", inputs=lambda inputs: inputs["1"][0] - inputs["1"][1])])
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
        ValueError,
        match=r"^penalty 'l2' asks for the input 'hiden'\. The inputs are 'outputs', 'targets', 'hidden'\. Rename",
    ):
        named(torch.zeros(1), torch.zeros(1))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: wrap_loss(mse_loss, Pipeline([Penalty("l1", name="size")])),
            ValueError,
            r"^wrap_loss: the penalties of `pipe` must name their inputs, got inputs=None for 'size'\. Pass",
        ),
        (
            lambda: train_step(network(), torch.optim.LBFGS(network().parameters()), wrap_loss(mse_loss, Pipeline())),
            TypeError,
            r"^train_step: `optimizer` must step without a closure, got LBFGS that needs one\. Call the loss",
        ),
    ],
)
def test_errors(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss_fn": 3}, r"`loss_fn` must be callable, got int\. Pass a function\."),
        ({"loss_fn": torch.nn.MSELoss}, r"`loss_fn` must be callable, got the class MSELoss\. Pass MSELoss\(\)\."),
        (
            {"loss_fn": Pipeline(), "pipe": mse_loss},
            r"`loss_fn` must be a loss without penalties, got Pipeline\. Call wrap_loss\(loss_fn, pipe\)\.",
        ),
        ({"pipe": [Penalty("l1")]}, r"`pipe` must be a Pipeline, got list\. Pass Pipeline\(\[\.\.\.\]\)\."),
        ({"pipe": {"l1": 0.1}}, r"`pipe` must be a Pipeline, got dict\. Pass Pipeline\(\{\.\.\.\}\)\."),
        ({"pipe": Penalty("l1")}, r"`pipe` must be a Pipeline, got Penalty\. Pass Pipeline\(\[penalty\]\)\."),
        ({"pipe": "l1"}, r"`pipe` must be a Pipeline, got str\. Pass Pipeline\(\[Penalty\(\.\.\.\)\]\)\."),
        ({"activities": network()}, r"`activities` must be a mapping of names, got Sequential\. Pass what `capture`"),
        ({"names": "outputs"}, r"`names` must be a tuple of strings, got 'outputs'\. Pass one name for each"),
        ({"names": None}, "`names` must be a tuple of strings, got None"),
        ({"names": ("a", 1)}, r"`names` must be different strings, got \('a', 1\)\. Rename one"),
        ({"names": ("a", "a")}, r"`names` must be different strings, got \('a', 'a'\)\. Rename one"),
    ],
)
def test_a_loss_is_checked_when_it_is_wrapped(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^wrap_loss: {message}"):
        wrap_loss(**{"loss_fn": mse_loss, "pipe": Pipeline(), **arguments})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda loss, x: loss(x),
            r"the loss takes outputs, targets, got 1 argument\. Pass all of them, or say with wrap_loss\(\.\.\., n",
        ),
        (
            lambda loss, x: loss.compute(x, x, {"teacher": x}),
            r"the loss takes outputs, targets, got 3 arguments\. Pass other inputs by name, as inputs=\{name: value\}",
        ),
        (lambda loss, x: loss(x, x, inputs=x), r"`inputs` must be a mapping of names, got Tensor\. Pass a dict\."),
        (
            lambda loss, x: loss.compute(x, x, teacher=x),
            r"`teacher` is not an option of a call\. If it is an input, pass inputs=\{'teacher': \.\.\.\}\.",
        ),
        (
            lambda loss, x: loss(x, x, teacher=x),
            r"`teacher` is not an option of a call\. If it is an input, pass inputs=\{'teacher': \.\.\.\}\.",
        ),
        (
            lambda loss, x: loss(x, x, track_grad_norms=True, wrt="outputs"),
            r"a call must have no options, got 'track_grad_norms', 'wrt'\. Call the loss's compute\(\), which takes",
        ),
        (lambda loss, x: loss.compute(x, x, track_grad_norm=True), r".* Did you mean 'track_grad_norms'\?"),
        (lambda loss, x: loss.compute(x, x, input={}), r"`input` is not an option of a call\. Did you mean 'inputs'\?"),
    ],
)
def test_calls_of_a_loss_are_checked(call: Callable[..., Any], message: str) -> None:
    with pytest.raises(TypeError, match=f"^wrap_loss: {message}"):
        call(wrap_loss(mse_loss, Pipeline()), torch.ones(1))


def test_a_loss_is_shown_on_one_line() -> None:
    pipe = Pipeline([Penalty("l1", inputs="hidden")], name="training")
    loss = wrap_loss(mse_loss, pipe, {"hidden": torch.ones(1000)})
    title = "mse_loss(outputs, targets) and Pipeline 'training'"
    assert repr(loss) == f"WrappedLoss of {title}, activities 'hidden'"
    assert repr(wrap_loss(mse_loss, pipe)) == f"WrappedLoss of {title}"
    assert repr(loss.loss).splitlines()[0] == f"RegularizedLoss of {title}"


def test_names_in_a_list() -> None:
    assert wrap_loss(mse_loss, Pipeline(), names=["a", "b"]).names == ("a", "b")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"loss": Pipeline()},
            r"`loss` must be a loss of wrap_loss, got Pipeline\. Pass wrap_loss\(loss_fn, pip",
        ),
        ({"loss": RegularizedLoss(mse_loss, Pipeline())}, "`loss` must be a loss of wrap_loss, got RegularizedLoss"),
        ({"loss": mse_loss}, "`loss` must be a loss of wrap_loss, got function"),
        ({"model": 3}, r"`model` must be a module or a function, got int\. Call train_step\(model, optimizer, loss\)"),
        ({"model": torch.nn.Linear}, "`model` must be a module or a function, got the class Linear"),
        ({"optimizer": network()}, "`optimizer` must be a torch.optim.Optimizer, got Sequential. Call train_step"),
        ({"optimizer": torch.optim.SGD}, "`optimizer` must be a torch.optim.Optimizer, got the class SGD"),
        ({"autocast": torch.autocast("cpu", torch.bfloat16)}, "`autocast` must be a function .* Pass partial"),
        ({"autocast": True}, "`autocast` must be a function that returns a context manager, got bool"),
        ({"scaler": True}, "`scaler` must be a torch.amp.GradScaler or None, got bool. Pass torch.amp.GradScaler"),
    ],
)
def test_a_step_is_checked_when_it_is_made(changed: dict[str, Any], message: str) -> None:
    model = network()
    arguments = {"model": model, "optimizer": sgd(model), "loss": wrap_loss(mse_loss, Pipeline())}
    with pytest.raises(TypeError, match=rf"^train_step: {message}"):
        train_step(**{**arguments, **changed})
    swapped = {"model": arguments["optimizer"], "optimizer": model, "loss": arguments["loss"]}
    with pytest.raises(TypeError, match=r"^train_step: `model` must be a module or a function, got SGD\. Call"):
        train_step(**swapped)


def test_inputs_of_a_step_are_not_keywords() -> None:
    """The error comes before the forward pass and leaves the gradients as they are."""
    model, x, y = network(), torch.ones(3, 6), torch.zeros(3, 3)
    model[0].bias.grad = torch.ones_like(model[0].bias)
    step = train_step(
        model, sgd(model), wrap_loss(mse_loss, Pipeline([Penalty("consistency", inputs=("outputs", "teacher"))]))
    )
    message = (
        r"^train_step: `teacher` is not an option of a call\. If it is an input, pass inputs=\{'teacher': \.\.\.\}"
    )
    for inputs in (None, {"teacher": y}):
        with pytest.raises(TypeError, match=message):
            step(x, y, teacher=y, inputs=inputs)
    assert torch.equal(model[0].bias.grad, torch.ones_like(model[0].bias))
    with pytest.raises(
        ValueError,
        match=r"^penalty 'consistency' asks for the input 'teacher'\. .* Pass inputs=\{'teacher': \.\.\.\}\.$",
    ):
        step(x, y)
    with pytest.raises(
        ValueError, match=r"^wrap_loss: `wrt` asks for the input 'hidden'\. .* Pass inputs=\{'hidden': \.\.\.\}\.$"
    ):
        step(x, y, inputs={"teacher": y}, track_grad_norms=True, wrt="hidden")


DECAY = Pipeline([Penalty("l2", tree={"match": "weight"}, name="decay", inputs="params", weight=0.1)])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("options", [{}, {"track_grad_norms": True}, {"track_grad_norms": True, "wrt": "params"}])
def test_a_step_provides_its_model_as_params(options: dict[str, Any]) -> None:
    models, reports = [], []
    for inputs in ("passed", "provided", "compiled"):
        model = network()
        forward = torch.compile(model, backend="eager") if inputs == "compiled" else model
        step = train_step(forward, sgd(model), wrap_loss(cross_entropy, DECAY))
        for x, y in batches(3):
            _, report = step(x, y, inputs={"params": model} if inputs == "passed" else {"more": x}, **options)
        models.append(model)
        reports.append(report.flat())
    close(models[0], models[1])
    close(models[0], models[2])
    assert reports[0] == reports[1] == pytest.approx(reports[2])
    assert reports[0]["decay/value"] > 1
    if options:
        assert reports[0]["decay/grad_norm"] > 1


def test_params_of_another_source() -> None:
    """What the call passes, an activity or an argument of the loss comes first. A function has no parameters."""
    model, twos = network(), {"weight": torch.full((3,), 2.0)}
    x, y = torch.ones(3, 6), torch.zeros(3, 3)

    def value(loss: Any, *targets: Any, **options: Any) -> float:
        _, report = train_step(model, sgd(model), loss)(x, *targets, **options)
        return float(report.regularizers["decay"].value)

    assert value(wrap_loss(mse_loss, DECAY), y, inputs={"params": twos}) == 12.0
    assert value(wrap_loss(mse_loss, DECAY, {"params": twos}), y) == 12.0
    loss = wrap_loss(lambda outputs, params: outputs.sum(), DECAY, names=("outputs", "params"))
    assert value(loss, twos) == 12.0
    missing = r"^penalty 'decay' asks for the input 'params'\. .* Pass inputs=\{'params': \.\.\.\}\.$"
    with pytest.raises(ValueError, match=missing):
        train_step(model.forward, sgd(model), wrap_loss(mse_loss, DECAY))(x, y)
    _, report = train_step(model, sgd(model), wrap_loss(mse_loss, Pipeline()))(
        x, y, track_grad_norms=True, wrt="params"
    )
    assert report.wrt == "params" and float(report.base_loss.grad_norm) > 0
    with pytest.raises(TypeError, match=r"^wrap_loss: `inputs` must be a mapping of names, got Sequential\."):
        train_step(model, sgd(model), wrap_loss(mse_loss, DECAY))(x, y, inputs=model)


def test_a_step_by_its_parts() -> None:
    """It clears old gradients, and leaves those of this step."""
    model, x, y = network(), torch.ones(3, 6), torch.zeros(3, 3)
    by_hand = copy.deepcopy(model)
    mse_loss(by_hand(x), y).backward()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    model.eval()
    train_step(model, sgd(model, momentum=0, lr=0.5), wrap_loss(mse_loss, Pipeline()))(x, y)
    assert not model.training
    for mine, other in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)
        torch.testing.assert_close(mine.detach(), (other - 0.5 * other.grad).detach())


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
                track_grad_norms=i == 3,
                wrt="outputs",
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


def test_inputs_by_parameter() -> None:
    """Targets, activities and inputs of the call, as arrays and as masks."""
    model = network()
    inputs = {"x": "1", "where": "kept", "normalizer": lambda inputs: inputs["targets"].numel()}
    pipe = Pipeline([Penalty("l2", inputs=inputs), Penalty("consistency", inputs={"a": "targets", "b": "outputs"})])
    x, y, kept = torch.ones(3, 6), torch.zeros(3, 3), torch.tensor([[True], [False], [True]])
    with capture(model, r"^1$") as activities:
        step = train_step(model, sgd(model), wrap_loss(mse_loss, pipe, activities))
        activities.begin()
        outputs = model(x).detach()
        activities.end()
        hidden = activities["1"].detach()
        _, report = step(x, y, inputs={"kept": kept}, track_grad_norms=True)
    values = {name: float(part.value) for name, part in report.regularizers.items()}
    assert values["l2"] == pytest.approx(float((hidden[[0, 2]] ** 2).sum()) / 9)
    assert values["consistency"] == pytest.approx(float((outputs**2).mean()))
    loss = wrap_loss(mse_loss, pipe.remove("consistency"), {"1": hidden, "keptt": kept})
    with pytest.raises(ValueError, match=r"^penalty 'l2' asks for the input 'kept'\. .* Rename 'keptt' or 'kept'\."):
        loss(outputs, y)


def test_penalties_that_take_all_inputs() -> None:
    """A callable and trees may take the mapping; a built-in penalty may not, but a disabled one is never evaluated."""
    everything = Penalty(trees.over_tree("l2", match="outputs"), name="everything")
    loss = wrap_loss(mse_loss, Pipeline([everything, Penalty("l1")]).disable("l1"))
    assert float(loss(torch.full((2,), 3.0), torch.full((2,), 3.0))) == 18.0
    with pytest.raises(ValueError, match="must name their inputs, got inputs=None for 'decay'"):  # the outputs, too
        wrap_loss(mse_loss, Pipeline([Penalty(trees.over_tree("l2"), name="decay")]))


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
