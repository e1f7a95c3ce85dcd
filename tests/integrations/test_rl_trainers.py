"""The recipes for verl and OpenRLHF, with stand-ins of the functions that they replace and extend."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.conftest import integration
from tests.helpers.recipes import recipe

integration()

import torch

from xpenalties import Pipeline

MASK = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])


def log_probabilities() -> tuple[Any, Any]:
    """Return those of 2 responses of up to 4 tokens under two policies, the first with a gradient, padded with 0."""
    policy, other = -torch.rand(2, 2, 4).mul(3) * MASK
    return policy.requires_grad_(), other


def modules(monkeypatch: pytest.MonkeyPatch, **names: dict[str, Any]) -> None:
    """Make stand-ins importable, by paths with __ for the dots, and their parents."""
    for path, attributes in names.items():
        parts = path.split("__")
        for end in range(1, len(parts) + 1):
            name = ".".join(parts[:end])
            if name not in sys.modules:
                monkeypatch.setitem(sys.modules, name, ModuleType(name))
            if end > 1:
                monkeypatch.setattr(sys.modules[name.rpartition(".")[0]], parts[end - 1], sys.modules[name], False)
        vars(sys.modules[".".join(parts)]).update(attributes)


def estimate(policy: Any, reference: Any, name: str) -> Any:
    r = reference - policy
    return {"k1": -r, "k2": r**2 / 2, "k3": r.exp() - 1 - r}[name]


def gradient(value: Any, x: Any) -> Any:
    return torch.autograd.grad(value, x, retain_graph=True)[0]


# verl


def verls_kl_penalty(logprob: Any, ref_logprob: Any, kl_penalty: str) -> Any:
    return "theirs", kl_penalty


@pytest.fixture
def verl(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Run the recipe, and return its names, verl's module of losses and its policy losses by name."""
    registry: dict[str, Callable[..., Any]] = {}

    def register_policy_loss(name: str) -> Callable[[Any], Any]:
        return lambda fn: registry.setdefault(name, fn)

    @register_policy_loss("vanilla")
    def vanilla(
        old_log_prob: Any,
        log_prob: Any,
        advantages: Any,
        response_mask: Any,
        loss_agg_mode: str = "token-mean",
        config: Any = None,
        rollout_is_weights: Any = None,
    ) -> Any:
        assert (loss_agg_mode, rollout_is_weights) == ("token-mean", None)
        ratio = torch.exp(log_prob - old_log_prob)
        return -(ratio * advantages * response_mask).sum(), {"actor/ppo_kl": 0.0}

    core = {"get_policy_loss_fn": registry.__getitem__, "register_policy_loss": register_policy_loss}
    modules(monkeypatch, verl__trainer__ppo__core_algos=core)
    modules(monkeypatch, verl__workers__utils__losses={"kl_penalty": verls_kl_penalty})
    names: dict[str, Any] = {}
    exec(recipe("verl_penalties.py"), names)
    return SimpleNamespace(names=names, losses=sys.modules["verl.workers.utils.losses"], registry=registry)


@pytest.mark.parametrize(
    ("name", "estimator"),
    [("kl", "k1"), ("k1", "k1"), ("mse", "k2"), ("k2", "k2"), ("low_var_kl", "k3"), ("k3", "k3")],
)
def test_kl_penalty_of_verl(name: str, estimator: str, verl: SimpleNamespace) -> None:
    policy, reference = log_probabilities()
    value = verl.losses.kl_penalty(logprob=policy, ref_logprob=reference, kl_penalty=name)
    expected = estimate(policy, reference, estimator)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient(value.sum(), policy), gradient(expected.sum(), policy))
    of_k2 = verl.losses.kl_penalty(policy, reference, name + "+")
    torch.testing.assert_close(of_k2, expected)
    torch.testing.assert_close(gradient(of_k2.sum(), policy), policy.detach() - reference)


def test_kl_penalty_of_verl_is_not_clamped(verl: SimpleNamespace) -> None:
    value = verl.losses.kl_penalty(torch.tensor([-30.0]), torch.tensor([-1.0]), "k3")
    torch.testing.assert_close(value, torch.tensor([29.0]).exp() - 30)
    assert verl.losses.kl_penalty(None, None, "abs") == ("theirs", "abs")


