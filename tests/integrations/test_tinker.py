"""The integration with Tinker's SDK: training, targets, tokens and metrics."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest

from tests.conftest import integration
from xpenalties import Penalty, Pipeline, schedules

integration("tinker")

import tinker
import torch

from tests.integrations.tinker_client import (
    LocalClient,
    batch,
    data_for,
    leaves,
    likelihood,
    log_probs,
    network,
    nothing,
    value_of,
)
from xpenalties.integrations.tinker import custom_loss

pytestmark = pytest.mark.integrations
STEPS = 20


def first_of(data: Any, logprobs: Any) -> Any:
    return logprobs[0]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_loss_is_copied(copied: Any) -> None:
    data = batch(5, 3)
    pipe = Pipeline(
        [Penalty("consistency", inputs=("logprobs", "teacher")), Penalty("l1", inputs=first_of, weight=0.5)]
    )
    loss = custom_loss(likelihood, pipe, targets={"teacher": ("field", "teacher")})
    logprobs = [torch.full((length,), -1.0) for length in (5, 3)]
    torch.testing.assert_close(copied(loss)(data, logprobs)[0], loss(data, logprobs)[0])


# training


def test_training_as_by_hand() -> None:
    """20 steps on data of several lengths, in several requests each, with a prompt that the penalties leave out.

    Tinker's tensors are of float32, so each step starts from the same parameters: up to about 2 in size, they are
    rounded by 1.2e-7, and gradients below 1 by some of that.
    """
    data = batch(5, 3, 8, 4, 6)
    pipe = Pipeline(
        [
            Penalty("consistency", inputs=("student", "teacher"), weight=0.3),
            Penalty("l2", inputs="probs", weight=schedules.linear(0.0, 0.5, steps=10), options={"reduction": "mean"}),
        ]
    )
    targets = {"student": "logprobs", "teacher": ("field", "teacher")}
    loss = custom_loss(likelihood, pipe, targets=targets, where=("field", "completion"))
    client, plain = LocalClient(network()), network()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.5)
    for step in range(STEPS):
        plain.load_state_dict(client.model.state_dict())
        output = client.forward_backward_custom(data, loss.at(step)).result()
        client.optim_step()

        found = [log_probs(plain, datum) for datum in data]
        student = torch.cat([x[2:] for x in found])
        teacher = torch.cat([datum.loss_fn_inputs["teacher"].to_torch()[2:] for datum in data])
        squares = (student.exp() ** 2).mean()
        total = -torch.cat(found).mean() + 0.3 * ((student - teacher) ** 2).mean() + min(step / 20, 0.5) * squares
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        assert output.metrics["loss:sum"] == pytest.approx(total.item(), rel=1e-5)
        assert output.metrics["penalties/loss_total"] == pytest.approx(total.item(), rel=1e-5)
        assert output.metrics["penalties/l2/value"] == pytest.approx(squares.item(), rel=1e-5)
        for mine, theirs in zip(client.model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)
    start = torch.cat([each.flatten() for each in network().parameters()])
    assert (torch.cat([each.flatten() for each in plain.parameters()]) - start).abs().max() > 0.1


def test_an_error_reaches_whoever_waits() -> None:
    def fails(x: Any) -> Any:
        raise ZeroDivisionError("broken")

    client = LocalClient(network())
    with pytest.raises(ZeroDivisionError, match="broken") as caught:
        client.forward_backward_custom(batch(3), custom_loss(likelihood, Pipeline([Penalty(fails)]))).result()
    assert "In penalty 'fails'" in caught.value.__notes__[0]


# every datum


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("unused", [-math.inf, math.inf, math.nan])
def test_every_datum_has_a_gradient(unused: float, asynchronous: bool) -> None:
    logprobs = leaves([-1.0, -2.0], [unused, -1.0, unused], [])
    pipe = Pipeline([Penalty("l1", inputs=lambda data, logprobs: logprobs[0], weight=0.5)])
    loss = custom_loss(lambda data, logprobs: logprobs[0].sum(), pipe, asynchronous=asynchronous)
    total, _ = loss(data_for(logprobs), logprobs)
    total.backward()
    assert total.item() == -1.5
    assert [each.grad.tolist() for each in logprobs] == [[0.5, 0.5], [0.0, 0.0, 0.0], []]  # type: ignore[union-attr]


def test_every_datum_has_a_gradient_where_norms_are_tracked() -> None:
    logprobs = leaves([3.0, 4.0], [-math.inf])
    pipe = Pipeline([Penalty("l2", inputs=lambda data, logprobs: logprobs[0], weight=0.5)])
    total, metrics = custom_loss(nothing, pipe, track_grad_norms=True)(data_for(logprobs), logprobs)
    total.backward()
    assert [each.grad.tolist() for each in logprobs] == [[3.0, 4.0], [0.0]]  # type: ignore[union-attr]
    assert metrics["penalties/l2/grad_norm"] == 10.0


def test_a_loss_of_constants_has_gradients() -> None:
    logprobs = leaves([-1.0], [-2.0])
    total, metrics = custom_loss(nothing, Pipeline())(data_for(logprobs), logprobs)
    total.backward()
    assert all(each.grad.tolist() == [0.0] for each in logprobs)  # type: ignore[union-attr]
    assert metrics["penalties/loss_total"] == 0.0
    client = LocalClient(network())
    client.forward_backward_custom(batch(3, 4), custom_loss(nothing, Pipeline({"l1": 0.0}))).result()


# targets


def test_the_default_target_is_the_log_probabilities() -> None:
    logprobs = leaves([-1.0, -2.0], [-3.0])
    assert value_of(Penalty("l1"), logprobs) == 6.0
    assert value_of(Penalty("l1", options={"reduction": "mean"}), logprobs) == 2.0  # over tokens, not over data
    assert value_of(Penalty("l1", inputs="probs"), logprobs).item() == pytest.approx(
        sum(math.exp(-each) for each in (1, 2, 3))
    )


@pytest.mark.parametrize(
    "target",
    [
        ("field", "teacher"),
        ["field", "teacher"],
        [torch.tensor([-1.0, -4.0]), torch.tensor([-6.0])],
        ([-1.0, -4.0], [-6.0]),
        [np.asarray([-1.0, -4.0], np.float32), tinker.TensorData(data=[-6.0], dtype="float32")],
        torch.tensor([-1.0, -4.0, -6.0]),
        np.asarray([-1.0, -4.0, -6.0], np.float32),
        tinker.TensorData(data=[-1.0, -4.0, -6.0], dtype="float32"),
        lambda data, logprobs: [datum.loss_fn_inputs["teacher"].to_torch() for datum in data],
        lambda data, logprobs: torch.cat([datum.loss_fn_inputs["teacher"].to_torch() for datum in data]),
    ],
)
@pytest.mark.parametrize("track", [False, True])
def test_references(target: Any, track: bool) -> None:
    logprobs = leaves([-1.0, -2.0], [-3.0])
    data = data_for(logprobs, teacher=[[-1.0, -4.0], [-6.0]])
    pipe = Pipeline([Penalty("consistency", inputs=("logprobs", "teacher"))])
    loss = custom_loss(nothing, pipe, targets={"teacher": target}, track_grad_norms=track)
    total, metrics = loss(data, logprobs)
    total.backward()
    assert total.item() == pytest.approx((0 + 4 + 9) / 3)
    torch.testing.assert_close(torch.cat([each.grad for each in logprobs]), torch.tensor([0.0, 4.0, 6.0]) / 3)
    assert metrics.get("penalties/consistency/grad_norm") == (pytest.approx(math.sqrt(52) / 3) if track else None)


@pytest.mark.parametrize("track", [False, True])
def test_inputs_by_parameter(track: bool) -> None:
    logprobs = leaves([-1.0, -2.0], [-3.0])
    data = data_for(logprobs, teacher=[[-1.0, -4.0], [-6.0]], share=[[0.5, 1.0], [3.0]])
    inputs = {"a": "logprobs", "b": "teacher", "weights": "share", "normalizer": lambda data, logprobs: len(data)}
    pipe = Pipeline([Penalty("consistency", inputs=inputs)])
    targets = {"teacher": ("field", "teacher"), "share": ("field", "share")}
    total, metrics = custom_loss(nothing, pipe, targets=targets, track_grad_norms=track)(data, logprobs)
    total.backward()
    assert total.item() == pytest.approx((1 * 4 + 3 * 9) / 2)
    torch.testing.assert_close(torch.cat([each.grad for each in logprobs]), torch.tensor([0.0, 4.0, 18.0]) / 2)
    norm = pytest.approx(math.hypot(4.0, 18.0) / 2)
    assert metrics.get("penalties/consistency/grad_norm") == (norm if track else None)
    wrong = Pipeline([Penalty("l1", inputs={"x": "logprobs", "weights": "shares"})])
    with pytest.raises(ValueError, match=r"inputs of penalty 'l1' must be targets, got 'shares'\. .* mean 'share'\?"):
        custom_loss(nothing, wrong, targets=targets)


def test_several_log_probabilities_for_each_token() -> None:
    """As a teacher's API has them: the k most probable classes of each token."""
    student = [torch.randn(n, 3).log_softmax(-1) for n in (4, 2)]
    teacher = [torch.randn(n, 3).log_softmax(-1) for n in (4, 2)]
    logprobs = [each.requires_grad_() for each in student]
    penalty = Penalty("topk_kl_divergence", inputs=("teacher", "logprobs"), options={"tail": "truncate"})
    found = value_of(penalty, logprobs, data_for(logprobs, teacher=teacher), targets={"teacher": ("field", "teacher")})
    p, q = torch.cat(teacher), torch.cat(student)
    torch.testing.assert_close(found, (p.exp() * (p - q)).sum(-1).mean().detach())


