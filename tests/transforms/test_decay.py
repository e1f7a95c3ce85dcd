"""Decays and proximal transforms: closed forms, exact zeros, and Optax's masks."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.helpers.harness import Framework, close
from tests.helpers.updates import BIAS, GRADIENT, KERNEL, SLOPE, gradients, params, soft
from xpenalties import prox, schedules, transforms


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


def test_infinite_parameters(fw: Framework) -> None:
    p, g = fw.array(np.asarray([math.inf, -math.inf])), fw.array(np.zeros(2))
    close(fw, transforms.add_l1_decay(0.5).update(g, (), p)[0], np.asarray([0.5, -0.5]))


def test_proximal(fw: Framework) -> None:
    p, u = fw.array(KERNEL), fw.array(GRADIENT)
    for scale in (0.3, fw.array(np.asarray(0.3)), schedules.linear(0.1, 0.4, steps=3)):
        transform = transforms.proximal(prox.l1, scale=scale)
        result, _ = transform.update(u, transforms.StepState(fw.array(np.asarray(2, np.int32))), p)
        close(fw, result, soft(KERNEL + GRADIENT, 0.3) - KERNEL, atol=1e-7)  # a schedule is of the default float
    box = transforms.proximal(prox.box, match="a", low=0.0, high=0.5)
    new = transforms.apply_updates({"a": p, "b": p}, box.update({"a": u, "b": u}, (), {"a": p, "b": p})[0])
    close(fw, new["a"], np.clip(KERNEL + GRADIENT, 0.0, 0.5))
    close(fw, new["b"], KERNEL + GRADIENT)
    with pytest.raises(ValueError, match=r"^proximal: `scale` must be in \[0, inf\), got -1"):
        transforms.proximal(prox.l1, scale=-1)
    each = np.asarray([[0.1, 0.5, 0.9, 0.0]])
    result, _ = transforms.proximal(prox.l1, scale=fw.array(each)).update(u, (), p)
    close(fw, result, soft(KERNEL + GRADIENT, each) - KERNEL)
    transforms.proximal(dict)  # it has no signature to check options by
    with pytest.raises(TypeError, match=r"^proximal: `operator` must be a callable, got 'l1'"):
        transforms.proximal("l1", scale=1)  # type: ignore[arg-type]


def test_options_of_operators() -> None:
    """They are checked when the transform is made."""

    def own(x: Any, strength: float, **more: Any) -> Any:
        return strength * x

    for make, message in (
        (lambda: transforms.proximal(prox.l1), "`scale` must be given for l1, got nothing. Pass the learning rate tim"),
        (lambda: transforms.proximal(own, a=1), "`strength` must be given for own, got nothing. Pass it."),
        (lambda: transforms.proximal(prox.box, scale=0.1), "`operator` must take the options, got box, which does not"),
        (lambda: transforms.proximal(prox.box, hihg=1.0), "take 'hihg'. Its options are low, high. Did you mean 'hi"),
        (lambda: transforms.proximal(lambda x: x, a=1.0), "take 'a'. Its options are none."),
    ):
        with pytest.raises(TypeError, match="^proximal: .*" + re.escape(message)):
            make()
    transform = transforms.proximal(own, strength=2.0, b=3)
    assert transform.update(np.ones(2), (), np.ones(2))[0].tolist() == [3.0, 3.0]
    transforms.proximal(np.maximum)  # without a signature


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
            lambda: transforms.add_l2_decay(lambda step: -1.0).update(X, transforms.StepState(np.asarray(0)), X),
            ValueError,
            "^add_l2_decay: `weight` must be in",
        ),
    ],
)
def test_errors(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.mixed
def test_masked_by_optax() -> None:
    import jax.numpy as jnp
    import optax

    old = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    masked = optax.masked(transforms.add_l2_decay(0.5), {"kernel": True, "bias": False})
    updates, _ = masked.update(old, masked.init(old), old)
    assert float(updates["kernel"][0, 0]) == 1.5
    assert float(updates["bias"][0]) == 1.0
