"""Proximal operators by their definition, an independent minimizer, the Moreau identity, and their zeros."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

import xpenalties as xp
from tests.helpers.harness import Framework, close
from xpenalties import prox

RNG = np.random.default_rng(11)


SCALE = 0.6


@dataclass(frozen=True)
class Operator:
    """A proximal operator, the function that it belongs to, and the projection that its conjugate is."""

    function: Callable[..., Any]
    penalty: Callable[[Any], float]  # of NumPy's arrays; infinite where there is a bound
    dual: Callable[[Any], Any] | None = None  # what is left of x: Moreau
    options: dict[str, Any] = field(default_factory=dict)
    complex: bool = True
    scaled: bool = True
    convex: bool = True  # test_concave.py has the minima of the others

    def __call__(self, x: Any, **more: Any) -> Any:
        return self.function(x, **{**({"scale": SCALE} if self.scaled else {}), **self.options, **more})


def ball(x: Any, axis: Any, radius: float) -> Any:
    """The projection on balls of the L2 norm."""
    return x * np.minimum(1, radius / np.sqrt(np.sum(np.abs(x) ** 2, axis=axis, keepdims=True)))


def singular_ball(x: Any) -> Any:
    u, s, vh = np.linalg.svd(x, full_matrices=False)
    return (u * np.minimum(s, SCALE)[..., None, :]) @ vh


def norm(x: Any, order: int, axis: int) -> Any:
    return np.linalg.norm(x, order, axis=axis)


def within(inside: Any) -> float:
    return 0.0 if inside else math.inf


OPERATORS = {
    "l1": Operator(prox.l1, lambda x: float(xp.l1(x)), lambda x: x * np.minimum(1, SCALE / np.abs(x))),
    "l2": Operator(prox.l2, lambda x: float(xp.l2(x))),
    "elastic_net": Operator(prox.elastic_net, lambda x: float(xp.elastic_net(x))),
    "elastic_net, mostly l1": Operator(
        prox.elastic_net, lambda x: float(xp.elastic_net(x, l1_ratio=0.9)), options={"l1_ratio": 0.9}
    ),
    "group_lasso": Operator(
        prox.group_lasso, lambda x: float(xp.group_lasso(x)), lambda x: ball(x, -1, SCALE * math.sqrt(x.shape[-1]))
    ),
    "group_lasso, of columns": Operator(
        prox.group_lasso,
        lambda x: float(xp.group_lasso(x, axis=0)),
        lambda x: ball(x, 0, SCALE * math.sqrt(x.shape[0])),
        {"axis": 0},
    ),
    "group_lasso, of all": Operator(
        prox.group_lasso,
        lambda x: float(xp.group_lasso(x.ravel())),
        lambda x: ball(x, (0, 1), SCALE * math.sqrt(x.size)),
        {"axis": (0, -1)},
    ),
    "sparse_group_lasso": Operator(prox.sparse_group_lasso, lambda x: float(xp.sparse_group_lasso(x))),
    "sparse_group_lasso, of all": Operator(
        prox.sparse_group_lasso,
        lambda x: float(xp.sparse_group_lasso(x.ravel(), l1_ratio=0.2)),
        options={"axis": (0, -1), "l1_ratio": 0.2},
    ),
    "mcp": Operator(prox.mcp, lambda x: float(xp.mcp(x)), convex=False),
    "mcp, a jump": Operator(
        prox.mcp, lambda x: float(xp.mcp(x, threshold=0.5)), options={"threshold": 0.5}, convex=False
    ),
    "scad": Operator(
        prox.scad, lambda x: float(xp.scad(x, knee=0.4, a=3.0)), options={"knee": 0.4, "a": 3.0}, convex=False
    ),
    "scad, a jump": Operator(
        prox.scad, lambda x: float(xp.scad(x, knee=0.1, a=2.5)), options={"knee": 0.1, "a": 2.5}, convex=False
    ),
    "log_sum": Operator(prox.log_sum, lambda x: float(xp.log_sum(x)), convex=False),
    "log_sum, a jump": Operator(
        prox.log_sum, lambda x: float(xp.log_sum(x, eps=0.3)), options={"eps": 0.3}, convex=False
    ),
    "lp": Operator(prox.lp, lambda x: float(xp.lp(x)), convex=False),
    "lp, of 1": Operator(prox.lp, lambda x: float(xp.l1(x)), options={"p": 1.0}),
    "nuclear_norm": Operator(
        prox.nuclear_norm, lambda x: float(np.sum(np.linalg.svd(x, compute_uv=False))), singular_ball
    ),
    "box": Operator(
        prox.box,
        lambda x: within(np.all((x >= -0.3) & (x <= 0.8))),
        options={"low": -0.3, "high": 0.8},
        complex=False,
        scaled=False,
    ),
    "non_negative": Operator(prox.non_negative, lambda x: within(np.all(x >= 0)), complex=False, scaled=False),
    "l1_ball": Operator(
        prox.l1_ball, lambda x: within(np.all(norm(x, 1, -1) <= 1 + 1e-9)), complex=False, scaled=False
    ),
    "l1_ball, of columns": Operator(
        prox.l1_ball,
        lambda x: within(np.all(norm(x, 1, 0) <= 1.5 + 1e-9)),
        options={"radius": 1.5, "axis": 0},
        complex=False,
        scaled=False,
    ),
    "l2_ball": Operator(prox.l2_ball, lambda x: within(np.all(norm(x, 2, -1) <= 1 + 1e-9)), scaled=False),
    "l2_ball, of all": Operator(
        prox.l2_ball,
        lambda x: within(np.linalg.norm(x.ravel()) <= 2.5 + 1e-9),
        options={"radius": 2.5, "axis": (0, 1)},
        scaled=False,
    ),
    "spectral_ball": Operator(
        prox.spectral_ball,
        lambda x: within(np.linalg.norm(x, 2) <= 0.7 + 1e-9),
        options={"radius": 0.7},
        scaled=False,
    ),
    "simplex": Operator(
        prox.simplex,
        lambda x: within(np.all(x >= 0) and np.allclose(np.sum(x, axis=-1), 1, atol=1e-9)),
        complex=False,
        scaled=False,
    ),
    "simplex, of columns": Operator(
        prox.simplex,
        lambda x: within(np.all(x >= 0) and np.allclose(np.sum(x, axis=0), 2.5, atol=1e-9)),
        options={"radius": 2.5, "axis": 0},
        complex=False,
        scaled=False,
    ),
}


each = pytest.mark.parametrize("name", OPERATORS)


DECOMPOSES = ("nuclear_norm", "spectral_ball")
NOT_CONVEX = ("l2_sphere", "top_k")  # projections that test_balls.py tests
SHRINKS = ["l1", "elastic_net", "group_lasso", "nuclear_norm"]


def test_all_are_here() -> None:
    assert {operator.function for operator in OPERATORS.values()} == {
        getattr(prox, name) for name in prox.__all__ if name not in NOT_CONVEX and name not in ("prox_step", "sparsity")
    }


@each
def test_definition(fw: Framework, name: str) -> None:
    """x - prox(x) is a subgradient there of what is scaled, which no other point does better by: for convex functions
    that is to be the minimum."""
    operator = OPERATORS[name]
    if not operator.convex:
        pytest.skip("has no subgradient everywhere, see test_concave.py")
    for _ in range(5):
        x = RNG.normal(size=(3, 4))
        result = fw.numpy(operator(fw.array(x)))
        scale = SCALE if operator.scaled else 1.0
        here = scale * operator.penalty(result)
        assert here < math.inf
        for spread in (1e-3, 0.1, 1.0, 10.0):
            for _ in range(20):
                there = result + spread * RNG.normal(size=x.shape)
                if not operator.scaled:  # of what is within bounds
                    there = fw.numpy(operator(fw.array(there)))
                assert scale * operator.penalty(there) >= here + np.sum((x - result) * (there - result)) - 1e-9


@each
def test_an_independent_minimiser(fw: Framework, name: str) -> None:
    operator = OPERATORS[name]
    if not operator.scaled:
        pytest.skip("a bound is no function to minimize, see the definition")
    if not operator.convex:
        pytest.skip("may have several minima, see test_concave.py")
    x = RNG.normal(size=(2, 2))

    def objective(z: Any) -> float:
        z = z.reshape(x.shape)
        return float(0.5 * np.sum((z - x) ** 2)) + SCALE * operator.penalty(z)

    best = minimize(objective, x.ravel(), method="Powell", options={"xtol": 1e-10, "ftol": 1e-14})
    best = minimize(objective, best.x, method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-14, "maxiter": 4000})
    np.testing.assert_allclose(fw.numpy(operator(fw.array(x))).ravel(), best.x, atol=1e-4)


@each
def test_moreau(fw: Framework, name: str) -> None:
    """What a norm's operator takes away is the projection on the dual norm's ball."""
    operator = OPERATORS[name]
    if operator.dual is None:
        pytest.skip("is no norm")
    x = RNG.normal(size=(3, 4))
    np.testing.assert_allclose(fw.numpy(operator(fw.array(x))) + operator.dual(x), x, rtol=1e-12, atol=1e-14)


@each
def test_complex(fw: Framework, name: str) -> None:
    """By the definition, as of pairs of real numbers."""
    operator = OPERATORS[name]
    x = RNG.normal(size=(3, 4)) + 1j * RNG.normal(size=(3, 4))
    if not operator.complex:
        with pytest.raises(TypeError, match=rf"^{operator.function.__name__}: `x` must be real floating point, got"):
            operator(fw.array(x))
        return
    result = fw.numpy(operator(fw.array(x)))
    if not operator.convex:  # as of the magnitudes
        want = x * (fw.numpy(operator(fw.array(np.abs(x)))) / np.abs(x))
        np.testing.assert_allclose(result, want, rtol=1e-12, atol=1e-14)
        return
    scale = SCALE if operator.scaled else 1.0
    here = scale * operator.penalty(result)
    for _ in range(40):
        there = result + RNG.normal(size=x.shape) + 1j * RNG.normal(size=x.shape)
        if not operator.scaled:
            there = fw.numpy(operator(fw.array(there)))
        assert scale * operator.penalty(there) >= here + np.sum(np.real(np.conj(x - result) * (there - result))) - 1e-9


@each
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_dtypes(fw: Framework, name: str, dtype: str) -> None:
    if dtype not in fw.dtypes:
        pytest.skip(f"has no {dtype}")
    operator = OPERATORS[name]
    x = RNG.normal(size=(3, 4))
    got = operator(fw.array(x, dtype))
    assert got.dtype == fw.dtype(dtype) and tuple(got.shape) == (3, 4)
    want = fw.numpy(operator(fw.array(fw.numpy(fw.array(x, dtype)))))
    tolerance = {"float16": 1e-3, "bfloat16": 1e-2, "float32": 1e-5, "float64": 0}[dtype]
    np.testing.assert_allclose(fw.numpy(got), want, atol=tolerance)


@pytest.mark.parametrize("name", SHRINKS)
def test_exact_zeros(fw: Framework, name: str) -> None:
    operator = OPERATORS[name]
    small = RNG.normal(size=(3, 4)) * 0.01
    assert np.count_nonzero(fw.numpy(operator(fw.array(small)))) == 0
    assert np.count_nonzero(fw.numpy(operator(fw.array(small), scale=0.0))) == 12
    close(fw, operator(fw.array(small), scale=0), small)
    assert np.count_nonzero(fw.numpy(operator(fw.array(np.zeros((3, 4))), scale=0.0))) == 0


@pytest.mark.without("dask", reason="Dask decomposes one matrix, no batch")
def test_lower_rank(fw: Framework) -> None:
    operator = OPERATORS["nuclear_norm"]
    x = RNG.normal(size=(2, 5, 3))  # a batch
    got = fw.numpy(operator(fw.array(x), scale=1.5))
    singular = np.linalg.svd(x, compute_uv=False)
    np.testing.assert_allclose(np.linalg.svd(got, compute_uv=False), np.maximum(singular - 1.5, 0), atol=1e-12)
    close(fw, operator(fw.array(x[0]), scale=1.5), got[0])


@each
def test_nan_is_not_lost(fw: Framework, name: str) -> None:
    if name in DECOMPOSES:
        pytest.skip("what a decomposition makes of NaN is the framework's")
    x = RNG.normal(size=(3, 4))
    x[1, 1] = math.nan
    assert np.isnan(fw.numpy(OPERATORS[name](fw.array(x)))[1, 1])


@each
def test_scales_are_arrays_too(fw: Framework, name: str) -> None:
    operator = OPERATORS[name]
    if not operator.scaled:
        pytest.skip("has no scale")
    x = fw.array(RNG.normal(size=(3, 4)))
    want = fw.numpy(operator(x))
    close(fw, operator(x, scale=fw.array(np.asarray(SCALE))), want)
    got = operator(fw.array(fw.numpy(x), "float32"), scale=fw.array(np.asarray(SCALE)))
    assert got.dtype == fw.dtype("float32")  # a scale widens nothing
    close(fw, operator(x, scale=np.float64(SCALE)), want)


@each
def test_compiled(fw: Framework, name: str) -> None:
    if not fw.has_jit:
        pytest.skip(fw.row["no_jit"])
    operator = OPERATORS[name]
    given, counts = ["scale"] if operator.scaled else [], set()
    compiled, count = fw.compile(lambda x, *scale: operator(x, **dict(zip(given, scale, strict=True))))
    for scale in (0.1, 0.5, 0.7):
        x = fw.array(RNG.normal(size=(3, 4)))
        arrays = [fw.array(np.asarray(scale)) for _ in given]
        close(fw, compiled(x, *arrays), fw.numpy(operator(x, **dict.fromkeys(given, scale))))
        counts.add(count())
    assert len(counts) == 1  # torch.compile tries a 0-d tensor's number first, and starts again


@each
@pytest.mark.needs("autodiff")
def test_gradients(fw: Framework, name: str) -> None:
    if name in DECOMPOSES and fw.name in ("numpy", "strict"):
        pytest.skip("autograd has no derivative of the standard's svd")
    operator = OPERATORS[name]
    x, factors = RNG.normal(size=(3, 4)), RNG.normal(size=(3, 4))

    def of(x: Any) -> Any:
        return xp.namespace(x).sum(operator(x) * fw.array(factors))

    got, step = fw.numpy(xp.grad(of)(fw.array(x))), 1e-6
    for index in np.ndindex(x.shape):
        moved = np.zeros_like(x)
        moved[index] = step
        up, down = (float(np.sum(fw.numpy(operator(fw.array(x + sign * moved))) * factors)) for sign in (1, -1))
        assert got[index] == pytest.approx((up - down) / (2 * step), abs=1e-7)


@each
@pytest.mark.needs("autodiff")
def test_gradients_by_scales(fw: Framework, name: str) -> None:
    operator = OPERATORS[name]
    if not operator.scaled or (name in DECOMPOSES and fw.name in ("numpy", "strict")):
        pytest.skip("has no scale, or autograd no derivative of the standard's svd")
    x, factors = RNG.normal(size=(3, 4)), RNG.normal(size=(3, 4))

    def of(scale: Any) -> Any:
        result = operator(fw.array(x), scale=scale)
        return xp.namespace(result).sum(result * fw.array(factors))

    up, down = (float(np.sum(fw.numpy(operator(fw.array(x), scale=SCALE + d)) * factors)) for d in (1e-6, -1e-6))
    assert float(xp.grad(of)(fw.array(np.asarray(SCALE)))) == pytest.approx((up - down) / 2e-6, abs=1e-7)


PARTS: dict[str, tuple[Callable[..., Any], tuple[int, ...], Callable[[Any, Any], list[Any]]]] = {
    # the operator, the shape of an array of scales, and the result for each scale alone
    "l1": (prox.l1, (3, 4), lambda x, s: [[prox.l1(x[i, j], scale=s[i, j]) for j in range(4)] for i in range(3)]),
    "l1, of columns": (prox.l1, (4,), lambda x, s: [prox.l1(x[:, i], scale=s[i]) for i in range(4)]),
    "mcp": (
        lambda x, scale: prox.mcp(x, scale=scale, threshold=0.5),
        (3, 4),
        lambda x, s: [[prox.mcp(x[i, j], scale=s[i, j], threshold=0.5) for j in range(4)] for i in range(3)],
    ),
    "scad, of columns": (
        lambda x, scale: prox.scad(x, scale=scale, knee=0.2, a=3.0),
        (4,),
        lambda x, s: [prox.scad(x[:, i], scale=s[i], knee=0.2, a=3.0) for i in range(4)],
    ),
    "log_sum, of columns": (
        lambda x, scale: prox.log_sum(x, scale=scale, eps=0.7),
        (4,),
        lambda x, s: [prox.log_sum(x[:, i], scale=s[i], eps=0.7) for i in range(4)],
    ),
    "lp, of rows": (prox.lp, (3, 1), lambda x, s: [prox.lp(x[i], scale=s[i, 0]) for i in range(3)]),
    "l2, of rows": (prox.l2, (3, 1), lambda x, s: [prox.l2(x[i], scale=s[i, 0]) for i in range(3)]),
    "elastic_net": (prox.elastic_net, (3, 1), lambda x, s: [prox.elastic_net(x[i], scale=s[i, 0]) for i in range(3)]),
    "group_lasso": (prox.group_lasso, (3,), lambda x, s: [prox.group_lasso(x[i], scale=s[i]) for i in range(3)]),
    "group_lasso, of columns": (
        lambda x, scale: prox.group_lasso(x, scale=scale, axis=0),
        (4,),
        lambda x, s: [prox.group_lasso(x[:, i], scale=s[i]) for i in range(4)],
    ),
}
parts = pytest.mark.parametrize("name", PARTS)


@parts
def test_a_scale_for_each_part(fw: Framework, name: str) -> None:
    """Of each element, row, column or group."""
    operator, shape, by_hand = PARTS[name]
    x, scale = RNG.normal(size=(3, 4)), RNG.uniform(0, 1, size=shape)
    want = np.asarray(by_hand(x, scale))
    want = want.T if want.shape == (4, 3) else want
    close(fw, operator(fw.array(x), scale=fw.array(scale)), want)
    low = operator(fw.array(x, "float32"), scale=fw.array(scale))
    assert low.dtype == fw.dtype("float32")  # a scale widens nothing
    close(fw, low, want, rtol=1e-5, atol=1e-6)


@parts
def test_a_scale_for_each_part_compiled(fw: Framework, name: str) -> None:
    if not fw.has_jit:
        pytest.skip(fw.row["no_jit"])
    operator, shape, _ = PARTS[name]
    x, scale = fw.array(RNG.normal(size=(3, 4))), fw.array(RNG.uniform(0, 1, size=shape))
    compiled, _ = fw.compile(lambda x, scale: operator(x, scale=scale))
    close(fw, compiled(x, scale), fw.numpy(operator(x, scale=scale)))


@parts
@pytest.mark.needs("autodiff")
def test_gradients_by_a_scale_for_each_part(fw: Framework, name: str) -> None:
    operator, shape, _ = PARTS[name]
    x, scale, factors = RNG.normal(size=(3, 4)), RNG.uniform(0.1, 0.9, size=shape), RNG.normal(size=(3, 4))

    def of(scale: Any) -> Any:
        result = operator(fw.array(x), scale=scale)
        return xp.namespace(result).sum(result * fw.array(factors))

    got = fw.numpy(xp.grad(of)(fw.array(scale)))
    for index in np.ndindex(shape):
        moved = np.zeros(shape)
        moved[index] = 1e-6
        up, down = (float(fw.numpy(of(fw.array(scale + sign * moved)))) for sign in (1, -1))
        assert got[index] == pytest.approx((up - down) / 2e-6, abs=1e-7)


@pytest.mark.without("dask", reason="Dask decomposes one matrix, no batch")
def test_weights_of_singular_values(fw: Framework) -> None:
    x = RNG.normal(size=(2, 3, 5))
    u, values, vh = np.linalg.svd(x, full_matrices=False)
    for scale in (np.asarray([0.0, 0.5, 3.0]), np.asarray([[0.0, 0.2, 0.9], [0.3, 0.3, 9.0]])):
        got = fw.numpy(prox.nuclear_norm(fw.array(x), scale=fw.array(scale)))
        np.testing.assert_allclose(got, (u * np.maximum(values - scale, 0)[:, None, :]) @ vh, atol=1e-12)


@pytest.mark.parametrize("name", ["l1", "elastic_net", "group_lasso"])
@pytest.mark.parametrize("size", [1e-30, 1e-18, 1e-3, 1e18])
@pytest.mark.needs("autodiff")
def test_gradients_of_large_and_small(fw: Framework, name: str, size: float) -> None:
    """Where a warm-up begins, at a scale of 0."""
    x = fw.array(np.asarray([[size, -size]]), "float32")
    for scale in (0.0, 1e-6 * size):
        got = fw.numpy(xp.grad(lambda x, s=scale: xp.namespace(x).sum(x * 0 + OPERATORS[name](x, scale=s)))(x))
        np.testing.assert_allclose(
            got, 1.0, rtol=1e-2 if size > 1e10 or scale else 1e-5
        ) if name != "elastic_net" else None
        assert np.all(np.isfinite(got))


@each
def test_nothing(fw: Framework, name: str) -> None:
    operator = OPERATORS[name]
    for shape in ((0, 4), (3, 0)):
        assert tuple(operator(fw.array(np.zeros(shape))).shape) == shape


def test_sparse_regression(fw: Framework) -> None:
    """Steps of a fixed size on a least-squares problem come to the solution that its own conditions describe."""
    a, noise = RNG.normal(size=(60, 12)), 0.05 * RNG.normal(size=60)
    b = a[:, :3] @ np.asarray([2.0, -1.5, 1.0]) + noise
    gram, target, weight = a.T @ a / 60, a.T @ b / 60, 0.1
    rate = 1 / float(np.linalg.eigvalsh(gram)[-1])
    x, matrix, vector = fw.array(np.zeros(12)), fw.array(gram), fw.array(target)
    for _ in range(400):
        x = prox.l1(x - rate * (matrix @ x - vector), scale=rate * weight)
    result = fw.numpy(x)
    gradient = target - gram @ result
    assert np.count_nonzero(result) == 3
    np.testing.assert_allclose(gradient[result != 0], weight * np.sign(result[result != 0]), atol=1e-9)
    assert np.all(np.abs(gradient) <= weight + 1e-9)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: prox.l1(x, scale=-1.0), ValueError, r"^l1: `scale` must be in \[0, inf\), got -1\.0"),
        (lambda x: prox.l1(x, scale="a"), TypeError, r"^l1: `scale` must be a number in \[0, inf\), got str"),
        *(
            (
                lambda x, operator=operator: operator(x, scale=x[0, :2]),
                ValueError,
                rf"^{operator.__name__}: `scale` must broadcast to `x`, got shapes \(2,\) and \(2, 3\)\. Reshape it",
            )
            for operator in (prox.l1, prox.l2, prox.elastic_net)
        ),
        (
            lambda x: prox.group_lasso(x, scale=x),
            ValueError,
            r"^group_lasso: `scale` must broadcast to `x` without `axis`, got shapes \(2, 3\) and \(2,\)",
        ),
        (
            lambda x: prox.group_lasso(x, scale=1, axis=(1, -1)),
            ValueError,
            r"^group_lasso: `axis` must have each axis once, got \(1, -1\)",
        ),
        (lambda x: prox.group_lasso(x, scale=1, axis=()), ValueError, r"^group_lasso: `axis` must have each axis once"),
        (
            lambda x: prox.nuclear_norm(x, scale=x),
            ValueError,
            r"^nuclear_norm: `scale` must broadcast to the singular values, got shapes \(2, 3\) and \(2,\)",
        ),
        (
            lambda x: prox.elastic_net(x, scale=1, l1_ratio=2),
            ValueError,
            r"^elastic_net: `l1_ratio` must be in \[0, 1\]",
        ),
        (
            lambda x: prox.group_lasso(x, scale=1, axis=2),
            ValueError,
            r"^group_lasso: `axis` must be an axis of `x`, got 2",
        ),
        (
            lambda x: prox.nuclear_norm(x[0, :], scale=1),
            ValueError,
            r"^nuclear_norm: `x` must have at least 2 axes, got",
        ),
    ],
)
def test_errors(fw: Framework, call: Callable[[Any], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(fw.array(np.ones((2, 3))))


def test_errors_of_kinds(fw: Framework) -> None:
    with pytest.raises(TypeError, match=r"^l1: `x` must be real or complex floating point, got .*int"):
        prox.l1(fw.array(np.asarray([1, 2])), scale=1.0)
    with pytest.raises(TypeError, match=r"^l1: `scale` must be real, got .*int"):
        prox.l1(fw.array(np.ones(2)), scale=fw.array(np.asarray(1)))
