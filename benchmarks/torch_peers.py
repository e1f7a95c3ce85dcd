"""Alternatives for PyTorch, each written from its definition. Values are means over rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from problems import arrays
from table import Framework, Scale
from torch.nn import functional

__all__ = [
    "distributions_entropy",
    "distributions_kl",
    "f_kl_div",
    "f_kl_div_of_logits",
    "generalised_jsd",
    "gram_form",
    "inputs",
    "unchunked_entropy",
    "with_gradients",
]


def f_kl_div(log_p: Any, log_q: Any) -> Any:
    return functional.kl_div(log_q, log_p, log_target=True, reduction="batchmean")


def f_kl_div_of_logits(p: Any, q: Any) -> Any:
    return f_kl_div(functional.log_softmax(p, dim=-1), functional.log_softmax(q, dim=-1))


def distributions_kl(p: Any, q: Any) -> Any:
    categorical = torch.distributions.Categorical
    return torch.distributions.kl_divergence(categorical(logits=p), categorical(logits=q)).mean()


def unchunked_entropy(z: Any) -> Any:
    """Compute the formula of TRL and verl."""
    return (torch.logsumexp(z, dim=-1) - torch.sum(torch.softmax(z, dim=-1) * z, dim=-1)).mean()


def distributions_entropy(z: Any) -> Any:
    return torch.distributions.Categorical(logits=z).entropy().mean()


def generalised_jsd(teacher: Any, student: Any, beta: float = 0.5) -> Any:
    """Compute the formula of TRL, for 0 < beta < 1."""
    teacher, student = functional.log_softmax(teacher, dim=-1), functional.log_softmax(student, dim=-1)
    weighted = torch.stack([teacher + math.log(beta), student + math.log(1 - beta)])
    mixture = torch.logsumexp(weighted, dim=0)
    return beta * f_kl_div(teacher, mixture) + (1 - beta) * f_kl_div(student, mixture)


def gram_form(x: Any) -> Any:
    """Compute soft orthogonality from the n x n Gram matrix."""
    unit = functional.normalize(x, dim=-1)
    gram = unit @ unit.T
    return torch.sum(torch.square(gram)) - torch.sum(torch.square(torch.diagonal(gram)))


def with_gradients(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return the value, and its gradients with respect to all inputs that require one."""

    def run(*xs: Any) -> tuple[Any, ...]:
        value = fn(*xs)
        return value.detach(), *torch.autograd.grad(value, [x for x in xs if x.requires_grad])

    return run


def inputs(
    framework: Framework, scale: Scale, *kinds: str, wrt: str | None = None, dtype: Any = None
) -> tuple[Any, ...]:
    """Return arrays. Those with a 1 in `wrt` require a gradient: by default all, with "01" only the second."""
    found = arrays(framework, scale, *kinds)
    wanted = wrt or "1" * len(kinds)
    return tuple(x.to(dtype or x.dtype).requires_grad_(w == "1") for x, w in zip(found, wanted, strict=True))
