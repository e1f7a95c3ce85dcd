"""The recipe for TRL's SFTTrainer: its loss is TRL's own, plus the penalties by hand."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import integration
from tests.helpers.processes import on_processes

integration("trl", session="trainers")

import torch
from torch.nn.functional import kl_div, log_softmax

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its imports' own
    from trl import SFTConfig, SFTTrainer

    from tests.integrations.trl_processes import sft
    from tests.integrations.trl_training import OPTIONS, completions, loss_and_gradients, network, run, tokenizer

pytestmark = [pytest.mark.trainers, pytest.mark.usefixtures("quietly")]
WEIGHTS = {"kl": 0.1, "entropy": 0.01, "z_loss": 1e-4}
BATCHES = {
    "padded": {},
    "padding-free": {"padding_free": True, "max_length": None},
    "packed": {"packing": True, "max_length": 16},
    "wrapped": {"packing": True, "packing_strategy": "wrapped", "max_length": 16},
}


def penalties(logits: Any, reference: Any, mask: Any) -> dict[str, Any]:
    """Return each penalty's sum over tokens, by hand."""
    log_p, log_q = log_softmax(logits, -1), log_softmax(reference, -1)
    terms = {
        "kl": kl_div(log_q, log_p, log_target=True, reduction="none").sum(-1),
        "entropy": torch.sum(log_p.exp() * log_p, -1),
        "z_loss": torch.logsumexp(logits, -1) ** 2,
    }
    return {name: term[mask].sum() for name, term in terms.items()}


def trainer_of_trl(path: Path, options: dict[str, Any], **more: Any) -> Any:
    data = {"train_dataset": completions(), "processing_class": tokenizer()}
    return SFTTrainer(network(), SFTConfig(str(path), **options), **data, **more)


def compare(trainer: Any, theirs: Any, reference: Any, weights: dict[str, float]) -> None:
    """Compare a step's loss and gradients with TRL's own loss plus penalties by hand."""
    theirs.model.load_state_dict(trainer.model.state_dict())
    batches, items = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 2, torch.device("cpu"))
    total, expected = 0.0, 0.0
    for each in (trainer, theirs):
        each.model.train()
        each.current_gradient_accumulation_steps = len(batches)
    for batch in batches:
        total = total + trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=items)
        expected = expected + theirs.compute_loss(theirs.model, dict(batch), num_items_in_batch=items)
        inputs = {"use_cache": False, **{name: x for name, x in batch.items() if name != "labels"}}
        with torch.no_grad():
            of_reference = reference(**inputs).logits[:, :-1]
        sums = penalties(theirs.model(**inputs).logits[:, :-1], of_reference, batch["labels"][:, 1:] != -100)
        expected = expected + sum(weight * sums[name] / items for name, weight in weights.items())
    found, wanted = (loss_and_gradients(each.model, loss) for each, loss in ((trainer, total), (theirs, expected)))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    assert trainer.evaluate(trainer.train_dataset)["eval_loss"] > theirs.evaluate(theirs.train_dataset)["eval_loss"]


@pytest.mark.parametrize("kind", BATCHES)
def test_as_trl_plus_penalties_by_hand(kind: str, tmp_path: Path) -> None:
    options, reference = {**OPTIONS, "gradient_accumulation_steps": 2, **BATCHES[kind]}, network(seed=3)
    theirs = trainer_of_trl(tmp_path, options)
    names = run("trl_sft.py", reference=reference, arguments=SFTConfig(str(tmp_path), **options))
    ours = names["trainer"]
    assert ours.state.global_step == 2
    assert {f"penalties/{name}/value" for name in WEIGHTS} <= set(ours.state.log_history[0])
    compare(ours, theirs, reference, WEIGHTS)
    loss = names["PipelineLoss"](names["pipeline"], reference=reference)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`compute_loss_func` is deprecated and will be removed in v2")
        ours = trainer_of_trl(tmp_path, options, compute_loss_func=loss)
    loss.attach(ours)
    compare(ours, theirs, reference, WEIGHTS)


@pytest.mark.parametrize("kind", BATCHES)
def test_without_logits(kind: str, tmp_path: Path) -> None:
    options, reference = {**OPTIONS, "gradient_accumulation_steps": 2, **BATCHES[kind]}, network(seed=3)
    theirs = trainer_of_trl(tmp_path, options)
    names = run("trl_sft_without_logits.py", reference=reference, arguments=SFTConfig(str(tmp_path), **options))
    ours = names["trainer"]
    logged = ours.state.log_history[0]
    assert -2.4 < logged["penalties/entropy_bonus"] < 0
    assert logged["penalties/kl"] > 0
    compare(ours, theirs, reference, {"kl": 0.1, "entropy": 0.01})
    batch = next(iter(ours.get_train_dataloader()))
    alone = ours.compute_loss(ours.model, dict(batch))
    with pytest.warns(FutureWarning, match="`return_outputs=True`, and the logits it passes .* are deprecated"):
        again, outputs = ours.compute_loss(ours.model, dict(batch), return_outputs=True)
    torch.testing.assert_close(again, alone)
    assert outputs.logits.shape[:2] == batch["labels"].shape


@pytest.mark.parametrize("recipe", ["trl_sft.py", "trl_sft_without_logits.py"])
def test_several_processes_as_one(recipe: str, tmp_path: Path) -> None:
    """Parameters and logs, where two processes train on halves of what one trains on."""
    out = tmp_path / "two.pt"
    on_processes(2, "integrations.trl_processes", recipe, out)
    two, made = torch.load(out, weights_only=False), sft(recipe, out)
    for name, mine in made.model.named_parameters():
        torch.testing.assert_close(two["parameters"][name], mine, rtol=1e-4, atol=1e-5, msg=name)
    for theirs, ours in zip(two["logs"][:2], made.state.log_history[:2], strict=True):
        logged = {name for name in ours if name == "loss" or name.startswith("penalties/")}
        assert len(logged) > 2
        assert {name: theirs[name] for name in logged} == pytest.approx({name: ours[name] for name in logged}, rel=1e-4)


def test_a_copy_after_the_trainer(tmp_path: Path) -> None:
    model = network()
    options = {"train_dataset": completions(), "processing_class": tokenizer()}
    SFTTrainer(model, SFTConfig(str(tmp_path), **OPTIONS), **options)
    with pytest.raises(ValueError, match="a copy whose `forward` is that of the Trainer's model"):
        run("trl_sft.py", model=model, reference=copy.deepcopy(model), arguments=SFTConfig(str(tmp_path), **OPTIONS))
