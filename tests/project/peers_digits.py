"""Rows in which the usual formulas lose their digits, next to this package and to 50 digits.

Everything is in float32, as in training. test_peers.py asserts that this package is right and the usual formula is not.
docs/guide/numerics.md shows the same rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np

import xpenalties as xp

__all__ = ["DIGITS", "Digits", "digits_table"]

mp = mpmath.mp.clone()
mp.dps = 50
F32 = np.float32


@dataclass(frozen=True)
class Digits:
    """A situation, and its value by the usual formula, by this package, and to 50 digits."""

    penalty: str
    situation: str
    formula: str
    found: Callable[[], float]
    ours: Callable[[], Any]
    exact: Callable[[], Any]


def exactly(x: Any) -> Any:
    """Return the numbers of an array to 50 digits."""
    return np.vectorize(mp.mpf, otypes=[object])(np.asarray(x, dtype=np.float64))


def log_softmax(logits: Any) -> Any:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


RNG = np.random.default_rng(7)
TINY = F32(1e-4)
CLOSE = [log_softmax(F32([[0.3, -0.2, 0.9]])), log_softmax(F32([[0.3, -0.2, 0.9 + 1e-4]]))]
NEAR_UNIFORM = log_softmax(F32(1e-4 * RNG.standard_normal((8, 4))))
SMALL = F32(1e-3 * RNG.standard_normal((256, 8)))
FEATURES = F32(RNG.standard_normal((512, 16)))
MOVED = FEATURES + F32(1e-3 * RNG.standard_normal((512, 16)))
EVERY_LAYER = F32(np.stack([np.tile(20.0 * np.eye(4)[i], (64, 1)) for i in range(4)]))  # each on another expert


def unit_rows(x: Any) -> Any:
    return x / np.sqrt((x * x).sum(axis=1, keepdims=True))


def entropies_difference(log_p: Any) -> float:
    p = np.exp(log_p)
    mean = p.mean(axis=0)
    return float(-(mean * np.log(mean)).sum() + (p * log_p).sum(axis=-1).mean())


def exact_mutual_information(log_p: Any) -> Any:
    p = [[mp.exp(x) for x in row] for row in exactly(log_p)]
    p = [[x / sum(row) for x in row] for row in p]
    mean = [sum(column) / len(p) for column in zip(*p, strict=True)]
    return sum(x * mp.log(x / m) for row in p for x, m in zip(row, mean, strict=True)) / len(p)


def exact_std_hinge(x: Any) -> Any:
    columns = exactly(x).T
    stds = [mp.sqrt(sum((v - sum(c) / len(c)) ** 2 for v in c) / (len(c) - 1)) for c in columns]
    return sum(1 - s for s in stds) / len(stds)


def exact_hellinger(log_p: Any, log_q: Any) -> Any:
    p, q = ([mp.exp(x) for x in row[0]] for row in (exactly(log_p), exactly(log_q)))
    return sum((mp.sqrt(a) - mp.sqrt(b)) ** 2 for a, b in zip(p, q, strict=True)) / 2


def renyi(log_p: Any, log_q: Any, alpha: Any) -> Any:
    return np.log(np.exp(alpha * log_p + (1 - alpha) * log_q).sum()) / (alpha - 1)


def exact_renyi(log_p: Any, log_q: Any, alpha: float) -> Any:
    """Of the distributions that float32 rounds: near 1, a sum that is not exactly 1 would be divided by 1e-5."""
    a = mp.mpf(float(alpha))
    p, q = ([mp.exp(x) for x in row[0]] for row in (exactly(log_p), exactly(log_q)))
    total = sum((x / sum(p)) ** a * (y / sum(q)) ** (1 - a) for x, y in zip(p, q, strict=True))
    return mp.log(total) / (a - 1)


def bernoulli_with_eps(log_p: Any, log_q: Any) -> float:
    p, q = np.exp(log_p), np.exp(log_q)
    eps = F32(1e-8)
    return float(p * (log_p - log_q) + (1 - p) * (np.log(1 - p + eps) - np.log(1 - q + eps)))


def exact_bernoulli(log_p: Any, log_q: Any) -> Any:
    a, b = (mp.mpf(float(x)) for x in (log_p, log_q))
    return mp.exp(a) * (a - b) + (1 - mp.exp(a)) * (mp.log(-mp.expm1(a)) - mp.log(-mp.expm1(b)))


def torch_bernoulli() -> float:
    import torch
    from torch.distributions import Bernoulli, kl_divergence

    return float(kl_divergence(Bernoulli(logits=torch.tensor(0.0)), Bernoulli(logits=torch.tensor(200.0))))


def gram_of_traces(a: Any, b: Any) -> float:
    a, b = unit_rows(a), unit_rows(b)
    of_a, of_b, mixed = a.T @ a, b.T @ b, a.T @ b
    return float(((of_a * of_a).sum() - 2 * (mixed * mixed).sum() + (of_b * of_b).sum()) / len(a) ** 2)


def exact_gram(a: Any, b: Any) -> Any:
    """In float64 with its own rows, whose 16 digits are 10 more than there are to compare."""
    a, b = (unit_rows(np.asarray(x, dtype=np.longdouble)) for x in (a, b))
    return mp.mpf(float(((a @ a.T - b @ b.T) ** 2).sum() / len(a) ** 2))


def balance_of_all_layers(logits: Any) -> float:
    """As transformers computes it for Mixtral: all layers in one."""
    rows = logits.reshape(-1, logits.shape[-1])
    p = np.exp(rows - rows.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    share = np.eye(4)[rows.argmax(axis=-1)].mean(axis=0)
    return float(4 * (share * p.mean(axis=0)).sum())


def flat_slope_of_torch() -> float:
    import torch

    x = torch.zeros(3, 3, requires_grad=True)
    across, down = x[:-1, 1:] - x[:-1, :-1], x[1:, :-1] - x[:-1, :-1]
    torch.sqrt(across**2 + down**2).sum().backward()
    assert x.grad is not None
    return float(x.grad[0, 0])


def second_derivative_of_torch(norm: Callable[[Any], Any]) -> float:
    """Along a rotation, at the identity, where all singular values are equal."""
    import torch

    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    t = torch.zeros((), requires_grad=True)
    (first,) = torch.autograd.grad(norm(torch.eye(2) + t * turn), t, create_graph=True)
    return float(torch.autograd.grad(first, t)[0])


def torch_nuclear(x: Any) -> Any:
    import torch

    return torch.linalg.matrix_norm(x, "nuc")


DIGITS = [
    Digits(
        "gaussian_kl",
        "a standard deviation that is 1 to 4 digits",
        "(mu^2 + exp(log_var) - 1 - log_var) / 2",
        lambda: float((np.exp(TINY) - F32(1) - TINY) / 2),
        lambda: xp.gaussian_kl(np.zeros(1, F32), np.full(1, TINY)),
        lambda: (mp.exp(mp.mpf(float(TINY))) - 1 - mp.mpf(float(TINY))) / 2,
    ),
    Digits(
        "gaussian_kl",
        "log-variances of 100 and 101",
        "log(var_q / var_p) + var_p / var_q - 1",
        lambda: float(0.5 * (F32(101) - F32(100) + np.exp(F32(100)) / np.exp(F32(101)) - 1)),
        lambda: xp.gaussian_kl(np.zeros(1, F32), np.full(1, F32(100)), log_var_q=101.0),
        lambda: (1 + mp.exp(-1) - 1) / 2,
    ),
    Digits(
        "mutual_information",
        "predictions near the uniform distribution",
        "H(mean p) - mean H(p)",
        lambda: entropies_difference(NEAR_UNIFORM),
        lambda: xp.mutual_information(NEAR_UNIFORM, mode="penalty"),
        lambda: exact_mutual_information(NEAR_UNIFORM),
    ),
    Digits(
        "variance",
        "a nearly collapsed batch",
        "relu(1 - sqrt(x.var(0) + 1e-4))",
        lambda: float(np.maximum(1 - np.sqrt(SMALL.var(axis=0, ddof=1) + F32(1e-4)), 0).mean()),
        lambda: xp.variance(SMALL),
        lambda: exact_std_hinge(SMALL),
    ),
    Digits(
        "f_divergence",
        'close distributions, "hellinger"',
        "1 - sqrt(p * q).sum()",
        lambda: float(1 - np.exp((CLOSE[0] + CLOSE[1]) / 2).sum()),
        lambda: xp.f_divergence(*CLOSE, kind="hellinger"),
        lambda: exact_hellinger(*CLOSE),
    ),
    Digits(
        "f_divergence",
        'a power near 1, "renyi"',
        "log((p**a * q**(1 - a)).sum()) / (a - 1)",
        lambda: float(renyi(log_softmax(F32([[1, 2, -1]])), log_softmax(F32([[0, -1, 1]])), F32(1 + 1e-5))),
        lambda: xp.f_divergence(
            log_softmax(F32([[1, 2, -1]])), log_softmax(F32([[0, -1, 1]])), kind="renyi", alpha=1 + 1e-5
        ),
        lambda: exact_renyi(log_softmax(F32([[1, 2, -1]])), log_softmax(F32([[0, -1, 1]])), 1 + 1e-5),
    ),
    Digits(
        "bernoulli_kl",
        "a token that is almost certain",
        "p log(p / q) + (1 - p) log((1 - p + 1e-8) / (1 - q + 1e-8))",
        lambda: bernoulli_with_eps(F32(-0.5), F32(-1e-9)),
        lambda: xp.bernoulli_kl(np.full(1, F32(-0.5)), np.full(1, F32(-1e-9))),
        lambda: exact_bernoulli(F32(-0.5), F32(-1e-9)),
    ),
    Digits(
        "bernoulli_kl",
        "logits of 0 and 200",
        "torch.distributions.kl_divergence",
        torch_bernoulli,
        lambda: xp.bernoulli_kl(np.zeros(1, F32), np.full(1, F32(200)), from_logits=True),
        lambda: mp.mpf(100) + mp.log1p(mp.exp(-200)) - mp.log(2),
    ),
    Digits(
        "gram_distance",
        "representations that differ by 0.1 %",
        "three traces of d x d matrices",
        lambda: gram_of_traces(FEATURES, MOVED),
        lambda: xp.gram_distance(FEATURES, MOVED),
        lambda: exact_gram(FEATURES, MOVED),
    ),
    Digits(
        "load_balancing",
        "four layers, each with all tokens on another expert",
        "all layers in one, as in transformers",
        lambda: balance_of_all_layers(EVERY_LAYER),
        lambda: sum(float(xp.load_balancing(layer)) for layer in EVERY_LAYER) / 4,
        lambda: mp.mpf(4),
    ),
    Digits(
        "total_variation",
        "the slope in a flat image",
        "sqrt(dx**2 + dy**2).sum()",
        flat_slope_of_torch,
        lambda: xp.grad(lambda x: xp.total_variation(x, axis=(0, 1), mode="isotropic"))(np.zeros((3, 3), F32))[0, 0],
        lambda: mp.mpf(0),
    ),
    Digits(
        "nuclear_norm",
        "the second derivative at the identity, along a rotation",
        'torch.linalg.matrix_norm(x, "nuc")',
        lambda: second_derivative_of_torch(torch_nuclear),
        lambda: second_derivative_of_torch(xp.nuclear_norm),
        lambda: mp.mpf(2),
    ),
]


def digits_table() -> str:
    """Return the rows as a Markdown table."""
    lines = ["| penalty | situation | usual formula | its value | xpenalties | exact |", "| --- " * 6 + "|"]
    for row in DIGITS:
        with np.errstate(all="ignore"):
            numbers = row.found(), float(np.asarray(row.ours())), float(row.exact())
        shown = ["NaN" if math.isnan(x) else f"{x + 0.0:.5g}" for x in numbers]
        lines.append(
            f"| `{row.penalty}` | {row.situation} | `{row.formula}` | **{shown[0]}** | {shown[1]} | {shown[2]} |"
        )
    return "\n".join(lines)
