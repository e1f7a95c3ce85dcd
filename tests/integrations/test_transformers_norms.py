"""Gradient norms in Hugging Face's Trainer, by hand, in its logs, and beside a training without them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import integration
from xpenalties import Penalty, Pipeline

integration("transformers", "accelerate")

import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its imports' own
    import transformers

    from tests.integrations.torch_training import close
    from tests.integrations.trainer_training import OF_LOGITS, PIPE, network, sentences, trainer
    from xpenalties.integrations.transformers import PipelineLoss

pytestmark = [pytest.mark.integrations, pytest.mark.usefixtures("quietly")]
LOGGED = {"learning_rate": 0.0, "logging_strategy": "steps", "logging_steps": 1}


def parts_by_hand(model: Any, reference: Any, batch: list[dict[str, Any]]) -> dict[str, Any]:
    """Sums that are not yet divided by the number of labels."""
    ids, mask, labels = (torch.stack([each[name] for each in batch]) for name in batch[0])
    inputs = {"input_ids": ids, "attention_mask": mask}
    kept = labels[:, 1:] != -100
    logits = model(**inputs).logits[:, :-1][kept]
    log_p, log_q = log_softmax(logits, -1), log_softmax(reference(**inputs).logits[:, :-1][kept], -1).detach()
    return {
        "base_loss": cross_entropy(logits, labels[:, 1:][kept], reduction="sum"),
        "kl": kl_div(log_q, log_p, log_target=True, reduction="sum"),
        "entropy": (log_p.exp() * log_p).sum(),
        "z_loss": (logits.logsumexp(-1) ** 2).sum(),
        "size": (logits**2).sum(),
        "decay": sum((p**2).sum() for name, p in model.named_parameters() if "mlp" in name and "weight" in name),
    }


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("wrt", [None, "params", "module", "hidden"])
def test_each_part_by_hand(wrt: Any, tmp_path: Path) -> None:
    model, reference = network(), network(seed=3)
    arrays = list(model.parameters())
    given: Any = wrt
    if wrt == "hidden":
        arrays = list(model.transformer.h.parameters())
        given = iter(arrays)
    elif wrt == "module":
        given = model
    loss = PipelineLoss(PIPE, reference=reference, track_every=2, wrt=given)
    made = trainer(model, loss, tmp_path, data=sentences(3), **LOGGED)
    tracked = []

    class Each(transformers.TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            tracked.append(loss.report.wrt)

    made.add_callback(Each())
    made.train()
    assert tracked == ["params", None, "params"]

    parts = parts_by_hand(model, reference, sentences(3)[8:])
    figures = loss.report.to_dict()
    found = {"base_loss": figures["base_loss"], **figures["regularizers"]}
    total: Any = 0.0
    for name, part in parts.items():
        scale = found[name]["value"] / float(part.detach())  # one by the number of labels
        weight = found[name].get("weight", 1.0)
        total = total + weight * scale * part
        gradient = torch.autograd.grad(scale * part, arrays, retain_graph=True, allow_unused=True)
        norm = float(torch.cat([g.flatten() for g in gradient if g is not None]).norm())
        assert found[name]["grad_norm"] == pytest.approx(norm, rel=1e-6), name
        if name != "base_loss":
            assert found[name]["grad_norm_weighted"] == pytest.approx(weight * norm, rel=1e-6), name
    gradient = torch.autograd.grad(total, arrays)
    assert figures["total_grad_norm"] == pytest.approx(float(torch.cat([g.flatten() for g in gradient]).norm()), 1e-6)
    logs = [each for each in made.state.log_history if "loss" in each]
    assert "penalties/kl/grad_norm" not in logs[1]
    assert logs[2]["penalties/kl/grad_norm"] == pytest.approx(found["kl"]["grad_norm"], rel=1e-5)
    assert logs[2]["penalties/base_loss/grad_norm"] == pytest.approx(found["base_loss"]["grad_norm"], rel=1e-5)
    assert logs[2]["penalties/total_grad_norm"] == pytest.approx(figures["total_grad_norm"], rel=1e-5)


@pytest.mark.usefixtures("float64")
def test_logs_do_not_depend_on_the_number_of_batches(tmp_path: Path) -> None:
    batch = [{**each, "labels": each["input_ids"]} for each in sentences(1)]
    logs = []
    for accumulated in (1, 3):
        loss = PipelineLoss(PIPE, reference=network(seed=3), track_every=1)
        made = trainer(network(), loss, tmp_path, data=batch * accumulated, accumulated=accumulated, **LOGGED)
        made.train()
        logs.append({name: x for name, x in made.state.log_history[0].items() if "penalties" in name})
    assert logs[0] == pytest.approx(logs[1], rel=1e-5)
    names = {f"penalties/{penalty.name}/grad_norm{end}" for penalty in PIPE for end in ("", "_weighted")}
    assert names | {"penalties/base_loss/grad_norm", "penalties/total_grad_norm"} <= set(logs[0])


@pytest.mark.usefixtures("float64")
def test_training_is_the_same(tmp_path: Path) -> None:
    ours, theirs = network(), network()
    trainer(ours, PipelineLoss(PIPE, reference=network(3), track_every=1), tmp_path, accumulated=2).train()
    trainer(theirs, PipelineLoss(PIPE, reference=network(3)), tmp_path, accumulated=2).train()
    close(ours, theirs)
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))


def test_the_scale_of_half_precision(tmp_path: Path) -> None:
    norms = []
    for scaled in (False, True):
        loss = PipelineLoss(Pipeline([Penalty("z_loss", inputs="logits")]), track_every=1)
        made = trainer(network(), loss, tmp_path, data=sentences(1), learning_rate=0.0)
        calls: list[int] = []
        if scaled:

            class Scaler(torch.amp.GradScaler):
                def scale(self, x: Any, calls: list[int] = calls) -> Any:
                    calls.append(1)
                    return super().scale(x)

            made.accelerator.scaler = Scaler("cpu")
        made.train()
        assert len(calls) == (3 if scaled else 0)  # for the loss, the penalty, and the Trainer's backward pass
        norms.append(float(loss.report.regularizers["z_loss"].grad_norm))
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


def test_where_there_are_none(tmp_path: Path) -> None:
    """Penalties that do not depend on the parameters, evaluations, and losses without a Trainer."""
    labels = Penalty(lambda x: x.double().sum(), name="labels", inputs="labels")
    loss = PipelineLoss(Pipeline([labels, Penalty("z_loss", inputs="logits")]), track_every=1)
    made = trainer(network(), loss, tmp_path, data=sentences(1), **LOGGED)
    made.train()
    assert loss.report.regularizers["labels"].error == "does not depend on wrt (params)"
    assert loss.report.regularizers["z_loss"].grad_norm is not None
    logs = made.state.log_history[0]
    assert "penalties/z_loss/grad_norm" in logs and "penalties/labels/grad_norm" not in logs
    made.evaluate()
    assert loss.report.wrt is None
    ids = torch.tensor([[1, 2, 3, 4]])
    loss(network()(input_ids=ids), ids)
    assert loss.report.wrt is None


def test_checkpoints_that_cannot_be_differentiated(tmp_path: Path) -> None:
    """The report says why, and training goes on."""
    for reentrant in (True, False):
        loss = PipelineLoss(Pipeline([Penalty("entropy", inputs="logits", options=OF_LOGITS)]), track_every=1)
        options = {
            "gradient_checkpointing": True,
            "gradient_checkpointing_kwargs": {"use_reentrant": reentrant},
        }
        before = network()
        made = trainer(network(), loss, tmp_path, data=sentences(1), **options)
        made.train()
        part = loss.report.regularizers["entropy"]
        if reentrant:
            assert part.grad_norm is None and part.error.startswith("no gradient: RuntimeError: ")
            assert loss.report.total_grad_norm is None
        else:
            assert part.grad_norm is not None
        assert not torch.equal(made.model.lm_head.weight, before.lm_head.weight)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: PipelineLoss(Pipeline(), track_every=0), ValueError, r"`track_every` must be at least 1, got 0"),
        (
            lambda: PipelineLoss(Pipeline(), wrt="params"),
            ValueError,
            r"`wrt` must come with `track_every`, got 'params'",
        ),
        (
            lambda: PipelineLoss(Pipeline(), track_every=1, wrt=0),
            TypeError,
            r"`wrt` must have names of inputs, not pos",
        ),
    ],
)
def test_errors(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^PipelineLoss: {message}"):
        call()


def test_a_name_that_does_not_exist(tmp_path: Path) -> None:
    loss = PipelineLoss(Pipeline(), track_every=1, wrt="parms")
    with pytest.raises(ValueError, match=r"^PipelineLoss: `wrt` asks for the input 'parms'\. The inputs are 'logits'"):
        trainer(network(), loss, tmp_path, data=sentences(1)).train()