def test_penalties_may_take_what_the_loss_takes() -> None:
    logprobs = leaves([-1.0, -3.0], [-4.0])
    penalty = Penalty("l1", inputs=lambda data, logprobs: torch.stack([each.mean() for each in logprobs]))
    assert value_of(penalty, logprobs) == 6.0  # of each datum


def test_a_callable_is_called_once_and_only_for_steps_that_it_counts_in() -> None:
    calls: list[int] = []

    def teacher(data: Any, logprobs: Any) -> Any:
        calls.append(len(data))
        return [torch.zeros(len(each)) for each in logprobs]

    logprobs = leaves([-1.0, -3.0], [-4.0])
    penalties = [
        Penalty("consistency", inputs=("logprobs", "teacher"), name=name, every=2, differentiable=name != "c")
        for name in "abc"
    ]
    loss = custom_loss(nothing, Pipeline(penalties), targets={"teacher": teacher}, track_grad_norms=True)
    _, metrics = loss.at(2)(data_for(logprobs), logprobs)
    assert calls == [2] and {f"penalties/{name}/value" for name in "abc"} <= set(metrics)
    _, metrics = loss.at(3)(data_for(logprobs), logprobs)
    assert calls == [2] and "penalties/a/value" not in metrics
    disabled = custom_loss(nothing, Pipeline(penalties).disable("a", "b", "c"), targets={"teacher": teacher})
    disabled(data_for(logprobs), logprobs)
    assert calls == [2]


