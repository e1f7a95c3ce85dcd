"""Tinker's TrainingClient with the service replaced by a model here, and its data."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import numpy as np
import tinker
import torch
from tinker.lib.chunked_fwdbwd_helpers import combine_fwd_bwd_output_results
from tinker.lib.public_interfaces import training_client as sdk
from tinker.lib.public_interfaces.api_future import AwaitableConcurrentFuture

from xpenalties import Penalty, Pipeline
from xpenalties.integrations.tinker import custom_loss

__all__ = ["LocalClient", "VOCABULARY", "asked", "batch", "data_for", "leaves"]
__all__ += ["likelihood", "log_probs", "network", "nothing", "value_of"]
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


async def asked(x: Any) -> Any:
    await asyncio.sleep(0.001)
    return (x**2).sum(), {"asked": 1}


def value_of(penalty: Penalty, logprobs: list[torch.Tensor], data: Any = None, **options: Any) -> Any:
    loss = custom_loss(nothing, Pipeline([penalty]), **options)
    return loss(data or data_for(logprobs), logprobs)[0].detach()
