"""The recipes for TRL's DistillationTrainer and GKDTrainer: their divergences are TRL's own."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import integration

integration("trl", session="trainers")

import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its imports' own
    from datasets import Dataset
    from trl import DistillationConfig, DistillationTrainer
    from trl.experimental.gkd import GKDConfig, GKDTrainer
    from trl.trainer import distillation_trainer

    from tests.integrations.trl_training import OPTIONS, network, prompts, run

pytestmark = [pytest.mark.trainers, pytest.mark.usefixtures("quietly")]
THEIRS = distillation_trainer._chunked_divergence_loss
BETAS = (0, 0.3, 0.5, 1.0)


@pytest.fixture
def divergence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Run the recipe. Return its loss, which replaces TRL's until the end of the test."""
    monkeypatch.setattr(distillation_trainer, "_chunked_divergence_loss", THEIRS)
    arguments = DistillationConfig(str(tmp_path), max_completion_length=8, gradient_accumulation_steps=2, **OPTIONS)
    names = run("trl_distillation.py", teacher=network(seed=3), arguments=arguments, dataset=prompts())
    trainer = names["trainer"]
    assert isinstance(trainer, DistillationTrainer) and trainer.state.global_step == 2
    assert distillation_trainer._chunked_divergence_loss is names["divergence"]
    logged = trainer.state.log_history[0]
    assert logged["loss"] > 0 and 0 < logged["entropy"] < 2.4
    return names["divergence"]


def layers() -> list[Any]:
    """Return a student's and a wider teacher's hidden states, and their heads."""
    student, teacher = torch.randn(2, 5, 6), torch.randn(2, 5, 9)
    return [x.requires_grad_() for x in (student, teacher, torch.randn(12, 6), torch.randn(12, 9))]


@pytest.mark.parametrize("items", [None, torch.tensor(14)])
def test_distillation_as_trl(items: Any, divergence: Any) -> None:
    mask = (torch.arange(5) < torch.tensor([[5], [3]])).long()
    for beta in BETAS:
        for temperature in (1.0, 2.0):
            student, _, weight, _ = arrays = layers()
            theirs = THEIRS(*arrays, mask, beta, items, temperature=temperature)
            ours = divergence(*arrays, mask, beta, items, temperature=temperature)
            torch.testing.assert_close(ours[0], theirs[0])
            torch.testing.assert_close(ours[1], theirs[1].detach())
            assert ours[2] == theirs[2] == 8 and not ours[1].requires_grad
            wanted, found = (torch.autograd.grad(each[0], (student, weight)) for each in (theirs, ours))
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_heads_that_linear_penalties_lack(divergence: Any) -> None:
    mask = torch.ones(2, 5)
    same = {"student_lm_head_bias": None, "teacher_logit_scale": 1.0}
    divergence(*layers(), mask, 1.0, **same)
    for name, value in (("student_lm_head_bias", torch.zeros(12)), ("teacher_logit_scale", 0.5)):
        with pytest.raises(NotImplementedError, match=name):
            divergence(*layers(), mask, 1.0, **{**same, name: value})


def gkd(path: Path) -> Any:
    roles = ("user", "assistant")
    texts = [("a b c", "d e f g"), ("d e", "f"), ("a", "b c d e f"), ("f g", "h a")] * 4
    dataset = [[{"role": role, "content": text} for role, text in zip(roles, pair, strict=True)] for pair in texts]
    arguments = GKDConfig(str(path), max_new_tokens=8, gradient_accumulation_steps=2, **OPTIONS)
    names = run(
        "trl_gkd.py", teacher=network(seed=3), arguments=arguments, dataset=Dataset.from_dict({"messages": dataset})
    )
    trainer = names["trainer"]
    assert isinstance(trainer, GKDTrainer) and trainer.state.global_step == 2
    return trainer


def test_gkd_as_trl(tmp_path: Path) -> None:
    ours = gkd(tmp_path).generalized_jsd_loss
    labels = torch.tensor([[-100, 3, 4, 5], [-100, -100, 2, -100]])
    for beta in BETAS:
        for options in (
            {"labels": labels},
            {"labels": labels, "num_items_in_batch": torch.tensor(9), "temperature": 2.0},
            {"labels": labels, "num_items_in_batch": 9},
            {"num_items_in_batch": 9},
        ):
            student, teacher = torch.randn(2, 2, 4, 10).mul(3).unbind()
            student.requires_grad_()
            theirs = GKDTrainer.generalized_jsd_loss(student, teacher, beta=beta, **options)
            found = ours(student_logits=student, teacher_logits=teacher, beta=beta, **options)
            torch.testing.assert_close(found, theirs)
            wanted, gradient = (torch.autograd.grad(each, student)[0] for each in (theirs, found))
            torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-6)
