"""What other libraries return in edge cases, next to this package. Tests assert it, and the docs show it.

A row states what a peer returns in a situation, and what is right. test_peers.py asserts that the peer still returns
the former, and that this package returns the latter. docs/guide/numerics.md shows the same rows. If a peer has been
mended, its row fails: update it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import xpenalties as xp

__all__ = ["DIVERGENCES", "ELSEWHERE", "LOG_PROBABILITIES", "Row", "divergences_table", "elsewhere_table"]

INF, NAN = math.inf, math.nan
LOG2 = math.log(2)
MASKED = [-LOG2, -LOG2, -INF]  # two tokens of probability 1/2, one masked out
UNIFORM = [-math.log(3)] * 3
Result = tuple[float, list[float]]  # a value, and the gradient with respect to one argument, or []


@dataclass(frozen=True)
class Row:
    """A situation, a peer and ours. Each returns a value and the gradient with respect to one argument."""

    situation: str
    peer: str
    found: Callable[[], Result]
    ours: Callable[[], Result]
    #: What the peer returns, and what is right.
    peer_gives: Result
    right: Result

    @property
    def id(self) -> str:
        return f"{self.peer}: {self.situation}"

    def check(self) -> None:
        for got, want in ((self.found(), self.peer_gives), (self.ours(), self.right)):
            np.testing.assert_allclose([got[0], *got[1]], [want[0], *want[1]], rtol=1e-6, atol=1e-6)


def of_torch(fn: Callable[..., Any], *values: list[float], wrt: int | None = 0) -> Callable[[], Result]:
    def run() -> Result:
        import torch

        arrays = [torch.tensor(v, dtype=torch.float64, requires_grad=i == wrt) for i, v in enumerate(values)]
        value = fn(*arrays)
        if wrt is None:
            return float(value), []
        (gradient,) = torch.autograd.grad(value, arrays[wrt])
        return float(value.detach()), gradient.tolist()

    return run


def of_jax(fn: Callable[..., Any], *values: Any, wrt: int | None = 0) -> Callable[[], Result]:
    def run() -> Result:
        import jax
        import jax.numpy as jnp

        arrays = [jnp.asarray(v) for v in values]
        if wrt is None:
            return float(fn(*arrays)), []
        value, gradient = jax.value_and_grad(fn, argnums=wrt)(*arrays)
        return float(value), np.atleast_1d(gradient).tolist()

    return run


def torch_kl_div(log_p: Any, log_q: Any) -> Any:
    from torch.nn.functional import kl_div

    return kl_div(log_q, log_p, log_target=True, reduction="sum")


def torch_kl_div_of_probabilities(log_p: Any, log_q: Any) -> Any:
    from torch.nn.functional import kl_div

    return kl_div(log_q, log_p.exp(), reduction="sum")


def keras_kl(log_p: Any, log_q: Any) -> Any:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    return keras.losses.KLDivergence()(log_p.exp()[None], log_q.exp()[None])


def torch_naive_entropy(log_p: Any) -> Any:
    return -(log_p.exp() * log_p).sum()


def distributions_kl(p: Any, q: Any) -> Any:
    from torch.distributions import Categorical, kl_divergence

    return kl_divergence(Categorical(logits=p), Categorical(logits=q))


def torch_norm(x: Any) -> Any:
    return (x * x).sum().sqrt()


def optax_kl(log_p: Any, log_q: Any) -> Any:
    import optax

    return optax.losses.kl_divergence_with_log_targets(log_q, log_p)


def optax_kl_of_probabilities(log_p: Any, log_q: Any) -> Any:
    import jax.numpy as jnp
    import optax

    return optax.losses.kl_divergence(log_q, jnp.exp(log_p))


def jax_abs(x: Any) -> Any:
    import jax.numpy as jnp

    return jnp.sum(jnp.abs(x))


def jax_norm(x: Any) -> Any:
    import jax.numpy as jnp

    return jnp.linalg.norm(x)


def jax_clipped_square(x: Any) -> Any:
    import jax.numpy as jnp

    return jnp.sum(jnp.clip(x, -1, 1) ** 2)


def kl_from_logits(p: Any, q: Any) -> Any:
    return xp.kl_divergence(p, q, from_logits=True)


def l2_norm(x: Any) -> Any:
    return xp.group_lasso(x, normalizer=len(x) ** 0.5)


def half_square(x: Any) -> Any:
    """For each sample, so that the gradient is `x`."""
    return (x * x).sum(axis=tuple(range(1, x.ndim))) / 2


def torch_gradient(x: Any) -> Any:
    import torch

    (gradient,) = torch.autograd.grad(half_square(x).sum(), x, create_graph=True)
    return gradient


def wgan_gp_along_channels(x: Any) -> Any:
    """As published for vectors, and copied for images of shape [n, c, h, w]."""
    return ((torch_gradient(x.reshape(1, 2, 2, 2)).norm(2, dim=1) - 1) ** 2).mean()


def wgan_gp_by_sqrt(x: Any) -> Any:
    gradient = torch_gradient(x.reshape(1, -1))
    return (((gradient**2).sum(dim=1).sqrt() - 1) ** 2).mean()


def wgan_gp_in_jax(x: Any) -> Any:
    import jax

    return (jax_norm(jax.grad(lambda x: half_square(x[None]).sum())(x)) - 1) ** 2


def of_images(x: Any) -> Any:
    return xp.gradient_penalty(half_square, x.reshape(1, 2, 2, 2))


def of_vectors(x: Any) -> Any:
    return xp.gradient_penalty(half_square, x.reshape(1, -1))


#: Log-probabilities of P and Q; the classes that are -inf have no mass.
LOG_PROBABILITIES = {
    "p = 0 and q = 0": (MASKED, MASKED),
    "p = 0 and q > 0": (MASKED, UNIFORM),
    "p > 0 and q = 0": (UNIFORM, MASKED),
}
BOTH, NO_P, NO_Q = LOG_PROBABILITIES
ARGUMENTS = ("log p", "log q")
SLOPE = 0.5 * (math.log(1.5) + 1)  # p (log p - log q + 1)
#: Value, and gradients with respect to log p and log q. If the value is +inf, the gradients are not compared.
Outcome = tuple[float, list[float], list[float]]
RIGHT: dict[str, Outcome] = {
    BOTH: (0.0, [0.5, 0.5, 0.0], [-0.5, -0.5, 0.0]),
    NO_P: (math.log(1.5), [SLOPE, SLOPE, 0.0], [-0.5, -0.5, 0.0]),
    NO_Q: (INF, [], []),
}
RIGHT_OF_LOGITS: dict[str, Outcome] = {  # what is added to all of the logits changes nothing
    BOTH: (0.0, [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
    NO_P: (math.log(1.5), [0.0, 0.0, 0.0], [-1 / 6, -1 / 6, 1 / 3]),
    NO_Q: (INF, [], []),
}


@dataclass(frozen=True)
class Peer:
    """A peer's KL divergence, and the situations in which it is wrong."""

    name: str
    of: Callable[..., Callable[[], Result]]
    fn: Callable[..., Any]
    wrong: dict[str, Outcome]
    ours: Callable[..., Any] = xp.kl_divergence
    right: Callable[[], dict[str, Outcome]] = lambda: RIGHT

    def rows(self) -> Iterator[Row]:
        """Yield a row for each situation and argument."""
        for situation, (log_p, log_q) in LOG_PROBABILITIES.items():
            right = self.right()[situation]
            gives = self.wrong.get(situation, right)
            for index, argument in enumerate(ARGUMENTS):
                wrt = index if right[1 + index] else None
                if wrt is None and index > 0:
                    continue  # the value is in the first
                yield Row(
                    f"KL, {situation}" + f", with respect to {argument}" * (wrt is not None),
                    self.name,
                    self.of(self.fn, log_p, log_q, wrt=wrt),
                    self.of(self.ours, log_p, log_q, wrt=wrt),
                    peer_gives=(gives[0], gives[1 + index]),
                    right=(right[0], right[1 + index]),
                )


