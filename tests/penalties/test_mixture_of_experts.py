"""Load balancing at its bounds, with ties, padding, masked experts, sequences, and counts of a global batch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, close, first_and_second

autodiff = pytest.mark.needs("autodiff")
LOGITS = np.random.default_rng(5).standard_normal((6, 4))
ONE_EXPERT = np.asarray([[0.0, -math.inf, -math.inf, -math.inf]] * 3)


def value(fw: Framework, logits: Any, **options: Any) -> float:
    return float(xp.load_balancing(fw.array(np.asarray(logits)), **options))


def test_bounds(fw: Framework) -> None:
    for scores in ("softmax", "sigmoid"):
        for k in (1, 2, 4):
            assert value(fw, np.zeros((5, 4)), top_k=k, scores=scores) == pytest.approx(1.0)
    assert value(fw, ONE_EXPERT) == 4.0
    assert value(fw, ONE_EXPERT, scores="sigmoid") == 4.0
    assert value(fw, np.exp(ONE_EXPERT), scores="probabilities", top_k=2) == 2.0
    assert value(fw, LOGITS[:, :1]) == 1.0  # a single expert
    assert value(fw, LOGITS[0], top_k=4) == pytest.approx(1.0)  # a single token, which chooses all


def test_a_layer_that_collapsed_is_not_balanced_by_another(fw: Framework) -> None:
    other = np.roll(ONE_EXPERT, 1, axis=-1)
    assert value(fw, ONE_EXPERT) + value(fw, other) == 8.0
    tree = [fw.array(x) for x in (ONE_EXPERT, other)]
    assert float(xp.trees.over_tree("load_balancing")(tree)) == 8.0


def test_symmetries(fw: Framework) -> None:
    for options in ({}, {"top_k": 3}, {"scores": "sigmoid", "top_k": 2}):
        want = value(fw, LOGITS, **options)
        assert value(fw, np.concatenate([LOGITS, LOGITS]), **options) == pytest.approx(want)
        assert value(fw, LOGITS[:, [2, 0, 3, 1]], **options) == pytest.approx(want)
        assert value(fw, LOGITS[[5, 1, 0, 2, 4, 3]], **options) == pytest.approx(want)


def test_of_equal_logits_the_first_are_chosen(fw: Framework) -> None:
    logits = np.asarray([[1.0, 1.0, 0.0], [5.0, 0.0, 0.0]])  # the first expert is chosen twice
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert value(fw, logits) == pytest.approx(3 * scores[:, 0].mean())
    assert value(fw, logits, top_k=2) == pytest.approx(3 * (scores[:, 0].mean() + scores[:, 1].mean()) / 2)


@autodiff
def test_shares_are_constants(fw: Framework) -> None:
    """The slope is that of the sum of f P, with f from the choices."""
    f = np.eye(4)[LOGITS.argmax(axis=1)].mean(axis=0)
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
    want = 4 * p * (f - (p * f).sum(axis=1, keepdims=True)) / len(LOGITS)
    got, second = first_and_second(fw, xp.load_balancing, LOGITS)
    np.testing.assert_allclose(got, want, atol=1e-14)
    assert np.isfinite(second).all()


@autodiff
@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
def test_extreme_logits(fw: Framework, scores: str) -> None:
    cases = {
        "a masked expert": np.asarray([[0.5, -math.inf, 1.0], [2.0, -math.inf, 0.0]]),
        "all far below 0": np.asarray([[-2000.0, -2001.0, -2003.0], [-1999.0, -2000.0, -2500.0]]),
        "far apart": np.asarray([[1e4, 0.0, -1e4], [-1e4, 1e4, 0.0]]),
        "zeros": np.zeros((2, 3)),
    }
    for name, logits in cases.items():
        got = value(fw, logits, scores=scores)
        assert 1 - 1e-12 <= got <= 3 or name == "far apart", name
        first, second = first_and_second(fw, lambda x: xp.load_balancing(x, scores=scores), logits)
        assert math.isfinite(got) and np.isfinite(first).all() and np.isfinite(second).all(), name


@autodiff
def test_curvature_of_a_sigmoid_at_0(fw: Framework) -> None:
    """Two formulas meet there, and the second derivative must be that of neither side alone."""
    at = [[0.0, 0.3], [0.0, -0.2]]
    fn = lambda x: xp.load_balancing(x, scores="sigmoid")  # noqa: E731
    _, here = first_and_second(fw, fn, np.asarray(at))
    _, near = first_and_second(fw, fn, np.asarray(at) + 1e-9 * np.asarray([[1.0, 0.0], [-1.0, 0.0]]))
    np.testing.assert_allclose(here, near, atol=1e-8)


def test_half_precision(fw: Framework) -> None:
    for dtype in {"float16", "bfloat16"} & set(fw.dtypes):
        x = fw.array(np.tile(LOGITS, (1000, 1)), dtype)
        got = xp.load_balancing(x, top_k=2)
        assert got.dtype == fw.dtype("float32")
        assert float(got) == pytest.approx(value(fw, LOGITS, top_k=2), rel=2e-2)


def test_padding_counts_in_neither_factor(fw: Framework) -> None:
    padded = np.concatenate([LOGITS, ONE_EXPERT])
    where = fw.array(np.arange(9) < 6)
    assert value(fw, padded, where=where) == pytest.approx(value(fw, LOGITS))
    assert value(fw, padded) != pytest.approx(value(fw, LOGITS))


def test_sequences(fw: Framework) -> None:
    x = np.random.default_rng(1).standard_normal((3, 5, 4))
    each = [value(fw, one, top_k=2) for one in x]
    assert value(fw, x, top_k=2, per_sequence=True) == pytest.approx(np.mean(each))
    assert value(fw, x[0], per_sequence=True) == pytest.approx(value(fw, x[0]))
    where = np.ones((3, 5), dtype=bool)
    where[1] = False  # a sequence of padding
    where[2, 3:] = False
    want = (value(fw, x[0], top_k=2) + value(fw, x[2, :3], top_k=2)) / 2
    assert value(fw, x, top_k=2, per_sequence=True, where=fw.array(where)) == pytest.approx(want)
    with pytest.raises(
        ValueError, match=r"^load_balancing: `logits` must have shape \(..., sequence, experts\), got \(4"
    ):
        value(fw, x[0, 0], per_sequence=True)
    with pytest.raises(
        ValueError, match=r"^load_balancing: `logits` must have .* 1 axis|shape \(..., experts\), got \(\)"
    ):
        value(fw, np.asarray(1.0))


def test_counts_of_a_global_batch(fw: Framework) -> None:
    counts = np.bincount(LOGITS.argmax(axis=1), minlength=4)
    for dtype in (np.int64, np.float64):
        halves = [value(fw, half, counts=fw.array(counts.astype(dtype))) for half in (LOGITS[:3], LOGITS[3:])]
        assert np.mean(halves) == pytest.approx(value(fw, LOGITS))
    assert value(fw, LOGITS, counts=fw.array(np.zeros(4))) == 0.0
    with pytest.raises(ValueError, match=r"^load_balancing: `counts` must have shape \(4,\), got shape \(6, 4\)"):
        value(fw, LOGITS, counts=fw.array(LOGITS))
    with pytest.raises(ValueError, match=r"^load_balancing: `counts` must be None with per_sequence=True, got"):
        value(fw, LOGITS, counts=fw.array(counts), per_sequence=True)
    with pytest.raises(TypeError, match=r"^load_balancing: `counts` must be numbers, got .*bool"):
        value(fw, LOGITS, counts=fw.array(counts > 0))
    with pytest.raises(TypeError, match=r"^load_balancing: `counts` must be an array, got builtins.list"):
        value(fw, LOGITS, counts=[1, 2, 3, 4])


def test_nan_is_not_hidden(fw: Framework) -> None:
    bad = LOGITS.copy()
    bad[2, 1] = math.nan
    for options in ({}, {"top_k": 4}, {"scores": "sigmoid"}, {"per_sequence": True}):
        assert math.isnan(value(fw, bad, **options))
    close(fw, xp.load_balancing(fw.array(bad), where=fw.array(np.arange(6) != 2)), value(fw, np.delete(LOGITS, 2, 0)))
