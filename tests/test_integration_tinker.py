"""The integration with Tinker's SDK: its own TrainingClient, with the service replaced by a model here."""

from __future__ import annotations

import asyncio
import contextvars
import importlib
import math
import sys
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from conftest import integration
from xpenalties import Penalty, Pipeline, schedules

integration("tinker")

import tinker
import torch
from tinker.lib.chunked_fwdbwd_helpers import combine_fwd_bwd_output_results
from tinker.lib.public_interfaces import training_client as sdk
from tinker.lib.public_interfaces.api_future import AwaitableConcurrentFuture

from xpenalties.integrations.tinker import custom_loss

pytestmark = pytest.mark.integrations
STEPS = 20
VOCABULARY = 7


class LocalClient(tinker.TrainingClient):
    """The SDK's client, but for what it would send over the network: a model in this process answers."""

    def __init__(self, model: torch.nn.Module) -> None:
        limits = SimpleNamespace(fwdbwd_max_chunk_len=2, fwdbwd_max_chunk_bytes_count=10**6)
        holder: Any = SimpleNamespace(_client_config=limits, run_coroutine_threadsafe=self._on_loop)
        super().__init__(holder, 0, "local", info=None)  # type: ignore[arg-type]
        self.model = model
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        self.loops: list[Any] = []

    @staticmethod
    def _on_loop(coroutine: Any) -> Any:
        return AwaitableConcurrentFuture(asyncio.run_coroutine_threadsafe(coroutine, sdk._get_custom_loss_loop()))

    def _run_fwd_bwd(self, requests: Any, loss_fn: Any, loss_fn_config: Any, *, forward_only: bool) -> Any:
        assert loss_fn == "cross_entropy"
        future: Future[Any] = Future()
        answers = [self._answer(request.data, forward_only) for request in requests]
        future.set_result(combine_fwd_bwd_output_results(answers))
        return AwaitableConcurrentFuture(future)

    def _answer(self, data: Any, forward_only: bool) -> Any:
        logprobs = [log_probs(self.model, datum) for datum in data]
        weights = [datum.loss_fn_inputs["weights"].to_torch() for datum in data]
        loss = -sum((w * x).sum() for w, x in zip(weights, logprobs, strict=True))
        if not forward_only:
            loss.backward()
        outputs = [{"logprobs": tinker.TensorData.from_torch(x.detach())} for x in logprobs]
        metrics = {"loss:sum": float(loss.detach()), "load:mean": 0.25}
        return tinker.ForwardBackwardOutput("CrossEntropyLossReturn", outputs, metrics)

    def optim_step(self, *args: Any, **kwargs: Any) -> Any:
        self.optimizer.step()
        self.optimizer.zero_grad()


def log_probs(model: torch.nn.Module, datum: Any) -> torch.Tensor:
    """Of the datum's targets, one or several for each token."""
    every = torch.log_softmax(model(torch.tensor(datum.model_input.to_ints())), dim=-1)
    chosen = datum.loss_fn_inputs["target_tokens"].to_torch()
    return every.gather(-1, chosen.reshape(len(every), -1)).reshape(chosen.shape)


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Embedding(VOCABULARY, 8), torch.nn.Tanh(), torch.nn.Linear(8, VOCABULARY))


def batch(*lengths: int) -> list[Any]:
    """Data of several lengths, whose first two tokens are the prompt."""
    rng = np.random.default_rng(1)
    data = []
    for n in lengths:
        tokens = rng.integers(VOCABULARY, size=n + 1)
        fields = {
            "target_tokens": tokens[1:],
            "teacher": np.log(rng.uniform(0.1, 0.9, size=n)).astype(np.float32),
            "completion": (np.arange(n) >= 2).astype(np.float32),
        }
        data.append(tinker.Datum(tinker.ModelInput.from_ints(tokens[:-1].tolist()), fields))
    return data


def leaves(*values: Any) -> list[torch.Tensor]:
    return [torch.tensor(each, dtype=torch.float32).requires_grad_() for each in values]


def data_for(logprobs: list[torch.Tensor], **fields: Any) -> list[Any]:
    """A datum for each tensor, with its part of the fields."""
    return [
        tinker.Datum(
            tinker.ModelInput.from_ints(list(range(len(each)))),
            {key: np.asarray(parts[i], np.float32) for key, parts in fields.items()},
        )
        for i, each in enumerate(logprobs)
    ]


