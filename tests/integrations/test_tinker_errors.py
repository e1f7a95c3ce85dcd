"""What the loss for Tinker refuses, when it is made and when it is called."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest

from tests.conftest import integration
from xpenalties import Penalty, Pipeline

integration("tinker")

import torch

from tests.integrations.tinker_client import asked, data_for, leaves, nothing
from xpenalties.integrations.tinker import custom_loss

pytestmark = pytest.mark.integrations

PIPE = Pipeline([Penalty("consistency", inputs=("logprobs", "teacher"))])
FIELD = {"teacher": ("field", "teacher")}


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((3, PIPE), {}, TypeError, r"`base_loss` must be callable, got int\. Pass"),
        ((nothing, {"l1": 1.0}), {}, TypeError, r"`pipe` must be a Pipeline, got dict\. Pass Pipeline\(\{"),
        ((nothing, PIPE), {"targets": "logprobs"}, TypeError, r"`targets` must be a mapping of names, got str\. Pass"),
        (
            (nothing, PIPE),
            {"targets": {"techer": ("field", "teacher")}},
            ValueError,
            r"inputs of penalty 'consistency' must be targets, got 'teacher'\. The targets are .* mean 'techer'\?",
        ),
        (
            (nothing, PIPE),
            {"targets": {"teacher": "logprob"}},
            ValueError,
            r"target 'teacher' must be 'logprobs', .* got 'logprob'\. .* mean 'logprobs'\? .*\('field', 'logprob'\)",
        ),
        ((nothing, PIPE), {"targets": {"teacher": 3}}, TypeError, r"target 'teacher' must be .*, got int\. Pass one"),
        (
            (nothing, PIPE),
            {"targets": {**FIELD, "logprobs": ("field", "logprobs")}},
            ValueError,
            r"`targets` must not redefine 'logprobs', the model's, got another\. Rename",
        ),
        ((nothing, PIPE), {"targets": FIELD, "where": "mask"}, ValueError, r"`where` must be .*\('field', 'mask'\)"),
        ((nothing, PIPE), {"targets": FIELD, "on_error": "skip"}, ValueError, "`on_error` must be one of 'raise'"),
        ((nothing, PIPE), {"targets": FIELD, "timeout": 0}, ValueError, "`timeout` must be in"),
        (
            (nothing, Pipeline([Penalty(asked)])),
            {"track_grad_norms": True},
            ValueError,
            r"`track_grad_norms` must be False with coroutines or timeouts, got True\. Drop",
        ),
    ],
)
def test_errors_when_it_is_made(arguments: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match="^custom_loss: " + message):
        custom_loss(*arguments, **options)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"data": []}, ValueError, r"`data` must have at least one datum, got none\. Pass"),
        ({"data": data_for(leaves([1.0]))}, ValueError, r"`logprobs` must have 1 tensors, got 2\. Pass one for"),
        (
            {"target": ("field", "techer")},
            ValueError,
            r"datum 0 must have the field 'techer' for .*'teacher', got the fields 'teacher'\. Did you mean 'tea",
        ),
        ({"target": [torch.zeros(2)]}, ValueError, r"target 'teacher' must have 2 tensors, got 1\. Pass one per datum"),
        (
            {"target": [torch.zeros(2), torch.zeros(3)]},
            ValueError,
            r"target 'teacher' must have shape \(1,\) in datum 1, which has 1 tokens, got \(3,\)\. For",
        ),
        (
            {"target": [torch.zeros(2, 4), torch.zeros(1, 5)]},
            ValueError,
            r"target 'teacher' must have shape \(1, 4\) in datum 1, which has 1 tokens, got \(1, 5\)",
        ),
        (
            {"target": [torch.tensor(0.0), torch.zeros(1)]},
            ValueError,
            r".* must have shape \(2,\) in datum 0, .*got \(\)",
        ),
        (
            {"target": lambda data, logprobs: None},
            TypeError,
            r"target 'teacher' must be a list of tensors, got NoneType\. Re",
        ),
        ({"where": [torch.ones(2), torch.ones(2)]}, ValueError, r"`where` must have shape \(1,\) in datum 1"),
        (
            {"where": torch.ones(3, 2)},
            ValueError,
            r"`where` must have one number for each of 3 tokens, got shape \(3, 2\)\. Reduce",
        ),
    ],
)
def test_errors_when_it_is_called(given: Any, error: type[Exception], message: str) -> None:
    logprobs = leaves([-1.0, -2.0], [-3.0])
    data = given.get("data", data_for(logprobs, teacher=[[0, 0], [0]]))
    loss = custom_loss(
        nothing, PIPE, targets={"teacher": given.get("target", FIELD["teacher"])}, where=given.get("where")
    )
    with pytest.raises(error, match="^custom_loss: " + message):
        loss(data, logprobs)


@pytest.mark.parametrize("penalty", [Penalty("l1", every=2), Penalty("l1", weight=lambda step: step)])
def test_a_step_is_asked_for(penalty: Penalty) -> None:
    logprobs = leaves([-1.0])
    with pytest.raises(ValueError, match=r"penalty 'l1': `step` must be given .*, got None\. Pass `step=`"):
        custom_loss(nothing, Pipeline([penalty]))(data_for(logprobs), logprobs)


@pytest.mark.parametrize("missing", ["tinker", "torch"])
def test_without_the_packages(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, missing, None)
        patched.delitem(sys.modules, "xpenalties.integrations.tinker")
        with pytest.raises(
            ModuleNotFoundError,
            match=r"needs Tinker's SDK with PyTorch\. Install it: pip install \"xpenalties\[tinker\]\"",
        ) as caught:
            importlib.import_module("xpenalties.integrations.tinker")
        assert caught.value.name == missing
