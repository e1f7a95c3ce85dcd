"""What Lightning's callback reports: figures, gradient norms, and the controllers that go by them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import integration
from xpenalties import Penalty, Pipeline, controllers

integration("lightning")

import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from torch.utils.data import DataLoader

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its imports' own
    import lightning
    from lightning.pytorch.plugins import MixedPrecision

    from tests.integrations.lightning_training import PIPE, ByHand, Classifier, fitted, trainer
    from tests.integrations.torch_training import STEPS, batches, close
    from xpenalties.integrations.lightning import PipelineCallback

pytestmark = [pytest.mark.integrations, pytest.mark.usefixtures("quietly")]


@pytest.mark.usefixtures("float64")
def test_all_processes_reduce_at_each_step() -> None:
    """Also one that has observed nothing, where the penalty is not due; its weight stays."""
    pipe = Pipeline([Penalty("entropy", inputs="logits", every=2, options={"from_logits": True})])
    entropies = controllers.target_entropy(0.01, target=2.0, rate=0.1)
    alone, together = (PipelineCallback(pipe, controllers={"entropy": entropies}) for _ in range(2))
    fitted(Classifier(), alone)
    made, reduced = trainer(together), []
    made.strategy.world_size = 2
    made.strategy.reduce = lambda x, reduce_op: (reduced.append(x.shape), 2 * x)[1]
    made.fit(Classifier(), DataLoader(batches(), batch_size=None))
    assert reduced.count((2,)) == STEPS  # Lightning's own are of scalars
    assert together.weights() == pytest.approx(alone.weights(), rel=1e-6)
    assert alone.weights()["entropy"] != 0.01


def test_what_is_logged() -> None:
    seen: list[dict[str, Any]] = []

    class Seen(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            seen.append(dict(trainer.callback_metrics))

    callback = PipelineCallback(PIPE, activities="^encoder$", prefix="train/")
    with pytest.raises(ValueError, match="asks for the input 'hidden'"):
        fitted(Classifier(), callback, data=batches(1))
    pipe = PIPE.remove("l1").add(Penalty(lambda x: (x.sum(), {"n": 3}), name="own", inputs="encoder"))
    callback = PipelineCallback(pipe, activities="^encoder$", prefix="train/")
    run = fitted(Classifier(), callback, Seen(), log_every_n_steps=1)
    assert len(seen) == STEPS and callback.report is not None
    figures = callback.report.flat("train/")
    assert figures["train/own/custom/n"] == 3.0 and figures["train/base_loss/value"] > 0
    assert figures["train/entropy/weight"] == pytest.approx(0.019)
    assert {name: float(x) for name, x in seen[-1].items()} == pytest.approx(figures)
    assert {name for name in run.logged_metrics if "grad_norm" in name} == set()
    total = figures["train/base_loss/value"] + figures["train/regularizer_total"]
    assert figures["train/loss_total"] == pytest.approx(total)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("wrt", [None, "hidden", ("params",), "module", "head"])
def test_gradient_norms_on_some_steps(wrt: Any) -> None:
    tracked: list[bool] = []
    last: dict[str, float] = {}
    ours, theirs = Classifier(), ByHand()
    given = {"module": ours, "head": ours.head.parameters()}.get(wrt, wrt)

    class Seen(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            tracked.append(callback.report.total_grad_norm is not None)
            if tracked[-1]:
                last.update(callback.report.flat())

    callback = PipelineCallback(PIPE, activities={"hidden": "encoder"}, track_every=4, wrt=given)
    fitted(ours, callback, Seen())
    fitted(theirs)
    close(ours, theirs)
    assert tracked == [i % 4 == 0 for i in range(STEPS)]

    # what was found at step 16, by hand: the parameters after 16 steps, and the 17th batch
    again = ByHand()
    fitted(again, max_steps=16)
    x, y = batches()[16]
    hidden = again.encoder(x)
    logits = again.head(hidden)
    parts = {
        "base_loss": cross_entropy(logits, y),
        "l1": hidden.abs().sum(),
        "entropy": (log_softmax(logits, -1).exp() * log_softmax(logits, -1)).sum(-1).mean(),
        "decay": sum((p**2).sum() for name, p in again.named_parameters() if "weight" in name),
    }
    weights = {"base_loss": 1.0, "l1": 0.01, "entropy": 0.016, "decay": 0.005}
    by = [hidden] if wrt == "hidden" else list((again.head if wrt == "head" else again).parameters())

    def norm(value: Any) -> float | None:
        result = torch.autograd.grad(value, by, retain_graph=True, allow_unused=True)
        used = [g.flatten() for g in result if g is not None]
        return float(torch.cat(used).norm()) if used else None

    for name, part in parts.items():  # through all that leads from there to it
        want = norm(part)
        if want is None:
            assert f"{name}/grad_norm" not in last and (name, wrt) in {("decay", "hidden"), ("l1", "head")}
            continue
        assert last[f"{name}/grad_norm"] == pytest.approx(want, rel=1e-5), name
        if name != "base_loss":
            assert last[f"{name}/grad_norm_weighted"] == pytest.approx(weights[name] * want, rel=1e-5), name
    total = sum(weights[name] * part for name, part in parts.items())
    assert last["total_grad_norm"] == pytest.approx(norm(total), rel=1e-5)


def test_norms_where_penalties_pick_their_inputs() -> None:
    """They are of the same gradients, whatever the penalties are given."""
    result = []
    for inputs in ("hidden", lambda inputs: inputs["hidden"]):
        callback = PipelineCallback(
            Pipeline([Penalty("l1", inputs=inputs, weight=0.01)]), activities={"hidden": "encoder"}, track_every=1
        )
        fitted(Classifier(), callback, data=batches(1))
        assert callback.report is not None
        result.append(callback.report.to_dict())
    assert result[0] == result[1] and result[0]["base_loss"]["grad_norm"] > 0


def test_norms_without_a_derivative() -> None:
    counted = Penalty(lambda x: (x > 0).sum() / 2, name="counted", inputs="logits", differentiable=False)
    callback = PipelineCallback(Pipeline([counted, Penalty("l2", inputs="logits")]), track_every=1)
    fitted(Classifier(), callback, data=batches(1))
    assert callback.report is not None
    figures = callback.report.flat()
    assert figures["l2/grad_norm"] > 0 and "counted/grad_norm" not in figures


def test_norms_of_what_does_not_depend() -> None:
    pipe = Pipeline([Penalty("l1", inputs="extra", weight=0.5)])
    result = []

    class Extra(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            extra = torch.ones(3, dtype=torch.bfloat16, requires_grad=batch_idx % 2 == 0)
            out = super().training_step(batch, batch_idx)
            return {**out, "loss": out["loss"] if batch_idx < 2 else torch.tensor(1.0) + extra.sum(), "extra": extra}

    class Seen(lightning.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            figures = callback.report.flat()
            result.append([figures.get(f"{name}grad_norm") for name in ("base_loss/", "l1/", "total_")])
            errors.append([callback.report.base_loss.error, callback.report.regularizers["l1"].error])

    errors: list[Any] = []
    callback = PipelineCallback(pipe, track_every=1, wrt="extra")
    fitted(Extra(), callback, Seen(), data=batches(3))
    root = 3**0.5
    assert result[0] == [None, pytest.approx(root), pytest.approx(root / 2)]
    assert errors[0] == ["does not depend on wrt (extra)", None]
    assert result[1] == [None, None, None] and errors[1] == ["no array of wrt (extra) requires a gradient"] * 2
    assert result[2] == pytest.approx([root, root, 1.5 * root]) and errors[2] == [None, None]


@pytest.mark.parametrize("accumulated", [1, 2])
def test_training_is_the_same(accumulated: int) -> None:
    """With tracked gradients, that are accumulated, in mixed precision, and scaled."""
    result = []
    for track_every in (None, 1):
        module = Classifier()
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
        precision = MixedPrecision("16-mixed", "cpu", scaler)
        callback = PipelineCallback(PIPE, activities={"hidden": "encoder"}, track_every=track_every)
        fitted(module, callback, plugins=[precision], accumulate_grad_batches=accumulated)
        result.append((list(module.parameters()), callback.report))
    (plain, _), (tracked, report) = result
    assert all(map(torch.equal, plain, tracked))
    figures = report.flat()
    assert all(0 < figures[f"{name}/grad_norm"] < 100 for name in ("base_loss", "l1", "entropy", "decay"))
    assert report.wrt == "params"


def test_the_scale_is_divided_out() -> None:
    """Without the scale, the gradients of activations would be 0 in float16."""
    tiny = Penalty(lambda logits: 1e-9 * logits.float().sum(), name="tiny", inputs="logits")

    class Learning(Classifier):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    norms = []
    for options in ({}, {"plugins": [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))]}):
        callback = PipelineCallback(Pipeline([tiny]), track_every=1)
        fitted(Learning(), callback, data=batches(1), **options)
        assert callback.report is not None
        norms.append(float(callback.report.regularizers["tiny"].grad_norm))
    assert norms[1] == pytest.approx(norms[0], rel=1e-2)


@pytest.mark.usefixtures("float64")
def test_controllers_and_checkpoints(tmp_path: Path) -> None:
    before = Classifier()
    reference = log_softmax(before.head(before.encoder(batches()[0][0])), -1).detach()

    def made() -> PipelineCallback:
        pipe = Pipeline(
            [
                Penalty(
                    "kl_divergence", name="kl", inputs=lambda inputs: (log_softmax(inputs["logits"], -1), reference)
                ),
                Penalty("entropy", inputs="logits", options={"mode": "bonus", "from_logits": True}),
                Penalty("l1", inputs="logits", every=7),
            ],
            name="controlled",
        )
        given = {
            "kl": controllers.adaptive_kl(0.5, target=0.01),
            "entropy": (
                controllers.target_entropy(0.1, target=1.0, rate=0.1),
                lambda report: -report.regularizers["entropy"].value,
            ),
            "l1": controllers.adaptive_kl(0.1, target=1.0),
        }
        return PipelineCallback(pipe, controllers=given)

    class ByHand(Classifier):
        kl, bonus = 0.5, 0.1
        seen: list[tuple[float, float]]

        def penalties(self, hidden: torch.Tensor, logits: torch.Tensor) -> Any:
            log_p = log_softmax(logits, -1)
            divergence = kl_div(reference, log_p, log_target=True, reduction="batchmean")
            entropy = -(log_p.exp() * log_p).sum(-1).mean()
            self.seen.append((divergence.item(), entropy.item()))
            every = 7 * self.l1 * logits.abs().sum() if self.trainer.global_step % 7 == 0 else 0.0
            if self.trainer.global_step % 7 == 0:
                self.sizes.append(float(logits.detach().abs().sum()))
            return self.kl * divergence - self.bonus * entropy + every

        def on_train_batch_start(self, *_: Any) -> None:
            self.fresh = self.trainer.global_step

        def on_train_batch_end(self, *_: Any) -> None:
            if self.trainer.global_step > self.fresh:
                kl, entropy = (sum(each) / len(self.seen) for each in zip(*self.seen, strict=True))
                self.kl *= 1 + 0.1 * min(max(kl / 0.01 - 1, -0.2), 0.2)
                self.bonus *= 2.718281828459045 ** (0.1 * (1.0 - entropy))
                if self.sizes:
                    self.l1 *= 1 + 0.1 * min(max(sum(self.sizes) / len(self.sizes) - 1, -0.2), 0.2)
                self.seen, self.sizes = [], []

    ours, theirs = Classifier(), ByHand()
    theirs.seen, theirs.sizes, theirs.l1 = [], [], 0.1
    callback = made()
    fitted(ours, callback, accumulate_grad_batches=2)
    fitted(theirs, accumulate_grad_batches=2)
    close(ours, theirs)
    weights = callback.weights()
    assert weights == pytest.approx({"kl": theirs.kl, "entropy": theirs.bonus, "l1": theirs.l1}, rel=1e-5)
    assert weights["kl"] != 0.5

    # the same with a break in the middle
    first, resumed, second = made(), made(), Classifier()
    half = fitted(Classifier(), first, data=batches()[:10], accumulate_grad_batches=2)
    half.save_checkpoint(tmp_path / "half.ckpt", weights_only=False)
    data = batches()[10:]
    fitted(second, resumed, data=data, accumulate_grad_batches=2, max_epochs=2, ckpt_path=tmp_path / "half.ckpt")
    assert second.steps == 10
    close(second, ours)
    assert resumed.weights() == pytest.approx(weights, rel=1e-6)
    with pytest.raises(ValueError, match=r"of the same controllers, got kl instead of kl, entropy, l1\. Pass those"):
        made().load_state_dict({"weights": {"kl": 1.0}})
    with pytest.raises(ValueError, match=r"got none instead of"):
        made().load_state_dict({"weights": {}})
    with pytest.raises(ValueError, match=r"got kl instead of none"):
        PipelineCallback(PIPE).load_state_dict({"weights": {"kl": 1.0}})
    assert "controlled" in made().state_key and made().state_key != PipelineCallback(PIPE).state_key
