"""The integration with Hugging Face's Trainer, beside the same written by hand as its `compute_loss_func`."""

from __future__ import annotations

import copy
import pickle
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import integration
from tests.helpers.processes import on_processes
from xpenalties import Penalty, Pipeline

integration("transformers", "accelerate")

import torch
from torch import nn
from torch.nn.functional import cross_entropy

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its imports' own
    import transformers

    from tests.integrations.torch_training import STEPS, close
    from tests.integrations.trainer_training import OF_LOGITS, PIPE, ByHand, network, sentences, trainer
    from xpenalties.integrations.transformers import PipelineLoss

pytestmark = [pytest.mark.integrations, pytest.mark.usefixtures("quietly")]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("accumulated", [1, 3])
def test_training_as_by_hand(accumulated: int, tmp_path: Path) -> None:
    ours, theirs, reference = network(), network(), network(seed=3)
    loss = PipelineLoss(PIPE, reference=reference)
    trainer(ours, loss, tmp_path, accumulated=accumulated).train()
    by_hand = ByHand(theirs, reference)
    by_hand.trainer = trainer(theirs, by_hand, tmp_path, accumulated=accumulated)
    by_hand.trainer.train()
    close(ours, theirs)
    assert by_hand.trainer.state.global_step == STEPS
    assert not reference.training
    close(reference, network(seed=3))


@pytest.mark.usefixtures("float64")
def test_without_penalties_as_the_trainer(tmp_path: Path) -> None:
    ours, theirs = network(), network()
    trainer(ours, PipelineLoss(Pipeline()), tmp_path, accumulated=2).train()
    trainer(theirs, None, tmp_path, accumulated=2).train()
    close(ours, theirs)


def test_padding_does_not_count(tmp_path: Path) -> None:
    model = network()
    data = sentences(1)
    batch = {name: torch.stack([each[name] for each in data]) for name in data[0]}
    logits = model(input_ids=batch["input_ids"]).logits.detach()
    spoiled = logits.clone()
    spoiled[:, -1] = float("nan")  # the last predicts nothing
    spoiled[batch["labels"] == -100] = float("inf")
    pipe = PIPE.remove("kl", "decay").with_weights(entropy=0.1)
    outputs = transformers.modeling_outputs.CausalLMOutput(logits=logits.requires_grad_())
    shorter = [logits[i : i + 1, : int(each["attention_mask"].sum())] for i, each in enumerate(data)]
    loss = PipelineLoss(pipe)
    total = loss(outputs, batch["labels"])
    assert loss.report is not None
    values = {name: float(part.value) for name, part in loss.report.regularizers.items()}
    rows = torch.cat([each[0, :-1] for each in shorter])
    assert values["z_loss"] == pytest.approx(float((rows.logsumexp(-1) ** 2).mean().detach()), rel=1e-5)
    assert values["size"] == pytest.approx(float((rows**2).sum().detach()) / len(rows), rel=1e-5)
    assert torch.isfinite(total)
    mask = torch.nn.functional.pad(batch["labels"] != -100, (0, 1))[:, 1:]
    again = PipelineLoss(pipe, loss=lambda *_, **__: torch.zeros(()))
    spoiled = torch.where(mask[..., None], logits.detach(), float("nan")).requires_grad_()
    again(transformers.modeling_outputs.CausalLMOutput(logits=spoiled), batch["labels"]).backward()
    assert again.report is not None
    assert {name: float(part.value) for name, part in again.report.regularizers.items()} == pytest.approx(values)
    assert spoiled.grad is not None
    assert bool(torch.isfinite(spoiled.grad).all()) and bool((spoiled.grad[~mask] == 0).all())
    nothing = PipelineLoss(pipe)(outputs, torch.full_like(batch["labels"], -100))
    assert float(nothing.detach()) == 0.0


