"""Eager JAX runs a penalty as one program for each options and shape: how many there are; nothing else changes."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, close
from tests.matrix import oracle
from xpenalties import Pipeline, block_size
from xpenalties._penalties import evaluation
from xpenalties._penalties.arguments import Call

pytestmark = pytest.mark.only("jax", reason="is about JAX")

RNG = np.random.default_rng(29)
_columns = count(4)


@pytest.fixture
def jax(fw: Framework) -> Any:
    return fw.module


@pytest.fixture
def traced(jax: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the penalties whose programs have been traced."""
    names: list[str] = []
    prepare = evaluation.prepare

    def recorded(call: Call, backend: Any) -> Any:
        names.append(call.spec.name)
        return prepare(call, backend)

    monkeypatch.setattr(evaluation, "prepare", recorded)
    return names


@pytest.fixture
def x(jax: Any) -> np.ndarray:
    """Of a shape that no other test has had: what JAX has compiled lives as long as the process."""
    return RNG.standard_normal((3, next(_columns)))


def test_one_program_for_each_options_and_shape(fw: Framework, traced: list[str], x: np.ndarray) -> None:
    def kl(scale: float, rows: int = 3, dtype: str = "float64", **options: Any) -> Any:
        a, b = fw.array(scale * x[:rows], dtype), fw.array(x[:rows][::-1].copy(), dtype)
        got = xp.kl_divergence(a, b, from_logits=True, **options)
        want = oracle.kl_divergence(
            scale * x[:rows], x[:rows][::-1], from_logits=True, temperature=options.get("temperature", 1.0)
        )
        if options.get("reduction") == "none":
            close(fw, got, want)
        else:
            assert float(got) == pytest.approx(want.mean(), rel=1e-9 if dtype == "float64" else 1e-5)

    for number, call in enumerate(
        (
            {},
            {"dtype": "float32"},
            {"rows": 2},
            {"temperature": 2.0},
            {"temperature": 3.0},
            {"reduction": "none"},
            {"where": fw.array(np.asarray(True))},
            {"weights": fw.array(np.asarray(2.0))},
            {"normalizer": 3.0},
            {"normalizer": fw.array(np.asarray(3))},
        ),
        start=1,
    ):
        for scale in (1.0, 0.5, 2.0):
            kl(scale, **call)
        assert traced == ["kl_divergence"] * number, call
    kl(0.25)
    kl(0.25, temperature=2.0)
    assert len(traced) == 10


def test_a_normalizer_changes_without_a_program(fw: Framework, traced: list[str], x: np.ndarray) -> None:
    for dtype in ("float64", "float32", "float16"):
        traced.clear()
        given = fw.array(x, dtype)
        total = float(xp.l2(given, reduction="sum"))
        for number in (3, 7.5, np.float32(2.0), np.int64(11), 1e6, 10**12):
            for reduction in ("sum", "mean"):
                got = xp.l2(given, normalizer=number, reduction=reduction)
                assert got.dtype == fw.dtype("float64" if dtype == "float64" else "float32")
                assert float(got) == pytest.approx(total / float(number), rel=1e-12 if dtype == "float64" else 1e-6)
        assert traced == ["l2"] * 3  # the sum, and two reductions of a normalizer


def test_a_block_size_is_nothing_to_what_is_never_cut(fw: Framework, traced: list[str], x: np.ndarray) -> None:
    for elements in (None, 1, 8, 2**20):
        with block_size(elements):
            assert float(xp.z_loss(fw.array(x))) == pytest.approx(oracle.z_loss(x).mean())
            assert float(xp.l1(fw.array(x))) == pytest.approx(np.abs(x).sum())
    assert traced == ["z_loss", "l1"]


def test_options_that_are_arrays_are_traced(fw: Framework, traced: list[str], jax: Any, x: np.ndarray) -> None:
    for seed in range(3):
        center = np.random.default_rng(seed).standard_normal(x.shape[1])
        close(fw, xp.l2(fw.array(x), center=fw.array(center), clip=1.5), oracle.l2(x, center, 1.5).sum())
    assert traced == ["l2"]
    gradient = jax.grad(lambda center: xp.l2(fw.array(x), center=center))(fw.array(center))
    close(fw, gradient, -2 * (x - center).sum(axis=0))
    close(fw, jax.jit(lambda center: xp.l2(fw.array(x), center=center))(fw.array(center)), oracle.l2(x, center).sum())


