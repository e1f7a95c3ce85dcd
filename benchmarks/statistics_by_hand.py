"""Penalties that are one number of a whole batch, and the obvious formulas. by_hand.py has all others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from case import Case

__all__ = ["statistics"]


def statistics(m: Any, log_softmax: Callable[[Any], Any]) -> list[Case]:
    """Return all pairs. Takes a framework's module, and a function of rows whose name differs between frameworks."""

    def off_diagonal(x: Any) -> Any:
        return m.sum((x * (1 - m.eye(len(x)))) ** 2)

    def deviations(x: Any) -> Any:
        return m.sqrt(m.sum((x - m.mean(x, axis=0)) ** 2, axis=0) / (len(x) - 1))

    def variance(x: Any) -> Any:
        return m.mean(m.clip(2 - deviations(x), 0, None))

    def covariance(x: Any) -> Any:
        centered = x - m.mean(x, axis=0)
        return off_diagonal(centered.T @ centered / (len(x) - 1)) / x.shape[1]

    def coral(a: Any, b: Any) -> Any:
        of_a, of_b = (x - m.mean(x, axis=0) for x in (a, b))
        difference = (of_a.T @ of_a - of_b.T @ of_b) / (len(a) - 1)
        return m.sum(difference**2) / (4 * a.shape[1] ** 2)

    def coding_rate(x: Any) -> Any:
        n, d = x.shape
        return -0.5 * m.linalg.slogdet(m.eye(d) + d / (n * 0.5**2) * x.T @ x)[1]

    def cross_correlation(a: Any, b: Any) -> Any:
        a, b = ((x - m.mean(x, axis=0)) / deviations(x) for x in (a, b))
        correlation = a.T @ b / (len(a) - 1)
        return m.sum((1 - m.diagonal(correlation)) ** 2) + 0.005 * off_diagonal(correlation)

    def mutual_information(p: Any) -> Any:
        mean = m.mean(m.exp(p), axis=0)
        return m.sum(mean * m.log(mean)) - m.mean(m.sum(m.exp(p) * p, axis=-1))

    def load_balancing(logits: Any) -> Any:
        experts = logits.shape[-1]
        scores = m.exp(log_softmax(logits))
        chosen = m.argmax(logits, axis=-1)[:, None] == m.arange(experts)[None, :]
        return experts * m.sum(m.mean(chosen * 1.0, axis=0) * m.mean(scores, axis=0))

    def cosines(x: Any) -> Any:
        unit = x / m.sqrt(m.sum(x**2, axis=-1))[:, None]
        return unit @ unit.T

    def uniformity(x: Any) -> Any:
        n = len(x)
        kernel = m.exp(-2 * (2 - 2 * cosines(x))) * (1 - m.eye(n))
        return m.log(m.sum(kernel) / (n * (n - 1)))

    def koleo(x: Any) -> Any:
        nearest = m.amax(cosines(x) - 3 * m.eye(len(x)), axis=-1)
        return -m.mean(m.log(m.sqrt(2 - 2 * nearest)))

    def squares(a: Any, b: Any) -> Any:
        return m.sum(a**2, axis=-1)[:, None] + m.sum(b**2, axis=-1)[None, :] - 2 * a @ b.T

    def mmd(a: Any, b: Any) -> Any:
        bandwidth = 10.0
        aa, bb, ab = (m.mean(m.exp(-squares(x, y) / (2 * bandwidth**2))) for x, y in ((a, a), (b, b), (a, b)))
        return aa + bb - 2 * ab

    def gram_distance(a: Any, b: Any) -> Any:
        return m.mean((cosines(a) - cosines(b)) ** 2)

    return [
        Case("variance", ("samples",), variance, {"target": 2.0}),
        Case("covariance", ("samples",), covariance),
        Case("cross_correlation", ("samples", "samples"), cross_correlation),
        Case("coral", ("samples", "samples"), coral),
        Case("coding_rate", ("points",), coding_rate),
        Case("mutual_information", ("log_p",), mutual_information),
        Case("load_balancing", ("top_k",), load_balancing),
        Case("uniformity", ("points",), uniformity),
        Case("koleo", ("points",), koleo),
        Case("mmd", ("points", "points"), mmd, {"bandwidths": 10.0}),
        Case("gram_distance", ("points", "points"), gram_distance),
    ]
