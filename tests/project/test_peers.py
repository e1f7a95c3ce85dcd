"""Where the usual tools go wrong at the edges, beside what this package gives: the rows of peers_at_edges.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import rel_entr

import xpenalties as xp
from tests.project.peers_at_edges import (
    DIVERGENCES,
    ELSEWHERE,
    LOG_PROBABILITIES,
    RIGHT,
    Row,
    divergences_table,
    elsewhere_table,
    half_square,
    torch_gradient,
)
from tests.project.peers_digits import DIGITS, Digits, digits_table

pytestmark = pytest.mark.mixed
POINT = [0.0, -np.inf, -np.inf]


@pytest.mark.parametrize(
    "row",
    [row for row in [*DIVERGENCES, *ELSEWHERE] if "keras" not in row.peer],  # those: tests/integrations/test_peers.py
    ids=lambda row: row.id,
)
def test_row(row: Row) -> None:
    row.check()


@pytest.mark.parametrize("situation", LOG_PROBABILITIES)
def test_the_right_value_is_scipys(situation: str) -> None:
    log_p, log_q = map(np.asarray, LOG_PROBABILITIES[situation])
    value = rel_entr(np.exp(log_p), np.exp(log_q)).sum()
    np.testing.assert_allclose([RIGHT[situation][0], xp.kl_divergence(log_p, log_q)], value, rtol=1e-12)


@pytest.mark.parametrize("row", DIGITS, ids=lambda row: f"{row.penalty}: {row.situation}")
def test_digits(row: Digits) -> None:
    """The usual formula is wrong by a percent or more, and this package is right to the rounding of float32."""
    exact = float(row.exact())
    with np.errstate(all="ignore"):
        usual = row.found()
    assert not abs(usual - exact) <= 0.005 * abs(exact)
    np.testing.assert_allclose(float(np.asarray(row.ours())), exact, rtol=1e-4, atol=1e-13)


def test_the_table_of_digits() -> None:
    table = digits_table()
    assert all(f"`{row.penalty}` | {row.situation}" in table for row in DIGITS)


def test_tables_have_all_rows_and_mark_what_is_wrong() -> None:
    of_divergences, elsewhere = divergences_table(), elsewhere_table()
    assert all(f"`{row.peer}`" in of_divergences for row in DIVERGENCES)
    assert all(row.situation in elsewhere and f"`{row.peer}`" in elsewhere for row in ELSEWHERE)
    assert "| `torch.nn.functional.kl_div` | **NaN** | **0.5, 0.5, NaN** | -0.5, -0.5, 0 |" in of_divergences
    assert "| `keras.losses.KLDivergence` | **4.736** |" in of_divergences
    assert "| `xpenalties.kl_divergence` | inf |" in of_divergences


def test_the_table_of_the_readme() -> None:
    """A third class without probability, from log-probabilities: value and gradient with respect to log P."""
    import jax
    import optax
    import torch

    p, q = ([0.5, 0.5, 0.0], [0.25, 0.75, 0.0])
    right = [0.5 * (np.log(2.0) + 1), 0.5 * (np.log(2 / 3) + 1)]

    def in_torch(kl: Any) -> tuple[float, np.ndarray]:
        log_p, log_q = torch.tensor(p).log().requires_grad_(), torch.tensor(q).log()
        value = kl(log_p, log_q)
        return value.item(), torch.autograd.grad(value, log_p)[0].numpy()

    value, gradient = in_torch(lambda a, b: torch.nn.functional.kl_div(b, a, log_target=True, reduction="sum"))
    assert np.isnan(value) and np.isnan(gradient[2]) and not np.isnan(gradient[:2]).any()
    categorical = torch.distributions.Categorical
    value, gradient = in_torch(
        lambda a, b: torch.distributions.kl_divergence(categorical(logits=a), categorical(logits=b))
    )
    assert round(value, 4) == 0.1438 and np.isnan(gradient).all()
    with np.errstate(divide="ignore"):
        log_p, log_q = map(jax.numpy.log, (jax.numpy.asarray(p), jax.numpy.asarray(q)))
    value, gradient = jax.value_and_grad(lambda a: optax.losses.kl_divergence_with_log_targets(log_q, a))(log_p)
    assert np.isnan(value) and np.isnan(gradient[2]) and not np.isnan(gradient[:2]).any()
    value, gradient = in_torch(xp.kl_divergence)
    assert round(value, 4) == 0.1438
    np.testing.assert_allclose(gradient, [*right, 0.0], rtol=1e-6)


def test_torch_distributions_replaces_a_probability_of_0() -> None:
    """A point mass has entropy 0; Categorical clamps its probabilities to the machine epsilon."""
    import torch

    found = float(torch.distributions.Categorical(probs=torch.tensor([1.0, 0.0, 0.0])).entropy())
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