PEERS = [
    Peer(
        "torch.nn.functional.kl_div, log_target=True",
        of_torch,
        torch_kl_div,
        {
            BOTH: (NAN, [0.5, 0.5, NAN], [-0.5, -0.5, 0.0]),
            NO_P: (NAN, [SLOPE, SLOPE, NAN], [-0.5, -0.5, 0.0]),
        },
    ),
    Peer(
        "torch.nn.functional.kl_div",
        of_torch,
        torch_kl_div_of_probabilities,
        {
            BOTH: (NAN, [0.5, 0.5, NAN], [-0.5, -0.5, 0.0]),
            NO_P: (math.log(1.5), [SLOPE, SLOPE, NAN], [-0.5, -0.5, 0.0]),
        },
    ),
    Peer(
        "torch.distributions, from logits",
        of_torch,
        distributions_kl,
        {
            BOTH: (0.0, [NAN, NAN, NAN], [0.0, 0.0, 0.0]),
            NO_P: (math.log(1.5), [NAN, NAN, NAN], [-1 / 6, -1 / 6, 1 / 3]),
        },
        ours=kl_from_logits,
        right=lambda: RIGHT_OF_LOGITS,
    ),
    Peer(
        "optax.losses.kl_divergence_with_log_targets",
        of_jax,
        optax_kl,
        {
            BOTH: (NAN, [0.5, 0.5, NAN], [-0.5, -0.5, 0.0]),
            NO_P: (NAN, [SLOPE, SLOPE, NAN], [-0.5, -0.5, 0.0]),
        },
    ),
    Peer(
        "optax.losses.kl_divergence",
        of_jax,
        optax_kl_of_probabilities,
        {
            BOTH: (NAN, [0.5, 0.5, NAN], [-0.5, -0.5, 0.0]),
            NO_P: (math.log(1.5), [SLOPE, SLOPE, NAN], [-0.5, -0.5, 0.0]),
        },
    ),
    Peer(
        "keras.losses.KLDivergence",
        of_torch,
        keras_kl,
        {
            NO_P: (0.4054636, [SLOPE, SLOPE, 0.0], [-0.5, -0.5, 0.0]),  # clips to [1e-7, 1]
            NO_Q: (4.7361846, [], []),
        },
    ),
]
DIVERGENCES = [row for peer in PEERS for row in peer.rows()]

