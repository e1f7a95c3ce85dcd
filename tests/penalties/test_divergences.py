"""Value, first and second gradient of KL, entropy and z-loss: probabilities of 0, huge and close numbers."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest
from scipy.special import rel_entr

import xpenalties as xp
from tests.helpers.harness import Framework, first_and_second
from tests.helpers.samples import P, Q, log

INF = math.inf
autodiff = pytest.mark.needs("autodiff")

p, q = np.exp(P), np.exp(Q)


@pytest.mark.smoke
def test_kl_of_masked_tokens(fw: Framework) -> None:
    assert float(xp.kl_divergence(fw.array(P), fw.array(Q))) == pytest.approx(rel_entr(p, q).sum())
    assert float(xp.kl_divergence(fw.array(P), fw.array(Q), direction="reverse")) == INF
    assert float(xp.kl_divergence(fw.array(P), fw.array(Q), direction="symmetric")) == INF
    assert float(xp.kl_divergence(fw.array(P), fw.array(P), direction="symmetric")) == 0.0
    assert float(xp.kl_divergence(fw.array(np.full(3, -INF)), fw.array(np.full(3, -INF)))) == 0.0


@autodiff
def test_kl_gradients_with_masked_tokens(fw: Framework) -> None:
    # d/dlog_p of p (log p - log q) is p (log p - log q + 1), and d/dlog_q is -p
    first, second = first_and_second(fw, xp.kl_divergence, P, Q)
    want = np.asarray([0.5 * (math.log(2) + 1)] * 2 + [0.0, 0.0])
    slope = np.asarray([0.5 * (math.log(2) + 2)] * 2 + [0.0, 0.0])  # derivative of `want` with respect to log_p
    np.testing.assert_allclose(first, want, rtol=1e-12)
    np.testing.assert_allclose(second, 2 * want * slope, rtol=1e-12)
    first, second = first_and_second(fw, xp.kl_divergence, P, Q, wrt=1)
    np.testing.assert_allclose(first, -p, rtol=1e-12)
    np.testing.assert_allclose(second, 0.0)


@autodiff
def test_kl_gradient_of_q_is_finite_if_the_value_is_not(fw: Framework) -> None:
    first, second = first_and_second(fw, xp.kl_divergence, Q, P, wrt=1)
    np.testing.assert_allclose(first, -q, rtol=1e-12)
    np.testing.assert_allclose(second, 0.0)


@autodiff
def test_kl_from_logits_with_masked_tokens(fw: Framework) -> None:
    z_p, z_q = np.asarray([1.0, -0.5, -INF]), np.asarray([0.3, 0.2, -INF])
    for direction in ("forward", "reverse", "symmetric"):
        for temperature in (1.0, 2.0):
            options = {"direction": direction, "temperature": temperature, "from_logits": True}

            def kl(a: Any, b: Any, options: Any = options) -> Any:
                return xp.kl_divergence(a, b, **options)

            assert float(kl(fw.array(z_p), fw.array(z_q))) == pytest.approx(
                float(kl(fw.array(z_p[:2]), fw.array(z_q[:2]))), rel=1e-12
            )
            for wrt in (0, 1):
                masked = first_and_second(fw, kl, z_p, z_q, wrt=wrt)
                unmasked = first_and_second(fw, kl, z_p[:2], z_q[:2], wrt=wrt)
                for got, want in zip(masked, unmasked, strict=True):
                    np.testing.assert_allclose(got[:2], want, rtol=1e-9, atol=1e-14)
                    assert got[2] == 0


def test_logits_of_any_offset(fw: Framework) -> None:
    """Softmax does not depend on an offset, and precision may not either. 1/8 is exact in float32 up to 2^21."""
    z = np.round(8 * np.random.default_rng(0).standard_normal((2, 50, 10))) / 8
    for name, call in (
        ("kl", lambda a, b, **o: xp.kl_divergence(a, b, from_logits=True, **o)),
        ("js", lambda a, b, **o: xp.js_divergence(a, b, from_logits=True, **o)),
        ("entropy", lambda a, b, **o: xp.entropy(a, from_logits=True, **o)),
        ("topk", lambda a, b, **o: xp.topk_kl_divergence(a, b, tail="renormalize")),
    ):
        for temperature in (1.0, 0.25):
            want = float(call(fw.array(z[0]), fw.array(z[1]), temperature=temperature))
            for offset in (64.0, 65536.0):
                a, b = (fw.array(logits + offset, "float32") for logits in z)
                got = float(call(a, b, temperature=temperature))
                assert got == pytest.approx(want, rel=2e-6), (name, temperature, offset)


def test_kl_of_extreme_ratios_is_not_clipped(fw: Framework) -> None:
    a, b = np.asarray([0.0, -1000.0]), np.asarray([-1000.0, 0.0])
    assert float(xp.kl_divergence(fw.array(a), fw.array(b))) == pytest.approx(1000.0)
    small = np.asarray([math.log1p(-1e-12), math.log(1e-12)])
    want = float(mpmath.mpf(1e-12) * (mpmath.log(mpmath.mpf(1e-12)) + 50)) + (1 - 1e-12) * math.log1p(-1e-12)
    assert float(xp.kl_divergence(fw.array(small), fw.array(np.asarray([0.0, -50.0])))) == pytest.approx(want, rel=1e-9)


def test_no_exponential_overflows(fw: Framework) -> None:
    for dtype in ("float32", "float64"):
        far = fw.array(np.asarray([0.0, -200.0, -90.0]), dtype), fw.array(np.asarray([-200.0, 0.0, -800.0]), dtype)
        assert float(xp.js_divergence(*far)) == pytest.approx(math.log(2), rel=1e-6)
        huge = fw.array(np.asarray([1e4, 0.0, -1e4]), dtype)
        assert float(xp.entropy(huge, from_logits=True)) == 0.0
        assert float(xp.z_loss(huge)) == pytest.approx(1e8)
        assert float(xp.kl_divergence(huge, huge, from_logits=True)) == 0.0


@autodiff
def test_entropy_of_a_point_mass(fw: Framework) -> None:
    point = log(1.0, 0.0, 0.0)
    assert float(xp.entropy(fw.array(point))) == 0.0
    first, second = first_and_second(fw, xp.entropy, point)
    np.testing.assert_allclose(first, [-1.0, 0.0, 0.0])  # d/dlog_p of -p log p is -p (log p + 1)
    np.testing.assert_allclose(second, [4.0, 0.0, 0.0])


def test_entropy_of_one_class(fw: Framework) -> None:
    assert float(xp.entropy(fw.array(np.zeros((2, 1))), normalize=True)) == 0.0


@autodiff
def test_z_loss_with_masked_logits(fw: Framework) -> None:
    z = np.asarray([0.3, -INF, 1.0])
    masked = first_and_second(fw, xp.z_loss, z)
    unmasked = first_and_second(fw, xp.z_loss, z[[0, 2]])
    for got, want in zip(masked, unmasked, strict=True):
        np.testing.assert_allclose(got[[0, 2]], want, rtol=1e-12)
        assert got[1] == 0
    for row in ([-INF, -INF, -INF], [INF, 0.0, -INF]):
        assert float(xp.z_loss(fw.array(np.asarray(row)))) == INF


@pytest.mark.only("numpy", reason="is about NumPy's floating-point errors")
def test_numpy_set_to_raise_floating_point_errors(fw: Framework) -> None:
    with np.errstate(all="raise"):
        for x, y in ((P, Q), (log(1.0, 0.0), log(0.0, 1.0)), (np.asarray([0.0, -800.0]), np.asarray([-800.0, 0.0]))):
            for fn in (xp.kl_divergence, xp.js_divergence, xp.sampled_kl, xp.topk_kl_divergence):
                assert not math.isnan(fn(x, y))
            assert xp.z_loss(x) >= 0 and xp.entropy(x) >= 0


@pytest.mark.parametrize("penalty", [xp.kl_divergence, xp.js_divergence, xp.topk_kl_divergence])
def test_vocabularies_of_different_sizes(fw: Framework, penalty: Any) -> None:
    small, large = (fw.array(np.full((2, classes), -1.0)) for classes in (5, 8))
    message = r"got \(2, {}\) and \(2, {}\)\. If the last classes of `{}` are padding, cut them off: {}\[\.\.\., :5\]\."
    with pytest.raises(ValueError, match=message.format(5, 8, "log_q", "log_q") + " Models with different tokenizers"):
        penalty(small, large)
    with pytest.raises(ValueError, match=message.format(8, 5, "log_p", "log_p")):
        penalty(large, small)
    with pytest.raises(ValueError, match=r"got \(2, 5\) and \(2, 1\)\. Broadcast them explicitly\."):
        penalty(small, small[:, :1])
