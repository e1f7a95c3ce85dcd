"""A base loss and penalties: total, report and its schema, gradients, compiled."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, close
from tests.helpers.samples import L1, L2, X, mine, with_metrics
from xpenalties import Penalty, Pipeline, RegularizedLoss

BOTH = Pipeline({"l1": 0.5, "l2": 2.0}, name="training")
TERMS = {
    name: {"sum": s, "mean": s / 4, "min": low, "max": high}
    for name, s, low, high in (("l1", L1, 0.5, 4.0), ("l2", L2, 0.25, 16.0))
}


def cubes(x: Any) -> Any:
    ns = xp.namespace(x)
    return ns.sum(x * x * x), {"largest": ns.max(x), "note": 4}


CUBES = float(np.sum(X**3))
LOSS = RegularizedLoss(cubes, BOTH)


@pytest.mark.smoke
def test_total(fw: Framework) -> None:
    x = fw.array(X)
    want = CUBES + 0.5 * L1 + 2 * L2
    total, report = LOSS.compute(x)
    assert float(LOSS(x)) == float(total) == want and tuple(total.shape) == () and total.dtype == fw.dtype("float64")
    assert float(report.loss_total) == want and float(report.regularizer_total) == 0.5 * L1 + 2 * L2
    assert LOSS(fw.array(X, "float32")).dtype == fw.dtype("float32")


@pytest.mark.parametrize("loss", [LOSS, RegularizedLoss(cubes, Pipeline()), Pipeline({"l1": 1.0})])
def test_a_total_that_is_changed_in_place(fw: Framework, loss: Any) -> None:
    """As by `loss /= accumulation_steps`: the report stays."""
    total, report = loss.compute(fw.array(X))
    before = report.to_dict()
    total *= 2
    assert report.to_dict() == before and float(total) == 2 * before["loss_total"]


def near(x: float | None) -> Any:
    return None if x is None else pytest.approx(x, rel=1e-12)


def schema(base_norm: Any, norms: dict[str, Any], total_norm: Any) -> dict[str, Any]:
    values, weights = {"l1": L1, "l2": L2}, {"l1": 0.5, "l2": 2.0}
    return {
        "loss_total": CUBES + 0.5 * L1 + 2 * L2,
        "base_loss": {"value": CUBES, "grad_norm": base_norm, "custom": {"largest": 4.0, "note": 4.0}},
        "regularizers": {
            name: {
                "value": values[name],
                "weight": weights[name],
                "contribution": weights[name] * values[name],
                "grad_norm": near(norms.get(name)),
                "grad_norm_weighted": near(weights[name] * norms[name] if norms else None),
                "custom": TERMS[name],
            }
            for name in ("l1", "l2")
        },
        "regularizer_total": 0.5 * L1 + 2 * L2,
        "total_grad_norm": total_norm,
    }


def same_order(got: Any, want: Any) -> bool:
    if not isinstance(want, dict):
        return True
    return list(got) == list(want) and all(same_order(got[key], want[key]) for key in want)


def test_schema(fw: Framework) -> None:
    got, want = LOSS.compute(fw.array(X))[1].to_dict(), schema(None, {}, None)
    assert got == want and same_order(got, want)
    assert json.loads(LOSS.compute(fw.array(X))[1].to_json()) == want


@pytest.mark.needs("autodiff")
def test_schema_with_tracking(fw: Framework) -> None:
    _, report = LOSS.compute(fw.array(X), gradient_conflicts=True)
    total = float(np.linalg.norm(3 * X**2 + 0.5 * np.sign(X) + 4 * X))
    got = report.to_dict()
    norms = {"l1": 2.0, "l2": 2 * math.sqrt(L2)}
    want = schema(near(float(np.linalg.norm(3 * X**2))), norms, near(total))
    assert got == want and same_order(got, want)
    assert same_order(json.loads(report.to_json()), want)
    cosines = report.conflicts()
    assert list(cosines) == list(cosines["base_loss"]) == ["base_loss", "l1", "l2"]
    cosine = float(np.sum(3 * X**2 * np.sign(X)) / np.linalg.norm(3 * X**2) / 2)
    assert cosines["base_loss"]["l1"] == cosines["l1"]["base_loss"] == pytest.approx(cosine, rel=1e-12)
    lines = str(report).splitlines()
    assert lines[2].startswith("base loss") and len(lines) == 6 and lines[0].endswith("grad norm weighted")
    assert lines[2].split()[-1] == f"{float(np.linalg.norm(3 * X**2)):.4g}" and lines[-1].split()[-1] == f"{total:.4g}"


def test_flat(fw: Framework) -> None:
    flat = LOSS.compute(fw.array(X))[1].flat("train/")
    assert flat["train/base_loss/value"] == CUBES and flat["train/base_loss/custom/largest"] == 4.0
    assert flat["train/loss_total"] == CUBES + 0.5 * L1 + 2 * L2 and "train/base_loss/grad_norm" not in flat


def test_json_of_what_is_not_finite(fw: Framework) -> None:
    x = fw.array(np.asarray([math.nan, 1.0]))
    loss = RegularizedLoss(
        lambda x: (xp.l1(x), {"inf": math.inf}), Pipeline([Penalty(lambda x: -math.inf, name="low")])
    )
    loaded = json.loads(loss.compute(x)[1].to_json(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert loaded["base_loss"] == {"value": "NaN", "grad_norm": None, "custom": {"inf": "Infinity"}}
    assert loaded["loss_total"] == "NaN" and loaded["regularizer_total"] == "-Infinity"


def test_an_empty_pipeline(fw: Framework) -> None:
    for pipe in (Pipeline(), BOTH.disable("l1", "l2")):
        loss = RegularizedLoss(lambda x: xp.l2(x), pipe)  # noqa: PLW0108
        total, report = loss.compute(fw.array(X))
        assert float(total) == float(loss(fw.array(X))) == L2
        assert report.to_dict() == {
            "loss_total": L2,
            "base_loss": {"value": L2, "grad_norm": None, "custom": {}},
            "regularizers": {},
            "regularizer_total": 0.0,
            "total_grad_norm": None,
        }
    whole = RegularizedLoss(lambda model: 3, Pipeline())
    with pytest.raises(TypeError, match=r"the inputs must hold an array, which sets framework and device, got none"):
        whole(object())


def test_a_penalty_of_this_package_as_base_loss(fw: Framework) -> None:
    total, report = RegularizedLoss(xp.l1, Pipeline({"l1": 2.0})).compute(fw.array(X))
    assert float(total) == 3 * L1 and report.to_dict()["base_loss"]["custom"] == TERMS["l1"]
    assert report.regularizers["l1"].weight == 2.0


def test_several_inputs(fw: Framework) -> None:
    pipe = Pipeline([Penalty("consistency"), Penalty("l1", inputs=lambda a, b: b, weight=2)])
    loss = RegularizedLoss(lambda a, b: xp.l2(a) + xp.l2(b), pipe)
    a, b = fw.array(X), fw.array(X + 1)
    assert float(loss(a, b)) == pytest.approx(float(xp.l2(a)) + float(xp.l2(b)) + 1.0 + 2 * float(xp.l1(b)))


def test_inputs_by_name(fw: Framework) -> None:
    loss = RegularizedLoss(
        lambda data: xp.consistency(data["prediction"], data["target"]),
        Pipeline([Penalty("l2", inputs="prediction", weight=0.1)]),
    )
    data = {"prediction": fw.array(X), "target": fw.array(X - 2)}
    assert float(loss(data)) == 4.0 + 0.1 * L2


def test_schedules_and_steps(fw: Framework) -> None:
    pipe = Pipeline([Penalty("l1", weight=lambda step: 0.1 * step), Penalty("l2", every=2)])
    loss = RegularizedLoss(cubes, pipe)
    assert float(loss(fw.array(X), step=5)) == pytest.approx(CUBES + 0.5 * L1)
    assert float(loss.compute(fw.array(X), step=4)[0]) == pytest.approx(CUBES + 0.4 * L1 + 2 * L2)


def test_wrong_arguments(fw: Framework) -> None:
    for bad in (None, "l2", 3.0):
        with pytest.raises(TypeError, match=r"^RegularizedLoss: `base_loss` must be callable, got \w+\. Pass a fun"):
            RegularizedLoss(bad, BOTH)  # type: ignore[arg-type]
    for bad, remedy in (
        ({"l1": 1.0}, "{..."),
        (None, "[Penalty(...)"),
        ([], "[..."),
        (BOTH["l1"], "[penalty"),
    ):
        message = rf"^RegularizedLoss: `pipeline` must be a Pipeline, got \w+\. Pass Pipeline\({re.escape(remedy)}"
        with pytest.raises(TypeError, match=message):
            RegularizedLoss(cubes, bad)  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        LOSS.pipeline = Pipeline()  # type: ignore[misc]
    assert repr(LOSS) == f"RegularizedLoss of cubes and {BOTH!r}"


def test_wrong_returns(fw: Framework) -> None:
    async def later(x: Any) -> Any:
        return xp.l1(x)

    for fn, kind, message in (
        (lambda x: x, ValueError, r"^base loss: must return a scalar, got shape \(2, 2\)\. Reduce"),
        (lambda x: "text", TypeError, r"^base loss: must return a 0-d array, got str"),
        (lambda x: (xp.l1(x), 3), TypeError, r"^base loss: must return a value or \(value, dict\)"),
        (lambda x: (xp.l1(x), {"m": "text"}), TypeError, r"^base loss: metric 'm' must be a number or"),
        (lambda x: xp.l1(x) > 0, TypeError, r"^base loss: must return a real value, got"),
        (later, TypeError, r"^base loss: must return a value, got an awaitable coroutine\. Use `compute_async`"),
    ):
        with pytest.raises(kind, match=message) as caught:
            RegularizedLoss(fn, BOTH).compute(fw.array(X))
        assert caught.value.__notes__[0].startswith("In the base loss of 'training', inputs ")


def test_what_the_base_loss_raises(fw: Framework) -> None:
    def failing(x: Any) -> Any:
        raise ZeroDivisionError("mine")

    for options in ({}, {"on_error": "drop"}, {"on_error": "drop", "execution": "threads", "timeout": 60.0}):
        with pytest.raises(ZeroDivisionError, match="mine"):
            RegularizedLoss(failing, BOTH).compute(fw.array(X), **options)


@pytest.mark.needs("autodiff")
def test_gradient(fw: Framework) -> None:
    want = 3 * X**2 + 0.5 * np.sign(X) + 4 * X
    close(fw, xp.grad(LOSS)(fw.array(X)), want)
    for options in ({}, {"track_grad_norms": True}):
        compute = lambda x, options=options: LOSS.compute(x, **options)  # noqa: E731
        (value, report), gradient = xp.value_and_grad(compute, has_aux=True)(fw.array(X))
        close(fw, gradient, want)
        assert float(value) == float(report.loss_total) == CUBES + 0.5 * L1 + 2 * L2
        assert report.to_dict()["base_loss"]["custom"]["largest"] == 4.0


@pytest.mark.needs("autodiff")
def test_the_base_loss_has_no_gradient(fw: Framework) -> None:
    loss = RegularizedLoss(lambda x: float(np.linalg.norm(np.asarray(x, dtype=np.float64))), BOTH)
    total, report = loss.compute(fw.array(X), gradient_conflicts=True)
    assert float(total) == pytest.approx(math.sqrt(L2) + 0.5 * L1 + 2 * L2)
    assert report.base_loss.grad_norm is None and report.total_grad_norm is None
    assert "\nbase loss: no gradient: " in str(report)
    assert list(report.conflicts()) == ["l1", "l2"]


@pytest.mark.needs("jit")
def test_compiled(fw: Framework) -> None:
    compiled, count = fw.compile(lambda x: LOSS.compute(x, track_grad_norms=True))
    counts = []
    for scale in (1.0, 2.0):
        total, report = compiled(fw.array(scale * X))
        want_total, want = LOSS.compute(fw.array(scale * X), track_grad_norms=True)
        assert float(total) == pytest.approx(float(want_total)) and report.flat() == pytest.approx(want.flat())
        counts.append(count())
    assert counts[0] == counts[1]
    compiled, _ = fw.compile(lambda x: LOSS(x))  # noqa: PLW0108
    assert float(compiled(fw.array(X))) == CUBES + 0.5 * L1 + 2 * L2


@pytest.fixture
def jax(fw: Framework) -> Any:
    return fw.module


@pytest.mark.only("jax", reason="is about JAX's pytrees")
def test_jit_of_the_methods(fw: Framework, jax: Any) -> None:
    total, report = jax.jit(LOSS.compute)(fw.array(X))
    assert float(total) == float(jax.jit(LOSS)(fw.array(X))) == CUBES + 0.5 * L1 + 2 * L2
    assert report.to_dict() == schema(None, {}, None)


@pytest.mark.only("jax", reason="is about JAX's pytrees")
def test_a_loss_is_a_pytree(fw: Framework, jax: Any) -> None:
    leaves, structure = jax.tree.flatten(LOSS)
    assert leaves == [0.5, 2.0]
    back = jax.tree.unflatten(structure, [1.0, 3.0])
    assert isinstance(back, RegularizedLoss) and back.base_loss is cubes and back.pipeline["l2"].weight == 3.0
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(LOSS)]
    assert paths == ["['pipeline']['l1']", "['pipeline']['l2']"]
    assert structure == jax.tree.structure(RegularizedLoss(cubes, BOTH.with_weights(l1=7.0)))
    assert hash(structure) == hash(jax.tree.structure(RegularizedLoss(cubes, BOTH)))
    for other in (RegularizedLoss(mine, BOTH), RegularizedLoss(cubes, BOTH.disable("l1")), BOTH):
        assert structure != jax.tree.structure(other)
    step, count = fw.compile(lambda loss, x: loss.compute(x))
    for weight in (0.5, 1.5):
        loss = RegularizedLoss(cubes, BOTH.with_weights(l1=weight))
        total, report = step(loss, fw.array(X))
        assert float(total) == pytest.approx(CUBES + weight * L1 + 2 * L2)
        assert float(report.regularizers["l1"].weight) == weight
    assert count() == 1
    step(RegularizedLoss(with_metrics, BOTH), fw.array(X))
    assert count() == 2
    gradient = jax.grad(lambda loss: loss(fw.array(X)))(LOSS)
    assert [float(p.weight) for p in gradient.pipeline] == [L1, L2]


@pytest.mark.only("jax", reason="is about JAX's pytrees")
def test_a_base_loss_without_a_hash(fw: Framework, jax: Any) -> None:
    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            return self is other

        def __call__(self, x: Any) -> Any:
            return xp.l2(x)

    loss = RegularizedLoss(Unhashable(), BOTH)
    assert float(jax.jit(lambda loss, x: loss(x))(loss, fw.array(X))) == L2 + 0.5 * L1 + 2 * L2


@pytest.mark.only("torch", reason="is about PyTorch's autograd")
def test_torch_backward(fw: Framework) -> None:
    x = fw.array(X).requires_grad_()
    LOSS.compute(x, track_grad_norms=True)[0].backward()
    close(fw, x.grad, 3 * X**2 + 0.5 * np.sign(X) + 4 * X)


def test_equality(fw: Framework) -> None:
    def base(x: Any) -> Any:
        return xp.l2(x)

    one, other = RegularizedLoss(base, Pipeline({"l1": 0.5})), RegularizedLoss(base, Pipeline({"l1": 0.5}))
    assert one == other and hash(one) == hash(other)
    assert one != RegularizedLoss(xp.l2, one.pipeline) and one != RegularizedLoss(base, Pipeline({"l1": 1.0}))
    assert one != one.pipeline