ELSEWHERE = [
    Row(
        "entropy with a masked class",
        "-(p.exp() * p).sum()",
        of_torch(torch_naive_entropy, MASKED),
        of_torch(xp.entropy, MASKED),
        peer_gives=(NAN, [-0.5 * (1 - LOG2), -0.5 * (1 - LOG2), NAN]),
        right=(LOG2, [-0.5 * (1 - LOG2), -0.5 * (1 - LOG2), 0.0]),
    ),
    Row(
        "slope of abs(x) at 0",
        "jax.numpy.abs",
        of_jax(jax_abs, [0.0, 2.0]),
        of_jax(xp.l1, [0.0, 2.0]),
        peer_gives=(2.0, [1.0, 1.0]),
        right=(2.0, [0.0, 1.0]),
    ),
    Row(
        "gradient of a norm at 0",
        "jax.numpy.linalg.norm",
        of_jax(jax_norm, [0.0, 0.0]),
        of_jax(l2_norm, [0.0, 0.0]),
        peer_gives=(0.0, [NAN, NAN]),
        right=(0.0, [0.0, 0.0]),
    ),
    Row(
        "gradient of a norm at 0",
        "(x * x).sum().sqrt()",
        of_torch(torch_norm, [0.0, 0.0]),
        of_torch(l2_norm, [0.0, 0.0]),
        peer_gives=(0.0, [NAN, NAN]),
        right=(0.0, [0.0, 0.0]),
    ),
    Row(
        "slope at the edge of a clip",
        "jax.numpy.clip",
        of_jax(jax_clipped_square, [1.0, 0.5]),
        of_jax(lambda x: xp.l2(x, clip=1.0), [1.0, 0.5]),
        peer_gives=(1.25, [1.0, 1.0]),  # half of 2 x
        right=(1.25, [2.0, 1.0]),
    ),
    Row(
        "WGAN-GP of images: a norm for each pixel, not for each image",
        "gradient.norm(2, dim=1)",
        of_torch(wgan_gp_along_channels, [1.0] * 8),
        of_torch(of_images, [1.0] * 8),
        peer_gives=((2**0.5 - 1) ** 2, [(1 - 2**-0.5) / 2] * 8),
        right=((8**0.5 - 1) ** 2, [2 * (1 - 8**-0.5)] * 8),
    ),
    Row(
        "WGAN-GP if the critic's gradient is 0",
        "(gradient**2).sum(dim=1).sqrt()",
        of_torch(wgan_gp_by_sqrt, [0.0, 0.0]),
        of_torch(of_vectors, [0.0, 0.0]),
        peer_gives=(1.0, [NAN, NAN]),
        right=(1.0, [0.0, 0.0]),
    ),
    Row(
        "WGAN-GP if the critic's gradient is 0",
        "jax.numpy.linalg.norm(jax.grad(...))",
        of_jax(wgan_gp_in_jax, [0.0, 0.0]),
        of_jax(of_vectors, [0.0, 0.0]),
        peer_gives=(1.0, [NAN, NAN]),
        right=(1.0, [0.0, 0.0]),
    ),
]


