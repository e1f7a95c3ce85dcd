"""Proximal steps of whole trees, and the share of zeros."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.conftest import selected
from tests.helpers.harness import Framework, close
from xpenalties import prox


def test_a_step_of_a_tree(fw: Framework) -> None:
    kernel, bias = fw.array(np.asarray([0.25, -2.0, 1.0])), fw.array(np.asarray([0.25]))
    tree = {"layers": [{"kernel": kernel, "bias": bias}], "steps": 3}
    new = prox.prox_step(prox.l1, tree, match="kernel", scale=0.5)
    close(fw, new["layers"][0]["kernel"], np.asarray([0.0, -1.5, 0.5]))
    assert new["layers"][0]["bias"] is bias
    assert new["steps"] == 3
    new = prox.prox_step(prox.box, tree, exclude="bias", low=0.0)
    close(fw, new["layers"][0]["kernel"], np.asarray([0.25, 0.0, 1.0]))
    close(fw, prox.sparsity(tree), np.asarray(0.0))
    close(fw, prox.sparsity(new), np.asarray(0.25))
    close(fw, prox.sparsity(new, match="kernel"), np.asarray(1 / 3))


@pytest.mark.needs("jit")
def test_a_step_compiled(fw: Framework) -> None:
    def step(tree: Any) -> Any:
        new = prox.prox_step(prox.l1, tree, scale=0.5, match="kernel")
        return new, prox.sparsity(new)

    run, compilations = fw.compile(step)
    for factor in (1.0, 2.0):
        new, share = run({"kernel": fw.array(factor * np.asarray([0.4, -2.0])), "bias": fw.array(np.zeros(2))})
        close(fw, share, np.asarray(0.75 if factor == 1 else 0.5))
        close(fw, new["kernel"], np.asarray([0.0, -1.5] if factor == 1 else [0.3, -3.5]))
    assert compilations() == 1


def test_sparsity(fw: Framework) -> None:
    for dtype in fw.dtypes:
        x = fw.array(np.asarray([0.0, -0.0, math.nan, 3.0]), dtype)
        share = prox.sparsity(x)
        assert share.dtype == fw.dtype("float64" if dtype == "float64" else "float32")
        close(fw, share, np.asarray(0.5))
    close(fw, prox.sparsity(fw.array(np.asarray([0j, 1j]))), np.asarray(0.5))
    close(fw, prox.sparsity(fw.array(np.zeros((0, 3)))), np.asarray(0.0))
    assert float(fw.numpy(prox.sparsity(fw.array(np.zeros(33_333), "float32")))) == 1.0


def test_sparsity_beyond_32_bits() -> None:
    many = np.broadcast_to(np.zeros(1, np.float32), (2**16, 2**15))
    assert prox.sparsity({"a": many[:, :1], "b": np.ones(2**16, np.float32)}) == 0.5
    torch = selected("torch", reason="counts without memory")
    share = prox.sparsity(torch.empty(2**33, device="meta"))
    assert share.dtype == torch.float32
    assert share.shape == ()


def test_counts_of_32_bits_do_not_overflow() -> None:
    jax = selected("jax", reason="has 32 bits unless it is asked for more")
    for shape, counted_in in (((2**16, 2**14), "i32[]"), ((2**16, 2**16), "f32[]")):
        program = str(jax.make_jaxpr(prox.sparsity)(jax.ShapeDtypeStruct(shape, "float32")))
        assert f":{counted_in} = reduce_sum" in program


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: prox.prox_step("l1", np.ones(2)), TypeError, "^prox_step: `operator` must be a callable, got 'l1'"),
        (
            lambda: prox.prox_step(prox.l1, {"a": np.ones(2)}, match="b", scale=1),
            ValueError,
            "^prox_step: each pattern",
        ),
        (lambda: prox.sparsity({}), ValueError, "^sparsity: `tree` must hold a floating-point array"),
    ],
)
def test_errors_of_trees(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_an_error_says_where() -> None:
    with pytest.raises(ValueError, match=r"^l1: `scale` must be in") as caught:
        prox.prox_step(prox.l1, {"a": np.ones(2)}, scale=-1)
    assert caught.value.__notes__ == ["in prox_step, at 'a'"]
