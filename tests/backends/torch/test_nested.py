"""Nested tensors of PyTorch: jagged ones count their elements, all others are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.conftest import selected
from tests.helpers.harness import Framework, close
from xpenalties import Penalty, Pipeline

pytestmark = pytest.mark.only("torch", reason="is about PyTorch's nested tensors")
OFFSETS = [0, 3, 3, 10]
RNG = np.random.default_rng(0)
A, B = RNG.standard_normal((2, 10, 4))
MASK, WEIGHTS = RNG.random(10) > 0.3, RNG.random(10)
LINEAR = RNG.standard_normal((6, 4))


@pytest.fixture
def jagged(fw: Framework) -> Callable[..., Any]:
    """Make a jagged tensor of three sequences, of which one is empty. All of them share their lengths."""
    torch = selected("torch", reason="is about PyTorch's nested tensors")
    offsets = torch.tensor(OFFSETS)
    return lambda values, **options: torch.nested.nested_tensor_from_jagged(fw.array(values), offsets, **options)


CALLS: dict[str, Callable[..., Any]] = {
    "elements": lambda of, **shared: xp.consistency(of(A), of(B), **shared),
    "a complete mask": lambda of, **shared: xp.huber(of(A[:, 0]), where=of(MASK), **shared),
    "weights": lambda of, **shared: xp.huber(of(A[:, 0]), weights=of(WEIGHTS), **shared),
    "center": lambda of, **shared: xp.l2(of(A), center=of(B), **shared),
    "the mean as center": lambda of, **shared: xp.l2(of(A), center="mean", clip=1.0, **shared),
    "rows": lambda of, **shared: xp.kl_divergence(of(A), of(B), from_logits=True, **shared),
    "rows by a positive axis": lambda of, **shared: xp.entropy(of(A), axis=-1, from_logits=True, **shared),
    "masked rows": lambda of, **shared: xp.entropy(of(A), from_logits=True, where=of(MASK), **shared),
    "a linear map": lambda of, **shared: xp.linear_entropy(of(A), shared.pop("linear"), **shared),
    "one token each": lambda of, **shared: xp.sampled_kl(of(A[:, 0]), of(B[:, 0]), **shared),
}


@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
@pytest.mark.parametrize("name", CALLS)
def test_values(fw: Framework, jagged: Callable[..., Any], name: str, reduction: str) -> None:
    options = {"reduction": reduction} | ({"linear": fw.array(LINEAR)} if name == "a linear map" else {})
    got, want = CALLS[name](jagged, **options), CALLS[name](fw.array, **options)
    if reduction == "none":
        assert got.shape[:2] == jagged(A).shape[:2]
        got = got.values()
    close(fw, got, fw.numpy(want), rtol=1e-15)


def test_gradients(fw: Framework, jagged: Callable[..., Any]) -> None:
    """Of backward, value_and_grad, grad_norm, and what a pipeline tracks."""
    pipe = Pipeline([Penalty("consistency", inputs=("a", "b")), Penalty("l1", inputs="a", weight=0.1)])
    reports, gradients = [], []
    for of in (jagged, fw.array):
        a, b = of(A).requires_grad_(), of(B)
        total, report = pipe.compute({"a": a, "b": b}, gradient_conflicts=True)
        total.backward()
        detached = a.detach()
        by_elements = xp.value_and_grad(xp.huber)(detached)[1]
        again = xp.grad(lambda x: xp.grad_norm(xp.huber, x))(detached)
        gradients.append([a.grad, by_elements, again])
        cosine = report.conflicts()["l1"]["consistency"]
        reports.append([report.total_grad_norm, xp.grad_norm(xp.huber, detached), cosine])
    for got, want in zip(*gradients, strict=True):
        assert got.shape == jagged(A).shape
        close(fw, got.values(), fw.numpy(want), rtol=1e-14)
    assert list(map(float, reports[0])) == pytest.approx(list(map(float, reports[1])), rel=1e-14)


def test_tracking_in_float16(fw: Framework, jagged: Callable[..., Any]) -> None:
    pipe = Pipeline([Penalty("l2", options={"normalizer": 1e10})])
    norms = [pipe.compute(of(A).half(), track_grad_norms=True)[1].total_grad_norm for of in (jagged, fw.array)]
    assert 0 < float(norms[0]) == pytest.approx(float(norms[1]), rel=1e-6)


def test_a_penalty_that_is_not_due(jagged: Callable[..., Any]) -> None:
    total, report = Pipeline([Penalty("l1", every=2)]).compute(jagged(A), step=1, track_grad_norms=True)
    assert float(total) == 0.0 and report.total_grad_norm is None


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # of Dynamo's own code
def test_compiled(fw: Framework, jagged: Callable[..., Any]) -> None:
    compiled, _ = fw.compile(lambda a, b: xp.kl_divergence(a, b, from_logits=True))
    close(fw, compiled(jagged(A), jagged(B)), fw.numpy(xp.kl_divergence(fw.array(A), fw.array(B), from_logits=True)))


def test_sequences_on_another_axis(fw: Framework, jagged: Callable[..., Any]) -> None:
    x = jagged(A.T, jagged_dim=2)  # (3, 4, lengths)
    close(fw, xp.group_lasso(x, axis=1), fw.numpy(xp.group_lasso(fw.array(A))))
    assert xp.group_lasso(x, axis=1, reduction="none").shape == jagged(A[:, 0]).shape
    values = RNG.standard_normal((10, 2, 3))
    groups = xp.group_lasso(jagged(values), axis=(2, -1), reduction="none")
    close(fw, groups.values(), fw.numpy(xp.group_lasso(fw.array(values), axis=(1, 2), reduction="none")))
    assert groups.shape == jagged(A[:, 0]).shape
    weights = fw.array(WEIGHTS[:4])  # of the last axis
    close(fw, xp.l1(jagged(A), weights=weights), fw.numpy(xp.l1(fw.array(A), weights=weights)))


UNLIKE = r"must be ragged like the other arrays, with the same offsets and without gaps, got shape "
REFUSED: dict[str, tuple[Callable[..., Any], str]] = {
    "rows across": (
        lambda of, plain: xp.entropy(of(A), axis=1),
        r"entropy: `log_p` must not be ragged here, got shape \(3, j\d+, 4\)\. A row lies along axis 1, across seq",
    ),
    "rows of sequences": (lambda of, plain: xp.group_lasso(of(A), axis=-3), r"A row lies along axis -3, across"),
    "no such axis": (lambda of, plain: xp.entropy(of(A), axis=3), r"entropy: `axis` must be an axis of `log_p`, got 3"),
    "groups across": (lambda of, plain: xp.group_lasso(of(A), axis=(1, 2)), r"A row lies along axis \(1, 2\), across"),
    "whole": (
        lambda of, plain: xp.output_magnitude(of(A)),
        r"output_magnitude: `x` must not be ragged here, got shape \(3, j\d+, 4\)\. Its sequences cannot be packed",
    ),
    "samples": (lambda of, plain: xp.jacobian_penalty(lambda x: x, of(A)), r"jacobian_penalty: `x` must not be rag"),
    "a plain first": (lambda of, plain: xp.consistency(plain(A), of(B)), rf"consistency: `a` {UNLIKE}\(10, 4\) beside"),
    "a plain second": (lambda of, plain: xp.consistency(of(A), plain(B)), rf"consistency: `b` {UNLIKE}\(10, 4\) besid"),
    "a plain mask": (
        lambda of, plain: xp.l1(of(A), where=plain(MASK[:3, None, None])),
        rf"`where` {UNLIKE}\(3, 1, 1\)",
    ),
    "a mask of elements": (lambda of, plain: xp.entropy(of(A), where=of(A > 0)), rf"`where` {UNLIKE}\(3, j\d+, 4\)"),
    "a ragged mask": (
        lambda of, plain: xp.l1(plain(A), where=of(MASK)),
        r"l1: `where` must not be ragged beside a plain array, got shape \(3, j\d+\)\. Pad it, or make all",
    ),
    "a ragged linear map": (
        lambda of, plain: xp.linear_entropy(plain(A), of(LINEAR[[0] * 10])),
        r"linear_entropy: `weight` must not be ragged beside a plain array",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(fw: Framework, jagged: Callable[..., Any], name: str) -> None:
    call, message = REFUSED[name]
    with pytest.raises((TypeError, ValueError), match=message):
        call(jagged, fw.array)


@pytest.mark.filterwarnings("ignore:The PyTorch API of (nested|MaskedTensors)")
def test_other_nested_tensors(fw: Framework, jagged: Callable[..., Any]) -> None:
    torch = selected("torch", reason="is about PyTorch's nested tensors")
    parts = [fw.array(A[:3]), fw.array(A[3:])]
    with pytest.raises(TypeError, match=rf"^consistency: `b` {UNLIKE}"):
        xp.consistency(jagged(A), torch.nested.nested_tensor(parts, layout=torch.jagged))
    starts, lengths = torch.tensor([0, 1]), torch.tensor([3, 5])
    gaps = torch.nested.narrow(fw.array(np.ones((2, 8))), 1, starts, lengths, layout=torch.jagged)
    with pytest.raises(TypeError, match=rf"^l1: `x` {UNLIKE}.* Make all of them from one array of offsets, or"):
        xp.l1(gaps)
    assert float(xp.l1(gaps.contiguous())) == 8.0
    with pytest.raises(TypeError, match=r"^l1: `x` must have a shape, got one of PyTorch's .* layout=torch\.jagged"):
        xp.l1(torch.nested.nested_tensor(parts))
    masked = torch.masked.masked_tensor(parts[0], parts[0] > 0)
    message = r"^l1: `x` must be an array, got torch\.masked\S*MaskedTensor\. Pass its get_data\(\), and its get"
    with pytest.raises(TypeError, match=message):
        xp.l1(masked)
