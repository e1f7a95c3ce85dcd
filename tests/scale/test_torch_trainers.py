"""Lightning and the Trainer's loss with parameters that FSDP2 has sharded, on two processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.helpers.processes import on_processes

pytestmark = [pytest.mark.scale, pytest.mark.filterwarnings("ignore")]  # other packages' own


def test_sharded_parameters_in_other_loops(tmp_path: Path) -> None:
    from tests.integrations.lightning_training import CONTROLLERS, PIPE, Classifier, fitted
    from tests.scale.trainers_processes import by_the_trainers_loss
    from xpenalties.integrations.lightning import PipelineCallback

    on_processes(2, "scale.trainers_processes", tmp_path)
    both = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    torch.set_default_dtype(torch.float64)
    try:
        module = Classifier()
        callback = PipelineCallback(PIPE, activities={"hidden": "encoder"}, track_every=5, controllers=CONTROLLERS)
        trainer = fitted(module, callback)
        gradients = by_the_trainers_loss(0, sharded=False)
    finally:
        torch.set_default_dtype(torch.float32)
    for results in both:
        parameters = dict(module.named_parameters())
        for name, whole in results["lightning"]["parameters"].items():
            torch.testing.assert_close(whole, parameters[name].detach(), rtol=1e-9, atol=1e-9, msg=name)
        assert results["lightning"]["weights"] == pytest.approx(callback.weights(), rel=1e-9)
        logged = results["lightning"]["logged"]
        for name in ("decay/value", "decay/contribution", "decay/grad_norm"):  # of parameters: the same everywhere
            assert logged[name] == pytest.approx(float(trainer.callback_metrics[name]), rel=1e-9)
        assert "total_grad_norm" not in logged  # FSDP's graph does not lead to the sharded parameters
        assert results["loss"].keys() == gradients.keys()
        for name, gradient in gradients.items():
            # the loss itself is in float32, as in the Trainer
            torch.testing.assert_close(results["loss"][name], gradient, rtol=1e-5, atol=1e-7, msg=name)
