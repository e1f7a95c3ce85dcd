"""What Hugging Face's Trainer logs of a pipeline: means over steps and processes, and what is not there."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import integration
from tests.helpers.processes import on_processes
from xpenalties import Penalty, Pipeline, trees

integration("transformers", "accelerate")

import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its imports' own
    import transformers

    from tests.integrations.torch_training import close
    from tests.integrations.trainer_training import OF_LOGITS, PIPE, network, sentences, trainer
    from xpenalties.integrations.transformers import PipelineLoss

pytestmark = [pytest.mark.integrations, pytest.mark.usefixtures("quietly")]


def test_what_is_logged(tmp_path: Path) -> None:
    model, reference = network(), network(seed=3)
    seen = []
    loss = PipelineLoss(PIPE, reference=reference, prefix="p/")

    class Each(transformers.TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            seen.append(float(loss.report.loss_total))

    made = trainer(model, loss, tmp_path, logging_strategy="steps", logging_steps=5)
    made.add_callback(Each())
    made.train()
    logs = [each for each in made.state.log_history if "loss" in each]
    assert len(logs) == 4 and all("p/kl/value" in each for each in logs)
    for i, each in enumerate(logs):
        own = {name: value for name, value in each.items() if name.startswith("p/")}
        assert each["loss"] == pytest.approx(sum(seen[5 * i : 5 * i + 5]) / 5, abs=1e-4)
        assert own["p/base_loss"] + own["p/regularizer_total"] == pytest.approx(each["loss"], abs=1e-4)
        assert own["p/kl/contribution"] == pytest.approx(0.5 * own["p/kl/value"], rel=1e-5)
    others = [each for each in made.state.log_history if "loss" not in each]
    assert others and not any(name.startswith("p/") for each in others for name in each)


@pytest.mark.parametrize(("average", "how"), [(True, "sum"), (False, "mean")])
def test_logs_of_several_processes(average: bool, how: str, tmp_path: Path) -> None:
    """Each has its part of all items, or all of its own."""
    options = {"logging_strategy": "steps", "logging_steps": 1, "average_tokens_across_devices": average}
    made = trainer(network(), PipelineLoss(Pipeline()), tmp_path, data=sentences(2), **options)
    asked: list[str] = []
    made.accelerator.reduce = lambda x, how: (asked.append(how), 3 * x)[1]
    made.train()
    assert asked == [how] * 2
    result = made.state.log_history[0]
    assert result["penalties/base_loss"] == pytest.approx(3 * result["loss"], rel=1e-4)


def test_what_one_process_drops(tmp_path: Path) -> None:
    """Figures stay beside their names, and a value is the mean over what there is."""
    out = tmp_path / "two.pt"
    on_processes(2, "integrations.trainer_processes", out, 1, "drops")
    with_teacher = torch.load(out, weights_only=False)["logs"][:2]
    for each in with_teacher:
        total = sum(x for name, x in each.items() if name.endswith("/contribution"))
        assert each["penalties/regularizer_total"] == pytest.approx(total, rel=1e-4)
    first, second = (each["penalties/teacher/value"] for each in with_teacher)
    assert first == pytest.approx(2.0, rel=1e-5) and second == pytest.approx(2.0, rel=1e-5)
    first, second = (each["penalties/teacher/contribution"] for each in with_teacher)
    assert 0 < first < second == pytest.approx(1.0, rel=1e-5)


def test_logs_of_accumulated_batches(tmp_path: Path) -> None:
    pipe = Pipeline([Penalty(trees.over_tree("l2"), name="decay", inputs="params", weight=0.0, every=2)])
    model = network()
    before = float(sum((p.detach() ** 2).sum() for p in model.parameters()))
    loss = PipelineLoss(pipe)
    made = trainer(model, loss, tmp_path, accumulated=4, data=sentences(4), logging_strategy="steps", logging_steps=1)
    made.train()
    assert made.state.log_history[0]["penalties/decay/value"] == pytest.approx(before, rel=1e-5)
    made.log({"loss": 1.0})  # where there was no step since
    assert "penalties/decay/value" not in made.state.log_history[-1]


@pytest.mark.usefixtures("float64")
def test_several_trainers_and_runs(tmp_path: Path) -> None:
    """Each has its own model, steps and logs; and so has each run of one."""
    pipe = Pipeline([Penalty(trees.over_tree("l2"), name="decay", inputs="params", weight=0.1)])
    loss = PipelineLoss(pipe)
    options = {"logging_strategy": "steps", "logging_steps": 4, "save_strategy": "steps", "save_steps": 10}
    first, second = (trainer(network(seed), loss, tmp_path / str(seed), **options) for seed in (0, 3))
    first.train()
    second.train()
    second.train()
    first.train(resume_from_checkpoint=str(tmp_path / "0" / "checkpoint-10"))
    for made in (first, second):
        logs = [each for each in made.state.log_history if "loss" in each]
        assert len(logs) >= 5
        for each in logs[:-1] if made is first else logs:  # a resumed run's first is of fewer steps
            total = each["penalties/base_loss"] + each["penalties/regularizer_total"]
            assert each["loss"] == pytest.approx(total, abs=1e-3) or each["step"] == 12
    alone = network(0)
    trainer(alone, PipelineLoss(pipe), tmp_path).train()
    close(first.model, alone)


def test_penalties_on_some_steps(tmp_path: Path) -> None:
    calls = []
    reference = network(seed=3)

    def counted(**inputs: Any) -> Any:
        calls.append(1)
        return reference(**inputs)

    kl = Penalty("kl_divergence", name="kl", inputs=("logits", "reference"), weight=0.1, options=OF_LOGITS, every=5)
    loss = PipelineLoss(Pipeline([kl, Penalty("z_loss", inputs="logits", weight=0.1, every=5)]), reference=counted)
    options = {"logging_strategy": "steps", "logging_steps": 10, "learning_rate": 0.0}
    made = trainer(network(), loss, tmp_path, **options)
    made.train()
    assert len(calls) == 4
    result = made.state.log_history[0]
    assert result["penalties/z_loss/value"] == pytest.approx(5.0, rel=0.2)  # log(11) ** 2 and a bit, not a fifth of it
    assert result["penalties/z_loss/contribution"] == pytest.approx(0.1 * result["penalties/z_loss/value"], rel=1e-5)
    evaluated = []
    for step in range(4):
        made.state.global_step = step
        evaluated.append(made.evaluate()["eval_loss"])
    assert evaluated == pytest.approx([evaluated[0]] * 4)


@pytest.mark.filterwarnings("ignore:.*was dropped and contributes 0")
def test_what_is_dropped(tmp_path: Path) -> None:
    def fails(x: Any) -> Any:
        raise ConnectionError("down")

    loss = PipelineLoss(Pipeline([Penalty(fails, name="f", inputs="logits", on_error="drop")]))
    made = trainer(network(), loss, tmp_path, data=sentences(2), logging_strategy="steps", logging_steps=1)
    made.train()
    assert made.state.log_history[0]["penalties/f/contribution"] == 0.0
    assert "penalties/f/value" not in made.state.log_history[0]