def test_labels_that_the_collator_shifts(tmp_path: Path) -> None:
    """As those do that put several texts into one row; the Trainer then counts what is predicted, exactly."""
    result = []

    class Seen(PipelineLoss):
        def __call__(self, outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
            total = super().__call__(outputs, labels, num_items_in_batch)
            figures = {name: float(each.contribution) for name, each in self.report.regularizers.items()}
            figures["base"] = float(self.report.base_loss.value)
            items = num_items_in_batch.item()
            sums = {name: x if name == "decay" else x * items for name, x in figures.items()}
            result.append((items, sums))
            return total

    data = sentences(2)
    for each in data:
        each["labels"][3] = -100
    predicted = sum(int((each["labels"][1:] != -100).sum()) for each in data)
    loss = Seen(PIPE, reference=network(seed=3))
    options = {"learning_rate": 0.0, "remove_unused_columns": False, "per_device_train_batch_size": 8}
    trainer(network(), loss, tmp_path, data=copy.deepcopy(data), **options).train()
    for each in data:
        each["shift_labels"] = torch.cat((each["labels"][1:], torch.tensor([-100])))
        each["labels"] = torch.where(each["attention_mask"] == 1, each["input_ids"], -100)
    trainer(network(), loss, tmp_path, data=data, **options).train()
    (_, usual), (items, shifted) = result
    assert items == predicted
    assert shifted == pytest.approx(usual, rel=1e-5)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("accumulated", [1, 3])
def test_several_processes_as_one(accumulated: int, tmp_path: Path) -> None:
    """Parameters and logs, where two processes train on halves of what one trains on."""
    out = tmp_path / "two.pt"
    on_processes(2, "integrations.trainer_processes", out, accumulated)
    two = torch.load(out, weights_only=False)
    loss, data = PipelineLoss(PIPE, reference=network(seed=3)), sentences(4 * accumulated)
    options = {"logging_strategy": "steps", "logging_steps": 2, "data": data, "accumulated": accumulated}
    made = trainer(network(), loss, tmp_path, **options)
    made.train()
    for name, mine in made.model.named_parameters():
        torch.testing.assert_close(two["parameters"][name], mine, rtol=1e-6, atol=1e-6, msg=name)
    for theirs, ours in zip(two["logs"][:2], made.state.log_history[:2], strict=True):
        assert any(name.startswith("penalties/") for name in theirs)
        assert theirs == pytest.approx(ours, rel=1e-4, abs=1e-6)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("own", [False, True])
def test_a_step_without_labels_that_count(own: bool, tmp_path: Path) -> None:
    """As of prompts that fill the context: it changes nothing."""

    def mean(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        return 0 * outputs.logits.sum()

    data = sentences(2)
    for each in data[4:]:
        each["labels"][:] = -100
    options = {"logging_strategy": "steps", "logging_steps": 1}
    result = []
    for given in (data, data[:4]):
        loss = PipelineLoss(PIPE, reference=network(seed=3), loss=mean if own else None)
        made = trainer(network(), loss, tmp_path, data=given, **options)
        made.train()
        result.append(made)
    close(result[0].model, result[1].model)
    first, second = result[0].state.log_history[:2]
    assert first["penalties/decay/value"] > 0 and "penalties/decay/value" not in second
    assert second["penalties/regularizer_total"] == second["penalties/kl/contribution"] == 0.0


def test_evaluation(tmp_path: Path) -> None:
    model, reference = network(), network(seed=3)
    loss = PipelineLoss(PIPE.with_weights(entropy=0.1), reference=reference)
    made = trainer(model, loss, tmp_path)
    result = made.evaluate()
    assert loss.report is not None
    assert result["eval_loss"] > 1.5 and not any("penalties/" in name for name in result)
    assert made.state.log_history[-1].keys() == result.keys() | {"step"}
    made.log({"loss": 1.0})
    assert set(made.state.log_history[-1]) <= {"loss", "step", "epoch"}


@pytest.mark.usefixtures("float64")
def test_a_reference_that_is_a_function(tmp_path: Path) -> None:
    ours, theirs, reference = network(), network(), network(seed=3)
    calls: list[set[str]] = []

    def shifted(**inputs: Any) -> Any:
        assert not torch.is_grad_enabled()
        calls.append(set(inputs))
        return reference(**inputs)

    trainer(ours, PipelineLoss(PIPE, reference=shifted), tmp_path).train()
    trainer(theirs, PipelineLoss(PIPE, reference=copy.deepcopy(reference)), tmp_path).train()
    close(ours, theirs)
    assert len(calls) == STEPS and calls[0] == {"input_ids", "attention_mask"}
    without = len(calls)
    trainer(ours, PipelineLoss(PIPE.disable("kl"), reference=shifted), tmp_path).train()
    assert len(calls) == without  # evaluated for those who ask only
    js = Penalty("js_divergence", name="js", inputs=("logits", "reference"), weight=0.5, options=OF_LOGITS)
    trainer(ours, PipelineLoss(PIPE.add(js), reference=shifted), tmp_path).train()
    assert len(calls) == without + STEPS  # once for two who ask


def test_means_over_elements() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 5, 7), torch.tensor([[1, 2, 3, -100, -100], [1, 2, 3, 4, 5]])
    rows = torch.cat([logits[0, :2], logits[1, :4]])
    for reduction, expected in (("sum", (rows**2).sum() / 6), ("mean", (rows**2).mean())):
        loss = PipelineLoss(Pipeline([Penalty("l2", inputs="logits", options={"reduction": reduction})]))
        loss({"logits": logits}, labels)
        assert loss.report is not None
        torch.testing.assert_close(loss.report.regularizers["l2"].value, expected)


def test_inputs_by_parameter() -> None:
    """The loss masks padding and divides by the items, unless the mapping does."""
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 5, 7), torch.tensor([[1, 2, 3, -100, -100], [1, 2, 3, 4, 5]])
    rows = torch.cat([logits[0, :2], logits[1, :4]])
    keep = torch.tensor([[True, False, False, False, False], [True, True, False, False, False]])
    of_kept = torch.cat([logits[0, :1], logits[1, :2]])
    for inputs, expected in (
        ({"logits": "logits"}, (rows.logsumexp(-1) ** 2).mean()),
        ({"logits": "logits", "where": "keep"}, (of_kept.logsumexp(-1) ** 2).sum() / 6),
        ({"logits": "logits", "where": "keep", "normalizer": "kept"}, (of_kept.logsumexp(-1) ** 2).mean()),
        ({"logits": "logits", "where": lambda inputs: inputs["keep"]}, (of_kept.logsumexp(-1) ** 2).sum() / 6),
        ({"logits": "logits", "weights": lambda inputs: inputs["mask"] * 2.0}, 2 * (rows.logsumexp(-1) ** 2).mean()),
        ({"logits": lambda inputs: inputs["logits"]}, (logits.logsumexp(-1) ** 2).mean()),
    ):
        loss = PipelineLoss(Pipeline([Penalty("z_loss", inputs=inputs)]))
        loss({"logits": logits, "keep": keep, "kept": torch.tensor(3)}, labels)
        assert loss.report is not None
        torch.testing.assert_close(loss.report.regularizers["z_loss"].value, expected)
    needed = PipelineLoss(Pipeline([Penalty("z_loss", inputs={"logits": "reference"})]), reference=network())
    with pytest.raises(ValueError, match=r"penalty 'z_loss' needs the reference, got one that is not\. Call attach"):
        needed({"logits": logits}, labels)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_loss_is_copied(copied: Callable[[Any], Any]) -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 5, 7), torch.ones(2, 5, dtype=torch.long)
    loss = PipelineLoss(Pipeline([Penalty("z_loss", inputs="logits")]), reference=network())
    torch.testing.assert_close(copied(loss)({"logits": logits}, labels), loss({"logits": logits}, labels))


