"""Weights of 0: they mask their terms, unless they are differentiated. A gate that starts at 0 must be able to open."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.conftest import selected
from tests.helpers.harness import Framework, close
from xpenalties import Penalty, Pipeline

pytestmark = pytest.mark.needs("autodiff")
X = np.asarray([[1.0, -2.0, 0.5], [3.0, 1.0, -1.0]])
W = np.asarray([0.0, 2.0])
ENTROPIES = -np.sum(np.exp(X) / np.exp(X).sum(1, keepdims=True) * (X - np.log(np.exp(X).sum(1, keepdims=True))), axis=1)


def entropy(x: Any, w: Any, **options: Any) -> Any:
    return xp.entropy(x, from_logits=True, weights=w, **options)


@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
def test_the_gradient_of_a_weight_of_0_is_its_term(fw: Framework, reduction: str) -> None:
    def of_weights(w: Any) -> Any:
        return xp.namespace(w).sum(entropy(fw.array(X), w, reduction=reduction))

    value, gradient = xp.value_and_grad(of_weights)(fw.array(W))
    mean = ENTROPIES @ W / W.sum()
    close(fw, value, mean if reduction == "mean" else ENTROPIES @ W)
    close(fw, gradient, (ENTROPIES - mean) / W.sum() if reduction == "mean" else ENTROPIES)


def test_one_gate_for_all_terms(fw: Framework) -> None:
    def of_gate(gate: Any) -> Any:
        return xp.l2(fw.array(X), weights=xp.namespace(gate).broadcast_to(gate, X.shape))

    close(fw, xp.grad(of_gate)(fw.array(np.asarray(0.0))), np.sum(X**2))


def test_with_where(fw: Framework) -> None:
    where = fw.array(np.asarray([[True, False, True], [True, True, False]]))
    poisoned = fw.array(np.where(fw.numpy(where), X, np.nan))
    gradient = xp.grad(lambda w: xp.l2(poisoned, weights=w, where=where))(fw.array(np.zeros((2, 3))))
    close(fw, gradient, np.where(fw.numpy(where), X**2, 0.0))


def test_a_hypergradient(fw: Framework) -> None:
    """The gradient with respect to the weights of a step's result: a mixed second derivative."""

    def after_a_step(w: Any) -> Any:
        x = fw.array(X)
        return xp.l1(x - 0.1 * xp.grad(lambda x: xp.l2(x, weights=w))(x))

    for differentiated in (xp.grad(after_a_step), fw.once(xp.grad(after_a_step)), xp.grad(fw.once(after_a_step))):
        close(fw, differentiated(fw.array(np.zeros((2, 3)))), -0.2 * np.abs(X))


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_weights_that_are_not_differentiated_mask(fw: Framework, reduction: str) -> None:
    poisoned = fw.array(np.where(W[:, None] == 0, np.nan, X))
    for compiled in (lambda fn: fn, fw.once):
        both = compiled(xp.value_and_grad(partial(entropy, reduction=reduction)))
        value, gradient = both(poisoned, fw.array(W))
        close(fw, value, ENTROPIES[1] * (1 if reduction == "mean" else W[1]))
        assert np.isfinite(fw.numpy(gradient)).all() and not fw.numpy(gradient)[0].any()


def test_metrics_of_weights_that_are_differentiated(fw: Framework) -> None:
    def of_weights(w: Any) -> Any:
        pipe = Pipeline([Penalty(entropy, name="mine", inputs=("x", "w"))])
        builtin = Pipeline([Penalty("entropy", inputs="x", options={"from_logits": True, "weights": w})])
        report = builtin.compute({"x": fw.array(X)})[1].regularizers["entropy"].metrics
        return pipe({"x": fw.array(X), "w": w}), report

    _, metrics = xp.grad(of_weights, has_aux=True)(fw.array(W))
    mean = float(ENTROPIES @ W / W.sum())
    want = {"sum": ENTROPIES @ W, "mean": mean, "min": ENTROPIES.min(), "max": ENTROPIES.max()}
    assert {name: float(x) for name, x in metrics.items()} == pytest.approx(want, rel=1e-12)


def test_the_weight_of_a_pipeline(fw: Framework) -> None:
    def of_weight(weight: Any) -> Any:
        return Pipeline([Penalty("l2", weight=weight)])(fw.array(X))

    close(fw, xp.grad(of_weight)(fw.array(np.asarray(0.0))), np.sum(X**2))


@pytest.mark.only("torch", reason="is about the ways in which PyTorch differentiates")
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # of jacfwd's own code
def test_ways_to_differentiate(fw: Framework) -> None:
    torch = selected("torch", reason="is about PyTorch")
    x = fw.array(X)

    def of_weights(w: Any) -> Any:
        return entropy(x, w, reduction="sum")

    w = fw.array(W).requires_grad_()
    of_weights(w * 1.0).backward()
    again = fw.array(W).requires_grad_()
    fw.compile(of_weights)[0](again).backward()
    ways: dict[str, Callable[[], Any]] = {
        "backward": lambda: w.grad,
        "compile": lambda: again.grad,
        "func.grad": lambda: torch.func.grad(of_weights)(fw.array(W)),
        "compiled func.grad": lambda: fw.compile(torch.func.grad(of_weights))[0](fw.array(W)),
        "func.jacrev": lambda: torch.func.jacrev(of_weights)(fw.array(W)),
        "func.jacfwd": lambda: torch.func.jacfwd(of_weights)(fw.array(W)),
        "func.vmap": lambda: torch.vmap(torch.func.grad(of_weights))(fw.array(W)[None])[0],
        "grad of vmap": lambda: torch.func.grad(lambda w: torch.vmap(of_weights)(w[None])[0])(fw.array(W)),
    }
    for name, gradient in ways.items():
        assert fw.numpy(gradient()) == pytest.approx(ENTROPIES, rel=1e-9), name
    with torch.no_grad():
        assert float(entropy(x * torch.tensor([[torch.nan], [1.0]]), w, reduction="sum")) == pytest.approx(
            2 * ENTROPIES[1]
        )
