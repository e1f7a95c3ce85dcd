"""Mutual information at its bounds, of nearly equal samples, and with probabilities of 0."""

from __future__ import annotations

import math

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, close, first_and_second

autodiff = pytest.mark.needs("autodiff")
with np.errstate(divide="ignore"):
    CORNERS = np.log(np.eye(3))


def information(fw: Framework, log_p: np.ndarray, dtype: str = "float64", **options: object) -> float:
    return float(xp.mutual_information(fw.array(log_p, dtype), mode="penalty", **options))


def test_bounds(fw: Framework) -> None:
    assert information(fw, CORNERS) == pytest.approx(math.log(3), rel=1e-15)
    assert information(fw, CORNERS[:1]) == 0.0
    assert information(fw, np.concatenate([CORNERS[:1]] * 4)) == 0.0
    assert information(fw, np.log(np.full((5, 4), 0.25))) == 0.0
    assert information(fw, CORNERS[0]) == 0.0  # one sample, no axis of samples
    assert float(xp.mutual_information(fw.array(CORNERS))) == pytest.approx(-math.log(3), rel=1e-15)


def test_diversity(fw: Framework) -> None:
    log_p = np.log(np.asarray([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]]))
    h = -(np.exp(log_p) * log_p).sum() / 2
    assert information(fw, log_p, diversity=3.0) == pytest.approx(2 * h)
    assert information(fw, log_p, diversity=0.0) == pytest.approx(-h)
    assert information(fw, CORNERS, diversity=2.0) == pytest.approx(2 * math.log(3))
    assert information(fw, CORNERS[:1], diversity=0.0) == 0.0


def test_nearly_equal_samples_keep_their_digits(fw: Framework) -> None:
    """The difference of the two entropies would be rounding, and might be negative."""
    for scale in (1e-2, 1e-3, 1e-4):
        logits = scale * np.random.default_rng(0).standard_normal((16, 8))
        logits = logits.astype(np.float32).astype(np.float64)
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        want = np.sum(p * (log_p - np.log(p.mean(axis=0)))) / 16
        got = information(fw, logits, "float32", from_logits=True)
        assert got == pytest.approx(want, rel=max(2e-6 / scale, 1e-5), abs=0.0)
    got = information(fw, np.zeros((4, 3)), "float32", from_logits=True)
    assert got == 0.0


@autodiff
def test_zero_probabilities(fw: Framework) -> None:
    for log_p in (CORNERS, CORNERS[:1], np.concatenate([CORNERS, np.log(np.full((1, 3), 1 / 3))])):
        first, second = first_and_second(fw, xp.mutual_information, log_p)
        assert np.isfinite(first).all() and np.isfinite(second).all()
    masked = np.asarray([[0.5, -math.inf, 1.0], [2.0, -math.inf, 0.0]])  # a class that no sample has
    want = information(fw, masked[:, [0, 2]], from_logits=True)
    assert information(fw, masked, from_logits=True) == pytest.approx(want)
    first, second = first_and_second(fw, lambda x: xp.mutual_information(x, from_logits=True), masked)
    assert (first[:, 1] == 0).all() and np.isfinite(first).all() and np.isfinite(second).all()


@autodiff
def test_slope_with_respect_to_logits(fw: Framework) -> None:
    """Descent on the bonus makes a sample more certain of the class that it has more often than others."""
    logits = np.asarray([[0.2, 0.0], [0.0, 0.2]])
    first, _ = first_and_second(fw, lambda x: xp.mutual_information(x, from_logits=True), logits)
    assert (first * np.asarray([[-1, 1], [1, -1]]) > 0).all()
    equal, _ = first_and_second(fw, lambda x: xp.mutual_information(x, from_logits=True), logits[:1])
    np.testing.assert_allclose(equal, 0.0, atol=1e-16)


def test_joint_distribution(fw: Framework) -> None:
    """It is the divergence of the joint distribution of sample and class from the product of its margins."""
    rng = np.random.default_rng(3)
    p, w = rng.dirichlet(np.ones(4), size=5), rng.random(5)
    joint = p * (w / w.sum())[:, None]
    product = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    want = np.sum(joint * np.log(joint / product))
    close(fw, xp.mutual_information(fw.array(np.log(p)), mode="penalty", weights=fw.array(w)), want)


def test_half_precision_and_extremes(fw: Framework) -> None:
    logits = np.random.default_rng(1).standard_normal((2000, 4))
    for dtype in {"float16", "bfloat16"} & set(fw.dtypes):
        got = xp.mutual_information(fw.array(logits, dtype), mode="penalty", from_logits=True)
        assert got.dtype == fw.dtype("float32")
        assert float(got) == pytest.approx(information(fw, logits, from_logits=True), rel=1e-2)
    far = 1e4 * np.asarray([[1.0, 0.0], [0.0, 1.0]])
    assert information(fw, far, "float32", from_logits=True) == pytest.approx(math.log(2), rel=1e-6)


def test_nan_is_not_hidden(fw: Framework) -> None:
    bad = np.log(np.full((3, 2), 0.5))
    bad[1, 0] = math.nan
    assert math.isnan(information(fw, bad)) and math.isnan(information(fw, bad, from_logits=True))
