"""Adversarial consistency: eigenvectors, what is constant, flat functions, half precision, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, close, first_and_second
from xpenalties import Penalty, Pipeline, backends, namespace

autodiff = pytest.mark.needs("autodiff")
can_differentiate = pytest.mark.without("dask", reason="dask has no gradients, and no DLPack to borrow them by")
pytestmark = can_differentiate
RNG = np.random.default_rng(5)
X, W = RNG.standard_normal((4, 3)), RNG.standard_normal((3, 5))
START = RNG.standard_normal((4, 3))
STEEP = W * np.asarray([[1.0], [0.1], [0.02]])  # few iterations suffice, because the singular values are far apart


def products(x: Any, w: Any) -> Any:
    """Return x @ w of samples. Arrays of NumPy become numbers, which every framework takes."""
    xs = namespace(x)
    if isinstance(w, np.ndarray):
        columns = [sum(float(w[i, j]) * x[..., i] for i in range(w.shape[0])) for j in range(w.shape[1])]
        return xs.stack(columns, axis=-1)
    return namespace(x, w).sum(x[..., None] * w, axis=-2)


def softmax(z: np.ndarray) -> np.ndarray:
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(p / p.sum(axis=-1, keepdims=True))


def unit(x: np.ndarray) -> np.ndarray:
    return np.asarray(x / np.linalg.norm(x.reshape(len(x), -1), axis=1).reshape(-1, *[1] * (x.ndim - 1)))


def numbers(x: Any) -> np.ndarray | None:
    """Return an array that a function is called with in float64, None for a tracer that has no numbers."""
    while type(x).__name__ == "ArrayBox":
        x = x._value
    if "Tracer" in type(x).__name__:
        return None
    return np.asarray(x.detach().double() if hasattr(x, "detach") else x, dtype=np.float64)


def points_of(x: Any, fn: Any = lambda x: x, **options: Any) -> list[Any]:
    """Return the points at which the function is called: the samples, those of the power iteration, the result."""
    seen: list[Any] = []

    def seeing(x: Any) -> Any:
        seen.append(numbers(x))
        return fn(x)

    xp.adversarial_consistency(seeing, x, **options)
    return seen


def random(fw: Framework) -> Any:
    return np.random.default_rng(0) if fw.key(0) is None else fw.key(0)


@pytest.mark.parametrize(("metric", "factor"), [("kl", 1 / 2), ("js", 1 / 8)])
def test_a_softmax_of_a_linear_map_finds_the_top_eigenvector(fw: Framework, metric: str, factor: float) -> None:
    epsilon, iterations = 1e-4, 12
    p = softmax(X @ STEEP)
    hessians = [STEEP @ (np.diag(q) - np.outer(q, q)) @ STEEP.T for q in p]
    values, vectors = zip(*[np.linalg.eigh(hessian) for hessian in hessians], strict=True)
    assert all((of_one[-2] / of_one[-1]) ** iterations < 1e-5 for of_one in values)
    noise = fw.array(START)
    options = {"metric": metric, "epsilon": epsilon, "iterations": iterations, "noise": noise, "reduction": "none"}
    got = xp.adversarial_consistency(lambda x: products(x, STEEP), fw.array(X), **options)
    close(fw, got, factor * epsilon**2 * np.asarray([of_one[-1] for of_one in values]), rtol=1e-3, atol=0)
    *_, moved = points_of(fw.array(X), lambda x: products(x, STEEP), **options)
    for r, of_one in zip(moved - X, vectors, strict=True):
        assert abs(r @ of_one[:, -1]) == pytest.approx(epsilon, rel=1e-5)


@pytest.mark.parametrize("epsilon", [1e-3, 2.0])
def test_a_linear_map_finds_the_largest_singular_value(fw: Framework, epsilon: float) -> None:
    options = {"metric": "mse", "epsilon": epsilon, "iterations": 8, "rng": random(fw)}
    got = xp.adversarial_consistency(lambda x: products(x, STEEP), fw.array(X), **options)
    close(fw, got, epsilon**2 * np.linalg.norm(STEEP, 2) ** 2 / STEEP.shape[1])


def test_one_iteration(fw: Framework) -> None:
    """One product of the start with the Hessian, which is W W^T for a linear map."""
    options = {"metric": "mse", "epsilon": 0.3, "noise": fw.array(START), "reduction": "none"}
    direction = unit(START @ W @ W.T)
    for iterations in (1, 2):
        got = xp.adversarial_consistency(lambda x: products(x, W), fw.array(X), iterations=iterations, **options)
        close(fw, got, 0.09 * np.mean((direction @ W) ** 2, axis=1))
        direction = unit(direction @ W @ W.T)


@pytest.mark.parametrize("shape", [(4,), (4, 1), (1, 3), (3, 2, 4), (2, 1, 2, 2)])
def test_the_perturbation_of_each_sample_has_norm_epsilon(fw: Framework, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(1).standard_normal(shape)
    clean, *_, moved = points_of(fw.array(x), lambda x: x * x, metric="mse", epsilon=0.7, rng=random(fw))
    np.testing.assert_array_equal(clean, x)
    assert moved.shape == shape
    np.testing.assert_allclose(np.linalg.norm((moved - x).reshape(len(x), -1), axis=1), 0.7, rtol=1e-12)


def test_rows_of_a_sample_are_averaged(fw: Framework) -> None:
    """With one start and an axis of classes in the middle."""
    x, start = RNG.standard_normal((2, 3, 4)), RNG.standard_normal((2, 3, 4))
    for metric in ("kl", "js", "mse"):
        options = {"metric": metric, "noise": fw.array(start), "reduction": "none"}
        rows = [xp.adversarial_consistency(lambda x: x, fw.array(x), axis=axis, **options) for axis in (1, -2)]
        swapped = xp.adversarial_consistency(lambda x: namespace(x).permute_dims(x, (0, 2, 1)), fw.array(x), **options)
        assert tuple(rows[0].shape) == (2,)
        for other in (rows[1], swapped):
            close(fw, other, fw.numpy(rows[0]))


def test_it_is_the_divergence_at_the_perturbation(fw: Framework) -> None:
    x, start = fw.array(X), fw.array(START)
    for metric, penalty, options in (
        ("kl", xp.kl_divergence, {"from_logits": True}),
        ("js", xp.js_divergence, {"from_logits": True}),
        ("mse", xp.consistency, {}),
    ):
        call = {"metric": metric, "noise": start}
        *_, moved = points_of(x, lambda x: products(x, W), **call)
        got = xp.adversarial_consistency(lambda x: products(x, W), x, **call)
        close(fw, got, float(penalty(fw.array(X @ W), fw.array(moved @ W), **options)))


def test_logits_and_log_probabilities_are_alike(fw: Framework) -> None:
    def normalized(x: Any) -> Any:
        z = products(x, W)
        return z - namespace(z).log(namespace(z).sum(namespace(z).exp(z), axis=-1, keepdims=True))

    for metric in ("kl", "js"):
        got = [
            xp.adversarial_consistency(fn, fw.array(X), metric=metric, noise=fw.array(START), iterations=2)
            for fn in (normalized, lambda x: products(x, W) + 3.0)
        ]
        close(fw, got[0], fw.numpy(got[1]))


def test_small_values_keep_their_digits(fw: Framework) -> None:
    """In float32, p log(p / q) would be off by 1e-7."""
    options = {"epsilon": 1e-3, "reduction": "none"}
    wide, narrow = (
        fw.numpy(
            xp.adversarial_consistency(
                lambda x: products(x, W), fw.array(0.1 * X, dtype), noise=fw.array(START, dtype), **options
            )
        )
        for dtype in ("float64", "float32")
    )
    assert wide.max() < 3e-6
    np.testing.assert_allclose(narrow, wide, rtol=2e-3)


@autodiff
def test_gradients_are_those_at_a_constant_perturbation(fw: Framework) -> None:
    """Those of mean((x + r) W - c)^2 with k outputs are 2 (r W) W^T / k and 2 (x + r)^T (r W) / k."""
    r = 0.5 * unit(START @ W @ W.T)
    change, k = r @ W, W.shape[1]

    def of(x: Any, w: Any) -> Any:
        options = {"metric": "mse", "epsilon": 0.5, "noise": fw.array(START), "reduction": "sum"}
        return xp.adversarial_consistency(lambda x: products(x, w), x, **options)

    x, w = fw.array(X), fw.array(W)
    close(fw, xp.grad(of)(x, w), 2 / k * change @ W.T)
    close(fw, xp.grad(lambda w: of(x, w))(w), 2 / k * (X + r).T @ change)
    # of the sum of squares of G = 2 A^T (A W - c) / k with A = x + r
    points = X + r
    _, second = first_and_second(fw, lambda w: of(x, w), W)
    gradient = 2 / k * points.T @ change
    np.testing.assert_allclose(second, 4 / k * points.T @ points @ gradient, rtol=1e-9)


@autodiff
def test_the_starting_direction_is_a_constant(fw: Framework) -> None:
    def off(x: Any) -> Any:  # a ReLU that is flat at the step, and not at the perturbation
        return namespace(x).where(x > 0, x, 0.0)

    def of(start: Any) -> Any:
        options = {"metric": "mse", "epsilon": 5.0, "xi": 0.1, "noise": start}
        return xp.adversarial_consistency(off, fw.array(-np.ones((1, 2))), **options)

    start = fw.array(np.asarray([[3.0, 4.0]]))
    close(fw, of(start), (2**2 + 3**2) / 2)
    assert (fw.numpy(xp.grad(of)(start)) == 0).all()


def relu(x: Any, w: Any, bias: float) -> Any:
    z = products(x, w) + bias
    return namespace(z).where(z > 0, z, 0.0)


@pytest.mark.parametrize("metric", ["kl", "js", "mse"])
def test_a_flat_function_keeps_the_random_direction(fw: Framework, metric: str) -> None:
    options = {"metric": metric, "noise": fw.array(START), "epsilon": 2.0, "iterations": 3}
    flat = lambda x: relu(x, W, -100.0)  # noqa: E731
    clean, *_, moved = points_of(fw.array(X), flat, **options)
    np.testing.assert_allclose(moved - clean, 2 * unit(START), rtol=1e-12)
    assert float(xp.adversarial_consistency(flat, fw.array(X), **options)) == 0
    if fw.has_autodiff:
        first, second = first_and_second(fw, lambda x: xp.adversarial_consistency(flat, x, **options), X)
        assert (first == 0).all() and (second == 0).all()


def test_only_flat_samples_keep_the_random_direction(fw: Framework) -> None:
    x = np.asarray([[1.0, 1.0], [-100.0, 1.0]])
    start = np.asarray([[1.0, 1.0], [3.0, 4.0]])

    def fn(x: Any) -> Any:
        return namespace(x).where(x[:, 0] > 0, x[:, 0], 0.0)

    clean, *_, moved = points_of(fw.array(x), fn, metric="mse", noise=fw.array(start), epsilon=0.5)
    close(fw, fw.array(moved - clean), [[0.5, 0.0], [0.3, 0.4]])


def test_a_gradient_of_nan_is_not_hidden(fw: Framework) -> None:
    def fn(x: Any) -> Any:
        return namespace(x).where(x[:, :1] > 1.5, math.nan, x)

    x = fw.array(np.asarray([[1.0, 0.0], [2.0, 0.0]]))
    for metric in ("kl", "js", "mse"):
        options = {"metric": metric, "epsilon": 0.1, "noise": fw.array(START[:2, :2]), "reduction": "none"}
        got = fw.numpy(xp.adversarial_consistency(fn, x, **options))
        assert np.isfinite(got[0]) and np.isnan(got[1])


@pytest.mark.parametrize("size", [1e-25, 1e12])
def test_gradients_of_any_size(fw: Framework, size: float) -> None:
    """Their squares would overflow or underflow in float32."""
    x, start = fw.array(X, "float32"), fw.array(START, "float32")
    got = xp.adversarial_consistency(lambda x: size * products(x, W), x, metric="mse", xi=1.0, noise=start)
    want = np.mean((unit(START @ W @ W.T) @ W) ** 2)
    ratio = float(got) / size / size if size > 1 else float(got)
    assert ratio == pytest.approx(want if size > 1 else 0.0, rel=1e-3)


@pytest.mark.without("jax", reason="the points of its power iterations are tracers")
def test_the_step_of_the_power_iteration(fw: Framework) -> None:
    zeros, start = np.zeros((1, 2)), np.asarray([[3.0, 4.0]])
    for dtype in fw.dtypes:
        for xi, epsilon in ((None, 0.5), (None, 4.0), (0.25, 4.0)):
            options = {"metric": "mse", "noise": fw.array(start, dtype), "epsilon": epsilon, "xi": xi}
            sizes = [np.linalg.norm(p) for p in points_of(fw.array(zeros, dtype), **options)]
            assert sizes == pytest.approx([0.0, xi or epsilon, epsilon], rel=1e-2)


def test_the_default_step_sees_what_is_not_quadratic(fw: Framework) -> None:
    """At 0, (2 x, y + 4 y^3) has the larger slope along x, but at a distance of 1 it has changed more along y."""

    def fn(x: Any) -> Any:
        return namespace(x).stack([2 * x[:, 0], x[:, 1] + 4 * x[:, 1] ** 3], axis=-1)

    x, start = fw.array(np.zeros((1, 2))), fw.array(np.ones((1, 2)))
    for xi, want in ((None, 5**2 / 2), (1e-3, 2**2 / 2)):
        got = xp.adversarial_consistency(fn, x, metric="mse", xi=xi, noise=start, iterations=40)
        close(fw, got, want)


def test_half_precision(fw: Framework) -> None:
    """The direction is near that of float64, and terms are in float32."""
    options = {"iterations": 3, "epsilon": 0.5, "reduction": "none"}
    want = fw.numpy(xp.adversarial_consistency(lambda x: products(x, W), fw.array(X), noise=fw.array(START), **options))
    for dtype in sorted({"float16", "bfloat16"} & set(fw.dtypes)):
        x, start = fw.array(X, dtype), fw.array(START, dtype)
        got = xp.adversarial_consistency(lambda x: products(x, W), x, noise=start, **options)
        assert got.dtype == fw.dtype("float32")
        np.testing.assert_allclose(fw.numpy(got), want, rtol=0.1)


def test_the_number_of_calls(fw: Framework) -> None:
    calls = []

    def fn(x: Any) -> Any:
        calls.append(tuple(x.shape))
        return x * x

    for iterations in (1, 4):
        calls.clear()
        xp.adversarial_consistency(fn, fw.array(X), iterations=iterations, rng=random(fw))
        assert calls == [X.shape] * (iterations + 2)
    calls.clear()
    assert float(xp.adversarial_consistency(fn, fw.array(X[:0]))) == 0
    assert calls == []


def test_random_numbers(fw: Framework) -> None:
    def value(rng: Any) -> float:
        return float(xp.adversarial_consistency(lambda x: products(x, W), fw.array(X), rng=rng))

    assert value(random(fw)) == value(random(fw))
    if fw.key(0) is None:
        assert value(None) != value(None)
        same = np.random.default_rng(3).standard_normal(X.shape)
        want = xp.adversarial_consistency(lambda x: products(x, W), fw.array(X), noise=fw.array(same))
        assert value(np.random.default_rng(3)) == pytest.approx(float(want), rel=1e-12)
    else:
        assert value(fw.key(0)) != value(fw.key(1))
        with pytest.raises(TypeError, match=r"^adversarial_consistency: `rng` must be a JAX key, got NoneType"):
            value(None)


def test_refused(fw: Framework) -> None:
    x, name = fw.array(X), "^adversarial_consistency: "
    options = {"noise": x}

    def fails(kind: type[Exception], message: str, fn: Any, at: Any = x, **changed: Any) -> None:
        with pytest.raises(kind, match=name + message):
            xp.adversarial_consistency(fn, at, **{**options, **changed})

    same = lambda x: x  # noqa: E731
    fails(ValueError, r"`x` must have at least 1 axis, that of the samples", same, fw.array(np.asarray(1.0)))
    fails(TypeError, r"`fn` must be callable, got int", 3)
    fails(TypeError, r"`fn` must return a \w+ array, like its input, got builtins.list", lambda x: [0.0])
    fails(ValueError, r"`fn` must return each sample's outputs, shape \(4, \.\.\.\), got \(3,\)", lambda x: x[0, :])
    fails(ValueError, r"`fn` must return an output for each sample, got none: shape \(4, 0\)", lambda x: x[:, :0])
    for axis in (0, -2, 2, -3):
        rule = rf"`axis` must be an axis of the output of `fn` after the first.*got {axis} for shape \(4, 3\)"
        fails(ValueError, rule, same, axis=axis)
        xp.adversarial_consistency(same, x, axis=axis, metric="mse", noise=x)
    fails(ValueError, r"`axis` must be .*got -1 for shape \(4,\). Return the logits of all", lambda x: x[:, 0])
    fails(ValueError, r"`noise` must have the shape of `x`, \(4, 3\), got \(3,\). Broadcast", same, noise=x[0, :])
    fails(TypeError, r"`noise` must be real floating point, got .*bool", same, noise=x == x)
    fails(TypeError, r"`noise` must be an array", same, noise=[1.0])


def test_a_function_that_does_not_depend_on_its_input(fw: Framework) -> None:
    def detached(x: Any) -> Any:
        backend = backends.backend_of(x)
        assert backend is not None
        return backend.autodiff.stop_gradient(x)

    with pytest.raises(ValueError, match=r"^adversarial_consistency: `fn` must return a value that depends on `x`"):
        xp.adversarial_consistency(detached, fw.array(X), noise=fw.array(START))


def network(params: Any, x: Any) -> Any:
    return namespace(x).tanh(x @ params["w"] + params["b"]) @ params["v"]


PARAMS = {"w": W, "b": RNG.standard_normal(5), "v": RNG.standard_normal((5, 3))}


@pytest.mark.needs("jit")
@pytest.mark.parametrize("metric", ["kl", "js", "mse"])
def test_compiled_gradient_with_respect_to_parameters(fw: Framework, metric: str) -> None:
    def of(params: Any, x: Any, start: Any) -> Any:
        options = {"metric": metric, "noise": start, "iterations": 2}
        return xp.adversarial_consistency(lambda x: network(params, x), x, **options)

    eager = xp.value_and_grad(of)
    compiled, count = fw.compile(eager)
    params = {name: fw.array(p) for name, p in PARAMS.items()}
    for scale in (1.0, 0.5):
        inputs = params, fw.array(scale * X), fw.array(START)
        (value, gradient), (want, wanted) = compiled(*inputs), eager(*inputs)
        close(fw, value, fw.numpy(want))
        for key in PARAMS:
            close(fw, gradient[key], fw.numpy(wanted[key]))
    assert count() == 1


@pytest.mark.needs("jit")
def test_compiled_random_numbers(fw: Framework) -> None:
    """A source of random numbers that is an input, as JAX's key, and PyTorch's own generator."""

    def of(x: Any, key: Any) -> Any:
        return xp.adversarial_consistency(lambda x: products(x, W), x, rng=key)

    compiled, count = fw.compile(of)
    values = [float(compiled(fw.array(X), fw.key(seed))) for seed in (0, 1)]
    assert values[0] != values[1] and min(values) > 0
    assert count() == 1


def test_in_a_pipeline(fw: Framework) -> None:
    pipe = Pipeline(
        [
            Penalty(
                "adversarial_consistency",
                inputs={"fn": "model", "x": "x", "noise": "start"},
                weight=2.0,
                options={"epsilon": 0.5},
            )
        ]
    )
    data = {"model": lambda x: products(x, W), "x": fw.array(X), "start": fw.array(START)}
    want = xp.adversarial_consistency(data["model"], data["x"], epsilon=0.5, noise=data["start"])
    close(fw, pipe(data), 2 * float(want))


@pytest.mark.only("torch", reason="is about PyTorch's graphs, modules and modes")
class TestTorch:
    def test_a_function_that_cannot_be_differentiated_twice(self, fw: Framework) -> None:
        torch = fw.module

        class Once(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: Any) -> Any:
                return 2 * x

            @staticmethod
            @torch.autograd.function.once_differentiable
            def backward(ctx: Any, cotangent: Any) -> Any:
                return 2 * cotangent

        weight, x = fw.array(W).requires_grad_(), fw.array(X).requires_grad_()
        xp.adversarial_consistency(lambda x: Once.apply(x @ weight), x).backward()
        assert weight.grad.abs().sum() > 0 and x.grad.abs().sum() > 0

    def test_parameters_get_gradients_from_the_last_call_only(self, fw: Framework) -> None:
        torch = fw.module
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 5)).double()
        x, start = fw.array(X), fw.array(START)
        points = []

        def fn(x: Any) -> Any:
            points.append(x.detach())
            return model(x)

        value = xp.adversarial_consistency(fn, x, noise=start, iterations=3)
        assert all(p.grad is None for p in model.parameters())
        value.backward()
        got = [p.grad.clone() for p in model.parameters()]
        model.zero_grad()
        xp.kl_divergence(model(x).detach(), model(points[-1]), from_logits=True).backward()
        for ours, p in zip(got, model.parameters(), strict=True):
            torch.testing.assert_close(ours, p.grad)

    def test_in_modes_that_record_nothing(self, fw: Framework) -> None:
        torch = fw.module
        x, start, w = fw.array(X), fw.array(START), fw.array(W).requires_grad_()
        want = xp.adversarial_consistency(lambda x: x @ w, x, noise=start)
        for mode in (torch.no_grad, torch.inference_mode):
            with mode():
                got = xp.adversarial_consistency(lambda x: x @ w, x, noise=start)
            assert not got.requires_grad
            torch.testing.assert_close(got, want.detach())

    def test_batch_norm_in_evaluation_mode(self, fw: Framework) -> None:
        torch = fw.module
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout()).double().eval()
        before = {name: x.clone() for name, x in model.state_dict().items()}
        together = xp.adversarial_consistency(model, fw.array(X), noise=fw.array(START), reduction="none")
        for i in range(len(X)):
            alone = xp.adversarial_consistency(model, fw.array(X[i : i + 1]), noise=fw.array(START[i : i + 1]))
            torch.testing.assert_close(together[i], alone)
        for name, x in model.state_dict().items():
            assert (x == before[name]).all()

    def test_under_autocast(self, fw: Framework) -> None:
        torch = fw.module
        x, start = fw.array(X, "float32"), fw.array(START, "float32")
        layer = torch.nn.Linear(3, 5)
        want = float(xp.adversarial_consistency(layer, x, noise=start, iterations=4).detach())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = xp.adversarial_consistency(layer, x, noise=start, iterations=4)
        assert got.dtype == torch.float32
        assert float(got.detach()) == pytest.approx(want, rel=0.1)