class StandIn:
    """Stand for a Trainer, with all that `attach` needs."""

    def __init__(self, loss: PipelineLoss) -> None:
        self.compute_loss_func = loss
        self.model = network()
        self.args = SimpleNamespace(label_smoothing_factor=0, average_tokens_across_devices=False)
        self.state = SimpleNamespace(global_step=0)
        self.accelerator = SimpleNamespace(reduce=_first)
        self.callbacks: list[Any] = []
        self.logs: list[dict[str, Any]] = []

    def add_callback(self, callback: Any) -> None:
        self.callbacks.append(callback)

    def compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
        outputs = model(**{name: x for name, x in inputs.items() if name != "labels"})
        return self.compute_loss_func(outputs, inputs["labels"], num_items_in_batch=torch.tensor(4))

    def log(self, logs: dict[str, Any]) -> None:
        self.logs.append(logs)


def _first(x: Any, reduction: str) -> Any:
    return x


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_trainer_is_copied_with_its_loss(copied: Callable[[Any], Any]) -> None:
    loss = PipelineLoss(PIPE, reference=network(seed=3))
    original: Any = StandIn(loss)
    loss.attach(original)
    batch = {"input_ids": torch.tensor([[1, 2, 3], [4, 5, 6]]), "labels": torch.tensor([[1, 2, 3], [4, 5, 6]])}
    expected = original.compute_loss(original.model, batch)
    other = copied(original)
    other.state.global_step = 1
    torch.testing.assert_close(original.compute_loss(original.model, batch), expected)
    assert other.compute_loss(other.model, batch) != expected  # a schedule is at the copy's step
    other.log({"loss": 1.0})
    assert "penalties/kl/value" in other.logs[0] and not original.logs
    assert other.callbacks[0]._run.trainer is other