def likelihood(data: Any, logprobs: Any) -> Any:
    return -torch.cat(logprobs).mean()


def nothing(data: Any, logprobs: Any) -> float:
    return 0.0


def value_of(penalty: Penalty, logprobs: list[torch.Tensor], data: Any = None, **options: Any) -> Any:
    loss = custom_loss(nothing, Pipeline([penalty]), **options)
    return loss(data or data_for(logprobs), logprobs)[0].detach()


# training


def test_training_as_by_hand() -> None:
    """20 steps on data of several lengths, in several requests each, with a prompt that the penalties leave out."""
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
    with pytest.raises(ValueError, match=r"metrics' names must differ in more than ':' and '_', got .*p/a:b/value"):
        custom_loss(nothing, pipe, prefix="p/")(data_for(logprobs), logprobs)


def test_schedules() -> None:
    logprobs = leaves([-2.0])
    loss = custom_loss(nothing, Pipeline([Penalty("l1", weight=lambda step: 0.1 * step)]), step=1)
    for at, weight in ((loss, 0.1), (loss.at(3), 0.3), (loss, 0.1)):
        total, report = at.compute(data_for(logprobs), logprobs)
        assert total.item() == pytest.approx(2 * weight)
        assert report.regularizers["l1"].weight == pytest.approx(weight)


# coroutines


async def asked(x: Any) -> Any:
    await asyncio.sleep(0.001)
    return (x**2).sum(), {"asked": 1}


def asked_later(x: Any) -> Any:
    return asked(x)


@pytest.mark.parametrize(
    ("fn", "timeout", "options"),
    [
        (asked, None, {}),
        (asked_later, None, {"asynchronous": True}),
        (asked_later, None, {"timeout": 60}),
        (asked_later, 60, {}),
    ],
    ids=["coroutine function", "asynchronous", "timeout", "timeout of the penalty"],
)
def test_coroutines_are_awaited_where_a_loop_is_running(fn: Any, timeout: Any, options: Any) -> None:
    """As in the SDK, which calls the loss in a coroutine."""
    pipe = Pipeline([Penalty(fn, name="asked", weight=0.5, timeout=timeout), Penalty("l1")])
    loss = custom_loss(likelihood, pipe, **options)
    logprobs = leaves([-1.0, -2.0], [-3.0])
    total, metrics = loss(data_for(logprobs), logprobs)
    total.backward()
    assert total.item() == pytest.approx(2 + 7 + 6)
    torch.testing.assert_close(
        torch.cat([each.grad for each in logprobs]), torch.tensor([-1.0, -2.0, -3.0]) - 1 - 1 / 3
    )
    assert metrics["penalties/asked/custom/asked"] == 1.0
    output = LocalClient(network()).forward_backward_custom(batch(3, 5), loss).result()
    assert output.metrics["penalties/asked/value"] > 0

    async def within() -> Any:
        return loss(data_for(logprobs), logprobs)[1]

    assert asyncio.run(within()) == metrics


def test_a_base_loss_that_is_a_coroutine() -> None:
    async def base(data: Any, logprobs: Any) -> Any:
        await asyncio.sleep(0)
        return likelihood(data, logprobs)

    logprobs = leaves([-1.0, -2.0])
    total, _ = custom_loss(base, Pipeline({"l1": 1.0}))(data_for(logprobs), logprobs)
    assert total.item() == 4.5


def test_coroutines_have_the_callers_modes_and_variables() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    seen: list[Any] = []

    async def sees(x: Any) -> Any:
        seen.append((variable.get(), torch.is_grad_enabled(), x.requires_grad))
        return x.sum()

    variable.set("set")
    logprobs = leaves([-1.0])
    loss = custom_loss(nothing, Pipeline([Penalty(sees, inputs="probs")]))
    with torch.no_grad():
        assert not loss(data_for(logprobs), logprobs)[0].requires_grad
    assert loss(data_for(logprobs), logprobs)[0].requires_grad
    assert seen == [("set", False, False), ("set", True, True)]


async def hangs(x: Any) -> Any:
    await asyncio.sleep(60)


