"""A reference that calls the trained model is refused, however a trainer has replaced the model's `forward`."""

from __future__ import annotations

import copy
import functools
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import integration
from xpenalties import Penalty, Pipeline, kl_divergence

integration("transformers", "accelerate")

import torch
from torch import nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its imports' own
    from tests.integrations.trainer_training import PIPE, VOCABULARY, network, trainer
    from xpenalties.integrations.transformers import PipelineLoss

pytestmark = [pytest.mark.integrations, pytest.mark.usefixtures("quietly")]


class Wrapped:
    """Calls a function, like the objects that convert a model's outputs."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fn(*args, **kwargs)


def calling(original: Callable[..., Any]) -> Any:
    def forward(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs)

    return forward


def by_closure(model: Any) -> None:
    model.forward = calling(model.forward)


def by_method(model: Any) -> None:
    original = model.forward

    @functools.wraps(type(model).forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs)

    model.forward = types.MethodType(forward, model)


def by_wraps(model: Any) -> None:
    model.forward = functools.wraps(model.forward)(lambda *args, **kwargs: None)


def by_object(model: Any) -> None:
    model.forward = calling(Wrapped(model.forward))


def by_partial(model: Any) -> None:
    model.forward = calling(functools.partial(model.forward, use_cache=False))


def of_a_part(model: Any) -> None:
    by_closure(model.transformer)


@pytest.mark.parametrize("replace", [by_closure, by_method, by_wraps, by_object, by_partial, of_a_part])
def test_a_copy_that_calls_the_trained_model(replace: Callable[[Any], None], tmp_path: Path) -> None:
    model, before = network(), network()
    replace(model)
    name = ", at 'transformer'" if replace is of_a_part else ""
    later = copy.deepcopy(model)
    with pytest.raises(ValueError, match=f"a copy whose `forward` is that of the Trainer's model{name}. Copy the mod"):
        trainer(model, PipelineLoss(PIPE, reference=later), tmp_path)
    trainer(model, PipelineLoss(PIPE, reference=before), tmp_path)
    replace(before)  # calls its own modules only
    trainer(model, PipelineLoss(PIPE, reference=before), tmp_path)


@pytest.mark.parametrize("wrapped", [False, True])
def test_packed_sequences_are_apart(wrapped: bool, tmp_path: Path) -> None:
    """The reference sees two sequences in one row as the model does: each for itself."""
    model, reference = network(), network(seed=3)
    if wrapped:
        by_method(reference)
    ids = torch.randint(1, VOCABULARY, (1, 8))
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 4]])
    labels = torch.where(positions == 0, -100, ids)
    options = {"from_logits": True, "reduction": "sum", "normalizer": None}
    pipe = Pipeline([Penalty("kl_divergence", inputs=("logits", "reference"), options=options)])
    loss = PipelineLoss(pipe, reference=reference)
    made = trainer(model, loss, tmp_path)
    made.compute_loss(model, {"input_ids": ids, "position_ids": positions, "labels": labels})
    assert loss.report is not None
    expected = sum(
        kl_divergence(model(part).logits[:, :-1], reference(part).logits[:, :-1], **options)
        for part in (ids[:, :3], ids[:, 3:])
    )
    torch.testing.assert_close(loss.report.regularizers["kl_divergence"].value, expected.detach())


def test_a_reference_that_has_the_model(tmp_path: Path) -> None:
    """For example with its adapters off: what it calls is a part of it."""

    class Wrapper(nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model
            self.forward = model.forward

    model = network()
    trainer(model, PipelineLoss(PIPE, reference=Wrapper(model)), tmp_path)


def test_an_empty_closure(tmp_path: Path) -> None:
    reference = network()
    reference.forward = types.FunctionType(calling(print).__code__, {}, closure=(types.CellType(),))
    trainer(network(), PipelineLoss(PIPE, reference=reference), tmp_path)
