"""The recipe for TRL's SFTTrainer: its loss is TRL's own, plus the penalties by hand."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import integration

integration("trl", session="trainers")

import torch
from torch.nn.functional import kl_div, log_softmax

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its imports' own
    from trl import SFTConfig, SFTTrainer

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


def step(trainer: Any) -> tuple[Any, dict[str, Any], list[Any], Any]:
    """Return the loss of one optimizer's step, its gradients, batches and number of items."""
    batches, items = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 2, torch.device("cpu"))
    trainer.current_gradient_accumulation_steps = len(batches)
    total = sum(trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=items) for batch in batches)
    return (*loss_and_gradients(trainer.model, total), batches, items)


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("by", ["recipe", "compute_loss_func"])
def test_as_trl_plus_penalties_by_hand(kind: str, by: str, tmp_path: Path) -> None:
    options = {**OPTIONS, "gradient_accumulation_steps": 2, **BATCHES[kind]}
    reference = network(seed=3)
    names = run("trl_sft.py", reference=reference, arguments=SFTConfig(str(tmp_path), **options))
    trainer, model = names["trainer"], names["model"]
    logs = trainer.state.log_history
    assert trainer.state.global_step == 2 and {f"penalties/{name}/value" for name in WEIGHTS} <= set(logs[0])

    data = {"train_dataset": completions(), "processing_class": tokenizer()}
    theirs = SFTTrainer(network(), SFTConfig(str(tmp_path), **options), **data)
    theirs.model.load_state_dict(model.state_dict())
    if by == "compute_loss_func":
        loss = names["PipelineLoss"](names["pipeline"], reference=reference)
        arguments = SFTConfig(str(tmp_path), **options)
        with pytest.warns(FutureWarning, match="`compute_loss_func` is deprecated and will be removed in v2"):
            trainer = SFTTrainer(network(), arguments, compute_loss_func=loss, **data)
        loss.attach(trainer)
        trainer.model.load_state_dict(model.state_dict())
    trainer.model.train()
    total, gradients, batches, items = step(trainer)

    expected = 0.0
    for batch in batches:
        expected = expected + theirs.compute_loss(theirs.model, dict(batch), num_items_in_batch=items)
        inputs = {name: x for name, x in batch.items() if name != "labels"}
        mask = batch["labels"][:, 1:] != -100
        with torch.no_grad():
            of_reference = reference(**inputs).logits[:, :-1]
        sums = penalties(theirs.model(**inputs).logits[:, :-1], of_reference, mask)
        expected = expected + sum(weight * sums[name] / items for name, weight in WEIGHTS.items())
    wanted, wanted_gradients = loss_and_gradients(theirs.model, expected)
    torch.testing.assert_close(total, wanted)
    torch.testing.assert_close(gradients, wanted_gradients, rtol=1e-4, atol=1e-6)
    assert trainer.evaluate(trainer.train_dataset)["eval_loss"] > theirs.evaluate(theirs.train_dataset)["eval_loss"]


def test_a_copy_after_the_trainer(tmp_path: Path) -> None:
    model = network()
    options = {"train_dataset": completions(), "processing_class": tokenizer()}
    SFTTrainer(model, SFTConfig(str(tmp_path), **OPTIONS), **options)
    with pytest.raises(ValueError, match="a copy whose `forward` is that of the Trainer's model"):
        run("trl_sft.py", model=model, reference=copy.deepcopy(model), arguments=SFTConfig(str(tmp_path), **OPTIONS))
