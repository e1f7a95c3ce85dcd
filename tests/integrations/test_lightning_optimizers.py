"""Transforms that are attached to the optimizers of a module of Lightning, and callbacks in another process."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import pytest

from tests.conftest import integration
from xpenalties import prox, schedules, transforms

integration("lightning")

import torch
from torch.nn.functional import cross_entropy

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its imports' own
    import lightning  # noqa: F401 - it has to be imported inside
    from lightning.pytorch.plugins import MixedPrecision

    from tests.integrations.lightning_training import CONTROLLERS, PIPE, Classifier, fitted
    from tests.integrations.torch_training import STEPS, batches, close
    from xpenalties.integrations.lightning import PipelineCallback

from xpenalties.integrations.torch import attach

pytestmark = [pytest.mark.integrations, pytest.mark.usefixtures("quietly")]


def attached(optimizer: torch.optim.Optimizer) -> list[Any]:
    return [
        attach(optimizer, transforms.clip_by_global_norm(0.1)),
        attach(optimizer, transforms.add_l2_decay(schedules.linear(0.0, 0.5, steps=STEPS))),
        attach(optimizer, transforms.proximal(prox.l1, scale=0.001), to="updates"),
    ]


class Attaching(Classifier):
    """Its optimizer has transforms."""

    def __init__(self, *, fused: bool = False, manual: bool = False, late: bool = False) -> None:
        super().__init__()
        self.fused = fused
        self.late = late  # attach to what Lightning makes of the optimizer
        self.automatic_optimization = not manual
        self.attached: list[Any] = []

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.named_parameters(), lr=0.1, fused=self.fused)
        self.attached = [] if self.late else attached(optimizer)
        return optimizer

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        result = super().training_step(batch, batch_idx)
        if not self.automatic_optimization:
            optimizer = self.optimizers()
            self.attached = self.attached or attached(optimizer)
            optimizer.zero_grad()
            self.manual_backward(result["loss"])
            optimizer.step()
        return result


def by_hand(module: Attaching) -> Attaching:
    """Train in a loop of PyTorch, without a closure."""
    optimizer = module.configure_optimizers()
    for x, y in batches():
        optimizer.zero_grad()
        cross_entropy(module.head(module.encoder(x)), y).backward()
        optimizer.step()
    return module


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("options", [{}, {"manual": True}, {"manual": True, "late": True}])
def test_transforms_see_the_gradients_of_closures(options: dict[str, bool]) -> None:
    """Lightning computes gradients inside the optimizer's step."""
    ours = Attaching(**options)
    fitted(ours)
    assert int(ours.attached[1].state.step) == STEPS
    close(ours, by_hand(Attaching()))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("fused", [True, False])
def test_transforms_see_unscaled_gradients(fused: bool) -> None:
    """Float64 everywhere, but with the scaler of mixed precision."""

    class OnlyScaling(MixedPrecision):  # type: ignore[misc]
        def forward_context(self) -> Any:
            return torch.autocast("cpu", enabled=False)

    scaler = torch.amp.GradScaler("cpu", init_scale=4096.0)
    ours = Attaching(fused=fused)
    fitted(ours, plugins=[OnlyScaling("16-mixed", "cpu", scaler)])
    assert int(ours.attached[1].state.step) == STEPS
    assert scaler.get_scale() == 4096.0
    close(ours, by_hand(Attaching()))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_callbacks_are_copied_to_other_processes(copied: Any) -> None:
    """As `ddp_spawn` pickles them."""
    callback = PipelineCallback(PIPE, activities={"hidden": "encoder"}, track_every=5)
    other = copied(callback)
    parameters = []
    for each in (callback, other, copied(other)):  # the last one after a training
        module = Classifier()
        fitted(module, each)
        parameters.append([param.detach() for param in module.parameters()])
    for others in parameters[1:]:
        assert all(map(torch.equal, parameters[0], others))
    with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
        pickle.dumps(PipelineCallback(PIPE, activities={"hidden": "encoder"}, controllers=CONTROLLERS))