def test_what_is_equal_and_not_the_same(fw: Framework, jax: Any, x: np.ndarray) -> None:
    """A program is not taken for arguments that only have the same hash."""
    a = fw.array(x)
    close(fw, xp.entropy(a, from_logits=True), oracle.entropy(x, from_logits=True).mean())
    with pytest.raises(TypeError, match=r"^entropy: `from_logits` must be True or False, got 1"):
        xp.entropy(a, from_logits=1)
    close(fw, xp.entropy(a, from_logits=False), np.mean(-(np.exp(x) * x).sum(-1)))
    with pytest.raises(TypeError, match=r"^entropy: `from_logits` must be True or False, got 0"):
        xp.entropy(a, from_logits=0)
    close(fw, xp.huber(a, delta=1), oracle.huber(x, 1.0).sum())
    close(fw, xp.huber(a, delta=1.0), oracle.huber(x, 1.0).sum())
    with pytest.raises(TypeError, match=r"^huber: `delta` must be a number in \(0, inf\), got bool"):
        xp.huber(a, delta=True)


REFUSED: dict[str, tuple[Callable[[Any, np.ndarray], Any], type[Exception], str]] = {
    "unhashable name": (
        lambda a, x: xp.kl_divergence(a, a, direction=["forward"]),
        TypeError,
        r"kl_divergence: `direction` must be one of 'forward', 'reverse', 'symmetric', got \['forward'\]",
    ),
    "unhashable number": (
        lambda a, x: xp.huber(a, delta=[1.0]),
        TypeError,
        r"huber: `delta` must be a number in \(0, inf\), got list. Pass a Python float",
    ),
    "unhashable reduction": (
        lambda a, x: xp.l1(a, reduction=["sum"]),
        TypeError,
        r"l1: `reduction` must be one of 'sum', 'mean', 'none', got \['sum'\]",
    ),
    "array of JAX": (
        lambda a, x: xp.huber(a, delta=a[0, 0]),
        TypeError,
        r"huber: `delta` must be a number in \(0, inf\), got \w+. Pass a Python float",
    ),
    "option of NumPy": (
        lambda a, x: xp.l2(a, center=x[0]),
        TypeError,
        r"l2: `x` and `center` must be arrays of one framework, got jax and numpy",
    ),
    "no such option": (lambda a, x: xp.l1(a, clip=1.0), TypeError, r"l1: `clip` is not an option. The options are"),
    "list beside": (
        lambda a, x: xp.kl_divergence(a, x.tolist()),
        TypeError,
        r"kl_divergence: `log_q` must be an array, got builtins.list",
    ),
    "NumPy beside": (
        xp.kl_divergence,
        TypeError,
        r"kl_divergence: `log_p` and `log_q` must be arrays of one framework, got jax and numpy. Convert",
    ),
    "one too many": (lambda a, x: xp.l1(a, a), TypeError, r"l1: takes 1 array \(x\), got 2 by position"),
    "one too few": (
        lambda a, x: xp.js_divergence(a),
        TypeError,
        r"js_divergence: takes 2 arrays .*, got 1 by position",
    ),
    "shapes": (
        lambda a, x: xp.kl_divergence(a, a[:2]),
        ValueError,
        r"kl_divergence: `log_p` and `log_q` must have the same shape, got .*Broadcast them explicitly",
    ),
    "axis": (lambda a, x: xp.z_loss(a, axis=3), ValueError, r"z_loss: `axis` must be an axis of `logits`, got 3"),
    "where that is a bool": (
        lambda a, x: xp.l1(a, where=True),
        TypeError,
        r"l1: `where` must be an array, got builtins",
    ),
    "where of NumPy": (
        lambda a, x: xp.l1(a, where=x > 0),
        TypeError,
        r"l1: `x` and `where` must be arrays of one framework, got jax and numpy",
    ),
    "where of numbers": (
        lambda a, x: xp.l1(a, where=a),
        TypeError,
        r"l1: `where` must be a boolean array, got float64",
    ),
    "weights": (
        lambda a, x: xp.l1(a, weights=a[0, :2]),
        ValueError,
        r"l1: `weights` must broadcast to the terms' shape \(3, \d+\), got \(2,\)",
    ),
    "normalizer 0": (
        lambda a, x: xp.l1(a, normalizer=0),
        ValueError,
        r"l1: `normalizer` must be in \(0, inf\), got 0.0",
    ),
    "normalizer nan": (
        lambda a, x: xp.l1(a, normalizer=math.nan),
        ValueError,
        r"l1: `normalizer` must be in \(0, inf\), got nan",
    ),
    "normalizer bool": (
        lambda a, x: xp.l1(a, normalizer=True),
        TypeError,
        r"l1: `normalizer` must be a number in \(0, inf\), got bool",
    ),
    "normalizer text": (
        lambda a, x: xp.l1(a, normalizer="3"),
        TypeError,
        r"l1: `normalizer` must be a number in \(0, inf\), got str",
    ),
    "normalizer list": (
        lambda a, x: xp.l1(a, normalizer=[3]),
        TypeError,
        r"l1: `normalizer` must be a number in \(0, inf\), got list",
    ),
    "normalizer of NumPy": (
        lambda a, x: xp.l1(a, normalizer=np.ones(3)),
        TypeError,
        r"l1: `x` and `normalizer` must be arrays of one framework, got jax and numpy",
    ),
    "normalizer of a shape": (
        lambda a, x: xp.l1(a, normalizer=a[0]),
        ValueError,
        r"l1: `normalizer` must be a number or a 0-d array, got shape",
    ),
    "integers": (
        lambda a, x: xp.l1(a.astype(int)),
        TypeError,
        r"l1: `x` must be real or complex floating point, got int",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(fw: Framework, jax: Any, x: np.ndarray, name: str) -> None:
    """As before there were programs, the second time as the first, and as under a jit of the caller's."""
    call, kind, message = REFUSED[name]
    for _ in range(2):
        with pytest.raises(kind, match=f"^{message}") as caught:
            call(fw.array(x), x)
        assert "Tracer" not in str(caught.value) and not hasattr(caught.value, "__notes__")
    with jax.disable_jit(), pytest.raises(kind, match=f"^{message}"):
        call(fw.array(x), x)


def test_metrics_keep_their_order(fw: Framework, jax: Any, x: np.ndarray) -> None:
    pipe = Pipeline({"l2": 0.5, "z_loss": 2.0, "l1": 1.0})
    for compute in (pipe.compute, jax.jit(pipe.compute)):
        total, report = compute(fw.array(x))
        for name, terms in (("l2", oracle.l2(x)), ("z_loss", oracle.z_loss(x)), ("l1", np.abs(x))):
            part = report.regularizers[name]
            assert list(part.metrics) == ["sum", "mean", "min", "max"]
            value = terms.mean() if name == "z_loss" else terms.sum()
            want = [value, terms.sum(), terms.mean(), terms.min(), terms.max()]
            for got, expected in zip([part.value, *part.metrics.values()], want, strict=True):
                close(fw, got, expected)
        assert list(report.regularizers) == ["l2", "z_loss", "l1"]
        want = 0.5 * oracle.l2(x).sum() + 2 * oracle.z_loss(x).mean() + np.abs(x).sum()
        close(fw, total, want)


def test_a_report_is_one_program_a_penalty(fw: Framework, traced: list[str], x: np.ndarray) -> None:
    pipe = Pipeline({"l2": 0.5, "z_loss": 2.0})
    for scale in (1.0, 2.0, 3.0):
        total, report = pipe.with_weights(l2=scale).compute(fw.array(scale * x))
        close(fw, report.regularizers["z_loss"].value, oracle.z_loss(scale * x).mean())
        close(fw, total, scale * oracle.l2(scale * x).sum() + 2 * oracle.z_loss(scale * x).mean())
    assert sorted(traced) == ["l2", "z_loss"]


def test_transformed(fw: Framework, jax: Any, x: np.ndarray) -> None:
    """The programs go through JAX's transformations, and leave nothing of a trace behind."""
    a, ones = fw.array(x), fw.array(np.ones_like(x))
    p = np.exp(x - np.log(np.exp(x).sum(-1, keepdims=True)))
    lse = np.log(np.exp(x).sum(-1, keepdims=True))
    slope = 2 * lse * p / 3  # of the mean of lse squared

    with jax.checking_leaks():
        close(fw, jax.grad(xp.z_loss)(a), slope)
        close(fw, xp.grad(xp.z_loss)(a), slope)
        close(fw, jax.jit(jax.grad(xp.z_loss))(a), slope)
        close(fw, jax.vmap(jax.grad(xp.z_loss))(a[:, None]), 3 * slope[:, None])
        close(fw, jax.vmap(xp.z_loss)(a), oracle.z_loss(x))
        value, tangent = jax.jvp(xp.z_loss, (a,), (ones,))
        close(fw, value, oracle.z_loss(x).mean())
        close(fw, tangent, slope.sum())
        close(fw, jax.linearize(xp.z_loss, a)[1](ones), slope.sum())
        hessian = jax.hessian(xp.z_loss)(a[0])
        want = 2 * np.outer(p[0], p[0]) + 2 * lse[0] * (np.diag(p[0]) - np.outer(p[0], p[0]))
        close(fw, hessian, want)
        _, scanned = jax.lax.scan(lambda carry, row: (carry, xp.z_loss(row)), 0.0, a)
        close(fw, scanned, oracle.z_loss(x))
        close(fw, jax.checkpoint(xp.z_loss)(a), oracle.z_loss(x).mean())


def test_under_a_jit_of_the_callers(fw: Framework, traced: list[str], jax: Any, x: np.ndarray) -> None:
    def of(a: Any, normalizer: Any, where: Any) -> Any:
        return xp.l2(a, where=where, normalizer=normalizer) + xp.l2(2 * a, where=where, normalizer=normalizer)

    compiled = jax.jit(of)
    for normalizer in (2.0, 5.0):
        got = compiled(fw.array(x), normalizer, fw.array(x > 0))
        close(fw, got, 5 * (x[x > 0] ** 2).sum() / normalizer)
    assert traced == ["l2"]  # the two are one program
    by_normalizer = jax.grad(lambda n: xp.l2(fw.array(x), normalizer=n))(fw.array(np.asarray(4.0)))
    close(fw, by_normalizer, -(x**2).sum() / 16)


def test_64_bits_that_are_switched_on_later(fw: Framework, jax: Any, x: np.ndarray) -> None:
    tenth = x / 10
    for enabled in (False, True, False, True):
        jax.config.update("jax_enable_x64", enabled)  # the fixture of `fw` restores it
        a = jax.numpy.asarray(tenth)
        got = xp.kl_divergence(a, a[::-1], from_logits=True, normalizer=3)
        want = oracle.kl_divergence(tenth, tenth[::-1], from_logits=True).sum() / 3
        assert got.dtype == ("float64" if enabled else "float32")
        assert float(got) == pytest.approx(want, rel=1e-12 if enabled else 1e-4)


def test_without_jit(fw: Framework, traced: list[str], jax: Any, x: np.ndarray) -> None:
    """jax.disable_jit, to look at values with."""
    with jax.disable_jit():
        for _ in range(2):
            got = xp.kl_divergence(
                fw.array(x), fw.array(-x), from_logits=True, weights=fw.array(np.ones(3)), normalizer=2
            )
    close(fw, got, oracle.kl_divergence(x, -x, from_logits=True).sum() / 2)
    assert len(traced) == 2


def test_threads(fw: Framework, jax: Any, x: np.ndarray) -> None:
    """The first calls at once, of one program and of several."""

    def call(i: int) -> float:
        with jax.enable_x64(True):
            return float(xp.huber(fw.array(x), delta=1.0 + i % 3, normalizer=1 + i))

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(call, range(12)))
    assert found == pytest.approx([oracle.huber(x, 1.0 + i % 3).sum() / (1 + i) for i in range(12)])


def test_functions_before_the_arrays_are_not_kept(fw: Framework, traced: list[str], x: np.ndarray) -> None:
    """A penalty of a function is evaluated as it is called: the function may be another one, or have changed."""
    scales = [1.0, 2.0]
    for scale in scales:
        got = xp.gradient_penalty(lambda a, scale=scale: (scale * a).sum(axis=1), fw.array(x), target_norm=0.0)
        close(fw, got, scale**2 * x.shape[1])
    assert traced == ["gradient_penalty"] * 2
