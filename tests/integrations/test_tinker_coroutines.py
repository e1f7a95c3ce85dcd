"""Penalties for Tinker that are coroutines or have a timeout."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest

from tests.conftest import integration
from xpenalties import Penalty, Pipeline

integration("tinker")

import torch

from tests.integrations.tinker_client import LocalClient, asked, batch, data_for, leaves, likelihood, network, nothing
from xpenalties.integrations.tinker import custom_loss

pytestmark = pytest.mark.integrations


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
