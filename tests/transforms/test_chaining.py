"""Chains of transforms and the updates of parameters: order, dtypes, compilers, derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.helpers.harness import Framework, close
from tests.helpers.updates import BIAS, GRADIENT, KERNEL, SLOPE, gradients, params, soft
from xpenalties import schedules, transforms


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


def test_none_in_place_of_a_parameter(fw: Framework) -> None:
    """As in Optax, whatever its update is: a model from which other leaves were taken."""
    x = fw.array(BIAS)
    new = transforms.apply_updates({"a": x, "b": None, "c": [None, x]}, {"a": x, "b": {"d": x}, "c": (x, None)})
    close(fw, new["a"], 2 * BIAS)
    close(fw, new["c"][1], BIAS)
    assert new["b"] is None and new["c"][0] is None
    assert transforms.apply_updates({"a": None}, {"a": x}) == {"a": None}
    with pytest.raises(ValueError, match=r"^apply_updates: `params` must have 'ab' too, got "):
        transforms.apply_updates({"a": None, "b": x}, {"ab": x})
    with pytest.raises(ValueError, match=r"^apply_updates: `params` must be given to `update`, got None"):
        transforms.apply_updates(None, x)


def test_integer_leaves(fw: Framework) -> None:
    result = transforms.apply_updates(
        {"n": fw.array(np.asarray([1, 2])), "m": 3}, {"n": fw.array(np.asarray([3, 4])), "m": None}
    )
    assert fw.numpy(result["n"]).tolist() == [4, 6]
    assert result["m"] == 3


def test_every_dtype(fw: Framework) -> None:
    for dtype in fw.dtypes:
        g, p = fw.array(np.asarray([3.0, 4.0]), dtype), fw.array(np.asarray([1.0, -1.0]), dtype)
        transform = transforms.chain(transforms.clip_by_global_norm(2.5), transforms.add_l2_decay(0.5))
        updates, _ = transform.update(g, transform.init(p), p)
        assert updates.dtype == fw.dtype(dtype)
        assert fw.numpy(updates).tolist() == [2.0, 1.5]
        assert fw.numpy(transforms.apply_updates(p, updates)).tolist() == [3.0, 0.5]


def test_inputs_stay(fw: Framework) -> None:
    old, updates = params(fw), gradients(fw)
    transforms.chain(transforms.add_l1_decay(0.1), transforms.centralize(), transforms.clip_by_global_norm(0.1)).update(
        updates, ((), (), ()), old
    )
    close(fw, updates["kernel"], GRADIENT)
    close(fw, old["kernel"], KERNEL)


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
        result, state = run(updates, state, old)
        expected, plain = transform.update(updates, plain, old)
        close(fw, result["kernel"], fw.numpy(expected["kernel"]))
        close(fw, result["bias"], fw.numpy(expected["bias"]))
        counts.append(compilations())
    assert counts == [1, 1, 1]


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


def test_extra_arguments() -> None:
    seen = []

    def all_of_them(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        seen.append(extra)
        return updates, state

    def one_of_them(updates: Any, state: Any, params: Any = None, *, value: Any) -> Any:
        seen.append({"only": value})
        return updates, state

    own = [transforms.GradientTransformation(lambda params: (), update) for update in (all_of_them, one_of_them)]
    inside = transforms.chain(transforms.centralize(), transforms.chain(*own))
    assert isinstance(inside, transforms.GradientTransformation)
    inside.update(np.ones(2), ((), ((), ())), None, value=3.0, grad=1.0)
    assert seen == [{"value": 3.0, "grad": 1.0}, {"only": 3.0}]
    with pytest.raises(TypeError, match="'value'"):
        inside.update(np.ones(2), ((), ((), ())), None, grad=1.0)


X = np.ones((2, 2))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: transforms.chain(transforms.centralize()).update(X, None),
            TypeError,
            "^chain: `state` must be what `in",
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


WRAPPERS: dict[str, Callable[[Any, Any], Any]] = {  # of Optax
    "chain": lambda optax, inner: optax.chain(optax.identity(), inner),
    "named_chain": lambda optax, inner: optax.named_chain(("ours", inner)),
    "masked": lambda optax, inner: optax.masked(inner, True),
    "partition": lambda optax, inner: optax.partition({"all": inner}, "all"),
    "flatten": lambda optax, inner: optax.flatten(inner),
    "apply_if_finite": lambda optax, inner: optax.apply_if_finite(inner, 3),
    "conditionally_transform": lambda optax, inner: optax.conditionally_transform(inner, lambda *_, **extra: True),
    "conditionally_mask": lambda optax, inner: optax.conditionally_mask(inner, lambda *_, **extra: True),
    "MultiSteps": lambda optax, inner: optax.MultiSteps(inner, 1).gradient_transformation(),
    "inject_hyperparams": lambda optax, inner: optax.inject_hyperparams(lambda rate: inner)(rate=0.1),
    "chain of ours": lambda optax, inner: optax.chain(transforms.chain(transforms.centralize(), inner)),
}


@pytest.mark.mixed
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_extra_arguments_in_wrappers_of_optax(wrapper: str) -> None:
    """A learning rate that falls with the loss, and line searches, in our chain in Optax's wrapper."""
    import jax
    import jax.numpy as jnp
    import optax

    def loss(x: Any) -> Any:
        return jnp.sum((x - 1.0) ** 4)

    plateau = optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau(factor=0.5, patience=1))
    for theirs in (plateau, optax.polyak_sgd(), optax.scale_by_backtracking_linesearch(15), optax.lbfgs()):
        ours = WRAPPERS[wrapper](optax, transforms.chain(transforms.add_l2_decay(0.0), theirs))
        x = jnp.asarray([2.0, -1.0])
        value, gradient = jax.value_and_grad(loss)(x)
        states = [transform.init(x) for transform in (theirs, ours)]
        for _ in range(3 if theirs is plateau else 1):
            updates = []
            for i, transform in enumerate((theirs, ours)):
                result, states[i] = transform.update(gradient, states[i], x, value=value, grad=gradient, value_fn=loss)
                updates.append(result)
            np.testing.assert_allclose(updates[1], updates[0], rtol=1e-6)
