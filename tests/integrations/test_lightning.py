"""The integration with Lightning, beside the same penalties written by hand into `training_step`."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import integration
from tests.helpers.processes import on_processes
from xpenalties import Penalty, Pipeline, controllers

integration("lightning")

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its imports' own
    import lightning
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    from tests.integrations.lightning_training import CONTROLLERS, PIPE, ByHand, Classifier, fitted, trainer
    from tests.integrations.torch_training import batches, close
    from xpenalties.integrations.lightning import PipelineCallback

pytestmark = [pytest.mark.integrations, pytest.mark.usefixtures("quietly")]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("accumulated", [1, 3])
def test_training_as_by_hand(accumulated: int) -> None:
    ours, theirs = Classifier(), ByHand()
    fitted(ours, PipelineCallback(PIPE, activities={"hidden": "encoder"}), accumulate_grad_batches=accumulated)
    fitted(theirs, accumulate_grad_batches=accumulated)
    close(ours, theirs)
    assert "training_step" not in vars(ours)
    before = Classifier()
    assert not torch.equal(before.head.weight, ours.head.weight)


@pytest.mark.usefixtures("float64")
def test_several_processes_as_one(tmp_path: Path) -> None:
    """Two processes that train on halves of what one trains on, by DistributedDataParallel."""
    on_processes(2, "integrations.lightning_processes", tmp_path)
    one = Classifier()
    callback = PipelineCallback(PIPE, activities={"hidden": "encoder"}, controllers=CONTROLLERS)
    fitted(one, callback)
    for rank in (0, 1):
        result = torch.load(tmp_path / f"{rank}.pt")
        two = Classifier()
        two.load_state_dict(result["parameters"])
        close(two, one)
        assert result["weights"] == pytest.approx(callback.weights(), rel=1e-6)
    assert callback.weights()["entropy"] > 0.011


@pytest.mark.parametrize("out", ["tensor", "none", "without", "float"])
def test_what_a_training_step_may_return(out: str) -> None:
    class Other(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            result = super().training_step(batch, batch_idx)
            return {"tensor": result["loss"], "none": None, "without": {"logits": result["logits"]}, "float": 1.0}[out]

    pipe = Pipeline([Penalty("l2", inputs=lambda inputs: inputs["batch"][0], weight=1.0)])
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


@pytest.mark.usefixtures("float64")
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


@pytest.mark.usefixtures("float64")
def test_inputs_by_parameter() -> None:
    """Arrays and masks from activities, from the batch, and from what `training_step` returns."""
    own: Any = lambda hidden, rows: (hidden[rows] ** 2).sum()  # noqa: E731
    rows: Any = lambda inputs: inputs["batch"][1] == 0  # noqa: E731
    pipe = Pipeline(
        [Penalty("l2", inputs={"x": "encoder", "where": lambda inputs: rows(inputs)[:, None]}, weight=0.01)]
    )
    by_hand = Pipeline([Penalty(own, name="l2", inputs=lambda inputs: (inputs["encoder"], rows(inputs)), weight=0.01)])
    modules = Classifier(), Classifier()
    callbacks = [PipelineCallback(each, activities="^encoder$", track_every=1) for each in (pipe, by_hand)]
    for module, callback in zip(modules, callbacks, strict=True):
        fitted(module, callback)
    close(*modules)
    norms = [callback.report.to_dict()["total_grad_norm"] for callback in callbacks if callback.report is not None]
    assert norms[0] == pytest.approx(norms[1]) and norms[0] > 0


@pytest.mark.usefixtures("float64")
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
        "base_loss/grad_norm",
        "regularizer_total",
        "total_grad_norm",
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


@pytest.mark.usefixtures("float64")
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
            observed.append(len(callback._controllers._observed["l1"]))

        def on_validation_end(self, *_: Any) -> None:
            observed.append(len(callback._controllers._observed["l1"]))

    given = {"l1": controllers.adaptive_kl(0.5, target=1.0)}
    callback = PipelineCallback(PIPE, activities={"hidden": "encoder"}, controllers=given)
    callback._controllers._observed["l1"] = [
        torch.tensor(1e9)
    ]  # of a run that has failed, or a search for a learning rate
    module = Validates()
    made = trainer(callback, Seen(), val_check_interval=3, accumulate_grad_batches=2)
    data, checks = (DataLoader(batches(4), batch_size=None) for _ in range(2))
    made.fit(module, data, checks)
    assert observed == [1, 0, 1] and module.steps == 4


@pytest.mark.usefixtures("float64")
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

    def apart(result: Any) -> Any:
        first, second = result["encoder"]
        assert "head.missing" not in result
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


@pytest.mark.usefixtures("float64")
def test_a_step_that_takes_the_iterator() -> None:
    class Iterates(Classifier):
        def training_step(self, dataloader_iter: Any) -> Any:
            batch, batch_idx, _ = next(dataloader_iter)
            return super().training_step(batch, batch_idx)

    ours, theirs = Iterates(), ByHand()
    fitted(ours, PipelineCallback(PIPE, activities={"hidden": "encoder"}))
    fitted(theirs)
    close(ours, theirs)


@pytest.mark.usefixtures("float64")
def test_closures() -> None:
    class Closures(Classifier):
        def configure_optimizers(self) -> Any:
            return torch.optim.LBFGS(self.parameters(), lr=0.01, max_iter=3)

    class ClosuresByHand(ByHand):
        configure_optimizers = Closures.configure_optimizers

    ours, theirs = Closures(), ClosuresByHand()
    fitted(ours, PipelineCallback(PIPE, activities={"hidden": "encoder"}), data=batches(4))
    fitted(theirs, data=batches(4))
    assert ours.steps == theirs.steps > 4
    close(ours, theirs)


class Thrice(torch.optim.SGD):
    """Three steps in one, each with a call of the closure; unlike LBFGS it divides by no difference of gradients."""

    def step(self, closure: Any) -> Any:  # type: ignore[override]
        for _ in range(3):
            loss = super().step(closure)
        return loss


def test_half_precision_and_closures() -> None:
    """Neighbours in bfloat16 are 2**-8 apart; a few such roundings of the gradients bound the difference."""

    class Closures(Classifier):
        def configure_optimizers(self) -> Any:
            return Thrice(self.parameters(), lr=0.01)

    class ClosuresByHand(ByHand):
        configure_optimizers = Closures.configure_optimizers

    before, ours, theirs = Classifier(), Closures(), ClosuresByHand()
    callback = PipelineCallback(PIPE, activities={"hidden": "encoder"})
    fitted(ours, callback, data=batches(4), precision="bf16-mixed")
    fitted(theirs, data=batches(4), precision="bf16-mixed")
    assert ours.steps == theirs.steps == 12
    for mine, other, old in zip(ours.parameters(), theirs.parameters(), before.parameters(), strict=True):
        moved = float((other - old).detach().abs().max())
        torch.testing.assert_close(mine, other, rtol=0, atol=2**-5 * moved)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: PipelineCallback("l1"), TypeError, r"`pipe` must be a Pipeline, got str\. Pass Pipeline\(\[Penalty\("),
        (
            lambda: PipelineCallback(Pipeline([Penalty("l1")])),
            ValueError,
            r"^PipelineCallback: the penalties of `pipe` must name their inputs, got inputs=None for 'l1'\. Pass",
        ),
        (lambda: PipelineCallback(PIPE, track_every=0), ValueError, r"`track_every` must be at least 1, got 0"),
        (
            lambda: PipelineCallback(PIPE, track_every=1, wrt=["hidden", 0]),
            TypeError,
            "`wrt` must have names of inputs, not positions, got 0",
        ),
        (lambda: PipelineCallback(PIPE, wrt=["hidden"]), ValueError, "`wrt` must come with `track_every`, got "),
        (
            lambda: PipelineCallback(PIPE, controllers={"l1": 3.0}),
            TypeError,
            r"must be controllers, or pairs of one and a callable, got float for 'l1'\. Make one",
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
    with pytest.raises(ValueError, match=r"names other than batch, loss, params, got 'batch'\. Pass a mapping"):
        fitted(Classifier(), PipelineCallback(PIPE, activities={"batch": "encoder"}))
    with pytest.raises(
        ValueError, match=r"^penalty 'l1' asks for the input 'hidden'\. .*'hiden'\. Rename 'hiden' or 'hidden'\."
    ):
        fitted(Classifier(), PipelineCallback(PIPE, activities={"hiden": "encoder"}))
    with pytest.raises(ValueError, match="`wrt` asks for the input 'hiddn'") as raised:
        fitted(Classifier(), PipelineCallback(PIPE, activities={"hidden": "encoder"}, track_every=1, wrt="hiddn"))
    assert str(raised.value).count("'batch'") == 1
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
