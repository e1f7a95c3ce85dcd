"""Every array penalty, and the obvious formula that a user would write: short, and not careful in edge cases.

Statistics of samples are in statistics_by_hand.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from case import Case
from statistics_by_hand import statistics

__all__ = ["cases"]


def cases(m: Any, log_softmax: Callable[[Any], Any], logsumexp: Callable[[Any], Any]) -> list[Case]:
    """Return all pairs. Takes a framework's module, and two functions of rows whose names differ between frameworks."""

    def norm(x: Any) -> Any:
        return m.sqrt(m.sum(x**2, axis=-1))

    def huber(x: Any) -> Any:
        size = m.abs(x)
        return m.sum(m.where(size <= 1, 0.5 * x**2, size - 0.5))

    def kl(p: Any, q: Any) -> Any:
        return m.mean(m.sum(m.exp(p) * (p - q), axis=-1))

    def js(p: Any, q: Any) -> Any:
        mixture = m.log(0.5 * (m.exp(p) + m.exp(q)))
        return 0.5 * (kl(p, mixture) + kl(q, mixture))

    def entropy(p: Any) -> Any:
        return -m.mean(m.sum(m.exp(p) * p, axis=-1))

    def top_k(p: Any, q: Any) -> Any:
        rest_p, rest_q = (1 - m.sum(m.exp(x), axis=-1) for x in (p, q))
        return kl(p, q) + m.mean(rest_p * (m.log(rest_p) - m.log(rest_q)))

    def k3(p: Any, q: Any) -> Any:
        r = q - p
        return m.mean(m.exp(r) - 1 - r)

    def gram(x: Any) -> Any:
        unit = x / norm(x)[:, None]
        return unit @ unit.T

    def off_diagonal(x: Any) -> Any:
        return m.sum((x * (1 - m.eye(len(x)))) ** 2)

    def scad(x: Any) -> Any:
        size = m.abs(x)
        return m.sum(m.where(size <= 1, size, m.where(size <= 3.7, size - (size - 1) ** 2 / 5.4, 2.35)))

    def top_k_js(p: Any, q: Any) -> Any:
        mixture = m.log(0.5 * (m.exp(p) + m.exp(q)))
        return 0.5 * (top_k(p, mixture) + top_k(q, mixture))

    def bernoulli(p: Any, q: Any) -> Any:
        other_p, other_q = m.log1p(-m.exp(p)), m.log1p(-m.exp(q))
        return m.mean(m.exp(p) * (p - q) + m.exp(other_p) * (other_p - other_q))

    def gaussian(mean: Any, log_var: Any) -> Any:
        return m.mean(0.5 * (mean**2 + m.exp(log_var) - 1 - log_var))

    def cosine(a: Any, b: Any) -> Any:
        return m.mean(1 - m.sum(a * b, axis=-1) / (norm(a) * norm(b)))

    def ordered(x: Any) -> Any:
        result = m.sort(x, -1)
        return getattr(result, "values", result)  # PyTorch returns the indices, too

    one, two, logs = ("logits",), ("logits", "logits"), ("log_p", "log_p")
    logits = {"from_logits": True}
    return [
        Case("l1", one, lambda x: m.sum(m.abs(x))),
        Case("l2", one, lambda x: m.sum(x**2)),
        Case("l2", one, lambda x: m.sum((x - m.mean(x)) ** 2), {"center": "mean"}),
        Case("l2", one, lambda x: m.sum(m.clip(x, -1, 1) ** 2), {"clip": 1.0}),
        Case("elastic_net", one, lambda x: m.sum(0.5 * m.abs(x) + 0.5 * x**2)),
        Case("huber", one, huber),
        Case("log_cosh", one, lambda x: m.sum(m.log(m.cosh(x)))),
        Case("charbonnier", one, lambda x: m.sum(m.sqrt(x**2 + 1) - 1)),
        Case("mcp", one, lambda x: m.sum(m.where(m.abs(x) <= 1, m.abs(x) - x**2 / 2, 0.5))),
        Case("scad", one, scad),
        Case("log_sum", one, lambda x: m.sum(m.log1p(m.abs(x)))),
        Case("lp", one, lambda x: m.sum(m.sqrt(m.abs(x)))),
        Case("l0", one, lambda x: m.sum(m.where(m.abs(x) > 0.5, 1.0, 0.0)), {"threshold": 0.5}),
        Case("hoyer", one, lambda x: m.sum(m.abs(x)) ** 2 / m.sum(x**2)),
        Case("total_variation", one, lambda x: m.sum(m.abs(x[:, 1:] - x[:, :-1]))),
        Case(
            "sparse_group_lasso",
            one,
            lambda x: 0.5 * m.sum(m.abs(x)) + 0.5 * x.shape[-1] ** 0.5 * m.sum(norm(x)),
        ),
        Case("group_lasso", one, lambda x: x.shape[-1] ** 0.5 * m.sum(norm(x))),
        Case("kl_divergence", logs, kl),
        Case("kl_divergence", logs, lambda p, q: (kl(p, q) + kl(q, p)) / 2, {"direction": "symmetric"}),
        Case("kl_divergence", two, lambda p, q: kl(log_softmax(p), log_softmax(q)), logits),
        Case("js_divergence", logs, js),
        Case("js_divergence", two, lambda p, q: js(log_softmax(p), log_softmax(q)), logits),
        Case("entropy", logs[:1], entropy),
        Case("entropy", one, lambda z: entropy(log_softmax(z)), logits),
        Case("entropy", logs[:1], lambda p: m.mean(1 - m.sum(m.exp(2 * p), axis=-1)), {"kind": "tsallis"}),
        Case("entropy", logs[:1], lambda p: m.mean(-m.log(m.sum(m.exp(2 * p), axis=-1))), {"kind": "renyi"}),
        Case("f_divergence", logs, lambda p, q: m.mean(0.5 * m.sum(m.abs(m.exp(p) - m.exp(q)), axis=-1))),
        Case(
            "f_divergence",
            logs,
            lambda p, q: m.mean(0.5 * m.sum((m.exp(0.5 * p) - m.exp(0.5 * q)) ** 2, axis=-1)),
            {"kind": "hellinger"},
        ),
        Case("bernoulli_kl", logs, bernoulli),
        Case("gaussian_kl", two, gaussian),
        Case("topk_js_divergence", ("top_k", "top_k"), top_k_js),
        Case("topk_kl_divergence", ("top_k", "top_k"), top_k),
        Case("sampled_kl", logs, k3),
        Case("z_loss", one, lambda z: m.mean(logsumexp(z) ** 2)),
        Case("orthogonality", ("wide",), lambda x: off_diagonal(gram(x))),
        Case("orthogonality", ("wide",), lambda x: m.sum((gram(x) - m.eye(len(x))) ** 2), {"mode": "hard"}),
        Case(
            "orthogonality",
            ("wide",),
            lambda x: m.linalg.norm(gram(x) - m.eye(len(x)), ord=2) ** 2,
            {"mode": "spectral"},
        ),
        Case(
            "cross_orthogonality",
            ("wide", "wide"),
            lambda a, b: m.sum(((a / norm(a)[:, None]) @ (b / norm(b)[:, None]).T) ** 2),
        ),
        Case("consistency", two, lambda a, b: m.mean((a - b) ** 2)),
        Case("consistency", two, lambda a, b: m.mean(m.abs(a - b)), {"metric": "l1"}),
        Case("consistency", two, cosine, {"metric": "cosine"}),
        Case("consistency", logs, lambda p, q: (kl(p, q) + kl(q, p)) / 2, {"metric": "kl"}),
        Case("consistency", logs, js, {"metric": "js"}),
        Case("wasserstein", two, lambda a, b: m.mean(m.abs(ordered(a) - ordered(b)))),
        Case("output_magnitude", one, lambda x: (m.sqrt(m.mean(x**2)) - 2) ** 2, {"target": 2.0}),  # 1 is what it is
        Case("spectral_norm", ("matrix",), lambda x: m.linalg.norm(x, ord=2) ** 2),
        Case("nuclear_norm", ("matrix",), lambda x: m.linalg.norm(x, ord="nuc")),
        *statistics(m, log_softmax),
    ]
