"""Divergences from output layers, compared with storing the full logits. Gradients are the student's."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch_peers as peer
from problems import linear_heads
from table import Framework, Goal, Row, Scale
from torch_peers import with_gradients

import xpenalties as xp

__all__ = ["rows"]

PLAIN = "the logits in full"


def kl(hidden_p: Any, weight_p: Any, hidden_q: Any, weight_q: Any) -> Any:
    return peer.f_kl_div_of_logits(hidden_p @ weight_p.T, hidden_q @ weight_q.T)


def js(hidden_p: Any, weight_p: Any, hidden_q: Any, weight_q: Any) -> Any:
    return peer.generalised_jsd(hidden_p @ weight_p.T, hidden_q @ weight_q.T)


def entropy(hidden: Any, weight: Any) -> Any:
    return peer.unchunked_entropy(hidden @ weight.T)


def inputs(framework: Framework, scale: Scale, heads: int) -> tuple[Any, ...]:
    """Only the last head learns."""
    *fixed, hidden, weight = linear_heads(framework, scale, heads)
    return (*fixed, hidden.requires_grad_(), weight.requires_grad_())


def rows(framework: Framework, scale: Scale) -> list[Row]:
    """Run forward and backward."""
    found = []
    for name, ours, plain, heads in (
        ("linear_kl_divergence", xp.linear_kl_divergence, kl, 2),
        ("linear_js_divergence", xp.linear_js_divergence, js, 2),
        ("linear_entropy", xp.linear_entropy, entropy, 1),
    ):
        work = f"{name} forward + backward, tokens {scale.tokens}, hidden {scale.hidden}, vocabulary {scale.classes}"
        goal = partial(Goal, f"{work}, {framework.name}", peer=PLAIN)
        found.append(
            Row(
                work,
                framework,
                partial(inputs, framework, scale, heads),
                with_gradients(ours),
                {PLAIN: with_gradients(plain)},
                goals=(goal(0.9), goal(0.30, of="memory")) if name == "linear_kl_divergence" else (),
                memory=True,
            )
        )
    return found
