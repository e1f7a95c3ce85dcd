"""Tracked gradients where several frameworks are in one process: borrowed ones, and inputs of two."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.conftest import SELECTED
from tests.helpers.harness import Framework, close, framework
from tests.helpers.samples import L1, L2, X, with_metrics
from xpenalties import Penalty, Pipeline, RegularizedLoss

pytestmark = pytest.mark.mixed
needs_strict = pytest.mark.skipif(not {"strict", "torch"} <= set(SELECTED), reason="takes array-api-strict and PyTorch")


@pytest.fixture
def strict() -> Any:
    found = framework("strict")
    before = found.module.get_array_api_strict_flags()
    found.module.set_array_api_strict_flags(boolean_indexing=False, data_dependent_shapes=False)
    yield found
    found.module.set_array_api_strict_flags(**before)


@needs_strict
def test_borrowed(strict: Framework) -> None:
    x, where = strict.array(X), strict.array(X > 0)
    pipe = Pipeline(
        [
            Penalty("l1", weight=strict.array(np.asarray(0.5))),
            Penalty("l2", weight=lambda step: 2.0 * step),
            Penalty(with_metrics, name="own", options={}, differentiable=False),
            Penalty("l1", name="positive", options={"where": where, "normalizer": strict.array(np.asarray(2.0))}),
        ]
    )
    plain_total, plain = pipe.compute(x, step=1)
    total, report = pipe.compute(x, step=1, gradient_conflicts=True)
    assert type(total) is type(x) and total.dtype == x.dtype and float(total) == float(plain_total)
    for name in ("l1", "l2", "positive"):
        assert type(report.regularizers[name].grad_norm) is type(x)
    found, want = report.to_dict()["regularizers"], plain.to_dict()["regularizers"]
    for name, part in want.items():
        assert [found[name][key] for key in ("value", "weight", "contribution", "custom")] == [
            part[key] for key in ("value", "weight", "contribution", "custom")
        ]
    norms = {name: part["grad_norm"] for name, part in found.items()}
    assert norms == {
        "l1": pytest.approx(2.0, rel=1e-12),
        "l2": pytest.approx(2 * math.sqrt(L2), rel=1e-12),
        "own": None,
        "positive": pytest.approx(math.sqrt(3) / 2, rel=1e-12),
    }
    gradient = 0.5 * np.sign(X) + 4 * X + 0.5 * (X > 0)
    assert float(report.total_grad_norm) == pytest.approx(float(np.linalg.norm(gradient)), rel=1e-12)
    assert report.conflicts()["l1"]["l2"] == pytest.approx(L1 / math.sqrt(4 * L2), rel=1e-12)
    assert list(report.conflicts()) == ["l1", "l2", "positive"]
    json.loads(report.to_json())


@needs_strict
def test_borrowed_for_a_base_loss(strict: Framework) -> None:
    def base(data: Any) -> Any:
        return xp.l2(data["x"]), {"largest": xp.namespace(data["x"]).max(data["x"])}

    loss = RegularizedLoss(base, Pipeline([Penalty("l1", inputs="x", weight=0.5)]))
    data = {"x": strict.array(X, "float32"), "ids": strict.array(np.arange(3))}
    for execution in ("sequential", "threads"):
        total, report = loss.compute(data, gradient_conflicts=True, execution=execution, wrt="x")
        assert float(total) == L2 + 0.5 * L1 and total.dtype == strict.dtype("float32")
        base_loss = report.to_dict()["base_loss"]
        assert base_loss == {
            "value": L2,
            "grad_norm": pytest.approx(2 * math.sqrt(L2), rel=1e-6),
            "custom": {"largest": 4.0},
        }
        assert list(report.conflicts()) == ["base_loss", "l1"]


@needs_strict
def test_arrays_of_wrt_are_not_borrowed(strict: Framework) -> None:
    x = strict.array(X)
    message = r"^p: `wrt` must name inputs, because another library differentiates arrays of array_api_strict, got arr"
    with pytest.raises(ValueError, match=message):
        Pipeline({"l1": 1.0}, name="p").compute(x, track_grad_norms=True, wrt=x)
    _, report = Pipeline({"l1": 1.0}).compute(x, track_grad_norms=True, wrt=0)
    assert report.wrt == "input 0" and float(report.total_grad_norm) == 2.0


@needs_strict
def test_borrowed_where_there_is_no_gradient(strict: Framework) -> None:
    def outside(x: Any) -> float:
        return float(np.linalg.norm(x.detach().numpy() if hasattr(x, "detach") else np.from_dlpack(x)))

    def failing(x: Any) -> Any:
        raise ZeroDivisionError("mine")

    total, report = Pipeline([Penalty(outside), Penalty("l1")]).compute(strict.array(X), track_grad_norms=True)
    assert float(total) == pytest.approx(math.sqrt(L2) + L1)
    outside = report.regularizers["outside"]  # a constant to PyTorch, as it was detached
    assert outside.grad_norm is None and outside.error == "does not depend on wrt (inputs)"
    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        Pipeline([Penalty(failing)]).compute(strict.array(X), track_grad_norms=True)
    notes = caught.value.__notes__
    assert notes[0].startswith("In penalty 'failing'") and "are passed to torch here" in notes[1]
    with pytest.warns(RuntimeWarning, match="penalty 'failing' was dropped and contributes 0: ZeroDivisionError: mine"):
        total, report = Pipeline([Penalty(failing, on_error="drop"), Penalty("l1")]).compute(
            strict.array(X), track_grad_norms=True
        )
    assert float(total) == L1 and float(report.total_grad_norm) == 2.0 and report.regularizers["failing"].value is None


def test_borrowed_by_numpy_without_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    if not {"numpy", "torch"} <= set(SELECTED):
        pytest.skip("takes NumPy and PyTorch")
    monkeypatch.setattr("xpenalties._core.optional.find_spec", lambda name: None if name == "autograd" else name)
    pipe = Pipeline([Penalty("l1", options={"where": X > 0}, weight=np.asarray(0.5)), Penalty("l2", every=2)])
    total, report = pipe.compute(X, step=np.asarray(2), gradient_conflicts=True)
    assert isinstance(total, (np.ndarray, np.generic)) and float(total) == 0.5 * 5.5 + 2 * L2
    assert float(report.total_grad_norm) == pytest.approx(float(np.linalg.norm(0.5 * (X > 0) + 4 * X)), rel=1e-12)
    norm = report.regularizers["l2"].grad_norm
    assert isinstance(norm, (np.ndarray, np.generic)) and float(norm) == pytest.approx(2 * math.sqrt(L2), rel=1e-12)
    assert RegularizedLoss(xp.l2, pipe).compute(X, step=1, track_grad_norms=True)[0] == L2 + 0.5 * 5.5
    tiny = Pipeline([Penalty("l2", weight=1e3, options={"normalizer": 1e10})])  # gradients that float16 rounds to 0
    report = tiny.compute(X.astype(np.float16), track_grad_norms=True)[1]
    assert float(report.total_grad_norm) == pytest.approx(2e-7 * math.sqrt(L2), rel=1e-3)


@pytest.mark.parametrize("names", [("torch", "numpy"), ("torch", "jax"), ("jax", "numpy")], ids="-".join)
def test_inputs_of_two_frameworks(names: tuple[str, str]) -> None:
    if not set(names) <= set(SELECTED):
        pytest.skip("takes both")
    one, other = map(framework, names)
    data = {"x": one.array(X, "float32"), "y": other.array(X, "float32")}
    pipe = Pipeline([Penalty("l2", inputs="x")], name="training")
    first, second = sorted(names)
    message = rf"^training: gradients must be with respect to arrays of one framework, got {first} and {second}\. Name"
    with pytest.raises(TypeError, match=message):
        pipe.compute(data, track_grad_norms=True)
    total, report = pipe.compute(data, track_grad_norms=True, wrt="x")
    assert float(total) == L2 and float(report.regularizers["l2"].grad_norm) == pytest.approx(
        2 * math.sqrt(L2), rel=1e-6
    )
    data["y"] = other.array(np.arange(2), "int32")
    assert float(pipe.compute(data, track_grad_norms=True)[1].total_grad_norm) == pytest.approx(2 * math.sqrt(L2))


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_numpy_scalars_are_numbers_beside_arrays(name: str) -> None:
    if name not in SELECTED:
        pytest.skip(f"takes {name}")
    fw = framework(name)
    data = {"x": fw.array(X, "float32"), "scale": np.float64(3.0)}
    pipe = Pipeline([Penalty(lambda data: float(data["scale"]) * xp.l1(data["x"]), name="p")])
    total, report = pipe.compute(data, track_grad_norms=True)
    assert float(total) == 3 * L1 and float(report.total_grad_norm) == 6.0
    close(fw, xp.grad(lambda x: pipe.compute({**data, "x": x}, track_grad_norms=True)[0])(data["x"]), 3 * np.sign(X))
