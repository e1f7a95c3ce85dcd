"""Divergences of nearly equal distributions, and entropies of nearly certain ones, keep their digits.

The oracles are the definitions in extended precision: mpmath, or np.longdouble for arrays that are large.
"""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest
from scipy.special import rel_entr

import xpenalties as xp
from tests.helpers.harness import Framework, first_and_second
from xpenalties._penalties import kullback_leibler

autodiff = pytest.mark.needs("autodiff")
DIGITS = {"float32": 1e-4, "float64": 1e-10}
SMALLEST = {"float32": 1e-13, "float64": 1e-18}  # absolute errors: those digits of 1e-9, and the error of the oracle
both_dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


@pytest.fixture(
    params=[
        "eager",
        pytest.param("in two passes", marks=pytest.mark.only("torch", reason="is about the formula of torch.compile")),
    ]
)
def formula(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Select the formula for KL. That of torch.compile runs in eager code here, which is faster than to compile it."""
    if request.param == "in two passes":
        select_formula_of_torch_compile(monkeypatch)


def select_formula_of_torch_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kullback_leibler, "in_dynamo", lambda: True)
    monkeypatch.setattr(kullback_leibler, "guards_are_skipped", lambda: False)


with_each_formula = pytest.mark.usefixtures("formula")


def close_logits(dtype: str, distance: float, shape: tuple[int, ...] = (64, 8)) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    z = generator.standard_normal(shape).astype(dtype)
    return z, (z + distance * generator.standard_normal(shape)).astype(dtype)


def log_softmax(z: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    z = z.astype(np.longdouble) / temperature
    z = z - z.max(axis=-1, keepdims=True)
    log_p: np.ndarray = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
    return log_p


def exact_kl(z_p: np.ndarray, z_q: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return the divergence of each row, with an absolute error of 1e-18. q - p adds up to 0, but for its rounding."""
    a, b = log_softmax(z_p, temperature), log_softmax(z_q, temperature)
    value: np.ndarray = (np.exp(a) * (a - b) + np.exp(b) - np.exp(a)).sum(axis=-1)
    return value


@with_each_formula
@both_dtypes
@pytest.mark.parametrize("distance", [3e-5, 1e-3, 0.03, 1.0, 30.0])
@pytest.mark.parametrize("shape", [(64, 8), (16, 2048), (4096, 8)], ids=["small", "large", "many rows"])
def test_kl_of_close_logits(fw: Framework, dtype: str, distance: float, shape: tuple[int, ...]) -> None:
    z = close_logits(dtype, distance, shape)
    arrays = [fw.array(x, dtype) for x in z]
    there, back = exact_kl(*z), exact_kl(*z[::-1])
    for direction, want in (("forward", there), ("reverse", back), ("symmetric", (there + back) / 2)):
        got = fw.numpy(xp.kl_divergence(*arrays, from_logits=True, direction=direction, reduction="none"))
        assert (got >= 0).all()
        np.testing.assert_allclose(got, want.astype(float), rtol=DIGITS[dtype], atol=SMALLEST[dtype])
    got = fw.numpy(xp.kl_divergence(*arrays, temperature=3.0, reduction="none"))
    assert (got >= 0).all()
    np.testing.assert_allclose(got, exact_kl(*z, 3.0).astype(float), rtol=2 * DIGITS[dtype], atol=SMALLEST[dtype])


def test_kl_of_logits_that_agree_to_the_last_digit(fw: Framework) -> None:
    z, w = (np.asarray([[0.3, -1.0, 2.0, 0.7]]) for _ in range(2))
    w[0, 1] = np.nextafter(w[0, 1], 0)
    got = float(xp.kl_divergence(fw.array(z), fw.array(w), from_logits=True))
    with mpmath.workdps(60):
        p, q = ([mpmath.exp(mpmath.mpf(x)) for x in each[0].tolist()] for each in (z, w))
        p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
        want = float(sum(a * mpmath.log(a / b) for a, b in zip(p, q, strict=True)))
    assert 0 < want < 1e-32
    assert got == pytest.approx(want, rel=1e-8, abs=0)
    assert float(xp.kl_divergence(fw.array(z), fw.array(z), from_logits=True)) == 0.0


def slope(fw: Framework, *logits: Any, wrt: int) -> np.ndarray:
    other = logits[1 - wrt]

    def kl(z: Any, other: Any) -> Any:
        return xp.kl_divergence(*((z, other) if wrt == 0 else (other, z)), from_logits=True)

    return fw.numpy(xp.grad(kl)(logits[wrt], other))


@pytest.mark.needs("jit")
def test_compiled_kl_of_close_logits(fw: Framework) -> None:
    z = close_logits("float32", 1e-3)
    arrays = [fw.array(x, "float32") for x in z]
    for direction, want in (("forward", exact_kl(*z)), ("symmetric", (exact_kl(*z) + exact_kl(*z[::-1])) / 2)):

        def kl(a: Any, b: Any, direction: Any = direction) -> Any:
            return xp.kl_divergence(a, b, from_logits=True, direction=direction, reduction="none")

        compiled, _ = fw.compile(kl)
        got = fw.numpy(compiled(*arrays))
        assert (got >= 0).all()
        np.testing.assert_allclose(got, want.astype(float), rtol=1e-4)


@autodiff
@both_dtypes
@pytest.mark.parametrize("shape", [(1, 5), (2, 16384)], ids=["small", "large"])
def test_kl_gradients_of_close_logits(fw: Framework, dtype: str, shape: tuple[int, ...]) -> None:
    z = close_logits(dtype, 1e-3, shape)
    arrays = [fw.array(x, dtype) for x in z]
    a, b = log_softmax(z[0]), log_softmax(z[1])
    p, q, rows = np.exp(a), np.exp(b), shape[0]
    want = p * (a - b - (p * (a - b)).sum(axis=-1, keepdims=True)) / rows, (q - p) / rows
    for i in (0, 1):
        got = slope(fw, *arrays, wrt=i)
        assert np.abs(got - want[i]).max() < 1e3 * np.finfo(dtype).eps * np.abs(want[i]).max()


@pytest.mark.only("torch", reason="is about the formula of torch.compile")
def test_gradients_of_torch_compile(fw: Framework, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient with respect to the logits of Q is the rounded difference of q and p."""
    select_formula_of_torch_compile(monkeypatch)
    z = close_logits("float32", 1e-3, (1, 2048))
    z[1][0, :2] = -math.inf, z[0][0, 1] + 20
    z[0][0, 0] = -math.inf
    a, b = log_softmax(z[0]), log_softmax(z[1])
    p, q = np.exp(a), np.exp(b)
    log_ratio = np.concatenate([[[0.0]], a[:, 1:] - b[:, 1:]], axis=1)
    want = p * (log_ratio - (p * log_ratio).sum()), q - p
    for i in (0, 1):
        got = slope(fw, *(fw.array(x, "float32") for x in z), wrt=i)
        assert (np.abs(got - want[i]) <= 32 * np.finfo(np.float32).eps * np.maximum(p, q)).all()


@with_each_formula
@autodiff
def test_second_gradient_of_kl_of_close_logits(fw: Framework) -> None:
    z, w = (x[:1, :5] for x in close_logits("float64", 1e-6))
    q = np.exp(log_softmax(w))
    slope = q - np.exp(log_softmax(z))
    _, second = first_and_second(fw, lambda a, b: xp.kl_divergence(a, b, from_logits=True), z, w, wrt=1)
    want = 2 * (q * slope - q * (q * slope).sum())
    np.testing.assert_allclose(second, want.astype(float), rtol=1e-6)


@with_each_formula
def test_kl_of_close_logits_with_an_offset(fw: Framework) -> None:
    """The center of the differences is rounded in proportion to the offset. Their own digits are chosen to fit."""
    generator = np.random.default_rng(0)
    z = np.round(256 * generator.standard_normal((16, 2048))) / 256
    w = z + np.round(256 * 0.05 * generator.standard_normal(z.shape)) / 256 + 100
    got = fw.numpy(xp.kl_divergence(fw.array(z, "float32"), fw.array(w, "float32"), from_logits=True, reduction="none"))
    np.testing.assert_allclose(got, exact_kl(z, w).astype(float), rtol=1e-4)


@with_each_formula
@pytest.mark.parametrize("rows", [4, 5000])
@pytest.mark.parametrize("offset", [1e2, 1e4, 1e6])
def test_kl_of_far_logits_with_an_offset(fw: Framework, rows: int, offset: float) -> None:
    generator = np.random.default_rng(0)
    z, w = (generator.standard_normal((rows, 8)).astype(np.float32) for _ in range(2))
    w = (w + offset).astype(np.float32)
    there, back = exact_kl(z, w), exact_kl(w, z)
    for direction, want in (("forward", there), ("symmetric", (there + back) / 2)):
        for arrays in ((z, w), (w, z)):
            expected = want if arrays[0] is z or direction == "symmetric" else back
            given = [fw.array(x, "float32") for x in arrays]
            got = fw.numpy(xp.kl_divergence(*given, from_logits=True, direction=direction, reduction="none"))
            np.testing.assert_allclose(got, expected.astype(float), rtol=1e-4)


@with_each_formula
@pytest.mark.parametrize("rows", [4, 5000])
@pytest.mark.parametrize("mask", [-1e4, -1e7, -1e9, -1e15])
def test_finite_masks_of_q(fw: Framework, rows: int, mask: float) -> None:
    generator = np.random.default_rng(0)
    z, w = (generator.standard_normal((rows, 5)).astype(np.float32) for _ in range(2))
    w[:, 1:] = np.where(generator.random((rows, 4)) < 0.3, np.float32(mask), w[:, 1:])
    for arrays, direction in (((z, w), "forward"), ((w, z), "reverse")):
        given = [fw.array(x, "float32") for x in arrays]
        got = fw.numpy(xp.kl_divergence(*given, from_logits=True, direction=direction, reduction="none"))
        np.testing.assert_allclose(got, exact_kl(z, w).astype(float), rtol=1e-4)


@with_each_formula
@autodiff
def test_gradients_under_finite_masks_of_q(fw: Framework) -> None:
    z, w = np.asarray([[0.5, 0.0, 1.0]]), np.asarray([[0.0, -1e8, 0.5]])
    p, q, divergence = np.exp(log_softmax(z)), np.exp(log_softmax(w)), exact_kl(z, w)
    want = p * (log_softmax(z) - log_softmax(w) - divergence), q - p
    for i in (0, 1):
        got = slope(fw, fw.array(z, "float32"), fw.array(w, "float32"), wrt=i)
        np.testing.assert_allclose(got, want[i].astype(float), rtol=1e-5)


@with_each_formula
@pytest.mark.parametrize("rows", [1, 5000])
@pytest.mark.parametrize("temperature", [0.001, 0.02, 0.04])
def test_logits_of_minus_infinity_at_low_temperatures(fw: Framework, rows: int, temperature: float) -> None:
    for low in (-math.inf, float(np.finfo(np.float32).min)):
        p, q = (np.tile(np.asarray(x), (rows, 1)) for x in ([0.0, 1.0, low, 2.0], [0.0, 1.0, 0.0, 1.0]))
        given = [fw.array(x, "float32") for x in (p, q)]
        got = fw.numpy(xp.kl_divergence(*given, temperature=temperature, reduction="none"))
        np.testing.assert_allclose(got, math.log(2), rtol=1e-4)


@with_each_formula
@pytest.mark.parametrize("rows", [1, 5000])
@pytest.mark.parametrize("temperature", [1.0, 1e-3])
def test_peaked_rows(fw: Framework, rows: int, temperature: float) -> None:
    p, q = np.tile(np.asarray([0.0, 1e5, 0.0, 0.0]), (rows, 1)), np.zeros((rows, 4))
    given = [fw.array(x, "float32") for x in (p, q)]
    got = fw.numpy(xp.kl_divergence(*given, from_logits=True, temperature=temperature, reduction="none"))
    np.testing.assert_allclose(got, math.log(4), rtol=1e-6)


@with_each_formula
def test_rows_of_the_lowest_number(fw: Framework) -> None:
    """Such a row is uniform, whatever other rows there are."""
    low = float(np.finfo(np.float32).min)
    p = np.asarray([[low] * 4, [0.0, 0.0, 0.0, -math.inf]], dtype=np.float32)
    q = np.asarray([[0.0, 1.0, 2.0, 3.0], [0.0, 0.0, 0.0, -math.inf]], dtype=np.float32)
    kl = fw.numpy(xp.kl_divergence(fw.array(p), fw.array(q), from_logits=True, reduction="none"))
    np.testing.assert_allclose(kl, [exact_kl(np.zeros((1, 4)), q[:1])[0], 0.0], rtol=1e-5, atol=1e-12)
    js = fw.numpy(xp.js_divergence(fw.array(p), fw.array(q), from_logits=True, reduction="none"))
    other = np.exp(log_softmax(q[:1])).astype(float)
    mean = (0.25 + other) / 2
    want = (rel_entr(0.25, mean) + rel_entr(other, mean)).sum() / 2
    np.testing.assert_allclose(js, [want, 0.0], rtol=1e-5, atol=1e-12)
    assert float(xp.kl_divergence(fw.array(p[:1]), fw.array(p[:1]), from_logits=True)) == 0.0


@with_each_formula
def test_kl_where_some_of_many_probabilities_underflow(fw: Framework) -> None:
    """Each of the classes with p = 0 has q = 7e-8, too little to overflow p e^d, but they are 99,998."""
    z_p, z_q = np.full((1, 100_000), -104.0), np.full((1, 100_000), -16.5)
    z_p[0, :2], z_q[0, :2] = (0.0, -1.0), (-0.5, 0.0)
    got = xp.kl_divergence(fw.array(z_p, "float32"), fw.array(z_q, "float32"), from_logits=True)
    assert float(got) == pytest.approx(float(exact_kl(z_p, z_q)[0]), rel=1e-5)


@with_each_formula
def test_kl_of_logits_where_q_is_0(fw: Framework) -> None:
    z = fw.array(np.zeros((3, 4)))
    without = fw.array(np.asarray([[0.0, 0.0, 0.0, -np.inf], [0.0, -1e308, 0.0, 0.0], [0.0, -np.inf, -np.inf, 0.0]]))
    for direction, want in (("forward", math.inf), ("symmetric", math.inf), ("reverse", None)):
        got = fw.numpy(xp.kl_divergence(z, without, from_logits=True, direction=direction, reduction="none"))
        np.testing.assert_allclose(got, [math.log(4 / 3), math.log(4 / 3), math.log(2)] if want is None else [want] * 3)
    got = fw.numpy(xp.kl_divergence(without, z, from_logits=True, direction="symmetric", reduction="none"))
    np.testing.assert_array_equal(got, [math.inf] * 3)


@with_each_formula
@pytest.mark.parametrize("rows", [1, 64])
def test_kl_where_probabilities_of_p_underflow(fw: Framework, rows: int) -> None:
    """exp(-800) is 0 in float64. Q has a part of its mass there, which is all of the divergence."""
    z_p, z_q = np.zeros((rows, 1000)), np.zeros((rows, 1000))
    z_p[:, 1:], z_q[:, 1:] = -800.0, -12.0
    want = math.log1p(999 * math.exp(-12.0))
    for low in (-800.0, -np.inf, -1e300):
        z_p[:, 1:] = low
        got = fw.numpy(xp.kl_divergence(fw.array(z_p), fw.array(z_q), from_logits=True, reduction="none"))
        np.testing.assert_allclose(got, want, rtol=1e-12)


@with_each_formula
@both_dtypes
def test_kl_of_far_logits(fw: Framework, dtype: str) -> None:
    for size in (50.0, 1e3, 1e4):
        z_p, z_q = np.asarray([[size, 0.0, 1.0]]), np.asarray([[0.0, size, 0.5]])
        got = float(xp.kl_divergence(fw.array(z_p, dtype), fw.array(z_q, dtype), from_logits=True))
        assert got == pytest.approx(float(exact_kl(z_p, z_q)[0]), rel=1e-6)


@with_each_formula
def test_large_vocabulary(fw: Framework) -> None:
    """A sum of 128,256 nearly equal numbers, one after another, is off by 6e-5 in float32."""
    z, w = (np.zeros((1, 128256), np.float32) for _ in range(2))
    z[0, 0] = 1
    arrays = fw.array(z, "float32"), fw.array(w, "float32")
    for direction, want in (("forward", exact_kl(z, w)), ("reverse", exact_kl(w, z))):
        got = xp.kl_divergence(*arrays, from_logits=True, direction=direction)
        assert float(got) == pytest.approx(float(want[0]), rel=1e-4)
    log_p = log_softmax(z)
    want = -(np.exp(log_p) * log_p).sum()
    assert float(xp.entropy(arrays[0], from_logits=True)) == pytest.approx(float(want), rel=1e-6)
    assert float(xp.z_loss(arrays[1])) == pytest.approx(math.log(128256) ** 2, rel=1e-6)


@with_each_formula
@autodiff
def test_gradient_over_a_large_vocabulary(fw: Framework) -> None:
    z, w = (np.zeros((1, 128256), np.float32) for _ in range(2))
    z[0, 0] = 1
    arrays = fw.array(z, "float32"), fw.array(w, "float32")
    got = slope(fw, *arrays, wrt=1)
    want = np.exp(log_softmax(w)) - np.exp(log_softmax(z))
    np.testing.assert_allclose(got[0, 1:], want[0, 1:].astype(float), rtol=0.02)  # eps / (1 - q / p) is 0.9 %
    assert got[0, 0] == pytest.approx(float(want[0, 0]), rel=1e-5)


@both_dtypes
def test_entropy_of_nearly_certain_logits(fw: Framework, dtype: str) -> None:
    for gap in (5.0, 20.0, 40.0, 80.0):
        for ties in (1, 2):
            z = np.asarray([[0.5] * ties + [0.5 - gap, 0.25 - gap]], dtype)
            log_p = log_softmax(z)
            with mpmath.workdps(60):
                exps = [mpmath.exp(mpmath.mpf(x)) for x in z[0].tolist()]
                p = [x / sum(exps) for x in exps]
                want = float(-sum(x * mpmath.log(x) for x in p))
            got = float(xp.entropy(fw.array(z, dtype), from_logits=True))
            assert got == pytest.approx(want, rel=1e-5 if dtype == "float32" else 1e-13, abs=0), (gap, log_p)


@autodiff
def test_entropy_gradients_of_nearly_certain_logits(fw: Framework) -> None:
    z = np.asarray([[0.0, -30.0, -31.0]])
    first, second = first_and_second(fw, lambda z: xp.entropy(z, from_logits=True), z)
    p = np.exp(log_softmax(z))[0]
    h = -(p * np.log(p)).sum()
    want = -p * (np.log(p) + h)
    np.testing.assert_allclose(first[0], want.astype(float), rtol=1e-10, atol=1e-15)
    assert np.isfinite(second).all()


@both_dtypes
def test_z_loss_near_0(fw: Framework, dtype: str) -> None:
    for z in ([0.0, -40.0, -50.0], [1e-9, -30.0, -30.0], [-math.log(2), -math.log(2), -60.0]):
        rounded = np.asarray(z, dtype)
        with mpmath.workdps(60):
            want = float(mpmath.log(sum(mpmath.exp(mpmath.mpf(x)) for x in rounded.tolist())) ** 2)
        got = float(xp.z_loss(fw.array(rounded, dtype)))
        # the last one is rounding alone, of numbers of size log 2
        assert got == pytest.approx(
            want, rel=1e-5, abs=1e-16 * want if z[0] >= 0 else 4 * float(np.finfo(dtype).eps) ** 2
        )


@both_dtypes
def test_js_of_close_logits(fw: Framework, dtype: str) -> None:
    for distance in (1e-4, 1e-2, 1.0):
        z = close_logits(dtype, distance)
        a, b = (log_softmax(x) for x in z)
        p, q = np.exp(a), np.exp(b)
        for beta in (0.5, 0.1):
            log_m = np.log(beta * p + (1 - beta) * q)
            want = (beta * p * (a - log_m) + (1 - beta) * q * (b - log_m)).sum(axis=-1)
            got = fw.numpy(
                xp.js_divergence(*(fw.array(x, dtype) for x in z), beta=beta, from_logits=True, reduction="none")
            )
            assert (got >= 0).all()
            np.testing.assert_allclose(
                got, want.astype(float), rtol=DIGITS[dtype] if distance > 1e-4 else 1e-3, atol=1e-18
            )


@both_dtypes
def test_sampled_kl_of_close_tokens(fw: Framework, dtype: str) -> None:
    r = np.asarray([1e-7, -1e-7, 1e-5, -1e-4, 4e-3, -0.02, 0.3], dtype)
    got = fw.numpy(xp.sampled_kl(fw.array(np.zeros_like(r), dtype), fw.array(r, dtype), reduction="none"))
    with mpmath.workdps(60):
        want = [float(mpmath.expm1(mpmath.mpf(x)) - mpmath.mpf(x)) for x in r.tolist()]
    np.testing.assert_allclose(got, want, rtol=1e-4 if dtype == "float32" else 1e-10)
    assert (got > 0).all()


@both_dtypes
def test_top_k_of_close_distributions(fw: Framework, dtype: str) -> None:
    for distance in (1e-3, 0.03):
        a, b = (log_softmax(x) for x in close_logits(dtype, distance))
        a, b = a.astype(dtype), b.astype(dtype)
        wide = np.exp(a.astype(np.longdouble)), np.exp(b.astype(np.longdouble))
        for tail in ("bucket", "renormalize"):
            p, q = (x[..., :5] for x in wide)
            if tail == "bucket":
                p, q = (np.concatenate([x, 1 - x.sum(axis=-1, keepdims=True)], axis=-1) for x in (p, q))
            else:
                p, q = (x / x.sum(axis=-1, keepdims=True) for x in (p, q))
            want = (p * np.log(p / q)).sum(axis=-1)
            given = [fw.array(np.ascontiguousarray(x[..., :5]), dtype) for x in (a, b)]
            got = fw.numpy(xp.topk_kl_divergence(*given, tail=tail, reduction="none"))
            assert (got >= 0).all()
            np.testing.assert_allclose(got, want.astype(float), rtol=3 * DIGITS[dtype])


def test_top_k_with_exact_rests(fw: Framework) -> None:
    """In float32, 1 less the sum of the others is 0 for a rest of 1e-8."""
    rests = np.asarray([1e-4, 1e-8])
    log_p, log_q = (np.asarray([[math.log1p(-rest - 0.25), math.log(0.25), math.log(rest)]]) for rest in rests)
    given = [fw.array(x, "float32") for x in (log_p, log_q)]
    want = float((np.exp(log_p) * (log_p - log_q)).sum())
    assert want == pytest.approx(8.2e-4, rel=0.01)
    assert float(xp.topk_kl_divergence(*given, tail="included")) == pytest.approx(want, rel=1e-4)
    assert math.isinf(float(xp.topk_kl_divergence(*[x[:, :2] for x in given])))


def test_normalized_entropy_of_two_classes(fw: Framework) -> None:
    got: Any = xp.entropy(fw.array(np.log([[0.25, 0.75]])), normalize=True)
    assert float(got) == pytest.approx(-(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75)), rel=1e-12)