@pytest.mark.parametrize("batches", [None, {"batch_num_tokens": 10, "dp_size": 2}])
def test_policy_loss_of_verl(batches: Any, verl: SimpleNamespace) -> None:
    policy, old = log_probabilities()
    advantages = torch.tensor([[1.0], [-2.0]])
    tokens = MASK.sum() if batches is None else 5
    config = SimpleNamespace(global_batch_info=batches or {"dp_size": 1, "batch_num_tokens": None})
    arguments = {
        "old_log_prob": old,
        "log_prob": policy,
        "advantages": advantages,
        "response_mask": MASK.bool(),
        "loss_agg_mode": "token-mean",
        "config": config,
        "rollout_is_weights": None,
    }
    verl.names["PIPELINE"] = verl.names["PIPELINE"].with_weights(kl_to_old_policy=0.5)
    loss, metrics = verl.registry["vanilla_with_penalties"](**arguments)
    kl = torch.sum(estimate(policy, old, "k3") * MASK) / tokens
    expected = verl.registry["vanilla"](**arguments)[0] + 0.5 * kl
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient(loss, policy), gradient(expected, policy))
    mean = (estimate(policy, old, "k3") * MASK).sum() / MASK.sum()
    assert metrics == {"actor/ppo_kl": 0.0, "actor/penalties/kl_to_old_policy": pytest.approx(mean.item())}


def test_policy_loss_of_verl_without_tokens(verl: SimpleNamespace) -> None:
    policy, old = log_probabilities()
    config = SimpleNamespace(global_batch_info={})
    nothing = torch.zeros_like(MASK)
    loss, _ = verl.registry["vanilla_with_penalties"](old, policy, torch.ones(2, 1), nothing, config=config)
    assert loss == 0 and not gradient(loss, policy).any()


# OpenRLHF


class PolicyLoss(torch.nn.Module):
    def __init__(self, clip_eps_low: float = 0.2) -> None:
        super().__init__()
        self.clip_eps_low = clip_eps_low

    def forward(
        self,
        log_probs: Any,
        old_log_probs: Any,
        advantages: Any,
        action_mask: Any = None,
        rollout_log_probs: Any = None,
        dp_size: int = 1,
        batch_num_tokens: Any = None,
        global_batch_size: Any = None,
    ) -> tuple[Any, ...]:
        assert rollout_log_probs is None and global_batch_size in (None, 4)
        tokens = action_mask.sum() if batch_num_tokens is None else batch_num_tokens / dp_size
        loss = -torch.sum(torch.exp(log_probs - old_log_probs) * advantages * action_mask) / tokens
        return loss, "clip_ratio", "ppo_kl", None


@pytest.fixture
def ppo_actor(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the recipe and install it. Return OpenRLHF's module of the actor."""
    modules(monkeypatch, openrlhf__models={"PolicyLoss": PolicyLoss})
    modules(monkeypatch, openrlhf__trainer__ray__ppo_actor={"PolicyLoss": PolicyLoss, "compute_approx_kl": None})
    names: dict[str, Any] = {}
    exec(recipe("openrlhf_penalties.py"), names)
    actor: Any = sys.modules["openrlhf.trainer.ray.ppo_actor"]
    assert actor.PolicyLoss is PolicyLoss
    names["install"]()
    return actor


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_approximate_kl_of_openrlhf(estimator: str, ppo_actor: Any) -> None:
    policy, base = log_probabilities()
    value = ppo_actor.compute_approx_kl(policy, base, kl_estimator=estimator)
    torch.testing.assert_close(value, estimate(policy, base, estimator))
    torch.testing.assert_close(gradient(value.sum(), policy), policy.detach() - base)
    half = ppo_actor.compute_approx_kl(policy.bfloat16(), base.bfloat16(), estimator)
    assert half.dtype == torch.float32


@pytest.mark.parametrize("batches", [{}, {"batch_num_tokens": torch.tensor(10.0), "dp_size": 2}])
def test_policy_loss_of_openrlhf(batches: dict[str, Any], ppo_actor: Any) -> None:
    policy, old = log_probabilities()
    advantages = torch.tensor([[1.0], [-2.0]])
    kinds = PolicyLoss(clip_eps_low=0.1), ppo_actor.PolicyLoss(clip_eps_low=0.1)
    assert isinstance(kinds[1].pipeline, Pipeline) and kinds[1].clip_eps_low == 0.1
    (theirs, *_), (ours, *rest) = (
        loss(policy, old, advantages, action_mask=MASK, **batches, global_batch_size=4) for loss in kinds
    )
    tokens = 5 if batches else MASK.sum()
    expected = theirs + 0.01 * torch.sum(estimate(policy, old, "k3") * MASK) / tokens
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(gradient(ours, policy), gradient(expected, policy))
    assert rest == ["clip_ratio", "ppo_kl", None]


def test_start_of_openrlhf(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    modules(monkeypatch, ray={"init": lambda **options: started.append(options)})
    monkeypatch.setattr("runpy.run_module", lambda *names, **options: started.append((*names, options)))
    exec(recipe("train.py"), {})
    hook, module = started
    assert hook == {"runtime_env": {"worker_process_setup_hook": "openrlhf_penalties.install"}}
    assert module == ("openrlhf.cli.train_ppo_ray", {"run_name": "__main__"})
