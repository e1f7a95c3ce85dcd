"""Pipelines on every backend: sums, inputs, weights, updates, compiled and differentiated."""

from __future__ import annotations

import math
from functools import wraps
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework
from tests.helpers.samples import L1, L2, X, mine, with_metrics
from xpenalties import Penalty, Pipeline


@pytest.mark.smoke
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


def test_dtype_of_a_total_of_nothing(fw: Framework) -> None:
    for given, want in (("float64", "float64"), ("float32", "float32"), ("float16", "float32")):
        if given in fw.dtypes:
            total = Pipeline({"l1": 1.0}).disable("l1")(fw.array(X, given))
            assert total.dtype == fw.dtype(want) and float(total) == 0.0


def test_weights_do_not_change_the_dtype(fw: Framework) -> None:
    x = fw.array(X, "float32")
    for weight in (np.asarray(0.5), np.asarray(2)):
        for total in (Pipeline({"l1": fw.array(weight)})(x), Pipeline({"l1": weight[()]})(x)):
            assert total.dtype == fw.dtype("float32") and float(total) == L1 * weight


def test_what_callables_return_is_made_a_float(fw: Framework) -> None:
    x = fw.array(X, "float32")
    ns = xp.namespace(x)
    halves: list[Any] = [lambda x, dtype=dtype: ns.astype(xp.l1(x), fw.dtype(dtype)) for dtype in fw.dtypes]
    for fn in (*halves, lambda x: ns.astype(xp.l1(x), fw.dtype("int32")) + 0, lambda x: 7, lambda x: np.float32(7.5)):
        total, report = Pipeline([Penalty(fn, name="p", weight=2)]).compute(x)
        assert total.dtype in (fw.dtype("float32"), fw.dtype("float64")) and 14 <= float(total) <= 15
        assert report.regularizers["p"].value.dtype == total.dtype
    for bad in (lambda x: xp.l1(x) > 0, lambda x: fw.array(np.asarray(1j))):
        with pytest.raises(TypeError, match=r"penalty 'p': must return a real value, got "):
            Pipeline([Penalty(bad, name="p")])(x)


def test_what_a_callable_returns_keeps_its_dtype(fw: Framework) -> None:
    x = fw.array(np.asarray([1, 2], dtype=np.int64))
    total = Pipeline([Penalty(lambda x: 0.1 * xp.l1(fw.array(np.ones(1))), name="p")])(x)
    assert total.dtype == fw.dtype("float64") and float(total) == 0.1


def test_compute_is_the_call_with_shared_options(fw: Framework) -> None:
    x = fw.array(X)
    where, weights = fw.array(X > 0), fw.array(np.abs(X))
    for options in (
        {"reduction": "mean"},
        {"reduction": "sum", "where": where},
        {"reduction": "mean", "weights": weights},
        {"normalizer": 3, "where": where, "weights": weights},
        {"normalizer": fw.array(np.asarray(5.0))},
    ):
        pipe = Pipeline([Penalty("l2", options=options)])
        total, report = pipe.compute(x)
        assert float(total) == float(pipe(x)) == float(xp.l2(x, **options)) == float(report.regularizers["l2"].value)


def test_what_wraps_a_penalty_is_another_function(fw: Framework) -> None:
    @wraps(xp.l1)
    def double(x: Any) -> Any:
        return 2 * xp.l1(x), {"mine": 1.0}

    pipe = Pipeline([Penalty(double), Penalty(xp.l2)])
    total, report = pipe.compute(fw.array(X))
    assert float(total) == float(pipe(fw.array(X))) == 2 * L1 + L2
    assert report.regularizers["l1"].metrics == {"mine": 1.0} and "sum" in report.regularizers["l2"].metrics
    with pytest.raises(TypeError, match="penalty 'l1': `power` is not an option of"):
        Penalty(double, options={"power": 2})


def test_lookup(fw: Framework) -> None:
    pipe = Pipeline({"l1": 1.0, "huber": 2.0}, name="training")
    assert "l1" in pipe and "l2" not in pipe and pipe["huber"].weight == 2.0
    with pytest.raises(
        KeyError, match=r"training: no penalty is named 'hubre'. The names are 'l1', 'huber'. Did you mean"
    ):
        pipe["hubre"]
    with pytest.raises(ValueError, match=r"pipeline: no penalty is named 'l1'\. The names are none"):
        Pipeline().enable("l1")
    with pytest.raises(TypeError, match=r"training: `weights` must be a mapping of names, got 0.5. Or use keywords"):
        pipe.with_weights(0.5)  # type: ignore[arg-type]


def test_options_of_a_callable(fw: Framework) -> None:
    def scaled(x: Any, factor: float, *, power: int = 1) -> Any:
        return factor * xp.l1(x) ** power

    assert float(Pipeline([Penalty(scaled, options={"factor": 2.0, "power": 2})])(fw.array(X))) == 2 * L1**2


def test_options_are_those_of_the_making(fw: Framework) -> None:
    assert type(Penalty("l1", options={"normalizer": 3}).options["normalizer"]) is float

    def scaled(x: Any, factor: float) -> Any:
        return factor * xp.l1(x)

    options = {"factor": 2.0}
    penalty = Penalty(scaled, options=options)
    options["factor"] = 3.0
    assert float(Pipeline([penalty])(fw.array(X))) == 2 * L1