async def fails(x: Any) -> Any:
    raise ConnectionError("no answer")


@pytest.mark.parametrize(
    ("penalty", "options", "error"),
    [
        (Penalty(hangs, timeout=0.01), {}, TimeoutError),
        (Penalty(hangs), {"timeout": 0.01}, TimeoutError),
        (Penalty(fails), {}, ConnectionError),
    ],
)
def test_coroutines_that_fail(penalty: Penalty, options: Any, error: type[Exception]) -> None:
    logprobs = leaves([-1.0, -2.0])
    pipe = Pipeline([Penalty("l1"), penalty])
    with pytest.raises(error):
        custom_loss(nothing, pipe, **options)(data_for(logprobs), logprobs)
    loss = custom_loss(nothing, pipe, on_error="drop", **options)
    with pytest.warns(RuntimeWarning, match=f"{penalty.name!r} was dropped and contributes 0: {error.__name__}"):
        total, metrics = loss(data_for(logprobs), logprobs)
    total.backward()
    assert total.item() == 3.0 and f"penalties/{penalty.name}/value" not in metrics


# errors

PIPE = Pipeline([Penalty("consistency", inputs=("logprobs", "teacher"))])
FIELD = {"teacher": ("field", "teacher")}


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((3, PIPE), {}, TypeError, r"`base_loss` must be callable, got int\. Pass"),
        ((nothing, {"l1": 1.0}), {}, TypeError, r"`pipe` must be a Pipeline, got dict\. Make"),
        ((nothing, PIPE), {"targets": "logprobs"}, TypeError, r"`targets` must be a mapping of names, got str\. Pass"),
        (
            (nothing, PIPE),
            {"targets": {"techer": ("field", "teacher")}},
            ValueError,
            r"inputs of penalty 'consistency' must be targets, got 'teacher', there are 'techer', .* mean 'techer'\?",
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
            r"`targets` must leave 'logprobs' the model's, got another\. Rename",
        ),
        ((nothing, PIPE), {"targets": FIELD, "where": "mask"}, ValueError, r"`where` must be .*\('field', 'mask'\)"),
        ((nothing, PIPE), {"targets": FIELD, "on_error": "skip"}, ValueError, "`on_error` must be one of 'raise'"),
        ((nothing, PIPE), {"targets": FIELD, "timeout": 0}, ValueError, "`timeout` must be in"),
        (
            (nothing, Pipeline([Penalty(asked)])),
            {"track_grad_norms": True},
            ValueError,
            r"`track_grad_norms` must be False beside coroutines and timeouts, got True\. Do",
        ),
    ],
)
def test_errors_when_it_is_made(arguments: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match="^custom_loss: " + message):
        custom_loss(*arguments, **options)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"data": []}, ValueError, r"`data` must have a datum at least, got none\. Pass"),
        ({"data": data_for(leaves([1.0]))}, ValueError, r"`logprobs` must have 1 tensors, got 2\. Pass one a datum"),
        (
            {"target": ("field", "techer")},
            ValueError,
            r"datum 0 must have the field 'techer' for target 'teacher', it has 'teacher'\. Did you mean 'teacher'\?",
        ),
        ({"target": [torch.zeros(2)]}, ValueError, r"target 'teacher' must have 2 tensors, got 1\. Pass one a datum"),
        (
            {"target": [torch.zeros(2), torch.zeros(3)]},
            ValueError,
            r"target 'teacher' must have shape \(1,\) in datum 1, which has 1 tokens, got \(3,\)\. Have",
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
    with pytest.raises(ValueError, match=r"penalty 'l1': .* got no step\. Pass `step=`"):
        custom_loss(nothing, Pipeline([penalty]))(data_for(logprobs), logprobs)


@pytest.mark.parametrize("missing", ["tinker", "torch"])
def test_without_the_packages(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, missing, None)
        patched.delitem(sys.modules, "xpenalties.integrations.tinker")
        with pytest.raises(
            ModuleNotFoundError,
            match=r"needs Tinker's SDK and PyTorch\. Install them: pip install \"xpenalties\[tinker\]\"",
        ) as caught:
            importlib.import_module("xpenalties.integrations.tinker")
        assert caught.value.name == missing
