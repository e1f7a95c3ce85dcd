"""The integration with Lightning, beside the same penalties written by hand into `training_step`."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import integration, quiet
from processes import on_two_processes
from xpenalties import Penalty, Pipeline, controllers, schedules, trees

integration("lightning")

import torch
from torch import nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from torch.utils.data import DataLoader

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its imports' own
    import lightning
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    from xpenalties.integrations.lightning import PipelineCallback

pytestmark = pytest.mark.integrations
STEPS = 20


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quiet():
        yield


class Classifier(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.0))
        self.head = nn.Linear(8, 3)
        self.steps = 0

    def penalties(self, hidden: torch.Tensor, logits: torch.Tensor) -> Any:
        return 0.0

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        hidden = self.encoder(x)
        logits = self.head(hidden)
        self.steps += 1
        return {"loss": cross_entropy(logits, y) + self.penalties(hidden, logits), "logits": logits}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class ByHand(Classifier):
    """The penalties of PIPE, in PyTorch's words."""

    def penalties(self, hidden: torch.Tensor, logits: torch.Tensor) -> Any:
        log_p = log_softmax(logits, -1)
        entropy = -(log_p.exp() * log_p).sum(-1).mean()
        decay = sum((p**2).sum() for name, p in self.named_parameters() if "weight" in name)
        return 0.01 * hidden.abs().sum() - 0.01 * (self.trainer.global_step / 10) * entropy + 0.005 * decay


def batches(steps: int = STEPS) -> list[tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(1)
    return [(torch.randn(16, 6), torch.randint(3, (16,))) for _ in range(steps)]


def trainer(*callbacks: Any, **options: Any) -> lightning.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "max_epochs": 1, "accelerator": "cpu", "barebones": False}
    return lightning.Trainer(callbacks=list(callbacks), **{**quiet, **options})


def fitted(module: Any, *callbacks: Any, data: Any = None, ckpt_path: Any = None, **options: Any) -> lightning.Trainer:
    made = trainer(*callbacks, **options)
    made.fit(module, DataLoader(batches() if data is None else data, batch_size=None), ckpt_path=ckpt_path)
    return made


def close(a: nn.Module, b: nn.Module) -> None:
    for (name, mine), theirs in zip(a.named_parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6, msg=name)


PIPE = Pipeline(
    [
        Penalty("l1", inputs="hidden", weight=0.01),
        Penalty(
            "entropy",
            inputs="logits",
            weight=schedules.linear(0.0, 0.1, steps=100),
            options={"mode": "bonus", "from_logits": True},
        ),
        Penalty(trees.over_tree("l2", match="weight"), name="decay", inputs="params", weight=0.005),
    ]
)


CONTROLLERS = {
    "entropy": (
        controllers.target_entropy(0.01, target=2.0, rate=0.1),
        lambda report: -report.regularizers["entropy"].value,
    )
}


@pytest.mark.parametrize("accumulated", [1, 3])
def test_training_as_by_hand(accumulated: int) -> None:
    ours, theirs = Classifier(), ByHand()
    fitted(ours, PipelineCallback(PIPE, activities={"hidden": "encoder"}), accumulate_grad_batches=accumulated)
    fitted(theirs, accumulate_grad_batches=accumulated)
    close(ours, theirs)
    assert "training_step" not in vars(ours)
    before = Classifier()
    assert not torch.equal(before.head.weight, ours.head.weight)


def test_several_processes_as_one(tmp_path: Path) -> None:
    """Two processes that train on halves of what one trains on, by DistributedDataParallel."""
    on_two_processes("lightning_processes.py", tmp_path)
    one = Classifier()
    callback = PipelineCallback(PIPE, activities={"hidden": "encoder"}, controllers=CONTROLLERS)
    fitted(one, callback)
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt")
        two = Classifier()
        two.load_state_dict(found["parameters"])
        close(two, one)
        assert found["weights"] == pytest.approx(callback.weights(), rel=1e-6)
    assert callback.weights()["entropy"] > 0.011


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
    with pytest.raises(ValueError, match="the inputs must have 'hidden'"):
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


