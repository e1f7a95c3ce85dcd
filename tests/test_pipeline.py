"""Pipeline, Penalty and Report on every backend: sums, inputs, updates, messages, compiled and differentiated."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from harness import Framework
from xpenalties import Penalty, Pipeline

X = np.asarray([[1.0, -2.0], [0.5, 4.0]])
L1, L2 = 7.5, 1 + 4 + 0.25 + 16


def mine(x: Any) -> Any:
    return 3.0 * xp.l1(x)


def with_metrics(x: Any) -> Any:
    return xp.l2(x), {"largest": xp.namespace(x).max(x), "note": 4.0}


def test_weighted_sum(fw: Framework) -> None:
    x = fw.array(X)
    pipe = Pipeline({"l1": 0.5, "l2": 2})
    assert float(pipe(x)) == 0.5 * L1 + 2 * L2
    total, report = pipe.compute(x)
    assert float(total) == 0.5 * L1 + 2 * L2
    assert report.to_dict() == {
        "loss_total": 0.5 * L1 + 2 * L2,
        "base_loss": None,
        "regularizers": {
            "l1": {
                "value": L1,
                "weight": 0.5,
                "contribution": 0.5 * L1,
                "grad_norm": None,
                "grad_norm_weighted": None,
                "custom": {"sum": L1, "mean": L1 / 4, "min": 0.5, "max": 4.0},
            },
            "l2": {
                "value": L2,
                "weight": 2.0,
                "contribution": 2 * L2,
                "grad_norm": None,
                "grad_norm_weighted": None,
                "custom": {"sum": L2, "mean": L2 / 4, "min": 0.25, "max": 16.0},
            },
        },
        "regularizer_total": 0.5 * L1 + 2 * L2,
        "total_grad_norm": None,
    }


def test_dtype_and_kind_of_the_total(fw: Framework) -> None:
    x = fw.array(X, "float32")
    for pipe in (Pipeline({"l1": 0.5, "l2": 2}), Pipeline(), Pipeline([Penalty(lambda x: 2, name="two")])):
        total, _ = pipe.compute(x)
        assert tuple(total.shape) == () and total.dtype == fw.dtype("float32")
        assert tuple(pipe(x).shape) == () and pipe(x).dtype == fw.dtype("float32")


def test_inputs_by_name(fw: Framework) -> None:
    p, q = np.log([[0.5, 0.5]]), np.log([[0.25, 0.75]])
    given = {"student": fw.array(p), "teacher": fw.array(q), "weights": fw.array(X)}
    pipe = Pipeline(
        [
            Penalty("kl_divergence", inputs=("student", "teacher"), options={"direction": "reverse"}),
            Penalty("l1", inputs="weights", weight=0.1),
            Penalty("l2", inputs=lambda data: data["weights"], weight=0.2, name="by_callable"),
            Penalty("js_divergence", inputs=lambda data: (data["student"], data["teacher"]), name="two"),
            Penalty(lambda data: xp.l1(data["weights"]), name="whole mapping"),
        ]
    )
    want = 0.25 * math.log(0.5) + 0.75 * math.log(1.5) + 0.1 * L1 + 0.2 * L2 + L1
    want += float(xp.js_divergence(fw.array(p), fw.array(q)))
    assert float(pipe(given)) == pytest.approx(want, rel=1e-14)


def test_several_positional_inputs(fw: Framework) -> None:
    a, b = fw.array(X), fw.array(X + 1)
    pipe = Pipeline([Penalty("consistency"), Penalty("l1", inputs=lambda a, b: b, weight=2)])
    assert float(pipe(a, b)) == 1.0 + 2 * float(xp.l1(b))


def test_names_that_are_missing(fw: Framework) -> None:
    x = fw.array(X)
    pipe = Pipeline([Penalty("l1", inputs="studnet")])
    with pytest.raises(
        ValueError, match=r"penalty 'l1': the inputs must have 'studnet', got 'student'. Did you mean 'student'\?"
    ):
        pipe({"student": x})
    with pytest.raises(
        TypeError, match=r"penalty 'l1': named `inputs` need one mapping, got .*. Pass a dict of arrays"
    ):
        pipe(x)


def test_weights_may_be_arrays(fw: Framework) -> None:
    pipe = Pipeline({"l1": fw.array(np.asarray(0.5))})
    total, report = pipe.compute(fw.array(X))
    assert float(total) == 0.5 * L1 and report.to_dict()["regularizers"]["l1"]["weight"] == 0.5


def test_weights_may_be_schedules(fw: Framework) -> None:
    x = fw.array(X)
    pipe = Pipeline([Penalty("l1", weight=lambda step: 0.1 * step), Penalty("l2")])
    assert float(pipe(x, step=3)) == pytest.approx(0.3 * L1 + L2)
    total, report = pipe.compute(x, step=5)
    assert float(total) == pytest.approx(0.5 * L1 + L2) and report.to_dict()["regularizers"]["l1"]["weight"] == 0.5
    fixed = pipe.at(2)
    assert fixed["l1"].weight == 0.2 and fixed["l2"] is not None and callable(pipe["l1"].weight)
    assert float(fixed(x)) == pytest.approx(0.2 * L1 + L2)
    with pytest.raises(ValueError, match=r"penalty 'l1': its weight is a schedule, got no step. Pass `step=`"):
        pipe(x)
    with pytest.raises(ValueError, match=r"penalty 'l1': `weight` must be in \[0, inf\), got -0.1"):
        pipe(x, step=-1)


def test_metrics_of_a_callable(fw: Framework) -> None:
    _, report = Pipeline([Penalty(with_metrics), Penalty(mine)]).compute(fw.array(X))
    assert report.to_dict()["regularizers"]["with_metrics"]["custom"] == {"largest": 4.0, "note": 4.0}
    assert report.to_dict()["regularizers"]["mine"]["custom"] == {}
    assert float(Pipeline([Penalty(with_metrics)])(fw.array(X))) == L2


def test_metrics_under_masks(fw: Framework) -> None:
    where = fw.array(np.asarray([[True, False], [True, False]]))
    weights = fw.array(np.asarray([[2.0, 1.0], [1.0, 1.0]]))
    nothing = fw.array(np.asarray(False))
    pipe = Pipeline(
        [
            Penalty("l1", options={"where": where, "weights": weights, "reduction": "mean"}),
            Penalty("l2", options={"where": nothing}),
        ]
    )
    custom = {name: part["custom"] for name, part in pipe.compute(fw.array(X))[1].to_dict()["regularizers"].items()}
    assert custom["l1"] == {"sum": 2.5, "mean": 1.25, "min": 0.5, "max": 2.0}
    assert custom["l2"]["sum"] == 0.0 and all(math.isnan(custom["l2"][name]) for name in ("mean", "min", "max"))
    empty = Pipeline({"l1": 1.0}).compute(fw.array(np.zeros((0, 2))))[1].to_dict()["regularizers"]["l1"]["custom"]
    assert empty["sum"] == 0.0 and math.isnan(empty["mean"])


def test_updates_return_new_pipelines(fw: Framework) -> None:
    x = fw.array(X)
    pipe = Pipeline({"l1": 0.5, "l2": 2.0}, name="training")
    assert float(pipe.with_weights(l1=1.0)(x)) == L1 + 2 * L2
    assert float(pipe.with_weights({"l2": 1})(x)) == 0.5 * L1 + L2
    off = pipe.disable("l2")
    assert float(off(x)) == 0.5 * L1 and list(off.compute(x)[1].regularizers) == ["l1"]
    assert float(off.enable("l2")(x)) == float(pipe(x))
    more = pipe.add(Penalty(mine, weight=0.1))
    assert float(more(x)) == pytest.approx(0.5 * L1 + 2 * L2 + 0.3 * L1)
    assert [p.name for p in more] == ["l1", "l2", "mine"] and len(more) == 3 and more.name == "training"
    assert [p.name for p in more.remove("l1", "mine")] == ["l2"]
    assert len(pipe) == 2 and float(pipe(x)) == 0.5 * L1 + 2 * L2
    with pytest.raises(AttributeError):
        pipe.name = "other"  # type: ignore[misc]
    for update in (pipe.enable, pipe.disable, pipe.remove, lambda name: pipe.with_weights({name: 1})):
        with pytest.raises(ValueError, match=r"training: no penalty is named 'l3', there are 'l1', 'l2'. Did you mean"):
            update("l3")
    with pytest.raises(KeyError, match="l3"):
        pipe["l3"]


def test_construction_is_checked(fw: Framework) -> None:
    checks: list[tuple[Any, type[Exception], str]] = [
        (lambda: Penalty("l3"), ValueError, r"`fn` must be a callable or one of .*, got 'l3'. Did you mean"),
        (lambda: Penalty(3), TypeError, "`fn` must be a name or a callable, got int"),
        (lambda: Penalty(lambda x: x), ValueError, "`name` must be a string other than .*, got '<lambda>'"),
        (
            lambda: Penalty("l1", name="base_loss"),
            ValueError,
            "`name` must be a string other than a report's own names",
        ),
        (lambda: Penalty("l1", weight=-1), ValueError, r"penalty 'l1': `weight` must be in \[0, inf\), got -1.0"),
        (lambda: Penalty("l1", weight=math.nan), ValueError, r"`weight` must be in \[0, inf\), got nan"),
        (lambda: Penalty("l1", weight=math.inf), ValueError, r"`weight` must be in \[0, inf\), got inf"),
        (lambda: Penalty("l1", weight=True), TypeError, r"`weight` must be a number in \[0, inf\), got bool"),
        (lambda: Penalty("l1", weight="1"), TypeError, r"`weight` must be a number in \[0, inf\), got str"),
        (lambda: Penalty("l1", weight=fw.array(np.ones(2))), ValueError, r"`weight` must be 0-d, got shape \(2,\)"),
        (lambda: Penalty("l1", inputs=(1, 2)), TypeError, r"`inputs` must be names or a callable, got \(1, 2\)"),
        (
            lambda: Penalty("huber", options={"dleta": 1.0}),
            TypeError,
            "huber: `dleta` is not an option.*Did you mean 'delta'",
        ),
        (
            lambda: Penalty("huber", options={"delta": -1.0}),
            ValueError,
            r"huber: `delta` must be in \(0, inf\), got -1.0",
        ),
        (
            lambda: Penalty("l1", options={"reduction": "none"}),
            ValueError,
            "l1: `reduction` must be one of 'sum', 'mean'",
        ),
        (lambda: Penalty(mine, options={"y": 1}), TypeError, r"penalty 'mine': `y` is not an option of .*, it takes x"),
        (lambda: Pipeline({"l3": 1.0}), ValueError, "Did you mean"),
        (lambda: Pipeline([Penalty("l1"), Penalty("l1")]), ValueError, "names must be unique, got 'l1' twice"),
        (lambda: Pipeline(["l1"]), TypeError, "each of `penalties` must be a Penalty, got str"),
    ]
    for make, kind, message in checks:
        with pytest.raises(kind, match=message):
            make()
    assert Penalty(lambda x, **options: xp.l1(x), name="open", options={"anything": 1}).options == {"anything": 1}
    assert Penalty(max, options={"key": abs}).name == "max"  # without a signature, Python says at the call


def test_what_penalties_return_is_checked(fw: Framework) -> None:
    x = fw.array(X)

    async def later(x: Any) -> Any:
        return xp.l1(x)

    checks: list[tuple[Any, type[Exception], str]] = [
        (lambda x: x, ValueError, r"penalty 'p': must return a scalar, got shape \(2, 2\). Reduce it"),
        (lambda x: None, TypeError, "penalty 'p': must return a 0-d array, got NoneType"),
        (lambda x: True, TypeError, "penalty 'p': must return a 0-d array, got bool"),
        (lambda x: (xp.l1(x), 3), TypeError, r"penalty 'p': must return a value or \(value, dict\), got a tuple of 2"),
        (later, TypeError, "penalty 'p': must return a value, got an awaitable"),
    ]
    for fn, kind, message in checks:
        with pytest.raises(kind, match=message):
            Pipeline([Penalty(fn, name="p")])(x)
    with pytest.raises(TypeError, match="pipeline: the inputs must hold an array, got none"):
        Pipeline()(3.0)
    assert float(Pipeline()(x)) == 0.0
    assert float(Pipeline()({"a": [fw.array(np.ones(2, dtype=np.int64)), "text"]})) == 0.0


def test_an_inner_exception_is_kept_and_noted(fw: Framework) -> None:
    def fails(data: Any) -> Any:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        Pipeline([Penalty(fails, weight=0.5)], name="training")({"x": fw.array(X), "n": 3})
    (note,) = caught.value.__notes__
    assert note.startswith("In penalty 'fails' of 'training', weight 0.5, inputs {x: ")
    assert note.endswith("(2, 2), n: int}.")


@pytest.mark.needs("autodiff")
def test_gradient_of_the_total(fw: Framework) -> None:
    x = fw.array(X)
    pipe = Pipeline(
        [Penalty("l1", weight=0.5), Penalty("l2", weight=2.0), Penalty(mine, weight=0.1, differentiable=False)]
    )
    (value, report), gradient = xp.value_and_grad(pipe.compute, has_aux=True)(x)
    np.testing.assert_allclose(fw.numpy(gradient), 0.5 * np.sign(X) + 4 * X)
    assert float(value) == pytest.approx(0.5 * L1 + 2 * L2 + 0.3 * L1)
    assert report.to_dict()["regularizers"]["mine"]["contribution"] == pytest.approx(0.3 * L1)
    np.testing.assert_allclose(fw.numpy(xp.grad(pipe)(x)), fw.numpy(gradient))


@pytest.mark.needs("autodiff")
def test_weights_can_be_learned(fw: Framework) -> None:
    x = fw.array(X)
    gradient = xp.grad(lambda w: Pipeline({"l1": w["l1"], "l2": w["l2"]})(x))(
        {k: fw.array(np.asarray(1.0)) for k in ("l1", "l2")}
    )
    assert {k: float(v) for k, v in gradient.items()} == {"l1": L1, "l2": L2}


@pytest.mark.needs("autodiff")
def test_the_report_is_detached(fw: Framework) -> None:
    def through_the_report(x: Any) -> Any:
        total, report = Pipeline({"l1": 1.0}).compute(x)
        return (
            0.0 * total + report.regularizers["l1"].value + report.loss_total + report.regularizers["l1"].metrics["max"]
        )

    assert (fw.numpy(xp.grad(through_the_report)(fw.array(X))) == 0).all()


@pytest.mark.needs("jit")
def test_compiled(fw: Framework) -> None:
    x = fw.array(X)
    pipe = Pipeline([Penalty("l1", weight=fw.array(np.asarray(0.5))), Penalty("l2", weight=2.0), Penalty(with_metrics)])
    compiled, _ = fw.compile(lambda x: pipe(x))  # noqa: PLW0108
    assert float(compiled(x)) == pytest.approx(float(pipe(x)))
    compiled, count = fw.compile(lambda x: [pipe.compute(x)[0], pipe.compute(x)[1].regularizers["l2"].metrics["max"]])
    once = [float(y) for y in compiled(x)]
    before = count()
    assert once == [pytest.approx(float(pipe(x))), 16.0] and [float(y) for y in compiled(fw.array(2 * X))][1] == 64.0
    assert count() == before


def test_to_json(fw: Framework) -> None:
    x = fw.array(np.asarray([math.inf, math.nan]))
    _, report = Pipeline([Penalty("l1", name="bad"), Penalty(lambda x: -math.inf, name="low")]).compute(x)
    loaded = json.loads(report.to_json(indent=1), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert loaded["regularizers"]["bad"]["value"] == "NaN" and loaded["regularizers"]["low"]["value"] == "-Infinity"
    assert loaded["regularizers"]["bad"]["custom"]["sum"] == "NaN" and loaded["base_loss"] is None
    _, report = Pipeline({"l1": 1.0}).compute(fw.array(np.asarray([math.inf])))
    assert json.loads(report.to_json())["loss_total"] == "Infinity"


def test_flat(fw: Framework) -> None:
    _, report = Pipeline([Penalty("l1", weight=0.5), Penalty(with_metrics, name="m")]).compute(fw.array(X))
    assert report.flat("train/") == {
        "train/loss_total": 0.5 * L1 + L2,
        "train/regularizer_total": 0.5 * L1 + L2,
        "train/l1/value": L1,
        "train/l1/weight": 0.5,
        "train/l1/contribution": 0.5 * L1,
        "train/l1/custom/sum": L1,
        "train/l1/custom/mean": L1 / 4,
        "train/l1/custom/min": 0.5,
        "train/l1/custom/max": 4.0,
        "train/m/value": L2,
        "train/m/weight": 1.0,
        "train/m/contribution": L2,
        "train/m/custom/largest": 4.0,
        "train/m/custom/note": 4.0,
    }


def test_as_text_and_html(fw: Framework) -> None:
    name = "a name so long that a table of a hundred columns has no room for it <b>"
    _, report = Pipeline([Penalty("l1", weight=0.5), Penalty("l2", name=name)]).compute(fw.array(X))
    text = str(report)
    assert text.splitlines()[2].split() == ["l1", "7.5", "0.5", "3.75"] and "…" in text
    assert max(map(len, text.splitlines())) <= 100
    html = report._repr_html_()
    assert "&lt;b&gt;" in html and "<td>7.5</td>" in html
    part = xp.PenaltyReport(1.0, 2.0, 2.0, grad_norm=3.0, grad_norm_weighted=6.0)
    full = xp.Report(4.0, xp.PenaltyReport(2.0, None, None), {"l1": part}, 2.0, 6.5)
    assert str(full).splitlines() == [
        "penalty    value  weight  contribution  grad norm",
        "-------------------------------------------------",
        "base loss      2",
        "l1             1       2             2          3",
        "total                                4",
    ]
    assert full.to_dict()["base_loss"] == {"value": 2.0, "grad_norm": None, "custom": {}}


class TestJax:
    """A pipeline and a report are JAX pytrees."""

    @pytest.fixture(autouse=True)
    def _only_jax(self, fw: Framework) -> None:
        if fw.name != "jax":
            pytest.skip("is about JAX's pytrees")

    def test_weights_are_leaves(self, fw: Framework) -> None:
        jax = fw.module
        pipe = Pipeline([Penalty("l1", weight=0.5), Penalty("l2", weight=lambda step: 1.0), Penalty(mine, weight=2.0)])
        leaves, structure = jax.tree.flatten(pipe)
        assert leaves == [0.5, 2.0]
        back = jax.tree.unflatten(structure, [1.0, 3.0])
        assert [back["l1"].weight, back["mine"].weight] == [1.0, 3.0] and callable(back["l2"].weight)
        assert jax.tree.map(lambda w: 2 * w, pipe)["l1"].weight == 1.0
        assert jax.tree.structure(pipe) == jax.tree.structure(pipe.with_weights(l1=3.0))
        assert hash(jax.tree.structure(pipe)) == hash(jax.tree.structure(pipe.with_weights(l1=3.0)))
        assert jax.tree.structure(pipe) != jax.tree.structure(pipe.disable("l1"))

    def test_a_weight_changes_without_compiling_again(self, fw: Framework) -> None:
        where = fw.array(np.asarray(True))
        pipe = Pipeline([Penalty("l1", weight=0.5, options={"where": where}), Penalty("huber", options={"delta": 2.0})])
        step, count = fw.compile(lambda pipe, x: pipe.compute(x))
        x = fw.array(X)
        for weight in (0.5, 1.5, 0.0):
            total, report = step(pipe.with_weights(l1=weight), x)
            assert float(total) == pytest.approx(float(pipe.with_weights(l1=weight)(x)))
            assert report.to_dict()["regularizers"]["l1"]["weight"] == weight
        assert count() == 1
        step(pipe.disable("l1"), x)
        assert count() == 2

    def test_gradient_by_the_weights(self, fw: Framework) -> None:
        gradient = fw.module.grad(lambda pipe: pipe(fw.array(X)))(Pipeline({"l1": 0.5, "l2": 2.0}))
        assert [float(p.weight) for p in gradient] == [L1, L2]

    def test_a_report_keeps_its_order(self, fw: Framework) -> None:
        pipe = Pipeline([Penalty("l2"), Penalty(with_metrics), Penalty("l1")])
        _, report = fw.module.jit(pipe.compute)(fw.array(X))
        assert list(report.regularizers) == ["l2", "with_metrics", "l1"]
        assert list(report.regularizers["with_metrics"].metrics) == ["largest", "note"]
        assert str(report) == str(pipe.compute(fw.array(X))[1])

    def test_a_traced_step(self, fw: Framework) -> None:
        pipe = Pipeline([Penalty("l1", weight=lambda step: 0.1 * step)])
        step, count = fw.compile(lambda x, i: pipe(x, step=i))
        for i in (1, 2, 3):
            assert float(step(fw.array(X), i)) == pytest.approx(0.1 * i * L1)
        assert count() == 1