def test_outputs_may_have_the_names_of_a_trainers_inputs() -> None:
    logits, labels = torch.randn(2, 5, 7), torch.ones(2, 5, dtype=torch.long)
    loss = PipelineLoss(Pipeline([Penalty("l2", inputs="params")]))
    loss({"logits": logits, "params": torch.ones(3)}, labels)
    assert loss.report is not None and float(loss.report.regularizers["l2"].value) == 3.0


def test_several_devices_in_a_process() -> None:
    logits, labels = torch.randn(2, 5, 7), torch.ones(2, 5, dtype=torch.long)
    loss = PipelineLoss(Pipeline({"l2": 0.0}).with_weights(l2=0.5).remove("l2"))
    several = loss({"logits": logits}, labels, num_items_in_batch=torch.tensor(6).unsqueeze(0).expand(2, -1))
    assert float(several) == pytest.approx(float(loss({"logits": logits}, labels, num_items_in_batch=6)))


def test_several_labels_for_each() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(4, 3), torch.randint(2, (4, 3)).float()

    def own(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        return torch.nn.functional.binary_cross_entropy_with_logits(outputs["logits"], labels)

    loss = PipelineLoss(Pipeline([Penalty("z_loss", inputs="logits", weight=0.5)]), loss=own, shift=False)
    expected = own({"logits": logits}, labels) + 0.5 * (logits.logsumexp(-1) ** 2).mean()
    torch.testing.assert_close(loss({"logits": logits}, labels), expected)
    torch.testing.assert_close(loss({"logits": logits}, labels, num_items_in_batch=torch.tensor(12)), expected)


def test_classifiers_and_options_of_ones_own() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 3, requires_grad=True)
    labels = torch.tensor([0, 2, 1, -100])
    own = Penalty("z_loss", name="own", inputs="logits", weight=0.5, options={"normalizer": 10.0})
    counted = Penalty(lambda inputs: inputs["items"] * inputs["logits"].mean(), name="counted", weight=0.1)
    structure = Penalty("orthogonality", inputs="logits", weight=lambda step: 0.1 * step)
    loss = PipelineLoss(Pipeline([own, counted]), shift=False)
    total = loss({"logits": logits}, labels, num_items_in_batch=torch.tensor(6))
    plain = logits[:3].logsumexp(-1) ** 2
    expected = cross_entropy(logits, labels, reduction="sum") / 6 + 0.5 * plain.sum() / 10
    torch.testing.assert_close(total, expected + 0.1 * 6 * logits.mean() * 3 / 6)
    for penalty in (structure, replace(structure, weight=1.0, every=2)):
        with pytest.raises(
            ValueError,
            match=r"penalty 'orthogonality' needs the step, got one that is not\. Call attach\(trainer\) first",
        ):
            PipelineLoss(Pipeline([penalty]), shift=False)({"logits": logits}, labels)
    assert PipelineLoss(Pipeline([structure]).disable("orthogonality"), shift=False)({"logits": logits}, labels)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: PipelineLoss("l1"), TypeError, r"`pipe` must be a Pipeline, got str\. Pass Pipeline\(\[Penalty\("),
        (
            lambda: PipelineLoss(Pipeline([Penalty("z_loss")])),
            ValueError,
            r"^PipelineLoss: the penalties .* got inputs=None for 'z_loss'\. Pass .* inputs='logits'\)",
        ),
        (lambda: PipelineLoss(PIPE, loss=3), TypeError, r"`loss` must be callable, got int\. Pass one"),
        (lambda: PipelineLoss(PIPE, reference="gpt2"), TypeError, r"`reference` must be callable, got str\. Pass one"),
        (
            lambda: PipelineLoss(PIPE)((torch.ones(2, 3, 4),), None),
            TypeError,
            r"the model must return a mapping with 'logits', got tuple\. Use return_dict=True",
        ),
        (lambda: PipelineLoss(PIPE)({"loss": 1.0}, None), TypeError, r"with 'logits', got 'loss'\. Use"),
        (
            lambda: PipelineLoss(PIPE)({"logits": torch.ones(2, 3, 4)}, None),
            ValueError,
            r"the batches must have 'labels', got none\. Let the collator make them",
        ),
        (
            lambda: PipelineLoss(PIPE)({"logits": torch.ones(2, 3, 4)}, torch.ones(2, 5, dtype=torch.long)),
            ValueError,
            r"must have the logits' shape without classes, got \(2, 5\) and \(2, 3, 4\), shift=True\. Pass shift=False",
        ),
        (
            lambda: PipelineLoss(PIPE)({"logits": torch.ones(2, 4)}, torch.ones(2, dtype=torch.long)),
            ValueError,
            r"got \(2,\) and \(2, 4\), shift=True\. Pass shift=False if the model does not predict the next",
        ),
        (
            lambda: PipelineLoss(PIPE)({"logits": torch.ones(2, 3, 4)}, torch.ones(2, 3, dtype=torch.long)),
            ValueError,
            r"the loss must be attached to the Trainer, because penalty 'kl' needs the reference, got .* Call attach",
        ),
        (
            lambda: PipelineLoss(PIPE, shift=False)({"logits": torch.ones(2, 1)}, torch.ones(2, dtype=torch.long)),
            ValueError,
            r"labels must be classes for the cross-entropy, got torch\.int64 for 1 of them\. Pass a `loss`",
        ),
        (
            lambda: PipelineLoss(PIPE, shift=False)({"logits": torch.ones(2, 3)}, torch.ones(2)),
            ValueError,
            r"got torch\.float32 for 3 of them\. Pass a `loss`",
        ),
    ],
)
def test_errors(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_errors_of_attaching(tmp_path: Path) -> None:
    sizes = {"vocab_size": 11, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    t5 = transformers.T5ForConditionalGeneration(transformers.T5Config(decoder_start_token_id=0, **sizes))
    with pytest.raises(
        ValueError, match=r"that does not predict the next token, got True for T5ForConditionalGeneration\. Pass sh"
    ):
        trainer(t5, PipelineLoss(PIPE), tmp_path)
    trainer(t5, PipelineLoss(PIPE, shift=False), tmp_path)
    sizes = {
        "vocab_size": 11,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
    }
    masked = transformers.BertForMaskedLM(transformers.BertConfig(**sizes))
    with pytest.raises(ValueError, match="got True for BertForMaskedLM"):
        trainer(masked, PipelineLoss(PIPE), tmp_path)

    class Adapted(nn.Module):  # as peft wraps models
        def get_base_model(self) -> Any:
            return masked

    class Own(transformers.BertForMaskedLM):
        pass

    for wrapped, name in (
        (torch.compile(masked, backend="eager"), "BertForMaskedLM"),
        (Adapted(), "BertForMaskedLM"),
        (Own(masked.config), "Own"),
    ):
        with pytest.raises(ValueError, match=f"got True for {name}"):
            trainer(wrapped, PipelineLoss(PIPE), tmp_path)
    with pytest.raises(ValueError, match=r"`ignore_index` must be -100, which the Trainer counts items by, got 0\."):
        trainer(network(), PipelineLoss(PIPE, ignore_index=0), tmp_path)
    with pytest.raises(ValueError, match=r"label smoothing must be off, .* got 0\.1\. Pass a `loss` that smooths"):
        trainer(network(), PipelineLoss(PIPE), tmp_path, label_smoothing_factor=0.1)
    model = network()
    made = trainer(model, None, tmp_path)
    with pytest.raises(ValueError, match=r"`compute_loss_func` must be this loss, got None\. Pass it to the Trainer"):
        PipelineLoss(PIPE).attach(made)
    with pytest.raises(ValueError, match=r"`reference` must not be the trained model, got the Trainer's model"):
        trainer(model, PipelineLoss(PIPE, reference=model), tmp_path)

    class Wider(nn.Module):
        def forward(self, input_ids: Any, **more: Any) -> Any:
            return {"logits": torch.ones(*input_ids.shape, 12)}

    with pytest.raises(
        ValueError, match=r"must have the model's shape, got \(4, 8, 12\) instead of \(4, 8, 11\)\. Use"
    ):
        trainer(model, PipelineLoss(PIPE, reference=Wider()), tmp_path).train()
    with pytest.raises(TypeError, match=r"`reference` must return a mapping with 'logits', got Tensor"):
        trainer(model, PipelineLoss(PIPE, reference=lambda **_: torch.ones(2)), tmp_path).train()


def test_without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "xpenalties.integrations.transformers")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModuleNotFoundError, match=r'needs transformers\. Install it: pip install "xpenalties\[transf'):
        __import__("xpenalties.integrations.transformers")