def test_a_callable_of_the_log_probabilities_is_differentiated() -> None:
    logprobs = leaves([3.0], [5.0])
    targets = {"doubled": lambda data, logprobs: [2 * each for each in logprobs]}
    pipe = Pipeline([Penalty("l1", inputs="doubled"), Penalty("l2", inputs="probs")])
    for track in (False, True):
        loss = custom_loss(nothing, pipe.disable("l2"), targets=targets, track_grad_norms=track)
        total, metrics = loss(data_for(logprobs), logprobs)
        found = torch.autograd.grad(total, logprobs)
        assert [each.item() for each in found] == [2.0, 2.0]
    assert metrics["penalties/l1/grad_norm"] == pytest.approx(math.sqrt(8))
    _, metrics = custom_loss(likelihood, pipe, targets=targets, track_grad_norms=True)(data_for(logprobs), logprobs)
    assert metrics["penalties/l2/grad_norm"] == pytest.approx(math.hypot(2 * math.exp(6), 2 * math.exp(10)))
    assert metrics["penalties/base_loss/grad_norm"] == pytest.approx(math.sqrt(0.5))


# the tokens that count


@pytest.mark.parametrize(
    "where",
    [
        ("field", "mask"),
        [torch.tensor([False, True]), torch.tensor([True, False, True])],
        lambda data, logprobs: torch.tensor([0, 2, 1, 0, 1]),
    ],
)
def test_tokens_that_are_left_out(where: Any) -> None:
    logprobs = leaves([-math.inf, -2.0], [-3.0, math.nan, -5.0])
    data = data_for(logprobs, mask=[[0, 1], [1, 0, 0.5]], teacher=[[0, 0], [0, 0, math.nan]])
    penalties = [Penalty("l1", options={"reduction": "mean"}), Penalty("l2", inputs="probs")]
    loss = custom_loss(nothing, Pipeline(penalties), where=where)
    total, metrics = loss(data, logprobs)
    total.backward()
    assert metrics["penalties/l1/value"] == pytest.approx(10 / 3)
    assert metrics["penalties/l2/value"] == pytest.approx(sum(math.exp(-2 * each) for each in (2, 3, 5)))
    kept = [each.grad != 0 for each in logprobs]  # type: ignore[union-attr]
    assert [each.tolist() for each in kept] == [[False, True], [True, False, True]]


