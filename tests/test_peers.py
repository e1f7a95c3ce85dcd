"""Where the usual tools go wrong at the edges, beside what this package gives: each row asserts both.

`ROWS` is the source of the docs' table. A row whose peer has been mended fails, and can go.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import xpenalties as xp

pytestmark = pytest.mark.mixed
INF, NAN = math.inf, math.nan
LOG2 = math.log(2)
MASKED = [-LOG2, -LOG2, -INF]  # two tokens of probability 1/2, one masked out
POINT = [0.0, -INF, -INF]


@dataclass(frozen=True)
class Row:
    """A situation, a peer and ours; each gives a value and the gradient by one argument."""

    situation: str
    peer: str
    found: Callable[[], tuple[float, list[float]]]
    ours: Callable[[], tuple[float, list[float]]]
    #: what the peer gives, and what is right
    peer_gives: tuple[float, list[float]]
    right: tuple[float, list[float]]

    @property
    def id(self) -> str:
        return f"{self.peer}: {self.situation}"


def of_torch(fn: Callable[..., Any], *values: list[float], wrt: int = 0) -> Callable[[], tuple[float, list[float]]]:
    def run() -> tuple[float, list[float]]:
        import torch

        arrays = [torch.tensor(v, dtype=torch.float64, requires_grad=i == wrt) for i, v in enumerate(values)]
        value = fn(*arrays)
        (gradient,) = torch.autograd.grad(value, arrays[wrt])
        return float(value.detach()), gradient.tolist()

    return run


def of_jax(fn: Callable[..., Any], *values: Any, wrt: int = 0) -> Callable[[], tuple[float, list[float]]]:
    def run() -> tuple[float, list[float]]:
        import jax
        import jax.numpy as jnp

        arrays = [jnp.asarray(v) for v in values]
        value, gradient = jax.value_and_grad(fn, argnums=wrt)(*arrays)
        return float(value), np.atleast_1d(gradient).tolist()

    return run


def torch_kl_div(log_p: Any, log_q: Any) -> Any:
    from torch.nn.functional import kl_div

    return kl_div(log_q, log_p, log_target=True, reduction="sum")


def torch_naive_entropy(log_p: Any) -> Any:
    return -(log_p.exp() * log_p).sum()


def distributions_kl(p: Any, q: Any) -> Any:
    from torch.distributions import Categorical, kl_divergence

    return kl_divergence(Categorical(logits=p), Categorical(logits=q))


def distributions_point_entropy(p: Any) -> Any:
    from torch.distributions import Categorical

    return Categorical(probs=p).entropy()


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


KL_SLOPE = [0.5, 0.5, 0.0]  # p (log p - log q + 1)
ROWS = [
    Row(
        "KL where both log-probabilities are -inf, by p",
        "torch.nn.functional.kl_div",
        of_torch(torch_kl_div, MASKED, MASKED),
        of_torch(xp.kl_divergence, MASKED, MASKED),
        peer_gives=(NAN, [0.5, 0.5, NAN]),
        right=(0.0, KL_SLOPE),
    ),
    Row(
        "KL where both log-probabilities are -inf, by q",
        "torch.nn.functional.kl_div",
        of_torch(torch_kl_div, MASKED, MASKED, wrt=1),
        of_torch(xp.kl_divergence, MASKED, MASKED, wrt=1),
        peer_gives=(NAN, [-0.5, -0.5, 0.0]),
        right=(0.0, [-0.5, -0.5, 0.0]),
    ),
    Row(
        "KL of logits with a masked class, by p",
        "torch.distributions",
        of_torch(distributions_kl, [0.0, 0.0, -INF], [0.0, 0.0, -INF]),
        of_torch(kl_from_logits, [0.0, 0.0, -INF], [0.0, 0.0, -INF]),
        peer_gives=(0.0, [NAN, NAN, NAN]),
        right=(0.0, [0.0, 0.0, 0.0]),
    ),
    Row(
        "entropy with a masked class",
        "-(p.exp() * p).sum()",
        of_torch(torch_naive_entropy, MASKED),
        of_torch(xp.entropy, MASKED),
        peer_gives=(NAN, [-0.5 * (1 - LOG2), -0.5 * (1 - LOG2), NAN]),
        right=(LOG2, [-0.5 * (1 - LOG2), -0.5 * (1 - LOG2), 0.0]),
    ),
    Row(
        "KL where both log-probabilities are -inf, by p",
        "optax kl_divergence_with_log_targets",
        of_jax(optax_kl, MASKED, MASKED),
        of_jax(xp.kl_divergence, MASKED, MASKED),
        peer_gives=(NAN, [0.5, 0.5, NAN]),
        right=(0.0, KL_SLOPE),
    ),
    Row(
        "KL where both log-probabilities are -inf, by q",
        "optax kl_divergence",
        of_jax(optax_kl_of_probabilities, MASKED, MASKED, wrt=1),
        of_jax(xp.kl_divergence, MASKED, MASKED, wrt=1),
        peer_gives=(NAN, [-0.5, -0.5, 0.0]),
        right=(0.0, [-0.5, -0.5, 0.0]),
    ),
    Row(
        "slope of |x| at 0",
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
        "WGAN-GP where the critic's gradient is 0",
        "(gradient**2).sum(dim=1).sqrt()",
        of_torch(wgan_gp_by_sqrt, [0.0, 0.0]),
        of_torch(of_vectors, [0.0, 0.0]),
        peer_gives=(1.0, [NAN, NAN]),
        right=(1.0, [0.0, 0.0]),
    ),
    Row(
        "WGAN-GP where the critic's gradient is 0",
        "jax.numpy.linalg.norm(jax.grad(...))",
        of_jax(wgan_gp_in_jax, [0.0, 0.0]),
        of_jax(of_vectors, [0.0, 0.0]),
        peer_gives=(1.0, [NAN, NAN]),
        right=(1.0, [0.0, 0.0]),
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_row(row: Row) -> None:
    for got, want in ((row.found(), row.peer_gives), (row.ours(), row.right)):
        np.testing.assert_allclose([got[0], *got[1]], [want[0], *want[1]], rtol=1e-6, atol=1e-6)


def test_torch_distributions_replaces_a_probability_of_0() -> None:
    """A point mass has entropy 0; Categorical clamps its probabilities to the machine epsilon."""
    import torch

    found = float(distributions_point_entropy(torch.tensor([1.0, 0.0, 0.0])))
    assert found > 1e-7
    assert float(xp.entropy(torch.tensor(POINT))) == 0.0


def test_the_mean_of_kl_div_is_over_elements() -> None:
    """Its own warning says so; the mean over rows is what the definition asks for."""
    import torch

    log_p, log_q = (torch.log_softmax(torch.randn(2, 4, dtype=torch.float64), dim=-1) for _ in range(2))
    with pytest.warns(UserWarning, match="batchmean"):
        found = torch.nn.functional.kl_div(log_q, log_p, log_target=True)
    assert float(xp.kl_divergence(log_p, log_q)) == pytest.approx(4 * float(found))


def test_one_share_of_real_for_the_whole_batch() -> None:
    """torch.rand(1): the penalty of one point of each line, by chance the same, is far from its expectation of 1/3."""
    import torch

    real, fake = torch.ones(2000, 1), torch.zeros(2000, 1)

    def published(rng: torch.Generator) -> float:
        share = torch.rand(1, generator=rng)
        gradient = torch_gradient((share * real + (1 - share) * fake).requires_grad_())
        return float(((gradient.norm(2, dim=1) - 1) ** 2).mean().detach())

    def ours(rng: torch.Generator) -> float:
        return float(xp.interpolated_gradient_penalty(half_square, real, fake, rng=rng))

    found, right = (
        [abs(penalty(torch.Generator().manual_seed(seed)) - 1 / 3) for seed in range(20)]
        for penalty in (published, ours)
    )
    assert max(right) < 0.03 and np.median(found) > 0.1
