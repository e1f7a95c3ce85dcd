"""The total of a computation that tracked its gradients: on PyTorch its backward pass uses what is known already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from xpenalties import Penalty, Pipeline, l2, namespace

pytestmark = pytest.mark.only("torch", reason="is about PyTorch's graphs")
X = np.asarray([[1.0, -2.0, 0.5], [3.0, 0.25, -1.0]])


def counting() -> tuple[Callable[[Any], Any], list[int]]:
    """A sum of cubes, and how often it was differentiated."""
    import torch

    calls: list[int] = []

    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx: Any, cotangent: Any) -> Any:
            calls.append(1)
            (x,) = ctx.saved_tensors
            return 3 * x * x * cotangent

    return lambda x: Cube.apply(x).sum(), calls


def leaf(x: np.ndarray) -> Any:
    import torch

    return torch.tensor(x, requires_grad=True)


def test_nothing_is_differentiated_twice() -> None:
    cubes, calls = counting()
    pipe = Pipeline([Penalty(cubes, name="cubes", weight=0.5), Penalty("l2", weight=2.0)])
    x = leaf(X)
    total, report = pipe.compute(x, track_grad_norms=True)
    assert len(calls) == 1
    (3 * total).backward()
    assert len(calls) == 1
    want = 3 * (1.5 * X**2 + 4 * X)
    np.testing.assert_allclose(x.grad.numpy(), want, rtol=1e-14)
    np.testing.assert_allclose(float(report.total_grad_norm), np.linalg.norm(want / 3), rtol=1e-14)
    total.backward()  # a second time, as for any total
    np.testing.assert_allclose(x.grad.numpy(), 4 / 3 * want, rtol=1e-14)


@pytest.mark.parametrize("what", ["parameter", "weight", "sibling", "input"])
def test_what_else_a_total_depends_on_has_its_gradient(what: str) -> None:
    cubes, calls = counting()
    other = leaf(np.asarray(0.5))
    base = leaf(np.stack([X, 2 * X]))
    parts = base.unbind() if what == "sibling" else (leaf(X), None)
    x, options = parts[0], {}
    penalties = {
        "parameter": [Penalty(lambda x: cubes(other * x), name="p")],
        "weight": [Penalty(cubes, name="p", weight=other)],
        "sibling": [Penalty(lambda x: cubes(x + parts[1]), name="p")],
        "input": [Penalty(lambda x: cubes(other * x["x"] + x["y"]), name="p")],
    }[what]
    given: Any = x
    if what == "input":
        given, options = {"x": x, "y": leaf(X)}, {"wrt": "x"}
    leaves = [base] if what == "sibling" else [x, *([given["y"]] if what == "input" else []), other]
    import torch

    want = torch.autograd.grad(Pipeline(penalties)(given), leaves, retain_graph=True)
    calls.clear()
    total, _ = Pipeline(penalties).compute(given, track_grad_norms=True, **options)
    got = torch.autograd.grad(total, leaves)
    assert len(calls) == 2, "one to track it, one for all of it"
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-14)


def test_through_what_the_inputs_come_from() -> None:
    cubes, calls = counting()
    weight = leaf(X)
    model = 2 * weight
    total, _ = Pipeline([Penalty(cubes, name="cubes")]).compute(model, track_grad_norms=True)
    total.backward()
    assert len(calls) == 1
    np.testing.assert_allclose(weight.grad.numpy(), 24 * X**2, rtol=1e-14)


def test_of_half_precision() -> None:
    import torch

    x = torch.tensor(X, dtype=torch.bfloat16, requires_grad=True)
    total, _ = Pipeline({"l2": 0.5}).compute(x, track_grad_norms=True)
    total.backward()
    assert x.grad.dtype == torch.bfloat16
    np.testing.assert_allclose(x.grad.float().numpy(), X, rtol=1e-2)


def test_a_second_derivative() -> None:
    import torch

    x = leaf(X)
    pipe = Pipeline([Penalty(lambda x: (namespace(x).exp(x)).sum(), name="exp"), Penalty(l2)])
    total, _ = pipe.compute(x, track_grad_norms=True)
    (gradient,) = torch.autograd.grad(total, x, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), x)
    np.testing.assert_allclose(gradient.detach().numpy(), np.exp(X) + 2 * X, rtol=1e-14)
    np.testing.assert_allclose(second.numpy(), np.exp(X) + 2, rtol=1e-14)


def test_an_input_that_is_not_used() -> None:
    import torch

    x, y = leaf(X), leaf(X)
    total, report = Pipeline([Penalty("l2", inputs="x")]).compute({"x": x, "y": y}, track_grad_norms=True)
    got = torch.autograd.grad(total, [x, y], allow_unused=True)
    np.testing.assert_allclose(got[0].numpy(), 2 * X, rtol=1e-14)
    assert got[1] is None or not got[1].any()
    np.testing.assert_allclose(float(report.total_grad_norm), np.linalg.norm(2 * X), rtol=1e-14)


@pytest.mark.parametrize("size", [1, 255, 256, 257, 1000, 100_003])
def test_norms_of_any_size(size: int) -> None:
    import torch

    x = torch.full((size,), 0.1, dtype=torch.float32, requires_grad=True)
    _, report = Pipeline({"l2": 0.5}).compute(x, track_grad_norms=True)
    assert float(report.total_grad_norm) == pytest.approx(np.float32(0.1) * size**0.5, rel=1e-6)
