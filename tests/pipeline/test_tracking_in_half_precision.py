"""Tracking must not change what is trained, nor round a gradient to 0: half precision and autocast."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.conftest import selected
from tests.helpers.harness import Framework
from xpenalties import Penalty, Pipeline

pytestmark = pytest.mark.needs("autodiff")
RNG = np.random.default_rng(0)
STUDENT, TEACHER = RNG.standard_normal((2, 8, 50))
SCALE = 2.0**24  # of the loss
HALVES = {"float16": 2.0**-9, "bfloat16": 2.0**-6}  # a few roundings
# gradients of about 1e-9, which float16 rounds to 0
PIPE = Pipeline(
    [
        Penalty("kl_divergence", inputs=("t", "s"), options={"from_logits": True, "normalizer": 1e7}),
        Penalty("consistency", inputs=("t", "s"), options={"normalizer": 1e9}, weight=0.5),
        Penalty(lambda s: xp.l2(s * 0.5) * 1e-8, name="mine", inputs="s", weight=0.25),
    ]
)


def inputs_of(fw: Framework, dtype: str, **changed: Any) -> dict[str, Any]:
    if dtype not in fw.dtypes:
        pytest.skip(f"{fw} has no {dtype}")
    return {"t": fw.array(TEACHER, dtype), "s": fw.array(STUDENT, dtype), **changed}


def relative_error(fw: Framework, got: Any, want: Any) -> float:
    got, want = fw.numpy(got), fw.numpy(want)
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


@pytest.mark.parametrize("dtype", HALVES)
def test_norms_of_tiny_gradients(fw: Framework, dtype: str) -> None:
    inputs = inputs_of(fw, dtype)
    wide = {name: fw.array(fw.numpy(x), "float32") for name, x in inputs.items()}
    _, report = PIPE.compute(inputs, track_grad_norms=True)
    _, exact = PIPE.compute(wide, track_grad_norms=True)
    for name in exact.regularizers:
        norm, want = (float(x.regularizers[name].grad_norm) for x in (report, exact))
        assert norm == pytest.approx(want, rel=HALVES[dtype]), name
    assert float(report.total_grad_norm) == pytest.approx(float(exact.total_grad_norm), rel=HALVES[dtype])


@pytest.mark.parametrize("dtype", HALVES)
def test_the_gradient_of_a_scaled_total(fw: Framework, dtype: str) -> None:
    inputs = inputs_of(fw, dtype)
    tracked, plain = (
        xp.grad(lambda s, track=track: total_of({**inputs, "s": s}, track) * SCALE)(inputs["s"])
        for track in (True, False)
    )
    assert tracked.dtype == inputs["s"].dtype
    assert relative_error(fw, tracked, plain) < HALVES[dtype]
    assert np.count_nonzero(fw.numpy(tracked)) == np.count_nonzero(fw.numpy(plain)) > 0.99 * STUDENT.size


def total_of(inputs: dict[str, Any], track: bool) -> Any:
    return PIPE.compute(inputs, track_grad_norms=True)[0] if track else PIPE(inputs)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.only("torch", reason="is about backward()")
def test_backward_of_a_scaled_total(fw: Framework, dtype: str) -> None:
    gradients = []
    for track in (True, False):
        student = fw.array(STUDENT, "float32").requires_grad_()
        inputs = inputs_of(fw, dtype, s=student.to(fw.dtype(dtype)))
        (total_of(inputs, track) * SCALE).backward()
        gradients.append(student.grad)
    assert relative_error(fw, *gradients) < HALVES[dtype]


@pytest.mark.filterwarnings("ignore:(overflow|invalid value):RuntimeWarning")  # of NumPy
def test_gradients_at_the_ends_of_float16(fw: Framework) -> None:
    """Gradients that overflow if scaled, are 0, or are infinite."""
    x = fw.array(np.asarray([1.0, 2.0, -2.0]), "float16")
    overflows = Penalty(lambda x: xp.l2((x * 0.01) * 100.0), name="overflows")  # in the backward pass
    nothing = Penalty(lambda x: xp.l2(x) * 0.0, name="nothing")
    infinite = Penalty(lambda x: xp.l2(x) * 1e37, name="infinite")
    _, report = Pipeline([overflows, nothing, infinite]).compute(x, track_grad_norms=True)
    norms = [float(part.grad_norm) for part in report.regularizers.values()]
    assert norms[0] == pytest.approx(6.0, rel=1e-2)
    assert norms[1] == 0.0
    assert norms[2] == math.inf


def test_float16_that_a_penalty_does_not_depend_on(fw: Framework) -> None:
    x, y = fw.array(np.ones(2), "float16"), fw.array(np.ones(2), "float32")
    pipe = Pipeline([Penalty("l2", inputs="x"), Penalty("l1", inputs="y")])
    _, report = pipe.compute({"x": x, "y": y}, track_grad_norms=True, wrt=("x", "y"))
    norms = [float(part.grad_norm) for part in report.regularizers.values()]
    assert norms == pytest.approx([8**0.5, 2**0.5], rel=1e-3)


@pytest.mark.only("torch", reason="is about autocast")
@pytest.mark.parametrize("name", ["covariance", "orthogonality", "linear_kl_divergence"])
def test_autocast(fw: Framework, name: str) -> None:
    torch = selected("torch", reason="is about autocast")
    penalty, arrays = getattr(xp, name), RNG.standard_normal((4, 16, 12))
    x, *others = [fw.array(a, "float32") for a in (arrays if name.startswith("linear") else arrays[:1])]
    leaf = x.clone().requires_grad_()
    penalty(leaf, *others).backward()

    def of_x(x: Any) -> Any:
        return penalty(x, *others)

    compiled = torch.compile(xp.value_and_grad(of_x), fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        gradient = xp.value_and_grad(of_x)(x)[1]
        with torch.inference_mode():  # differentiates with torch.func
            functional = xp.value_and_grad(of_x)(x)[1]
        traced = compiled(x)[1]
        again = x.clone().requires_grad_()
        total, report = Pipeline([Penalty(of_x, name="mine")]).compute(again, track_grad_norms=True)
    total.backward()
    for got in (gradient, functional, traced, again.grad):
        assert relative_error(fw, got, leaf.grad) < 1e-6
    assert float(report.total_grad_norm) == pytest.approx(float(leaf.grad.norm()), rel=1e-6)


@pytest.mark.only("torch", reason="is about PyTorch's graphs")
def test_gradients_through_a_graph(fw: Framework) -> None:
    weight = fw.array(STUDENT, "float16").requires_grad_()
    pipe = Pipeline([Penalty("l2", inputs="w", options={"normalizer": 1e9})])
    _, report = pipe.compute({"w": weight, "v": weight * 2}, track_grad_norms=True, wrt=weight)
    norm = report.regularizers["l2"].grad_norm
    assert norm.dtype == fw.dtype("float32")
    want = 2e-9 * np.linalg.norm(fw.numpy(weight).astype(np.float64))
    assert float(norm) == pytest.approx(want, rel=HALVES["float16"])