def test_where_nothing_is_left() -> None:
    logprobs = leaves([-math.inf], [-1.0, -2.0])
    loss = custom_loss(nothing, Pipeline({"l1": 1.0}), where=[[0.0], [0.0, 0.0]])
    total, _ = loss(data_for(logprobs), logprobs)
    total.backward()
    assert total.item() == 0.0 and all((each.grad == 0).all() for each in logprobs)  # type: ignore[union-attr]


# metrics


def test_metrics_do_not_replace_the_servers() -> None:
    def base(data: Any, logprobs: Any) -> Any:
        return likelihood(data, logprobs), {"loss:sum": 1.0, "tokens": torch.tensor(3)}

    def own(x: Any) -> Any:
        return x.sum(), {"load:mean": 2}

    penalties = [Penalty("l1", name="load:mean"), Penalty(own, name="loss:sum", weight=0.0)]
    client = LocalClient(network())
    output = client.forward_backward_custom(batch(3, 4, 5), custom_loss(base, Pipeline(penalties), prefix="")).result()
    metrics = output.metrics
    assert metrics["load:mean"] == 0.25 and metrics["load_mean/value"] > 0
    assert metrics["loss_sum/custom/load_mean"] == 2.0 and metrics["base_loss/custom/loss_sum"] == 1.0
    assert {name for name in metrics if ":" in name} == {"loss:sum", "surrogate_loss:sum", "load:mean"}
    assert metrics["loss:sum"] == pytest.approx(metrics["loss_total"])
    assert {type(each) for each in metrics.values()} == {float}


def test_metrics_of_one_name() -> None:
    pipe = Pipeline([Penalty("l1", name="a:b"), Penalty("l2", name="a_b")])
    logprobs = leaves([-1.0])
    with pytest.raises(ValueError, match=r"names of metrics must differ in more than ':' and '_', got .*p/a:b/value"):
        custom_loss(nothing, pipe, prefix="p/")(data_for(logprobs), logprobs)


def test_schedules() -> None:
    logprobs = leaves([-2.0])
    loss = custom_loss(nothing, Pipeline([Penalty("l1", weight=lambda step: 0.1 * step)]), step=1)
    for at, weight in ((loss, 0.1), (loss.at(3), 0.3), (loss, 0.1)):
        total, report = at.compute(data_for(logprobs), logprobs)
        assert total.item() == pytest.approx(2 * weight)
        assert report.regularizers["l1"].weight == pytest.approx(weight)
