"""The recipe for TRL's GRPOTrainer: its KL divergence and entropy bonus are TRL's own, if they are asked to be."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import integration
from tests.helpers.processes import on_processes
from xpenalties import Penalty, Pipeline

integration("trl", session="trainers")

import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its imports' own
    from trl import GRPOConfig, GRPOTrainer

    from tests.integrations.trl_training import OPTIONS, loss_and_gradients, network, perturb, prompts, run

pytestmark = [pytest.mark.trainers, pytest.mark.usefixtures("quietly")]
BETA = 0.3


def reward(completions: list[str], **more: Any) -> list[float]:
    return [len(completion) + 3.0 * completion.count("a") for completion in completions]


def trained(path: Path, **options: Any) -> dict[str, Any]:
    """Run the recipe, and return its names."""
    usual = {
        **OPTIONS,
        "learning_rate": 0.01,
        "num_generations": 4,
        "max_completion_length": 8,
        "gradient_accumulation_steps": 2,
        "beta": BETA,
        **options,
    }
    names = {"model": network(path=path / "model"), "reward": reward, "dataset": prompts()}
    return run("trl_grpo.py", arguments=GRPOConfig(str(path), **usual), **names)


def batches(trainer: Any) -> list[Any]:
    """Return the batches of one optimizer's step. The model changes after it has generated them."""
    trainer.model.train()
    trainer._step, trainer._buffered_inputs = 0, None
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    generated = next(iter(trainer.get_train_dataloader()))
    result = []
    for step in range(trainer.args.gradient_accumulation_steps):
        trainer._step = step
        result.append(trainer._prepare_inputs(generated))
    perturb(trainer.model, 0.05)
    return result


def compare(trainer: Any, inputs: list[Any]) -> Any:
    """Compare the recipe's loss of a step, and its gradients, with TRL's. Return the loss."""
    model = trainer.model
    wanted, wanted_gradients = loss_and_gradients(
        model, sum(GRPOTrainer._compute_loss(trainer, model, x) for x in inputs)
    )
    trainer.entropy_coef, trainer._entropy_bonus_enabled = 0.0, False
    loss, gradients = loss_and_gradients(model, sum(trainer._compute_loss(model, x) for x in inputs))
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients, wanted_gradients, rtol=1e-4, atol=1e-5)
    assert trainer.beta == BETA and "_latest" not in vars(trainer)
    return loss


def as_trl(path: Path, **options: Any) -> None:
    """Train, and compare a step's KL divergence with TRL's."""
    names = trained(path, **options)
    trainer, kl = names["trainer"], names["kl"]
    logs = trainer.state.log_history
    assert trainer.state.global_step == 2 and {"penalties/kl", "penalties/entropy_bonus"} <= set(logs[0])
    assert logs[0]["penalties/entropy_bonus"] == pytest.approx(-logs[0]["entropy"], rel=0.2)  # TRL's is of each batch
    trainer.pipeline = Pipeline([Penalty(kl, weight=BETA)])
    inputs = batches(trainer)
    assert ("old_per_token_logps" in inputs[0]) == (trainer.num_iterations == 2)
    with_kl = compare(trainer, inputs)
    trainer.pipeline = Pipeline()
    without = sum(trainer._compute_loss(trainer.model, each) for each in inputs)
    assert abs(with_kl - without) > 0.01


@pytest.mark.parametrize("loss_type", ["dapo", "cispo"])
@pytest.mark.parametrize("iterations", [1, 2])
def test_kl_as_trl(loss_type: str, iterations: int, tmp_path: Path) -> None:
    as_trl(tmp_path, loss_type=loss_type, num_iterations=iterations)


def test_kl_as_trl_on_several_processes(tmp_path: Path) -> None:
    on_processes(2, "integrations.trl_processes", "trl_grpo.py", tmp_path / "two.pt")


def test_entropy_bonus_as_trl(tmp_path: Path) -> None:
    names = trained(tmp_path, gradient_accumulation_steps=1, entropy_coef=0.2)  # TRL's is the mean of each batch
    trainer = names["trainer"]
    trainer.pipeline = Pipeline([Penalty(names["kl"], weight=BETA), Penalty(names["entropy_bonus"], weight=0.2)])
    compare(trainer, batches(trainer))


def test_logs_and_evaluation(tmp_path: Path) -> None:
    names = trained(tmp_path, per_device_eval_batch_size=4)
    trainer = names["trainer"]
    inputs = batches(trainer)
    trainer._metrics["train"].clear()
    for each in inputs:
        trainer._compute_loss(trainer.model, each)
    logged = trainer._metrics["train"]["penalties/kl"]
    model_kl, tokens = 0.0, 0
    for each in inputs:
        ids = torch.cat([each["prompt_ids"], each["completion_ids"]], 1)
        mask = torch.cat([each["prompt_mask"], each["completion_mask"]], 1)
        log_p, _, _ = trainer._get_per_token_logps_and_entropies(
            trainer.model, ids, mask, each["completion_ids"].shape[1]
        )
        r = each["ref_per_token_logps"] - log_p.detach()
        model_kl += torch.sum((r.exp() - 1 - r) * each["completion_mask"])
        tokens += each["completion_mask"].sum()
    assert sum(logged) / len(logged) == pytest.approx(float(model_kl / tokens), rel=1e-4)
    result = trainer.evaluate(prompts().select(range(4)))
    assert result["eval_penalties/kl"] > 0
