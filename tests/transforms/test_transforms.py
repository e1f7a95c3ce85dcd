"""Gradient transforms: closed forms, Optax's own, and what they make of trees, schedules and compilers."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.conftest import selected
from tests.helpers.harness import Framework, close
from xpenalties import prox, schedules, transforms

RNG = np.random.default_rng(3)
KERNEL, BIAS = RNG.normal(size=(3, 4)), np.asarray([0.0, -0.2, 1.5, 0.01])
GRADIENT, SLOPE = RNG.normal(size=(3, 4)), np.asarray([0.3, -0.1, 0.0, -0.02])


def params(fw: Framework, dtype: str | None = None) -> dict[str, Any]:
    return {"kernel": fw.array(KERNEL, dtype), "rest": [fw.array(BIAS, dtype), 3]}


def gradients(fw: Framework, dtype: str | None = None) -> dict[str, Any]:
    return {"kernel": fw.array(GRADIENT, dtype), "rest": [fw.array(SLOPE, dtype), None]}


def soft(x: Any, by: float) -> Any:
    return np.sign(x) * np.maximum(np.abs(x) - by, 0)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda **o: transforms.add_l2_decay(0.3, **o), lambda g, p: g + 0.3 * p),
        (lambda **o: transforms.add_l1_decay(0.3, **o), lambda g, p: g + 0.3 * np.sign(p)),
        (
            lambda **o: transforms.add_elastic_net_decay(0.3, l1_ratio=0.25, **o),
            lambda g, p: g + 0.3 * (0.25 * np.sign(p) + 0.75 * p),
        ),
        (lambda **o: transforms.add_l2_decay(0.3, decoupled=True, **o), lambda u, p: u - 0.3 * p),
        (lambda **o: transforms.add_l1_decay(0.3, decoupled=True, **o), lambda u, p: soft(p + u, 0.3) - p),
        (
            lambda **o: transforms.add_elastic_net_decay(0.3, l1_ratio=0.25, decoupled=True, **o),
            lambda u, p: soft(p + u - 0.3 * 0.75 * p, 0.3 * 0.25) - p,
        ),
    ],
    ids=["l2", "l1", "elastic net", "l2 decoupled", "l1 decoupled", "elastic net decoupled"],
)
def test_decays(fw: Framework, make: Callable[..., Any], expected: Callable[[Any, Any], Any]) -> None:
    decay = make()
    assert decay.init(params(fw)) == ()
    updates, state = decay.update(gradients(fw), (), params(fw))
    assert state == ()
    close(fw, updates["kernel"], expected(GRADIENT, KERNEL))
    close(fw, updates["rest"][0], expected(SLOPE, BIAS))
    assert updates["rest"][1] is None

    updates, _ = make(match="kernel").update(gradients(fw), (), params(fw))
    close(fw, updates["kernel"], expected(GRADIENT, KERNEL))
    close(fw, updates["rest"][0], SLOPE)
    updates, _ = make(exclude="kernel").update(gradients(fw), (), params(fw))
    close(fw, updates["kernel"], GRADIENT)

    low = next(name for name in fw.dtypes if name in ("float16", "float32"))
    updates, _ = decay.update(gradients(fw, low), (), params(fw, low))
    assert updates["kernel"].dtype == fw.dtype(low)
    rounded = (np.asarray(x, low).astype(float) for x in (GRADIENT, KERNEL))
    close(fw, updates["kernel"], expected(*rounded), rtol=2 * float(np.finfo(low).eps), atol=float(np.finfo(low).eps))


def test_decoupled_decay_makes_exact_zeros(fw: Framework) -> None:
    for low in [name for name in fw.dtypes if name != "bfloat16"]:
        old, updates = params(fw, low), gradients(fw, low)
        decay = transforms.add_l1_decay(0.4, decoupled=True)
        new = transforms.apply_updates(old, decay.update(updates, decay.init(old), old)[0])
        at_once = prox.l1(fw.array(np.asarray(BIAS, low) + np.asarray(SLOPE, low), low), scale=0.4)
        assert np.array_equal(fw.numpy(new["rest"][0]) == 0, fw.numpy(at_once) == 0)
        assert np.sum(fw.numpy(new["rest"][0]) == 0) == 3
        assert new["rest"][1] == 3


def test_a_schedule_counts_the_updates(fw: Framework) -> None:
    decay = transforms.add_l2_decay(schedules.linear(0.0, 1.0, steps=4))
    state = decay.init(params(fw))
    for step in range(6):
        assert int(state.step) == step
        updates, state = decay.update(gradients(fw), state, params(fw))
        close(fw, updates["kernel"], GRADIENT + min(step / 4, 1) * KERNEL)


def test_the_count_ends(fw: Framework) -> None:
    decay = transforms.add_l2_decay(lambda step: 0.5)
    last = fw.array(np.asarray(2**31 - 1, np.int32))
    assert int(decay.update(gradients(fw), transforms.StepState(last), params(fw))[1].step) == 2**31 - 1


@pytest.mark.parametrize("make", [transforms.add_l2_decay, transforms.add_l1_decay])
@pytest.mark.parametrize("decoupled", [False, True])
def test_weights_that_are_arrays(fw: Framework, make: Callable[..., Any], decoupled: bool) -> None:
    given = make(fw.array(np.asarray(0.3)), decoupled=decoupled).update(
        gradients(fw, "float32"), (), params(fw, "float32")
    )
    number = make(0.3, decoupled=decoupled).update(gradients(fw, "float32"), (), params(fw, "float32"))
    assert given[0]["kernel"].dtype == fw.dtype("float32")
    close(fw, given[0]["kernel"], fw.numpy(number[0]["kernel"]))


def close_complex(fw: Framework, got: Any, want: Any) -> None:
    for part in (np.real, np.imag):
        np.testing.assert_allclose(part(fw.numpy(got)), part(want), rtol=1e-12, atol=1e-14)


def test_complex_parameters(fw: Framework) -> None:
    p, g = KERNEL + 1j * GRADIENT, GRADIENT - 2j * KERNEL
    updates, _ = transforms.add_l1_decay(0.3).update(fw.array(g), (), fw.array(p))
    close_complex(fw, updates, g + 0.3 * p / np.abs(p))
    updates, _ = transforms.add_l1_decay(0.3, decoupled=True).update(fw.array(g), (), fw.array(p))
    close_complex(fw, updates, (p + g) * np.maximum(0, 1 - 0.3 / np.abs(p + g)) - p)
    updates, _ = transforms.add_l2_decay(fw.array(np.asarray(0.3))).update(fw.array(g), (), fw.array(p))
    close_complex(fw, updates, g + 0.3 * p)


@pytest.mark.parametrize("factor", [1.0, 1e-3, 1e30, 0.0, math.nan, math.inf])
def test_clip_by_global_norm(fw: Framework, factor: float) -> None:
    with np.errstate(invalid="ignore"):
        given = factor * GRADIENT, factor * SLOPE
    updates = {"a": fw.array(given[0], "float32"), "b": [fw.array(given[1], "float32"), None]}
    found, state = transforms.clip_by_global_norm(0.5).update(updates, ())
    assert state == () and found["b"][1] is None
    g, s = (np.asarray(x, np.float32).astype(np.float64) for x in given)
    norm = math.hypot(*g.ravel(), *s)
    shrink = 1.0 if norm < 0.5 else 0.5 / norm
    with np.errstate(invalid="ignore"):
        rtol = (16 / 2 + 3) * 2**-24  # the root of 16 squares, in any order, and three operations, in float32
        close(fw, found["a"], g * shrink, rtol=rtol)
        close(fw, found["b"][0], s * shrink, rtol=rtol)


def test_clip_of_nothing(fw: Framework) -> None:
    clip = transforms.clip_by_global_norm(0.5)
    assert clip.init(params(fw)) == ()
    assert clip.update({"a": None}, ()) == ({"a": None}, ())


@pytest.mark.parametrize(
    ("shape", "unit_axis", "axes"),
    [
        ((4,), None, (0,)),
        ((), None, ()),
        ((1, 4), None, (0, 1)),
        ((4, 1), None, (0, 1)),
        ((4, 3), 0, (1,)),
        ((4, 3), -1, (0,)),
        ((2, 3, 4), 1, (0, 2)),
        ((2, 2, 3, 4), -1, (0, 1, 2)),
    ],
)
def test_adaptive_gradient_clipping(
    fw: Framework, shape: tuple[int, ...], unit_axis: int | None, axes: tuple[int, ...]
) -> None:
    p, g = RNG.normal(size=shape), 0.2 * RNG.normal(size=shape)
    clip = transforms.adaptive_gradient_clipping(0.1, unit_axis=unit_axis)
    updates, state = clip.update(fw.array(g), clip.init(fw.array(p)), fw.array(p))
    norm, least = (np.sqrt(np.sum(x**2, axis=axes, keepdims=True)) for x in (g, p))
    assert state == ()
    close(fw, updates, g * np.minimum(1, 0.1 * np.maximum(least, 1e-3) / norm))


def test_units_by_default(fw: Framework) -> None:
    for shape, elsewhere in (((4, 3), (0,)), ((2, 3, 4), (0,)), ((2, 2, 3, 4), (0, 1, 2))):
        p, g = RNG.normal(size=shape), RNG.normal(size=shape)
        axes = tuple(range(1, len(shape))) if fw.name == "torch" else elsewhere
        clip = transforms.adaptive_gradient_clipping(0.1)
        norm, least = (np.sqrt(np.sum(x**2, axis=axes, keepdims=True)) for x in (g, p))
        close(fw, clip.update(fw.array(g), (), fw.array(p))[0], g * np.minimum(1, 0.1 * least / norm))


def test_units_at_zero(fw: Framework) -> None:
    clip = transforms.adaptive_gradient_clipping(0.1, eps=0.01, unit_axis=0)
    p, g = np.zeros((2, 2)), np.asarray([[3.0, 4.0], [0.0, 0.0]])
    close(fw, clip.update(fw.array(g), (), fw.array(p))[0], np.asarray([[6e-4, 8e-4], [0.0, 0.0]]))


def test_centralize(fw: Framework) -> None:
    updates = {"a": fw.array(GRADIENT), "b": fw.array(SLOPE), "c": fw.array(np.asarray(RNG.normal(size=(2, 3, 4))))}
    found, state = transforms.centralize().update(updates, transforms.centralize().init(updates))
    assert state == ()
    close(fw, found["a"], GRADIENT - GRADIENT.mean(1, keepdims=True))
    close(fw, found["b"], SLOPE)
    c = fw.numpy(updates["c"])
    close(fw, found["c"], c - c.mean((1, 2), keepdims=True))
    found, _ = transforms.centralize(unit_axis=-1, exclude="a").update(updates, ())
    close(fw, found["a"], GRADIENT)
    close(fw, found["c"], c - c.mean((0, 1), keepdims=True))


def generator(fw: Framework, seed: int) -> Any:
    if fw.name == "torch":
        return fw.module.Generator().manual_seed(seed)
    return fw.key(seed) if fw.name == "jax" else np.random.default_rng(seed)


def test_noise(fw: Framework) -> None:
    noise = transforms.add_noise(0.04, gamma=1.5, rng=generator(fw, 1))
    zeros = {"a": fw.array(np.zeros((200, 100))), "b": fw.array(np.zeros(20000), "float32"), "n": None}
    state = noise.init(zeros)
    drawn = []
    for step in range(3):
        updates, state = noise.update(zeros, state)
        assert int(state.step) == step + 1 and updates["n"] is None
        assert updates["b"].dtype == fw.dtype("float32")
        for each in (fw.numpy(updates["a"]).ravel(), fw.numpy(updates["b"])):
            deviation = math.sqrt(0.04 / (1 + step) ** 1.5)
            assert abs(each.std() / deviation - 1) < 0.03  # 20000 numbers: six times 0.005
            assert abs(each.mean() / deviation) < 0.045
            drawn.append(each / deviation)
    for i, a in enumerate(drawn):
        assert all(abs(np.mean(a * b)) < 0.045 for b in drawn[:i])  # independent
    again, _ = transforms.add_noise(0.04, gamma=1.5, rng=generator(fw, 1)).update(
        zeros, noise.init(zeros)._replace(rng=generator(fw, 1))
    )
    close(fw, again["a"], 0.2 * drawn[0].reshape(200, 100))
    assert noise.update({"n": None}, noise.init(zeros))[1].step == 1


def test_chain_in_order(fw: Framework) -> None:
    both = transforms.chain(transforms.add_l2_decay(lambda step: 2.0), transforms.clip_by_global_norm(1.0))
    state = both.init(params(fw))
    updates, state = both.update(gradients(fw), state, params(fw))
    g, s = GRADIENT + 2 * KERNEL, SLOPE + 2 * BIAS
    close(fw, updates["kernel"], g / math.hypot(*g.ravel(), *s))
    assert int(state[0].step) == 1 and state[1] == ()
    assert transforms.chain().update(3, ()) == (3, ())


def test_apply_updates(fw: Framework) -> None:
    new = transforms.apply_updates(params(fw, "float32"), {"kernel": fw.array(GRADIENT), "rest": [None, None]})
    assert new["kernel"].dtype == fw.dtype("float32")
    close(fw, new["kernel"], KERNEL + GRADIENT, rtol=1e-6, atol=1e-7)
    close(fw, new["rest"][0], np.asarray(BIAS, np.float32))
    assert new["rest"][1] == 3


@pytest.mark.needs("jit")
def test_compiled_once(fw: Framework) -> None:
    transform = transforms.chain(
        transforms.adaptive_gradient_clipping(0.1),
        transforms.centralize(match="kernel"),
        transforms.add_elastic_net_decay(schedules.cosine(1.0, 0.1, steps=3), exclude="bias"),
        transforms.clip_by_global_norm(1.0),
        transforms.add_l1_decay(0.1, decoupled=True),
    )
    old = {"kernel": fw.array(KERNEL), "bias": fw.array(BIAS)}
    run, compilations = fw.compile(transform.update)
    state = plain = transform.init(old)
    counts = []
    for factor in (1.0, 2.0, 3.0):
        updates = {"kernel": fw.array(factor * GRADIENT), "bias": fw.array(factor * SLOPE)}
        found, state = run(updates, state, old)
        expected, plain = transform.update(updates, plain, old)
        close(fw, found["kernel"], fw.numpy(expected["kernel"]))
        close(fw, found["bias"], fw.numpy(expected["bias"]))
        counts.append(compilations())
    assert counts == [1, 1, 1]


def test_inputs_stay(fw: Framework) -> None:
    old, updates = params(fw), gradients(fw)
    transforms.chain(transforms.add_l1_decay(0.1), transforms.centralize(), transforms.clip_by_global_norm(0.1)).update(
        updates, ((), (), ()), old
    )
    close(fw, updates["kernel"], GRADIENT)
    close(fw, old["kernel"], KERNEL)


def test_nothing_to_count_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "jax", None)
        with pytest.raises(ValueError, match=r"^add_l2_decay: `params` must hold an array to count beside, got none"):
            transforms.add_l2_decay(lambda step: 1.0).init({})


X = np.ones((2, 2))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: transforms.add_l2_decay(-1.0), ValueError, r"^add_l2_decay: `weight` must be in \[0, inf\), got -1"),
        (lambda: transforms.add_l1_decay("a"), TypeError, "^add_l1_decay: `weight` must be a number"),
        (lambda: transforms.add_l2_decay(X), ValueError, r"^add_l2_decay: `weight` must be 0-d, got shape \(2, 2\)"),
        (
            lambda: transforms.add_l2_decay(1.0, decoupled=1),
            TypeError,
            "^add_l2_decay: `decoupled` must be True or False",
        ),
        (lambda: transforms.add_elastic_net_decay(1.0, l1_ratio=2), ValueError, r"`l1_ratio` must be in \[0, 1\]"),
        (
            lambda: transforms.add_l2_decay(1.0).update(X, ()),
            ValueError,
            "^add_l2_decay: `params` must be given to `upd",
        ),
        (lambda: transforms.add_l2_decay(1.0).update({"a": X}, (), {"b": X}), ValueError, "`params` must have 'a' too"),
        (lambda: transforms.add_l2_decay(1.0, match="k").init({"a": X}), ValueError, "must match a path in `params`"),
        (
            lambda: transforms.add_l2_decay(lambda step: 1.0).update(X, (), X),
            TypeError,
            r"^add_l2_decay: `state` must be what `init` or `update` returned, got \(\)",
        ),
        (
            lambda: transforms.add_l2_decay(1.0).update(X, (), X[0]),
            ValueError,
            r"got \(2, 2\) and \(2,\) at ''\. Broad",
        ),
        (
            lambda: transforms.add_l2_decay(1.0).update({"a": X}, (), {"a": None}),
            TypeError,
            "`params, at 'a',` must be",
        ),
        (
            lambda: transforms.clip_by_global_norm(X),
            ValueError,
            r"`max_norm` must be 0-d, got shape \(2, 2\)\. Index it",
        ),
        (
            lambda: transforms.clip_by_global_norm(np.asarray(True)),
            TypeError,
            r"`max_norm` must be real, got bool\. Cast it",
        ),
        (
            lambda: transforms.clip_by_global_norm(1.0).update({"a": np.ma.masked_array([1.0])}, ()),
            TypeError,
            r"must be a nest of arrays of one framework, got numpy\.ma\S*MaskedArray at 'a'\. Pass what it holds",
        ),
        (lambda: transforms.add_noise(1, rng=3).update(X, ()), TypeError, r"^add_noise: `state` must be what `init`"),
        (
            lambda: transforms.chain(transforms.centralize()).update(X, None),
            TypeError,
            "^chain: `state` must be what `in",
        ),
        (
            lambda: transforms.add_l2_decay(lambda step: -1.0).update(X, transforms.StepState(np.asarray(0)), X),
            ValueError,
            "^add_l2_decay: `weight` must be in",
        ),
        (lambda: transforms.clip_by_global_norm(0), ValueError, r"`max_norm` must be in \(0, inf\), got 0"),
        (lambda: transforms.adaptive_gradient_clipping(0), ValueError, "`clipping` must be in"),
        (lambda: transforms.adaptive_gradient_clipping(1, eps=0), ValueError, "`eps` must be in"),
        (lambda: transforms.adaptive_gradient_clipping(1, unit_axis=0.5), TypeError, "`unit_axis` must be an integer"),
        (
            lambda: transforms.adaptive_gradient_clipping(1, unit_axis=2).update(X, (), X),
            ValueError,
            r"^adaptive_gradient_clipping: `unit_axis` must be an axis of each array, got 2 for shape \(2, 2\)\. Leave",
        ),
        (
            lambda: transforms.centralize(unit_axis=-3).update(X, ()),
            ValueError,
            "^centralize: `unit_axis` must be an axis",
        ),
        (lambda: transforms.add_noise(-1, rng=None), ValueError, "^add_noise: `eta` must be in"),
        (lambda: transforms.add_noise(1, gamma=-1, rng=None), ValueError, "^add_noise: `gamma` must be in"),
        (
            lambda: (noise := transforms.add_noise(1, rng=3)).update(X, noise.init(X)),
            TypeError,
            "^add_noise: `rng` must be a numpy.random.Generator, got int",
        ),
        (
            lambda: (noise := transforms.add_noise(1, rng=np.random.default_rng(0))).update(X * 1j, noise.init(X)),
            TypeError,
            "^add_noise: `updates` must be real, got complex128",
        ),
        (
            lambda: transforms.chain(transforms.centralize),
            TypeError,
            r"^chain: `transforms\[0\]` must have `init` and `update`, got function",
        ),
        (lambda: transforms.chain(transforms.centralize()).update(X, ()), ValueError, "must have a part for each of 1"),
        (
            lambda: transforms.apply_updates({"a": X}, {"b": X}),
            ValueError,
            "^apply_updates: `params` must have 'b' too",
        ),
    ],
)
def test_errors(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.mixed
@pytest.mark.parametrize(
    ("ours", "name", "arguments"),
    [
        (lambda: transforms.add_l2_decay(0.3), "add_decayed_weights", (0.3,)),
        (lambda: transforms.add_l2_decay(lambda n: 0.1 * (n + 1)), "add_decayed_weights", (lambda n: 0.1 * (n + 1),)),
        (lambda: transforms.clip_by_global_norm(0.5), "clip_by_global_norm", (0.5,)),
        (lambda: transforms.clip_by_global_norm(50.0), "clip_by_global_norm", (50.0,)),
        (lambda: transforms.adaptive_gradient_clipping(0.1), "adaptive_grad_clip", (0.1,)),
        (lambda: transforms.adaptive_gradient_clipping(0.3, eps=0.5), "adaptive_grad_clip", (0.3, 0.5)),
        (transforms.centralize, "centralize", ()),
    ],
    ids=["l2", "l2 by schedule", "clipped", "not clipped", "adaptive", "adaptive eps", "centralize"],
)
def test_as_optax(ours: Callable[[], Any], name: str, arguments: tuple[Any, ...]) -> None:
    import jax
    import optax

    shapes = {"bias": (4,), "dense": (3, 4), "heads": (3, 1, 4), "conv": (2, 2, 3, 4)}
    old = {key: jax.numpy.asarray(RNG.normal(size=shape), "float32") for key, shape in shapes.items()}
    theirs, mine = getattr(optax, name)(*arguments), ours()
    inside = optax.chain(ours(), optax.scale(1.0))
    states = [transform.init(old) for transform in (theirs, mine, inside)]
    for step in range(3):
        updates = {key: jax.numpy.asarray(RNG.normal(size=shape), "float32") for key, shape in shapes.items()}
        found = []
        for i, transform in enumerate((theirs, mine, inside)):
            new, states[i] = jax.jit(transform.update)(updates, states[i], old)
            found.append(new)
        for key in shapes:
            np.testing.assert_allclose(found[1][key], found[0][key], rtol=2e-6, atol=1e-7, err_msg=f"{step} {key}")
            # two programs, of which XLA may fuse one's product and sum and not the other's
            np.testing.assert_allclose(found[2][key], found[1][key], rtol=2**-22, atol=1e-7)


@pytest.mark.mixed
def test_optax_in_our_chain() -> None:
    import jax.numpy as jnp
    import optax

    optimizer = transforms.chain(optax.sgd(0.1), transforms.add_l1_decay(0.05, decoupled=True))
    x = jnp.asarray([3.0, 0.02])
    state = optimizer.init(x)
    for _ in range(200):
        updates, state = optimizer.update(2 * (x - jnp.asarray([1.0, 0.01])), state, x)
        x = transforms.apply_updates(x, updates)
    assert float(x[1]) == 0.0
    assert abs(float(x[0]) - 0.75) < 1e-5


@pytest.mark.mixed
def test_masked_by_optax() -> None:
    import jax.numpy as jnp
    import optax

    old = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    masked = optax.masked(transforms.add_l2_decay(0.5), {"kernel": True, "bias": False})
    updates, _ = masked.update(old, masked.init(old), old)
    assert float(updates["kernel"][0, 0]) == 1.5
    assert float(updates["bias"][0]) == 1.0


@pytest.mark.needs("autodiff")
def test_differentiated(fw: Framework) -> None:
    """Through an update, by the parameters and the weight, as meta-learning does."""
    import xpenalties as xp

    def after(given: Any) -> Any:
        transform = transforms.chain(
            transforms.add_l1_decay(given["weight"], decoupled=True), transforms.clip_by_global_norm(1.0)
        )
        updates, _ = transform.update(fw.array(GRADIENT), ((), ()), given["params"])
        return xp.l2(given["params"] + updates)

    def reference(p: Any, weight: float) -> float:
        update = soft(p + GRADIENT, weight) - p
        return float(np.sum((p + update * min(1, 1 / np.linalg.norm(update))) ** 2))

    _, gradient = xp.value_and_grad(after)({"params": fw.array(KERNEL), "weight": fw.array(np.asarray(0.3))})
    step = 1e-6
    slope = (reference(KERNEL, 0.3 + step) - reference(KERNEL, 0.3 - step)) / (2 * step)
    close(fw, gradient["weight"], np.asarray(slope), rtol=1e-6)
    moved = np.zeros_like(KERNEL)
    moved[1, 2] = step
    slope = (reference(KERNEL + moved, 0.3) - reference(KERNEL - moved, 0.3)) / (2 * step)
    close(fw, gradient["params"][1, 2], np.asarray(slope), rtol=1e-6)


def test_half_precision_is_computed_in_float32(fw: Framework) -> None:
    x = fw.array(np.full(4, 60000.0), "float16" if "float16" in fw.dtypes else "float32")
    found, _ = transforms.clip_by_global_norm(60000.0).update([x], ())  # a norm of 120000, which float16 has not
    close(fw, found[0], np.full(4, 30000.0), rtol=1e-3)


def test_dtypes_of_updates_and_parameters(fw: Framework) -> None:
    """As Optax: of what both have in common. Exact zeros need it."""
    low = next(name for name in fw.dtypes if name in ("float16", "float32"))
    p, u = fw.array(np.asarray([0.1234567, 3.0]), "float64"), fw.array(np.asarray([-0.1, -0.5]), low)
    found, _ = transforms.add_l1_decay(0.05, decoupled=True).update(u, (), p)
    assert found.dtype == fw.dtype("float64")
    assert fw.numpy(transforms.apply_updates(p, found))[0] == 0.0
    assert transforms.apply_updates(u, found).dtype == fw.dtype(low)


def test_infinite_parameters(fw: Framework) -> None:
    p, g = fw.array(np.asarray([math.inf, -math.inf])), fw.array(np.zeros(2))
    close(fw, transforms.add_l1_decay(0.5).update(g, (), p)[0], np.asarray([0.5, -0.5]))


def test_empty_leaves(fw: Framework) -> None:
    empty, x = fw.array(np.zeros((0, 3))), fw.array(np.full(4, 2.0))
    found, _ = transforms.clip_by_global_norm(1.0).update([empty, x], ())
    assert tuple(found[0].shape) == (0, 3)
    close(fw, found[1], np.full(4, 0.5))
    close(fw, transforms.clip_by_global_norm(1.0).update([empty], ())[0][0], np.zeros((0, 3)))
    for each in (empty, fw.array(np.zeros((3, 0))), fw.array(np.zeros(0))):
        for transform in (transforms.adaptive_gradient_clipping(0.1), transforms.centralize()):
            assert tuple(transform.update(each, (), each)[0].shape) == tuple(each.shape)


def test_paths_that_are_the_same(fw: Framework) -> None:
    def tree(a: float, b: float) -> Any:
        return {"a.b": fw.array(np.asarray([a])), "a": {"b": fw.array(np.asarray([b]))}}

    found, _ = transforms.add_l2_decay(1.0).update(tree(0.0, 0.0), (), tree(1.0, 10.0))
    assert (float(fw.numpy(found["a.b"])[0]), float(fw.numpy(found["a"]["b"])[0])) == (1.0, 10.0)
    new = transforms.apply_updates(tree(1.0, 10.0), tree(0.5, 5.0))
    assert (float(fw.numpy(new["a.b"])[0]), float(fw.numpy(new["a"]["b"])[0])) == (1.5, 15.0)
    with pytest.raises(ValueError, match=r"^add_l2_decay: paths must be unique, got 'a\.b' twice in `params`"):
        transforms.add_l2_decay(1.0).update({"a.b": fw.array(np.asarray([1.0]))}, (), tree(1.0, 10.0))


def test_integer_leaves(fw: Framework) -> None:
    found = transforms.apply_updates(
        {"n": fw.array(np.asarray([1, 2])), "m": 3}, {"n": fw.array(np.asarray([3, 4])), "m": None}
    )
    assert fw.numpy(found["n"]).tolist() == [4, 6]
    assert found["m"] == 3


@pytest.mark.parametrize("array", [False, True])
def test_options_that_are_arrays(fw: Framework, array: bool) -> None:
    def number(x: float) -> Any:
        return fw.array(np.asarray(x)) if array else x

    g, p = fw.array(GRADIENT, "float32"), fw.array(KERNEL, "float32")
    found, _ = transforms.clip_by_global_norm(number(0.5)).update(g, ())
    close(fw, found, GRADIENT * 0.5 / np.linalg.norm(GRADIENT), rtol=1e-6)
    found, _ = transforms.adaptive_gradient_clipping(number(0.1), eps=number(1e-3), unit_axis=0).update(g, (), p)
    norm, least = (np.linalg.norm(x, axis=1, keepdims=True) for x in (GRADIENT, KERNEL))
    close(fw, found, GRADIENT * np.minimum(1, 0.1 * least / norm), rtol=1e-6)
    for decoupled, expected in (
        (False, GRADIENT + 0.3 * (0.25 * np.sign(KERNEL) + 0.75 * KERNEL)),
        (True, soft(KERNEL + GRADIENT - 0.225 * KERNEL, 0.075) - KERNEL),
    ):
        decay = transforms.add_elastic_net_decay(number(0.3), l1_ratio=number(0.25), decoupled=decoupled)
        found, _ = decay.update(g, (), p)
        assert found.dtype == fw.dtype("float32")
        close(fw, found, expected, rtol=1e-5, atol=1e-6)
    noise = transforms.add_noise(number(0.0), gamma=number(0.5), rng=generator(fw, 0))
    close(fw, noise.update(g, noise.init(g))[0], fw.numpy(g))


@pytest.mark.needs("autodiff")
@pytest.mark.parametrize("transform", [transforms.clip_by_global_norm(1.0), transforms.adaptive_gradient_clipping(0.1)])
def test_gradients_at_zero(fw: Framework, transform: Any) -> None:
    import xpenalties as xp

    zeros = fw.array(np.zeros((2, 3)))

    def after(g: Any) -> Any:
        return xp.l2(transform.update(g, (), fw.array(np.ones((2, 3))))[0] + 1)

    _, gradient = xp.value_and_grad(after)(zeros)
    close(fw, gradient, np.full((2, 3), 2.0))


@pytest.mark.needs("autodiff")
def test_init_in_a_trace(fw: Framework) -> None:
    import xpenalties as xp

    def after(g: Any) -> Any:
        decay = transforms.add_l2_decay(lambda step: 0.5)
        return xp.l2(decay.update(g, decay.init(g), g)[0])

    close(fw, xp.value_and_grad(after)(fw.array(SLOPE))[1], 2 * 1.5**2 * SLOPE)


def test_more_arguments() -> None:
    seen = []

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        seen.append(extra)
        return updates, state

    own = transforms.GradientTransformation(lambda params: (), update)
    transforms.chain(transforms.centralize(), own).update(np.ones(2), ((), ()), None, value=3.0)
    assert seen == [{"value": 3.0}]


def test_modules_and_their_gradients() -> None:
    torch = selected("torch", reason="is about PyTorch's modules")
    model = torch.nn.Linear(2, 2)
    decay = transforms.add_l2_decay(0.5, match="weight")
    gradients = {name: torch.zeros_like(p) if name == "weight" else None for name, p in model.named_parameters()}
    updates, _ = decay.update(gradients, decay.init(model), model)
    torch.testing.assert_close(updates["weight"], 0.5 * model.weight)
    assert updates["bias"] is None
    with pytest.raises(
        TypeError, match=r"clip_by_global_norm: `updates` must be a nest .*, got builtins\.generator at ''"
    ):
        transforms.clip_by_global_norm(1.0).update((p.grad for p in model.parameters()), ())


def test_models_on_several_devices() -> None:
    torch = selected("torch", reason="is about PyTorch's devices")
    tree = {"a": torch.ones(3), "b": torch.ones(3, device="meta")}
    decay = transforms.add_l2_decay(schedules.linear(0.1, 0.2, steps=3))
    updates, _ = decay.update(tree, decay.init(tree), tree)
    assert [updates[name].device.type for name in tree] == ["cpu", "meta"]


@pytest.mark.mixed
def test_groups_of_optax() -> None:
    import jax
    import jax.numpy as jnp
    import optax

    old = {"a": jnp.ones(2), "b": jnp.ones(2)}
    for decay in (transforms.add_l2_decay(lambda step: 0.5), transforms.add_l2_decay(0.5, match="b")):
        groups = optax.multi_transform({"sgd": optax.sgd(0.1), "decay": decay}, {"a": "sgd", "b": "decay"})
        updates, _ = groups.update(old, groups.init(old), old)
        assert float(updates["b"][0]) == 1.5
        none = optax.multi_transform({"sgd": optax.sgd(0.1), "decay": decay}, {"a": "sgd", "b": "sgd"})
        assert float(none.update(old, none.init(old), old)[0]["b"][0]) == np.float32(-0.1)
    assert transforms.add_l2_decay(lambda step: 0.5).init(jax.eval_shape(lambda: old)).step == 0
    injected = optax.inject_hyperparams(transforms.clip_by_global_norm)(max_norm=0.5)
    updates, _ = injected.update(old, injected.init(old), old)
    assert abs(float(updates["a"][0]) - 0.25) < 1e-6


def test_proximal(fw: Framework) -> None:
    p, u = fw.array(KERNEL), fw.array(GRADIENT)
    for scale in (0.3, fw.array(np.asarray(0.3)), schedules.linear(0.1, 0.4, steps=3)):
        transform = transforms.proximal(prox.l1, scale=scale)
        found, _ = transform.update(u, transforms.StepState(fw.array(np.asarray(2, np.int32))), p)
        close(fw, found, soft(KERNEL + GRADIENT, 0.3) - KERNEL, atol=1e-7)  # a schedule is of the default float
    box = transforms.proximal(prox.box, match="a", low=0.0, high=0.5)
    new = transforms.apply_updates({"a": p, "b": p}, box.update({"a": u, "b": u}, (), {"a": p, "b": p})[0])
    close(fw, new["a"], np.clip(KERNEL + GRADIENT, 0.0, 0.5))
    close(fw, new["b"], KERNEL + GRADIENT)
    with pytest.raises(ValueError, match=r"^proximal: `scale` must be in \[0, inf\), got -1"):
        transforms.proximal(prox.l1, scale=-1)
    with pytest.raises(TypeError, match=r"^proximal: `operator` must be a callable, got 'l1'"):
        transforms.proximal("l1", scale=1)  # type: ignore[arg-type]


def test_every_dtype(fw: Framework) -> None:
    for dtype in fw.dtypes:
        g, p = fw.array(np.asarray([3.0, 4.0]), dtype), fw.array(np.asarray([1.0, -1.0]), dtype)
        transform = transforms.chain(transforms.clip_by_global_norm(2.5), transforms.add_l2_decay(0.5))
        updates, _ = transform.update(g, transform.init(p), p)
        assert updates.dtype == fw.dtype(dtype)
        assert fw.numpy(updates).tolist() == [2.0, 1.5]
        assert fw.numpy(transforms.apply_updates(p, updates)).tolist() == [3.0, 0.5]


@pytest.mark.needs("autodiff")
def test_noise_is_a_constant(fw: Framework) -> None:
    import xpenalties as xp

    noise = transforms.add_noise(0.5, rng=generator(fw, 3))
    state = noise.init(fw.array(SLOPE))

    def total(g: Any) -> Any:
        return xp.namespace(g).sum(3 * noise.update(g, state)[0])

    close(fw, xp.value_and_grad(total)(fw.array(SLOPE))[1], np.full(4, 3.0))
