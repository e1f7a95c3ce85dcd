"""Penalties on gradients: exact derivatives with respect to parameters, random numbers, and refused functions."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, close, curvature, first_and_second
from xpenalties import Penalty, Pipeline, backends, namespace

autodiff = pytest.mark.needs("autodiff")
can_differentiate = pytest.mark.without("dask", reason="dask has no gradients, and no DLPack to borrow them by")
RNG = np.random.default_rng(11)
X, Y = RNG.standard_normal((5, 3)), RNG.standard_normal((5, 3))
PARAMS = {"w": RNG.standard_normal((3, 4)), "b": RNG.standard_normal(4), "v": RNG.standard_normal((4, 1))}


def critic(params: Any, x: Any) -> Any:
    """A small network from (n, 3) to (n, 1)."""
    return namespace(x).tanh(x @ params["w"] + params["b"]) @ params["v"]


def half_square(x: Any) -> Any:
    """Half of each sample's sum of squares; its gradient is `x`."""
    return namespace(x).sum(x * x, axis=-1) / 2


def slopes(params: Any, x: np.ndarray) -> np.ndarray:
    """The critic's gradient with respect to `x`, in closed form."""
    hidden = np.tanh(x @ params["w"] + params["b"])
    return np.asarray(((1 - hidden**2) * params["v"][:, 0]) @ params["w"].T)


def params_of(fw: Framework) -> dict[str, Any]:
    return {name: fw.array(x) for name, x in PARAMS.items()}


def differences(fn: Callable[[dict[str, np.ndarray]], float]) -> dict[str, np.ndarray]:
    """The gradient of `fn` with respect to the critic's parameters, by differences of fourth order."""
    gradient = {name: np.zeros_like(x) for name, x in PARAMS.items()}
    for name, x in PARAMS.items():
        for index in np.ndindex(x.shape):
            for step, weight in ((1e-3, 8 / 12), (-1e-3, -8 / 12), (2e-3, -1 / 12), (-2e-3, 1 / 12)):
                moved = x.copy()
                moved[index] += step
                gradient[name][index] += weight * fn({**PARAMS, name: moved}) / 1e-3
    return gradient


def deviation(gradient: np.ndarray, target: float = 1.0, one_sided: bool = False) -> float:
    excess = np.linalg.norm(gradient, axis=1) - target
    return float(np.mean((np.maximum(excess, 0) if one_sided else excess) ** 2))


ALPHA = np.asarray([0.1, 0.9, 0.5, 0.0, 1.0])
POINTS = ALPHA[:, None] * X + (1 - ALPHA[:, None]) * Y
#: a penalty as a function of parameters and arrays, and its definition as a function of the parameters
PENALTIES: dict[str, tuple[Callable[..., Any], Callable[[Any], float]]] = {
    "two-sided": (
        lambda p, x, y, alpha: xp.gradient_penalty(lambda x: critic(p, x), x),
        lambda p: deviation(slopes(p, X)),
    ),
    "one-sided": (
        lambda p, x, y, alpha: xp.gradient_penalty(lambda x: critic(p, x), x, target_norm=1.2, one_sided=True),
        lambda p: deviation(slopes(p, X), 1.2, True),
    ),
    "R1": (
        lambda p, x, y, alpha: xp.gradient_penalty(lambda x: critic(p, x)[:, 0], x, target_norm=0),
        lambda p: deviation(slopes(p, X), 0),
    ),
    "one norm": (
        lambda p, x, y, alpha: xp.gradient_penalty(
            lambda x: namespace(x).sum(critic(p, x)), x, per_sample=False, target_norm=2
        ),
        lambda p: float((np.linalg.norm(slopes(p, X)) - 2) ** 2),
    ),
    "interpolated": (
        lambda p, x, y, alpha: xp.interpolated_gradient_penalty(lambda x: critic(p, x), x, y, alpha=alpha),
        lambda p: deviation(slopes(p, POINTS)),
    ),
    "Jacobian": (  # for a single output it is the gradient
        lambda p, x, y, alpha: xp.jacobian_penalty(lambda x: critic(p, x), x, rng=key_for(x)),
        lambda p: deviation(slopes(p, X), 0),
    ),
}