def test_repr_shows_how_it_was_made(fw: Framework) -> None:
    pipe = Pipeline(
        [
            Penalty("l1", weight=0.5, inputs=("a",), enabled=False),
            Penalty(mine, name="p", differentiable=False),
            Penalty("huber", options={"delta": 2.0}),
            Penalty(mine),
        ],
        name="training",
    )
    assert [repr(penalty) for penalty in pipe] == [
        "Penalty('l1', weight=0.5, inputs=('a',), enabled=False)",
        "Penalty(mine, name='p', differentiable=False)",
        "Penalty('huber', options={'delta': 2.0})",
        "Penalty(mine)",
    ]


def test_inputs_that_are_an_object(fw: Framework) -> None:
    class Model:
        weight = fw.array(X)

    inputs = lambda model: model.weight  # noqa: E731
    pipe = Pipeline(
        [
            Penalty(lambda model: xp.l1(model.weight), name="whole"),
            Penalty(lambda x: 3.0, inputs=inputs, name="number"),
            Penalty(
                lambda x: xp.namespace(x).astype(xp.namespace(x).sum(x), fw.dtype("int32")), inputs=inputs, name="n"
            ),
        ]
    )
    assert float(pipe(Model())) == L1 + 3.0 + 3.0
    off = pipe.disable("whole", "number", "n")(Model())
    assert float(off) == 0.0 and off.dtype == fw.dtype("float64")
    for empty in (Pipeline(name="training"), Pipeline([Penalty(lambda m: 3.0, name="p")])):
        with pytest.raises(
            TypeError, match=r"^(training|penalty 'p'): the inputs must hold an array, which sets framework"
        ):
            empty(Model())


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
    with pytest.raises(ValueError, match=r"penalty 'l1': `step` must be given for a schedule, got None. Pass `step=`"):
        pipe(x)
    with pytest.raises(ValueError, match=r"penalty 'l1': `weight` must be in \[0, inf\), got -0.1"):
        pipe(x, step=-1)


def test_updates_return_new_pipelines(fw: Framework) -> None:
    x = fw.array(X)
    pipe = Pipeline({"l1": 0.5, "l2": 2.0}, name="training")
    assert float(pipe.with_weights(l1=1.0)(x)) == L1 + 2 * L2
    assert float(pipe.with_weights({"l2": 1})(x)) == 0.5 * L1 + L2
    assert float(pipe.with_weights({"l1": 2.0, "l2": 0.0}, l1=1.0)(x)) == L1
    off = pipe.disable("l2")
    assert float(off(x)) == 0.5 * L1 and list(off.compute(x)[1].regularizers) == ["l1"]
    assert float(off.enable("l2")(x)) == float(pipe(x))
    more = pipe.add(Penalty(mine, weight=0.1))
    assert float(more(x)) == pytest.approx(0.5 * L1 + 2 * L2 + 0.3 * L1)
    assert [p.name for p in more] == ["l1", "l2", "mine"] and len(more) == 3 and more.name == "training"
    assert [p.name for p in more.remove("l1", "mine")] == ["l2"]
    for changed in (pipe.with_weights(l1=3), pipe.disable("l1"), pipe.enable("l1"), pipe.remove("l1"), pipe.at(1)):
        assert changed.name == "training" and changed is not pipe
    assert len(pipe) == 2 and float(pipe(x)) == 0.5 * L1 + 2 * L2
    with pytest.raises(AttributeError):
        pipe.name = "other"  # type: ignore[misc]
    for update in (pipe.enable, pipe.disable, pipe.remove, lambda name: pipe.with_weights({name: 1})):
        with pytest.raises(
            ValueError, match=r"training: no penalty is named 'l3'. The names are 'l1', 'l2'. Did you mean"
        ):
            update("l3")


@pytest.mark.smoke
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
def test_what_is_not_differentiable_is_given_constants(fw: Framework) -> None:
    def outside(x: Any) -> float:
        if fw.name == "torch":
            assert not x.requires_grad
        return float(np.asarray(x).max())

    inside = Penalty(xp.l1, inputs="b")
    pipe = Pipeline([Penalty(outside, inputs=lambda data: data["a"][0], differentiable=False), inside])
    x = fw.array(X)
    if fw.name == "torch":
        value, report = pipe.compute({"a": [x.requires_grad_()], "b": 2.0 * x})
        value.backward()
        value, gradient = value.detach(), x.grad
    else:
        of_a_nest = xp.value_and_grad(lambda x: pipe.compute({"a": [x], "b": 2.0 * x}), has_aux=True)
        (value, report), gradient = of_a_nest(x)
    assert float(value) == 4.0 + 2 * L1 and float(report.regularizers["outside"].value) == 4.0
    np.testing.assert_allclose(fw.numpy(gradient), 2 * np.sign(X))


@pytest.mark.needs("autodiff")
def test_weights_can_be_learned(fw: Framework) -> None:
    x = fw.array(X)
    gradient = xp.grad(lambda w: Pipeline({"l1": w["l1"], "l2": w["l2"]})(x))(
        {k: fw.array(np.asarray(1.0)) for k in ("l1", "l2")}
    )
    assert {k: float(v) for k, v in gradient.items()} == {"l1": L1, "l2": L2}


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
