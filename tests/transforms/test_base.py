"""What gradient transforms share: schedules, dtypes, options that are arrays, kinds of trees, and Optax's values."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.conftest import selected
from tests.helpers.harness import Framework, close
from tests.helpers.updates import GRADIENT, KERNEL, SLOPE, generator, gradients, params, soft
from xpenalties import schedules, transforms

RNG = np.random.default_rng(3)


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


def test_nothing_to_count_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "jax", None)
        with pytest.raises(ValueError, match=r"^add_l2_decay: `params` must hold at least one array, got none"):
            transforms.add_l2_decay(lambda step: 1.0).init({})


@pytest.mark.needs("autodiff")
def test_init_in_a_trace(fw: Framework) -> None:
    import xpenalties as xp

    def after(g: Any) -> Any:
        decay = transforms.add_l2_decay(lambda step: 0.5)
        return xp.l2(decay.update(g, decay.init(g), g)[0])

    close(fw, xp.value_and_grad(after)(fw.array(SLOPE))[1], 2 * 1.5**2 * SLOPE)


def test_dtypes_of_updates_and_parameters(fw: Framework) -> None:
    """As Optax: of what both have in common. Exact zeros need it."""
    low = next(name for name in fw.dtypes if name in ("float16", "float32"))
    p, u = fw.array(np.asarray([0.1234567, 3.0]), "float64"), fw.array(np.asarray([-0.1, -0.5]), low)
    result, _ = transforms.add_l1_decay(0.05, decoupled=True).update(u, (), p)
    assert result.dtype == fw.dtype("float64")
    assert fw.numpy(transforms.apply_updates(p, result))[0] == 0.0
    assert transforms.apply_updates(u, result).dtype == fw.dtype(low)


@pytest.mark.parametrize("array", [False, True])
def test_options_that_are_arrays(fw: Framework, array: bool) -> None:
    def number(x: float) -> Any:
        return fw.array(np.asarray(x)) if array else x

    g, p = fw.array(GRADIENT, "float32"), fw.array(KERNEL, "float32")
    result, _ = transforms.clip_by_global_norm(number(0.5)).update(g, ())
    close(fw, result, GRADIENT * 0.5 / np.linalg.norm(GRADIENT), rtol=1e-6)
    result, _ = transforms.adaptive_gradient_clipping(number(0.1), eps=number(1e-3), unit_axis=0).update(g, (), p)
    norm, least = (np.linalg.norm(x, axis=1, keepdims=True) for x in (GRADIENT, KERNEL))
    close(fw, result, GRADIENT * np.minimum(1, 0.1 * least / norm), rtol=1e-6)
    for decoupled, expected in (
        (False, GRADIENT + 0.3 * (0.25 * np.sign(KERNEL) + 0.75 * KERNEL)),
        (True, soft(KERNEL + GRADIENT - 0.225 * KERNEL, 0.075) - KERNEL),
    ):
        decay = transforms.add_elastic_net_decay(number(0.3), l1_ratio=number(0.25), decoupled=decoupled)
        result, _ = decay.update(g, (), p)
        assert result.dtype == fw.dtype("float32")
        close(fw, result, expected, rtol=1e-5, atol=1e-6)
    noise = transforms.add_noise(number(0.0), gamma=number(0.5), rng=generator(fw, 0))
    close(fw, noise.update(g, noise.init(g))[0], fw.numpy(g))


def test_paths_that_are_the_same(fw: Framework) -> None:
    def tree(a: float, b: float) -> Any:
        return {"a.b": fw.array(np.asarray([a])), "a": {"b": fw.array(np.asarray([b]))}}

    result, _ = transforms.add_l2_decay(1.0).update(tree(0.0, 0.0), (), tree(1.0, 10.0))
    assert (float(fw.numpy(result["a.b"])[0]), float(fw.numpy(result["a"]["b"])[0])) == (1.0, 10.0)
    new = transforms.apply_updates(tree(1.0, 10.0), tree(0.5, 5.0))
    assert (float(fw.numpy(new["a.b"])[0]), float(fw.numpy(new["a"]["b"])[0])) == (1.5, 15.0)
    with pytest.raises(ValueError, match=r"^add_l2_decay: paths must be unique, got 'a\.b' twice in `params`"):
        transforms.add_l2_decay(1.0).update({"a.b": fw.array(np.asarray([1.0]))}, (), tree(1.0, 10.0))


def test_modules_and_their_gradients() -> None:
    torch = selected("torch", reason="is about PyTorch's modules")
    model = torch.nn.Linear(2, 2)
    decay = transforms.add_l2_decay(0.5, match="weight")
    gradients = {name: torch.zeros_like(p) if name == "weight" else None for name, p in model.named_parameters()}
    updates, _ = decay.update(gradients, decay.init(model), model)
    torch.testing.assert_close(updates["weight"], 0.5 * model.weight)
    assert updates["bias"] is None
    with pytest.raises(
        TypeError, match=r"clip_by_global_norm: `updates` must be a tree .*, got builtins\.generator at ''"
    ):
        transforms.clip_by_global_norm(1.0).update((p.grad for p in model.parameters()), ())


def test_models_on_several_devices() -> None:
    torch = selected("torch", reason="is about PyTorch's devices")
    tree = {"a": torch.ones(3), "b": torch.ones(3, device="meta")}
    decay = transforms.add_l2_decay(schedules.linear(0.1, 0.2, steps=3))
    updates, _ = decay.update(tree, decay.init(tree), tree)
    assert [updates[name].device.type for name in tree] == ["cpu", "meta"]


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
        (lambda: transforms.clip(0.5), "clip", (0.5,)),
        (lambda: transforms.clip_by_block_rms(0.5), "clip_by_block_rms", (0.5,)),
    ],
    ids=["l2", "l2 by schedule", "clipped", "not clipped", "adaptive", "adaptive eps", "centralize", "clip", "rms"],
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
        result = []
        for i, transform in enumerate((theirs, mine, inside)):
            new, states[i] = jax.jit(transform.update)(updates, states[i], old)
            result.append(new)
        for key in shapes:
            np.testing.assert_allclose(result[1][key], result[0][key], rtol=2e-6, atol=1e-7, err_msg=f"{step} {key}")
            # two programs, of which XLA may fuse one's product and sum and not the other's
            np.testing.assert_allclose(result[2][key], result[1][key], rtol=2**-22, atol=1e-7)


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