def divergences_table() -> str:
    """Return the peers' KL divergences as Markdown: a table for each situation, with wrong results in bold."""
    tables = []
    for situation, (log_p, log_q) in LOG_PROBABILITIES.items():
        p, q = (", ".join(f"{math.exp(value):.3g}" for value in each) for each in (log_p, log_q))
        gradients = [argument for argument, slope in zip(ARGUMENTS, RIGHT[situation][1:], strict=True) if slope]
        rows = [("xpenalties.kl_divergence", RIGHT[situation], RIGHT[situation])]
        for peer in PEERS:
            right = peer.right()[situation]
            if right != RIGHT[situation]:
                rows.append(("xpenalties.kl_divergence, from logits", right, right))
            rows.append((peer.name, peer.wrong.get(situation, right), right))
        lines = _table(
            ["", "value", *(f"gradient with respect to {argument}" for argument in gradients)],
            ([f"`{name}`", *map(_cell, gives[: 1 + len(gradients)], right)] for name, gives, right in rows),
        )
        tables.append(f"**{situation}**: P = ({p}), Q = ({q})\n\n{lines}")
    return "\n\n".join(tables)


def elsewhere_table() -> str:
    """Return a Markdown table of what the peers return in other edge cases."""
    rows = []
    for row in ELSEWHERE:
        gives, right = ("; ".join(map(_shown, each)) for each in (row.peer_gives, row.right))
        rows.append([row.situation, f"`{row.peer}`", f"**{gives}**", right])
    return _table(["situation", "library", "value; gradient", "xpenalties"], rows)


def _cell(gives: float | list[float], right: float | list[float]) -> str:
    same = np.allclose(gives, right, rtol=1e-5, atol=1e-5)  # inf is inf, and NaN nothing
    return _shown(gives) if same else f"**{_shown(gives)}**"


def _shown(number: float | list[float]) -> str:
    if not isinstance(number, list):
        return "NaN" if math.isnan(number) else f"{number + 0.0:.4g}"
    shown = [_shown(each) for each in number]
    return f"{len(shown)} times {shown[0]}" if len(shown) > 3 else ", ".join(shown)


def _table(header: list[str], rows: Iterable[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))