@pytest.mark.parametrize("wrt", [None, "hidden", ("params",)])
def test_gradient_norms_on_some_steps(wrt: Any) -> None:
    tracked: list[bool] = []
    last: dict[str, float] = {}

    class Seen(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            tracked.append(callback.report.total_grad_norm is not None)
            if tracked[-1]:
                last.update(callback.report.flat())

    callback = PipelineCallback(PIPE, activities={"hidden": "encoder"}, track_every=4, wrt=wrt)
    ours, theirs = Classifier(), ByHand()
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
    by = [hidden] if wrt == "hidden" else list(again.parameters())

    def norm(value: Any) -> float:
        found = torch.autograd.grad(value, by, retain_graph=True, allow_unused=True)
        return float(torch.cat([g.flatten() for g in found if g is not None] or [torch.zeros(1)]).norm())

    for name, part in parts.items():  # through all that leads from there to it
        assert last[f"{name}/grad_norm"] == pytest.approx(norm(part), rel=1e-5), name
        if name != "base_loss":
            assert last[f"{name}/grad_norm_weighted"] == pytest.approx(weights[name] * norm(part), rel=1e-5), name
    total = sum(weights[name] * part for name, part in parts.items())
    assert last["total_grad_norm"] == pytest.approx(norm(total), rel=1e-5)


def test_norms_where_penalties_pick_their_inputs() -> None:
    """They are of the same gradients, whatever the penalties are given."""
    found = []
    for inputs in ("hidden", lambda found: found["hidden"]):
        callback = PipelineCallback(
            Pipeline([Penalty("l1", inputs=inputs, weight=0.01)]), activities={"hidden": "encoder"}, track_every=1
        )
        fitted(Classifier(), callback, data=batches(1))
        assert callback.report is not None
        found.append(callback.report.to_dict())
    assert found[0] == found[1] and found[0]["base_loss"]["grad_norm"] > 0


def test_norms_without_a_derivative() -> None:
    counted = Penalty(lambda x: (x > 0).sum() / 2, name="counted", inputs="logits", differentiable=False)
    callback = PipelineCallback(Pipeline([counted, Penalty("l2", inputs="logits")]), track_every=1)
    fitted(Classifier(), callback, data=batches(1))
    assert callback.report is not None
    figures = callback.report.flat()
    assert figures["l2/grad_norm"] > 0 and "counted/grad_norm" not in figures


def test_norms_of_what_does_not_depend() -> None:
    pipe = Pipeline([Penalty("l1", inputs="extra", weight=0.5)])
    found = []

    class Extra(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            extra = torch.ones(3, dtype=torch.bfloat16, requires_grad=batch_idx % 2 == 0)
            out = super().training_step(batch, batch_idx)
            return {**out, "loss": out["loss"] if batch_idx < 2 else torch.tensor(1.0) + extra.sum(), "extra": extra}

    class Seen(lightning.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            figures = callback.report.flat()
            found.append([figures[f"{name}grad_norm"] for name in ("base_loss/", "l1/", "total_")])

    callback = PipelineCallback(pipe, track_every=1, wrt="extra")
    fitted(Extra(), callback, Seen(), data=batches(3))
    root = 3**0.5
    assert found[0] == pytest.approx([0.0, root, root / 2])
    assert found[1] == [0.0, 0.0, 0.0]  # it requires no gradient
    assert found[2] == pytest.approx([root, root, 1.5 * root])


def test_controllers_and_checkpoints(tmp_path: Path) -> None:
    before = Classifier()
    reference = log_softmax(before.head(before.encoder(batches()[0][0])), -1).detach()

    def made() -> PipelineCallback:
        pipe = Pipeline(
            [
                Penalty("kl_divergence", name="kl", inputs=lambda found: (log_softmax(found["logits"], -1), reference)),
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
    with pytest.raises(ValueError, match=r"of the same controllers, got kl in place of kl, entropy, l1\. Pass those"):
        made().load_state_dict({"weights": {"kl": 1.0}})
    with pytest.raises(ValueError, match=r"got none in place of"):
        made().load_state_dict({"weights": {}})
    with pytest.raises(ValueError, match=r"got kl in place of none"):
        PipelineCallback(PIPE).load_state_dict({"weights": {"kl": 1.0}})
    assert "controlled" in made().state_key and made().state_key != PipelineCallback(PIPE).state_key


@pytest.mark.parametrize("out", ["tensor", "none", "without", "float"])
def test_what_a_training_step_may_return(out: str) -> None:
    class Other(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            found = super().training_step(batch, batch_idx)
            return {"tensor": found["loss"], "none": None, "without": {"logits": found["logits"]}, "float": 1.0}[out]

    pipe = Pipeline([Penalty("l2", inputs=lambda found: found["batch"][0], weight=1.0)])
    callback, module = PipelineCallback(pipe), Other()
    if out in ("without", "float"):
        message = "'loss' key needs to be present" if out == "without" else "must return a Tensor, a dict, or None"
        with pytest.raises(MisconfigurationException, match=message):
            fitted(module, callback, data=batches(1))
        return
    fitted(module, callback, data=batches(1))
    if out == "none":
        assert callback.report is None
    else:
        assert callback.report is not None
        assert callback.report.flat()["l2/value"] == pytest.approx(float((batches(1)[0][0] ** 2).sum()))


def test_a_loss_with_an_axis() -> None:
    """Which Lightning takes, of one element."""

    class Axis(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return super().training_step(batch, batch_idx)["loss"].reshape(1)

    pipe = Pipeline([Penalty("l1", inputs="encoder", weight=0.01)])
    callback, alone = (PipelineCallback(pipe, activities="^encoder$", track_every=1) for _ in range(2))
    ours, theirs = Axis(), Classifier()
    fitted(ours, callback)
    fitted(theirs, alone)
    close(ours, theirs)
    assert callback.report is not None and alone.report is not None
    assert callback.report.to_dict() == alone.report.to_dict()
    assert str(callback.report)


def test_a_batch_by_name_and_no_penalty_that_counts() -> None:
    class Named(Classifier):
        def training_step(self, batch: Any) -> Any:
            return super().training_step(batch, 0)

    callback = PipelineCallback(PIPE.disable("l1", "entropy", "decay"), track_every=1)
    ours, theirs = Named(), Classifier()
    fitted(ours, callback)
    fitted(theirs)
    close(ours, theirs)
    assert callback.report is not None and list(callback.report.flat()) == [
        "loss_total",
        "base_loss/value",
        "regularizer_total",
    ]


def test_it_is_taken_off() -> None:
    class Fails(Classifier):
        fails = True

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if self.fails:
                raise RuntimeError("no data")
            return super().training_step(batch, batch_idx)

    module = Fails()
    own = module.training_step
    callback = PipelineCallback(PIPE, activities={"hidden": "encoder"})
    with pytest.raises(RuntimeError, match="no data"):
        fitted(module, callback)
    assert "training_step" not in vars(module) and not module.encoder._forward_hooks
    module.training_step = own  # as of a module that torch.compile was over
    module.fails = False
    fitted(module, callback)
    assert vars(module)["training_step"] is own and not module.encoder._forward_hooks
    trainer(callback).validate(WithValidation(), DataLoader(batches(1), batch_size=None), verbose=False)


class WithValidation(Classifier):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        assert "training_step" not in vars(self)


def test_several_callbacks() -> None:
    """Each takes itself off, whatever the order."""
    first = PipelineCallback(PIPE.remove("decay"), activities={"hidden": "encoder"}, prefix="a/")
    decay = Pipeline([PIPE["decay"]], name="second")
    second = PipelineCallback(decay, activities=("encoder.*" for _ in range(1)), prefix="b/")
    ours, theirs = Classifier(), ByHand()
    run = fitted(ours, first, second)
    fitted(theirs)
    close(ours, theirs)
    assert "training_step" not in vars(ours) and not ours.encoder._forward_hooks
    logged = {name: float(x) for name, x in run.callback_metrics.items()}
    assert logged["a/base_loss/value"] == logged["b/base_loss/value"]
    fitted(ours, second)  # its names are not used up
    before = second.report
    fitted(ours)
    assert second.report is before


def test_calls_that_are_no_training() -> None:
    class Validates(Classifier):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            plain = Classifier.training_step(self, batch, batch_idx)["loss"]
            assert torch.equal(self.training_step(batch, batch_idx)["loss"], plain)
            assert callback._capture is not None and len(callback._capture.calls("hidden")) <= 1  # nothing is kept
            self.steps -= 2

    observed: list[int] = []

    class Seen(lightning.Callback):
        def on_train_start(self, *_: Any) -> None:
            observed.append(len(callback._observed["l1"]))

        def on_validation_end(self, *_: Any) -> None:
            observed.append(len(callback._observed["l1"]))

    given = {"l1": controllers.adaptive_kl(0.5, target=1.0)}
    callback = PipelineCallback(PIPE, activities={"hidden": "encoder"}, controllers=given)
    callback._observed["l1"] = [torch.tensor(1e9)]  # of a run that has failed, or a search for a learning rate
    module = Validates()
    made = trainer(callback, Seen(), val_check_interval=3, accumulate_grad_batches=2)
    data, checks = (DataLoader(batches(4), batch_size=None) for _ in range(2))
    made.fit(module, data, checks)
    assert observed == [1, 0, 1] and module.steps == 4


def test_copies_of_a_module_in_a_run() -> None:
    class Teacher(Classifier):
        def on_fit_start(self) -> None:
            self.teacher = [copy.deepcopy(self.encoder)]  # with our hooks, which it must not follow

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            with torch.no_grad():
                self.teacher[0](10 * batch[0])
            copy.deepcopy(self)
            return super().training_step(batch, batch_idx)

    ours, theirs = Teacher(), ByHand()
    fitted(ours, PipelineCallback(PIPE, activities={"hidden": "encoder"}))
    fitted(theirs)
    close(ours, theirs)


def test_modules_that_are_called_twice() -> None:
    class Siamese(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            x, y = batch
            return cross_entropy(self.head(self.encoder(x)) - self.head(self.encoder(-x)), y)

    def apart(found: Any) -> Any:
        first, second = found["encoder"]
        assert "head.missing" not in found
        return first - second

    names = {"encoder": "encoder", "dropout": "encoder.2", "head": "head"}
    callback = PipelineCallback(Pipeline([Penalty("l2", inputs=apart)]), activities=names)
    fitted(Siamese(), callback, data=batches(2))
    assert callback.report is not None and callback.report.flat()["l2/value"] > 0
    with pytest.raises(ValueError, match="'encoder' must have been called once in the latest call of the model, got 2"):
        fitted(Siamese(), PipelineCallback(Pipeline([Penalty("l2", inputs="encoder")]), activities=names))


@pytest.mark.filterwarnings("ignore:.*was dropped and contributes 0")
def test_what_is_dropped_is_not_observed() -> None:
    def fails(x: Any) -> Any:
        raise ConnectionError("down")

    given = {"f": controllers.adaptive_kl(0.5, target=1.0)}
    pipe = Pipeline([Penalty(fails, name="f", inputs="logits", on_error="drop")])
    callback = PipelineCallback(pipe, controllers=given)
    fitted(Classifier(), callback, data=batches(2))
    assert callback.weights() == {"f": 0.5}


def test_a_step_that_takes_the_iterator() -> None:
    class Iterates(Classifier):
        def training_step(self, dataloader_iter: Any) -> Any:
            batch, batch_idx, _ = next(dataloader_iter)
            return super().training_step(batch, batch_idx)

    ours, theirs = Iterates(), ByHand()
    fitted(ours, PipelineCallback(PIPE, activities={"hidden": "encoder"}))
    fitted(theirs)
    close(ours, theirs)


def test_precision_and_closures() -> None:
    class Closures(Classifier):
        def configure_optimizers(self) -> Any:
            return torch.optim.LBFGS(self.parameters(), lr=0.01, max_iter=3)

    class ClosuresByHand(ByHand):
        configure_optimizers = Closures.configure_optimizers

    for precision in ("32-true", "bf16-mixed"):
        ours, theirs = Closures(), ClosuresByHand()
        callback = PipelineCallback(PIPE, activities={"hidden": "encoder"})
        fitted(ours, callback, data=batches(4), precision=precision)
        fitted(theirs, data=batches(4), precision=precision)
        assert ours.steps == theirs.steps > 4
        rough = precision == "bf16-mixed"  # by hand, the entropy is in bfloat16
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(mine, other, rtol=0, atol=1e-3 if rough else 1e-6)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: PipelineCallback("l1"), TypeError, r"`pipe` must be a Pipeline, got str\. Make one"),
        (lambda: PipelineCallback(PIPE, track_every=0), ValueError, r"`track_every` must be 1 at least, got 0"),
        (lambda: PipelineCallback(PIPE, wrt=["hidden"]), ValueError, "`wrt` must come with `track_every`, got "),
        (
            lambda: PipelineCallback(PIPE, controllers={"l1": 3.0}),
            TypeError,
            r"must be controllers, or pairs of one and a callable, got float for 'l1'\. Call what makes it",
        ),
        (
            lambda: PipelineCallback(PIPE, controllers={"l1": (controllers.adaptive_kl(1.0, target=1.0), 3)}),
            TypeError,
            "got tuple for 'l1'",
        ),
        (
            lambda: PipelineCallback(PIPE, controllers={"entorpy": controllers.adaptive_kl(1.0, target=1.0)}),
            ValueError,
            r"must name penalties of the pipeline, got 'entorpy'\. Did you mean 'entropy'\?",
        ),
    ],
)
def test_errors(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_errors_of_a_run() -> None:
    with pytest.raises(ValueError, match=r"names other than batch, loss, params, got 'batch'\. Name it by a mapping"):
        fitted(Classifier(), PipelineCallback(PIPE, activities={"batch": "encoder"}))
    with pytest.raises(
        ValueError, match=r"'l1': the inputs must have 'hidden', got .*'hiden'\. Did you mean 'hiden'\?"
    ):
        fitted(Classifier(), PipelineCallback(PIPE, activities={"hiden": "encoder"}))
    module = Classifier()
    module.automatic_optimization = False
    with pytest.raises(
        MisconfigurationException, match=r"must leave optimization to Lightning, got Classifier .*wrap_l"
    ):
        fitted(module, PipelineCallback(PIPE))
    with pytest.raises(ValueError, match=r"must have paths of modules, got 'encode'\. Did you mean 'encoder'\?"):
        fitted(Classifier(), PipelineCallback(PIPE, activities={"hidden": "encode"}))
    with pytest.raises(
        ValueError, match=r"that `activities` and the callback do not use, got 'loss', 'logits'\. Rename"
    ):
        fitted(Classifier(), PipelineCallback(PIPE, activities={"logits": "head"}))


def test_without_lightning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "xpenalties.integrations.lightning")
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    with pytest.raises(
        ModuleNotFoundError, match=r'needs Lightning\. Install it: pip install "xpenalties\[lightning\]"'
    ):
        __import__("xpenalties.integrations.lightning")
