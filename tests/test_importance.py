"""Importances of parameters, against closed forms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, close
from xpenalties import Penalty, Pipeline, importance, trees

rng = np.random.default_rng(0)
X, Y = rng.standard_normal((6, 3)), np.eye(4)[rng.integers(0, 4, 6)]
W, B = rng.standard_normal((3, 4)), rng.standard_normal(4)
P = np.exp(X @ W + B) / np.exp(X @ W + B).sum(axis=1, keepdims=True)


def log_probs(params: Any, x: Any) -> Any:
    """Return log-probabilities of logistic regression."""
    ns = xp.namespace(params["w"])
    logits = ns.matmul(x, params["w"]) + params["b"]
    return logits - ns.log(ns.sum(ns.exp(logits)))


def log_likelihood(params: Any, sample: Any) -> Any:
    x, y = sample
    return xp.namespace(params["w"]).sum(log_probs(params, x) * y)


def params_of(fw: Framework, dtype: str | None = None) -> dict[str, Any]:
    return {"w": fw.array(W, dtype), "b": fw.array(B, dtype), "step": 3}


@pytest.mark.needs("autodiff")
def test_fisher_of_the_data(fw: Framework) -> None:
    got = importance.fisher(log_likelihood, params_of(fw), (fw.array(X), fw.array(Y)))
    residual = Y - P
    close(fw, got["w"], np.mean((X[:, :, None] * residual[:, None, :]) ** 2, axis=0))
    close(fw, got["b"], np.mean(residual**2, axis=0))
    assert got["step"] is None


@pytest.mark.needs("autodiff")
def test_fisher_of_the_model(fw: Framework) -> None:
    """The Fisher information of logistic regression is known: X^T diag(p (1 - p)) X."""
    got = importance.fisher(log_probs, params_of(fw), fw.array(X), labels="model")
    variance = P * (1 - P)
    close(fw, got["w"], np.einsum("ij,ic->jc", X**2, variance) / len(X))
    close(fw, got["b"], variance.mean(axis=0))


@pytest.mark.needs("autodiff")
def test_a_class_that_the_model_excludes(fw: Framework) -> None:
    def excluding(params: Any, x: Any) -> Any:
        ns = xp.namespace(params["w"])
        return ns.concat([log_probs(params, x), ns.zeros_like(params["b"][:1]) - math.inf])

    got = importance.fisher(excluding, {"w": fw.array(W), "b": fw.array(B)}, fw.array(X), labels="model")
    close(fw, got["b"], (P * (1 - P)).mean(axis=0))


@pytest.mark.needs("autodiff")
def test_memory_aware(fw: Framework) -> None:
    def output(params: Any, x: Any) -> Any:
        return xp.namespace(x).matmul(x, params["w"])

    got = importance.memory_aware(output, {"w": fw.array(W)}, fw.array(X))
    close(fw, got["w"], np.mean(np.abs(2 * X[:, :, None] * (X @ W)[:, None, :]), axis=0))


@pytest.mark.needs("autodiff")
def test_half_precision(fw: Framework) -> None:
    for dtype in {"float16", "bfloat16"} & set(fw.dtypes):
        samples = fw.array(X, dtype), fw.array(Y, dtype)
        got = importance.fisher(log_likelihood, params_of(fw, dtype), samples)
        assert got["w"].dtype == fw.dtype("float32")
        close(fw, got["b"], np.mean((Y - P) ** 2, axis=0), rtol=0.1)


@pytest.mark.needs("autodiff")
def test_refused(fw: Framework) -> None:
    params, x = params_of(fw), fw.array(X)
    with pytest.raises(ValueError, match=r"^fisher: `labels` must be one of 'data', 'model', got 'true'"):
        importance.fisher(log_likelihood, params, x, labels="true")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^fisher: the arrays of `samples` must have the same first axis.*\(6, 3\), "):
        importance.fisher(log_likelihood, params, (x, fw.array(Y[:5])))
    with pytest.raises(ValueError, match=r"^fisher: the arrays of `samples` must have the same first axis"):
        importance.fisher(log_likelihood, params, (fw.array(X[:0]), fw.array(Y[:0])))
    with pytest.raises(ValueError, match=r"^fisher: `fn` must return log-probabilities of shape \(classes,\)"):
        importance.fisher(log_likelihood, params, (x, fw.array(Y)), labels="model")


def test_mean(fw: Framework) -> None:
    batches = [{"w": fw.array(np.asarray([1.0, 0.0])), "n": None}, {"w": fw.array(np.asarray([3.0, 4.0])), "n": None}]
    close(fw, importance.mean(batches, weights=[3, 1])["w"], np.asarray([1.5, 1.0]))
    close(fw, importance.mean(batches)["w"], np.asarray([2.0, 2.0]))
    with pytest.raises(ValueError, match=r"^mean: `trees` must have a tree, got none"):
        importance.mean([])
    with pytest.raises(ValueError, match=r"^mean: `weights` must have a number for each of the 2 trees, got 1"):
        importance.mean(batches, weights=[1])
    with pytest.raises(ValueError, match=r"^mean: `trees` must have the same leaves"):
        importance.mean([batches[0], {"w": batches[0]["w"], "b": batches[0]["w"]}])


@pytest.mark.needs("autodiff")
def test_anchored_by_importances(fw: Framework) -> None:
    """EWC by hand: value and gradient."""
    old = {"w": fw.array(W), "b": fw.array(B)}
    fisher = importance.fisher(log_probs, old, fw.array(X), labels="model")
    stay = trees.anchored(old, importance=fisher)
    new = {"w": fw.array(W + 0.5), "b": fw.array(B - 1.0)}
    of_w, of_b = (fw.numpy(fisher[name]) for name in ("w", "b"))
    close(fw, stay(new), 0.25 * of_w.sum() + of_b.sum())
    gradient = xp.grad(stay)(new)
    close(fw, gradient["w"], of_w)
    close(fw, gradient["b"], -2.0 * of_b)
    pipe = Pipeline([Penalty(stay, name="stay", inputs="params", weight=0.5)])
    close(fw, pipe({"params": new}), 0.125 * of_w.sum() + 0.5 * of_b.sum())


def test_anchored(fw: Framework) -> None:
    old = {"w": fw.array(W), "b": fw.array(B)}
    new = {"w": fw.array(W + 0.5), "b": fw.array(B - 1.0)}
    close(fw, trees.anchored(old)(new), 3.0 + 4.0)
    close(fw, trees.anchored(old, match=r"^b$", options={"clip": 0.5})(new), 1.0)
    assert repr(trees.anchored(old, match=r"^b$")) == "over_tree('l2', match='^b$', center=<tree>)"
    with pytest.raises(
        TypeError, match=r"^over_tree: `center` must be passed once, got it in the call and in the tree"
    ):
        trees.anchored(old)(new, center=old)
    with pytest.raises(ValueError, match="must have 'b' too"):
        trees.anchored({"w": old["w"]})(new)


@pytest.mark.only("torch", reason="other frameworks' arrays do not change, or are no parameters of a module")
def test_the_reference_is_copied(fw: Framework) -> None:
    import torch

    module = torch.nn.Linear(2, 3)
    stay = trees.anchored(module)
    with torch.no_grad():
        module.weight += 1.0
    value = stay(module)
    assert value.item() == pytest.approx(6.0)
    value.backward()
    assert torch.allclose(module.weight.grad, torch.tensor(2.0))


@pytest.mark.needs("jit")
def test_compiled(fw: Framework) -> None:
    old, new = {"w": fw.array(W)}, {"w": fw.array(W + 0.5)}
    pipe = Pipeline([Penalty(trees.anchored(old), name="stay", inputs="params")])
    compiled, _ = fw.compile(lambda params: pipe({"params": params}))
    assert float(compiled(new)) == pytest.approx(3.0)