def key_for(x: Any) -> Any:
    """A key for JAX's arrays, None for others, also if `x` is traced."""
    backend = backends.backend_of(x)
    assert backend is not None
    if backend.name != "jax":
        return None
    import jax

    return jax.random.key(3)


@autodiff
@pytest.mark.parametrize("name", PENALTIES)
def test_gradient_with_respect_to_parameters(fw: Framework, name: str) -> None:
    ours, definition = PENALTIES[name]
    value, gradient = xp.value_and_grad(ours)(params_of(fw), *map(fw.array, (X, Y, ALPHA)))
    close(fw, value, definition(PARAMS))
    for key, want in differences(definition).items():
        close(fw, gradient[key], want, rtol=1e-7, atol=1e-9)


def by_hand(fw: Framework, x: Any, params: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Value and gradient with respect to parameters by the framework's own tools, one sample after another."""
    if fw.name == "torch":
        torch = fw.module
        params = {name: p.clone().requires_grad_() for name, p in params.items()}
        total = 0.0
        for sample in x:
            point = sample[None].clone().requires_grad_()
            (gradient,) = torch.autograd.grad(critic(params, point).sum(), point, create_graph=True)
            total = total + (gradient.norm() - 1) ** 2 / len(x)
        return total, dict(zip(params, torch.autograd.grad(total, list(params.values())), strict=True))
    if fw.name == "jax":
        from jax import grad, value_and_grad
        from jax.numpy import linalg, mean, stack
    else:
        from autograd import grad, value_and_grad
        from autograd.numpy import linalg, mean, stack

    def loss(params: Any) -> Any:
        of_sample = grad(lambda sample: critic(params, sample[None, :])[0, 0])
        return mean((stack([linalg.norm(of_sample(x[i])) for i in range(len(x))]) - 1) ** 2)

    return value_and_grad(loss)(params)  # type: ignore[no-any-return]


@autodiff
def test_by_hand(fw: Framework) -> None:
    value, gradient = by_hand(fw, fw.array(X), params_of(fw))
    ours = xp.value_and_grad(PENALTIES["two-sided"][0])(params_of(fw), fw.array(X), None, None)
    close(fw, ours[0], fw.numpy(value), rtol=1e-12)
    for name in PARAMS:
        close(fw, ours[1][name], fw.numpy(gradient[name]), rtol=1e-12, atol=1e-14)


@pytest.mark.mixed
def test_frameworks_agree() -> None:
    import jax

    from tests.helpers.harness import framework

    results = {}
    with jax.enable_x64(True):
        for name in ("numpy", "torch", "jax"):
            fw = framework(name)
            for penalty, (ours, _) in PENALTIES.items():
                value, gradient = xp.value_and_grad(ours)(params_of(fw), *map(fw.array, (X, Y, ALPHA)))
                parts = value, *[gradient[key] for key in PARAMS]
                results[name, penalty] = np.concatenate([fw.numpy(x).ravel() for x in parts])
    for penalty in PENALTIES:
        for name in ("torch", "jax"):
            np.testing.assert_allclose(results[name, penalty], results["numpy", penalty], rtol=1e-12, atol=1e-13)


@pytest.mark.needs("jit")
@pytest.mark.parametrize("name", ["two-sided", "interpolated", "Jacobian"])
def test_compiled_gradient_with_respect_to_parameters(fw: Framework, name: str) -> None:
    eager = xp.value_and_grad(PENALTIES[name][0])
    compiled, count = fw.compile(eager)
    for scale in (1.0, 0.5):
        args = params_of(fw), *map(fw.array, (scale * X, Y, ALPHA))
        for got, want in zip(compiled(*args), eager(*args), strict=True):
            for key in PARAMS if isinstance(want, dict) else [...]:
                close(fw, got if key is ... else got[key], fw.numpy(want if key is ... else want[key]))
    assert count() == 1


@can_differentiate
def test_one_forward_pass(fw: Framework) -> None:
    calls = []

    def fn(x: Any) -> Any:
        calls.append(1)
        return x * x

    xp.jacobian_penalty(fn, fw.array(X), projections=4, rng=fw.key(0))
    xp.gradient_penalty(lambda x: half_square(fn(x)), fw.array(X))
    assert len(calls) == 2


@can_differentiate
def test_a_masked_out_sample_is_seen_as_zeros(fw: Framework) -> None:
    def leaky(x: Any) -> Any:  # mixes the samples: the sum of its values is (sum x)^2
        ns = namespace(x)
        return ns.sum(x, axis=-1) * ns.sum(x)

    where = np.asarray([True, False, True, True, False])
    x = fw.array(np.where(where[:, None], X, np.nan))
    got = xp.gradient_penalty(leaky, x, where=fw.array(where), reduction="none", target_norm=0.5)
    norm = 2 * abs(X[where].sum()) * 3**0.5
    close(fw, got, np.where(where, (norm - 0.5) ** 2, 0))


@autodiff
@pytest.mark.parametrize("target", [0, 1.0])
def test_a_critic_with_gradient_0(fw: Framework, target: float) -> None:
    """Values and gradients of both orders, with respect to parameters and to the input."""

    def flat(scale: Any, x: Any) -> Any:  # a ReLU that is off everywhere
        ns = namespace(x)
        hidden = x * scale - 9.0
        return ns.sum(ns.where(hidden > 0, hidden, 0.0), axis=-1)

    def bowl(scale: Any, x: Any) -> Any:
        ns = namespace(x)
        return ns.sum(scale * x * x, axis=-1)

    scale = RNG.standard_normal(3)
    for fn, x in ((flat, X), (bowl, np.zeros((2, 3)))):
        samples = fw.array(x)

        def penalty(scale: Any, x: Any = samples, fn: Any = fn) -> Any:
            return xp.gradient_penalty(lambda x: fn(scale, x), x, target_norm=target)

        close(fw, penalty(fw.array(scale)), target**2)
        for gradient in (
            *first_and_second(fw, penalty, scale),
            *first_and_second(fw, lambda x, fn=fn: penalty(fw.array(scale), x, fn), x),
        ):
            np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


@autodiff
def test_the_square_keeps_its_curvature_at_0(fw: Framework) -> None:
    """||2 x||^2 has second derivative 8; a root that is squared again would leave 0."""
    for options in ({}, {"per_sample": False}):

        def penalty(x: Any, options: Any = options) -> Any:
            ns = namespace(x)
            axis = None if options else -1
            return xp.gradient_penalty(lambda x: ns.sum(x * x, axis=axis), x, target_norm=0, reduction="sum", **options)

        close(fw, fw.array(curvature(fw, penalty, np.zeros((2, 3)), X[:2])), 8 * X[:2])


@autodiff
def test_at_the_target(fw: Framework) -> None:
    """If one-sided, the slope is 0 up to and at the target, and that of the square above it."""
    x = fw.array(np.asarray([[0.6, 0.8], [0.3, 0.4], [1.2, 1.6]]))
    terms = xp.gradient_penalty(half_square, x, one_sided=True, reduction="none")
    close(fw, terms, [0.0, 0.0, 1.0])
    gradient = xp.grad(lambda x: xp.gradient_penalty(half_square, x, one_sided=True, reduction="sum"))(x)
    close(fw, gradient, [[0.0, 0.0], [0.0, 0.0], [1.2, 1.6]])


def generators(fw: Framework, seed: int) -> list[Any]:
    if fw.name == "jax":
        return [fw.module.random.key(seed), fw.module.random.PRNGKey(seed)]
    made = [np.random.default_rng(seed)]
    return [*made, fw.module.Generator().manual_seed(seed)] if fw.name == "torch" else made


def alphas(fw: Framework, rng: Any, *, size: int = 3000, axis: int = 0) -> np.ndarray:
    """Return the shares that were drawn, read from one of the two features of each point."""
    real, fake = fw.array(np.ones((size, 2))), fw.array(np.zeros((size, 2)))
    got = xp.interpolated_gradient_penalty(
        lambda x: x[:, axis] ** 2 / 2, real, fake, rng=rng, target_norm=0, reduction="none"
    )
    return np.sqrt(fw.numpy(got))


@can_differentiate
def test_shares_are_uniform_and_one_for_each_sample(fw: Framework) -> None:
    for first, again, other in zip(generators(fw, 0), generators(fw, 0), generators(fw, 1), strict=True):
        drawn = alphas(fw, first)
        np.testing.assert_array_equal(alphas(fw, again, axis=1), drawn)  # the same for all features of a sample
        assert (alphas(fw, other) != drawn).all()
        assert drawn.min() >= 0 and drawn.max() < 1 and len(np.unique(drawn)) == len(drawn)
        steps = np.arange(len(drawn)) / len(drawn)
        assert np.abs(np.sort(drawn) - steps).max() < 1.9 / len(drawn) ** 0.5  # Kolmogorov-Smirnov, 1 in 1000
        assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 0.1


@can_differentiate
def test_points_have_the_dtype_of_the_samples(fw: Framework) -> None:
    for dtype in fw.dtypes:
        real, seen = fw.array(X, dtype), []
        for rng in generators(fw, 0):
            xp.interpolated_gradient_penalty(lambda x: seen.append(x.dtype) or half_square(x), real, real, rng=rng)  # noqa: B023
        assert {str(each).rpartition(".")[2] for each in seen} == {dtype}


@can_differentiate
def test_shares_by_default(fw: Framework) -> None:
    if fw.name != "jax":
        assert (alphas(fw, None) != alphas(fw, None)).all()
        return
    with pytest.raises(
        TypeError, match=r"^interpolated_gradient_penalty: `rng` must be a JAX key, got NoneType. Pass for example jax"
    ):
        alphas(fw, None)
    with pytest.raises(TypeError, match=r"^jacobian_penalty: `rng` must be a JAX key, got NoneType"):
        xp.jacobian_penalty(half_square, fw.array(X))


@can_differentiate
def test_other_kinds_of_rng(fw: Framework) -> None:
    wrong = [
        3,
        np.random.RandomState(0),
        "seed",
        *([fw.array(X), np.random.default_rng(0)] if fw.name == "jax" else []),
    ]
    for rng in wrong:
        with pytest.raises(TypeError, match=r"^jacobian_penalty: `rng` must be a .*, got \w+( of \w+)?\. Pass for"):
            xp.jacobian_penalty(half_square, fw.array(X), rng=rng)


@pytest.mark.only("numpy", "torch", "strict", reason="the others take their own generators only")
def test_a_numpy_generator_draws_the_same_for_all(fw: Framework) -> None:
    np.testing.assert_array_equal(
        alphas(fw, np.random.default_rng(5), size=7), np.random.default_rng(5).random((7, 1))[:, 0]
    )


@autodiff
def test_random_numbers_inside_of_a_gradient(fw: Framework) -> None:
    """The points depend on the outer gradient's input: d (alpha x)^2 / dx = 2 alpha^2 x."""
    real = fw.array(np.ones((4, 1)))
    rng = [fw.key(2) if fw.name == "jax" else np.random.default_rng(2) for _ in range(2)]

    def penalty(x: Any, rng: Any) -> Any:
        options = {"target_norm": 0, "reduction": "sum", "rng": rng}
        return xp.interpolated_gradient_penalty(half_square, x, namespace(x).zeros_like(real), **options)

    terms = xp.interpolated_gradient_penalty(half_square, real, 0 * real, target_norm=0, reduction="none", rng=rng[0])
    close(fw, xp.grad(lambda x: penalty(x, rng[1]))(real)[:, 0], 2 * fw.numpy(terms))


@can_differentiate
def test_alpha(fw: Framework) -> None:
    real, fake = fw.array(X), fw.array(Y)

    def penalty(alpha: Any) -> Any:
        return xp.interpolated_gradient_penalty(half_square, real, fake, alpha=alpha, reduction="none")

    close(fw, penalty(fw.array(np.ones(5))), fw.numpy(xp.gradient_penalty(half_square, real, reduction="none")))
    close(fw, penalty(fw.array(np.zeros((5, 1)))), fw.numpy(xp.gradient_penalty(half_square, fake, reduction="none")))
    close(fw, penalty(fw.array(ALPHA, "float32")), (np.linalg.norm(POINTS, axis=1) - 1) ** 2, rtol=1e-6)
    seen = []
    narrow = fw.array(X, "float32")
    xp.interpolated_gradient_penalty(
        lambda x: seen.append(x.dtype) or half_square(x), narrow, narrow, alpha=fw.array(ALPHA)
    )
    assert [str(dtype).rpartition(".")[2] for dtype in seen] == ["float32"]
    for shape in ((), (1,), (5, 3), (1, 5), (5, 1, 1)):
        with pytest.raises(
            ValueError,
            match=r"^interpolated_gradient_penalty: `alpha` must have one number for each sample, shape \(5,\), got",
        ):
            penalty(fw.array(np.ones(shape)))
    with pytest.raises(TypeError, match=r"`alpha` must be real floating point, got .*int64. Cast it first"):
        penalty(fw.array(np.ones(5, dtype=np.int64)))
    with pytest.raises(TypeError, match=r"`alpha` must be an array, got builtins.float"):
        penalty(0.5)


A = RNG.standard_normal((3, 4))  # a linear map; the gradients of its outputs are not orthogonal
FROBENIUS = float((A**2).sum())


@can_differentiate
def test_the_estimate_has_no_bias(fw: Framework) -> None:
    """Many samples have an estimate each. Their spread falls with more projections, which are independent."""
    matrix = fw.array(A.T)
    x = fw.array(np.zeros((2000, 4)))
    spread = {}
    for projections in (1, 4):
        rng = generators(fw, 0)[-1]
        args = (lambda x: namespace(x).matmul(x, matrix), x)
        if fw.name == "strict":  # its arguments are converted to another framework, a captured array is not
            args = (lambda x: sum(x[:, k, None] * namespace(x).asarray(A[:, k].tolist()) for k in range(4)), x)
        got = fw.numpy(xp.jacobian_penalty(*args, projections=projections, rng=rng, reduction="none"))
        spread[projections] = got.std()
        assert abs(got.mean() - FROBENIUS) < 4 * got.std() / len(got) ** 0.5
    assert 0.4 < spread[4] / spread[1] < 0.6
    exact = 2 * (np.sum((A @ A.T) ** 2) - np.sum(np.diag(A @ A.T) ** 2))  # Hutchinson's variance
    assert spread[1] == pytest.approx(exact**0.5, rel=0.1)


@autodiff
def test_the_mean_over_all_signs_is_exact(fw: Framework, monkeypatch: pytest.MonkeyPatch) -> None:
    signs = np.asarray(list(itertools.product((-1.0, 1.0), repeat=3)))
    backend = backends.backend_of(fw.array(X))
    assert backend is not None
    shapes = []

    def uniform(self: Any, caller: str, rng: Any, shape: tuple[int, ...], like: Any) -> Any:
        shapes.append(shape)
        return fw.array(np.broadcast_to((signs + 1) * 0.4999, shape))  # 0 and almost 1

    monkeypatch.setattr(type(backend.random), "uniform", uniform)
    matrix = fw.array(A.T)
    terms = xp.jacobian_penalty(lambda x: x @ matrix, fw.array(np.zeros((8, 4))), projections=2, reduction="none")
    assert shapes == [(2, 8, 3)]
    close(fw, terms, np.sum((signs @ A) ** 2, axis=1))
    assert fw.numpy(terms).mean() == pytest.approx(FROBENIUS, rel=1e-14)


def fails(fw: Framework, fn: Any, kind: type[Exception], message: str, **options: Any) -> None:
    with pytest.raises(kind, match=f"^gradient_penalty: {message}"):
        xp.gradient_penalty(fn, fw.array(X), **options)


@can_differentiate
def test_what_fn_must_return(fw: Framework) -> None:
    for fn, got in (
        (lambda x: namespace(x).sum(x), r"\(\)"),
        (lambda x: namespace(x).mean(x, axis=0), r"\(3,\)"),
        (lambda x: x, r"\(5, 3\)"),
        (lambda x: half_square(x)[None, :], r"\(1, 5\)"),
    ):
        fails(
            fw,
            fn,
            ValueError,
            rf"`fn` must return one value for each sample, shape \(5,\) or \(5, 1\), got {got}. Do not",
        )
        close(
            fw,
            xp.gradient_penalty(lambda x: half_square(x)[:, None, None], fw.array(X), target_norm=0),
            (X**2).sum() / 5,
        )
    fails(
        fw, half_square, ValueError, r"`fn` must return a single value, shape \(\), got \(5,\).*sum", per_sample=False
    )
    with pytest.raises(
        ValueError,
        match=r"^jacobian_penalty: `fn` must return each sample's outputs, shape \(5, ...\), got \(\). Do not",
    ):
        xp.jacobian_penalty(lambda x: namespace(x).sum(x), fw.array(X), rng=fw.key(0))
    library = "torch" if fw.name == "strict" else fw.name
    fails(
        fw, lambda x: [1.0], TypeError, rf"`fn` must return a {library} array, like its input, got builtins.list. Comp"
    )
    fails(fw, lambda x: None, TypeError, rf"`fn` must return a {library} array, .* got builtins.NoneType")
    if fw.name != "numpy":
        fails(
            fw, lambda x: np.ones(5), TypeError, rf"`fn` must return a {library} array, .* got numpy.ndarray. Compute"
        )
    fails(
        fw,
        lambda x: half_square(x) * 1j,
        TypeError,
        r"`fn` must return real floating-point values, got .*complex128. Take the real",
    )
    whole = lambda x: namespace(x).astype(half_square(x), namespace(x).int64)  # noqa: E731
    fails(fw, whole, TypeError, r"`fn` must return real floating-point values, got .*int64. Compute with")


def test_refused_arguments(fw: Framework) -> None:
    x = fw.array(X)
    with pytest.raises(TypeError, match=r"^gradient_penalty: `fn` must be callable, got .*. Pass it before"):
        xp.gradient_penalty(x, x)
    with pytest.raises(TypeError, match=r"^gradient_penalty: takes `fn` and 1 array \(x\), got 0 by position"):
        xp.gradient_penalty(half_square)
    message = r"^interpolated_gradient_penalty: takes `fn` and 2 arrays \(real, fake\), got 1 by position"
    with pytest.raises(TypeError, match=message):
        xp.interpolated_gradient_penalty(half_square, x)


#: penalties, the number of their arrays, and how errors name the first
BY_ARRAYS: dict[str, tuple[Callable[..., Any], int, str]] = {
    "gradient": (xp.gradient_penalty, 1, "gradient_penalty: `x`"),
    "interpolated": (xp.interpolated_gradient_penalty, 2, "interpolated_gradient_penalty: `real`"),
    "Jacobian": (xp.jacobian_penalty, 1, "jacobian_penalty: `x`"),
}


@can_differentiate
@pytest.mark.parametrize("name", BY_ARRAYS)
def test_samples_without_an_axis(fw: Framework, name: str) -> None:
    penalty, arrays, argument = BY_ARRAYS[name]
    point = fw.array(np.asarray(1.0))
    rule = rf"^{argument} must have at least 1 axis, that of the samples, got shape \(\). Add one"
    with pytest.raises(ValueError, match=rule):
        penalty(half_square, *[point] * arrays)


@can_differentiate
def test_one_norm_of_an_array_without_axes(fw: Framework) -> None:
    point = fw.array(np.asarray(1.0))
    close(fw, xp.gradient_penalty(lambda x: x * x, point, per_sample=False, target_norm=0.5), 1.5**2)


@pytest.mark.only("dask", reason="all others have gradients or can borrow them")
@pytest.mark.parametrize("name", BY_ARRAYS)
def test_no_gradients_to_borrow(fw: Framework, name: str) -> None:
    penalty, arrays, _ = BY_ARRAYS[name]
    for x in (X, np.asarray(1.0)):
        with pytest.raises(
            NotImplementedError,
            match=r"^\w+: dask arrays have no automatic differentiation, and no DLPack to borrow it",
        ):
            penalty(half_square, *[fw.array(x)] * arrays)


@can_differentiate
def test_a_value_that_does_not_depend_on_x(fw: Framework) -> None:
    def detached(x: Any) -> Any:
        backend = backends.backend_of(x)
        assert backend is not None
        return backend.autodiff.stop_gradient(half_square(x))

    if fw.name == "jax":  # JAX cannot tell
        assert float(xp.gradient_penalty(detached, fw.array(X))) == 1.0
        return
    rule = (
        r"`fn` must return a value that depends on `x` through differentiable operations, got one that does not. Do not"
    )
    fails(fw, detached, ValueError, rule)


@autodiff
def test_an_array_taken_out_of_the_framework(fw: Framework) -> None:
    fails(
        fw,
        lambda x: np.linalg.norm(x, axis=-1),
        TypeError,
        rf"`fn` must compute with `namespace\(x\)`, got an array taken out of {fw.name}, whose .*instead of NumPy's",
    )
    with pytest.raises(TypeError, match=r"^grad: `fn` must compute with `namespace\(x\)`, got an array taken out of"):
        xp.grad(lambda x: np.linalg.norm(x, axis=-1)[0])(fw.array(X))
    if fw.name == "numpy":  # an array of autograd's boxes
        fails(
            fw, lambda x: np.asarray(x)[:, 0], TypeError, r"`fn` must return real .*, got object. Compute with `namesp"
        )
    if fw.name != "torch":  # PyTorch returns a number and warns
        fails(
            fw, lambda x: half_square(x) * float(x[0, 0]), TypeError, r"`fn` must compute with `namespace\(x\)`, got an"
        )


@autodiff
def test_errors_of_the_users_function_are_not_changed(fw: Framework) -> None:
    with pytest.raises(KeyError, match="missing"):
        xp.gradient_penalty(lambda x: {}["missing"], fw.array(X))
    with pytest.raises(RuntimeError, match=r"^mine"):
        xp.gradient_penalty(raises, fw.array(X))


def raises(x: Any) -> Any:
    raise RuntimeError("mine")


@can_differentiate
@pytest.mark.smoke
def test_in_a_pipeline(fw: Framework) -> None:
    x = fw.array(X)
    want = float(np.mean((np.linalg.norm(X, axis=1) - 0.5) ** 2))
    for inputs in (lambda data: (half_square, data["x"]), ("critic", "x")):
        pipe = Pipeline([Penalty("gradient_penalty", weight=2.0, inputs=inputs, options={"target_norm": 0.5})])
        data = {"critic": half_square, "x": x}
        close(fw, pipe(data), 2 * want)
        total, report = pipe.compute(data)
        close(fw, total, 2 * want)
        metrics = report.to_dict()["regularizers"]["gradient_penalty"]["custom"]
        assert metrics["mean"] == pytest.approx(want) and metrics["sum"] == pytest.approx(5 * want)


@autodiff
def test_gradient_of_a_pipeline_with_respect_to_the_critics_parameters(fw: Framework) -> None:
    pipe = Pipeline([Penalty("gradient_penalty", inputs=lambda params, x: (lambda x: critic(params, x), x))])
    gradient = xp.grad(pipe)(params_of(fw), fw.array(X))
    want = xp.grad(PENALTIES["two-sided"][0])(params_of(fw), fw.array(X), None, None)
    for name in PARAMS:
        close(fw, gradient[name], fw.numpy(want[name]))
