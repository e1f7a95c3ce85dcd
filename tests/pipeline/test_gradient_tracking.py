"""The gradients of each penalty that a report has the norms of, against closed forms and passes of their own."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, close
from tests.helpers.samples import L1, L2, X, mine, with_metrics, without_gradient
from xpenalties import Penalty, Pipeline, RegularizedLoss
from xpenalties._pipeline.gradient_tracking import Gradients

pytestmark = pytest.mark.needs("autodiff")
NORM1, NORM2 = 2.0, 2 * math.sqrt(L2)  # of the gradients of l1 and l2 at X
COSINE = L1 / math.sqrt(4 * L2)
BOTH = Pipeline({"l1": 0.5, "l2": 2.0})
TOTAL_NORM = float(np.linalg.norm(0.5 * np.sign(X) + 4 * X))
TOLERANCE = {"float64": 1e-12, "float32": 1e-6}


def part_of(report: Any, name: str) -> Any:
    return report.to_dict()["regularizers"][name]


def norm_of(fw: Framework, nest: Any) -> float:
    """L2 norm over all of a nest of gradients, by NumPy."""
    return math.sqrt(sum(float(np.sum(fw.numpy(g) ** 2)) for g in arrays_of(nest)))


def arrays_of(nest: Any) -> list[Any]:
    if isinstance(nest, dict):
        return [leaf for part in nest.values() for leaf in arrays_of(part)]
    return [leaf for part in nest for leaf in arrays_of(part)] if isinstance(nest, (list, tuple)) else [nest]


@pytest.mark.smoke
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_closed_forms(fw: Framework, dtype: str) -> None:
    rtol = TOLERANCE[dtype]
    total, report = BOTH.compute(fw.array(X, dtype), gradient_conflicts=True)
    assert float(total) == 0.5 * L1 + 2 * L2
    l1, l2 = part_of(report, "l1"), part_of(report, "l2")
    assert [l1["grad_norm"], l2["grad_norm"]] == pytest.approx([NORM1, NORM2], rel=rtol)
    assert [l1["grad_norm_weighted"], l2["grad_norm_weighted"]] == pytest.approx([0.5 * NORM1, 2 * NORM2], rel=rtol)
    assert float(report.total_grad_norm) == pytest.approx(TOTAL_NORM, rel=rtol)
    assert report.regularizers["l1"].grad_norm.dtype == report.total_grad_norm.dtype == fw.dtype(dtype)
    cosines = report.conflicts()
    assert list(cosines) == list(cosines["l1"]) == ["l1", "l2"]
    assert cosines["l1"]["l2"] == cosines["l2"]["l1"] == pytest.approx(COSINE, rel=rtol)
    assert [cosines["l1"]["l1"], cosines["l2"]["l2"]] == pytest.approx([1.0, 1.0], rel=rtol)


def test_cosines_are_only_made_where_they_are_asked_for(fw: Framework) -> None:
    _, report = BOTH.compute(fw.array(X), track_grad_norms=True)
    assert report.gradient_conflicts is None and report.conflicts() == {} and report.total_grad_norm is not None


def test_gradients_that_pull_apart(fw: Framework) -> None:
    pipe = Pipeline(
        [
            Penalty(lambda x: xp.namespace(x).sum(x), name="down", weight=3.0),
            Penalty(lambda x: -2.0 * xp.namespace(x).sum(x), name="up"),
            Penalty(lambda x: x[0] - x[1], name="aside"),
        ]
    )
    _, report = pipe.compute(fw.array(np.ones(2)), gradient_conflicts=True)
    cosines = report.conflicts()
    assert cosines["down"]["up"] == pytest.approx(-1.0, rel=1e-12)
    assert cosines["down"]["aside"] == pytest.approx(0.0, abs=1e-12)
    assert part_of(report, "up")["grad_norm"] == pytest.approx(2 * math.sqrt(2), rel=1e-12)
    assert float(report.total_grad_norm) == pytest.approx(math.sqrt(4.0 + 0.0), rel=1e-12)  # (3 - 2 + 1, 3 - 2 - 1)


@pytest.mark.filterwarnings("ignore:.*gradient norms are with respect to different inputs")
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_against_a_pass_for_each_penalty(fw: Framework, dtype: str) -> None:
    rng = np.random.default_rng(3)
    shapes = {"student": (3, 5), "teacher": (3, 5), "weights": (4, 2)}
    inputs = {name: fw.array(rng.standard_normal(shape), dtype) for name, shape in shapes.items()}
    pair, logits = ("student", "teacher"), {"from_logits": True}
    pipe = Pipeline(
        [
            Penalty("kl_divergence", inputs=pair, options=logits, weight=0.3),
            Penalty("js_divergence", inputs=pair, options=logits, weight=1.7),
            Penalty("entropy", inputs="student", options=logits, weight=lambda step: 0.1 * step),
            Penalty("consistency", inputs=pair, weight=fw.array(np.asarray(0.25))),
            Penalty("group_lasso", inputs="weights"),
            Penalty("orthogonality", inputs=lambda data: data["weights"], weight=0.01),
            Penalty(lambda data: xp.l2(data["weights"]) * xp.l1(data["student"]), name="all of it", weight=0.02),
        ]
    )
    total, report = pipe.compute(inputs, step=5, gradient_conflicts=True)
    gradients = {}
    for penalty in pipe:
        alone = Pipeline([penalty]).with_weights({penalty.name: 1.0})
        gradients[penalty.name] = arrays_of(xp.grad(alone)(inputs))
    rtol = TOLERANCE[dtype] * (1 if dtype == "float64" else 4)  # two roundings apart
    weights = dict(zip(gradients, [0.3, 1.7, 0.5, 0.25, 1.0, 0.01, 0.02], strict=True))
    for name, gradient in gradients.items():
        found = part_of(report, name)
        assert found["grad_norm"] == pytest.approx(norm_of(fw, gradient), rel=rtol), name
        assert found["grad_norm_weighted"] == pytest.approx(weights[name] * norm_of(fw, gradient), rel=rtol), name
    summed = sum(w * flat(fw, gradients[name]) for name, w in weights.items())
    assert float(report.total_grad_norm) == pytest.approx(float(np.linalg.norm(summed)), rel=rtol)
    assert float(report.total_grad_norm) == pytest.approx(norm_of(fw, xp.grad(pipe_at(pipe))(inputs)), rel=rtol)
    for a, row in report.conflicts().items():
        for b, cosine in row.items():
            u, v = flat(fw, gradients[a]), flat(fw, gradients[b])
            want = float(u @ v / np.linalg.norm(u) / np.linalg.norm(v))
            assert cosine == pytest.approx(want, rel=rtol, abs=rtol), (a, b)
    assert float(total) == pytest.approx(float(pipe(inputs, step=5)), rel=rtol)  # KL has another way for autodiff


def flat(fw: Framework, gradients: list[Any]) -> np.ndarray:
    return np.concatenate([fw.numpy(g).ravel() for g in gradients])


def pipe_at(pipe: Pipeline) -> Callable[..., Any]:
    return lambda inputs: pipe(inputs, step=5)


@dataclass
class Layer:
    weight: Any
    size: int


def test_nests_of_inputs(fw: Framework) -> None:
    a, b, c, d = (fw.array(k * np.ones(k)) for k in (1, 2, 3, 4))
    nest = {"layers": [Layer(a, 3), Layer(b, 4)], "head": (c, {"bias": d, "note": "text", "none": None, "number": 2.0})}

    def squares(nest: Any) -> Any:
        head = nest["head"]
        return sum(xp.l2(y) for y in (*(layer.weight for layer in nest["layers"]), head[0], head[1]["bias"]))

    _, report = Pipeline([Penalty(squares)]).compute(nest, track_grad_norms=True)
    assert part_of(report, "squares")["grad_norm"] == pytest.approx(2 * math.sqrt(1 + 8 + 27 + 64), rel=1e-12)
    _, report = Pipeline([Penalty(squares)]).compute(nest, track_grad_norms=True, wrt="head")
    assert part_of(report, "squares")["grad_norm"] == pytest.approx(2 * math.sqrt(27 + 64), rel=1e-12)


def test_a_dataclass_as_input(fw: Framework) -> None:
    pipe = Pipeline([Penalty(lambda layer: layer.size * xp.l1(layer.weight), name="p")])
    _, report = pipe.compute(Layer(fw.array(X), 3), track_grad_norms=True)
    assert part_of(report, "p")["grad_norm"] == pytest.approx(3 * NORM1, rel=1e-12)


def test_an_array_that_is_given_twice_has_one_gradient(fw: Framework) -> None:
    x = fw.array(X)
    product = Penalty(lambda a, b: xp.namespace(a).sum(a * b), name="product")
    _, report = Pipeline([product]).compute(x, x, track_grad_norms=True)
    assert part_of(report, "product")["grad_norm"] == pytest.approx(NORM2, rel=1e-12)
    of_names = Penalty(lambda data: xp.namespace(data["a"]).sum(data["a"] * data["b"][0]), name="names")
    _, report = Pipeline([of_names]).compute({"a": x, "b": [x]}, track_grad_norms=True)
    assert part_of(report, "names")["grad_norm"] == float(report.total_grad_norm) == pytest.approx(NORM2, rel=1e-12)
    two = fw.array(X.copy())
    _, report = Pipeline([product]).compute(x, two, track_grad_norms=True)
    assert part_of(report, "product")["grad_norm"] == pytest.approx(math.sqrt(2 * L2), rel=1e-12)


def test_wrt(fw: Framework) -> None:
    a, b = fw.array(X), fw.array(3 * X)
    named, given = {"a": a, "b": {"deep": b}, "mask": fw.array(X > 0)}, math.sqrt(NORM2**2 + (3 * NORM2) ** 2)
    of_names = Pipeline([Penalty(lambda data: xp.l2(data["a"]) + xp.l2(data["b"]["deep"]), name="p")])
    of_positions = Pipeline([Penalty(lambda a, b: xp.l2(a) + xp.l2(b["deep"]), name="p")])
    for wrt, want in (("a", NORM2), ("b", 3 * NORM2), (("b", "a"), given), (["a", "a"], NORM2), (None, given)):
        _, report = of_names.compute(named, track_grad_norms=True, wrt=wrt)
        assert part_of(report, "p")["grad_norm"] == pytest.approx(want, rel=1e-12), wrt
    for places, want in ((0, NORM2), (1, 3 * NORM2), ((0, 1), given), ({1}, 3 * NORM2), (range(2), given)):
        _, report = of_positions.compute(a, {"deep": b}, gradient_conflicts=True, wrt=places)
        assert part_of(report, "p")["grad_norm"] == pytest.approx(want, rel=1e-12), places
    _, report = of_names.compute(named, track_grad_norms=True, wrt=0)
    assert part_of(report, "p")["grad_norm"] == pytest.approx(given, rel=1e-12)


def test_arrays_that_are_inputs(fw: Framework) -> None:
    """They are found by identity, on frameworks without a graph too."""
    a, b = fw.array(X), fw.array(3 * X)
    inputs = {"a": a, "b": {"deep": b}, "c": fw.array(X.copy())}
    pipe = Pipeline([Penalty(lambda data: xp.l2(data["a"]) + xp.l2(data["b"]["deep"]), name="p")], name="training")
    both = math.sqrt(NORM2**2 + (3 * NORM2) ** 2)
    cases: tuple[tuple[Any, float, str], ...] = (
        (a, NORM2, "a"),
        (b, 3 * NORM2, "arrays"),
        (inputs["b"], 3 * NORM2, "b"),
        ([a, b], both, "a, arrays"),
        ({"any": {"tree": [b, a, a]}}, both, "arrays"),
        (["b", a], both, "b, a"),
    )
    for wrt, want, label in cases:
        _, report = pipe.compute(inputs, track_grad_norms=True, wrt=wrt)
        assert part_of(report, "p")["grad_norm"] == pytest.approx(want, rel=1e-12)
        assert report.wrt == label
    message = "tensors in `wrt` must require" if fw.name == "torch" else "arrays in `wrt` must be among the inputs, "
    for wrt in (fw.array(X.copy()), [a, fw.array(X.copy())]):
        with pytest.raises(ValueError, match=f"^training: {message}"):
            pipe.compute(inputs, track_grad_norms=True, wrt=wrt)


@pytest.mark.needs("jit")
def test_compiled_with_arrays(fw: Framework) -> None:
    a, b = fw.array(X), fw.array(3 * X)
    pipe = xp.compile(Pipeline([Penalty("l2", inputs="a"), Penalty("l1", inputs="b")]))
    _, report = pipe.compute({"a": a, "b": b}, track_grad_norms=True, wrt=a)
    assert part_of(report, "l2")["grad_norm"] == pytest.approx(NORM2, rel=1e-12)
    assert part_of(report, "l1")["grad_norm"] is None and report.wrt == "a"


def test_inputs_that_differ(fw: Framework) -> None:
    """Norms with respect to inputs that two penalties do not share cannot be compared: there is one warning."""
    inputs = {"a": fw.array(X), "b": fw.array(3 * X), "c": {"deep": fw.array(X.copy())}, "d": fw.array(2 * X)}
    name = f"differing {fw}"
    pipe = Pipeline([Penalty("l2", inputs="a"), Penalty("l1", inputs="b")], name=name)
    message = rf"^{name}: gradient norms are with respect to different inputs, so you cannot compare them: "
    with pytest.warns(UserWarning, match=message + "'a' for 'l2', 'b' for 'l1'. Pass `wrt`") as caught:
        _, report = pipe.compute(inputs, track_grad_norms=True)
    assert caught[0].filename == __file__
    for _ in range(2):  # no second warning
        _, report = pipe.compute(inputs, track_grad_norms=True)
        assert report.wrt == "different inputs" and "grad norm (different inputs)" in str(report)
    for options in ({"wrt": ("a", "b")}, {"wrt": "a"}):
        _, report = pipe.compute(inputs, track_grad_norms=True, **options)
        assert report.wrt == ", ".join(options["wrt"])
    shared = Penalty("consistency", inputs=("a", "b"))
    alike = [
        Pipeline(
            [Penalty("consistency", inputs=pair, name="-".join(pair)) for pair in (("a", "b"), ("b", "d"), ("a", "d"))]
        ),
        Pipeline([Penalty("l2", inputs="a"), Penalty(lambda data: xp.l1(data["a"]) + xp.l1(data["b"]), name="both")]),
        Pipeline([Penalty("l2", inputs="a"), shared]),
        Pipeline([Penalty("l2", inputs="a"), Penalty("l1", inputs="b", differentiable=False)]),
        Pipeline([Penalty("l2", inputs="a"), Penalty(lambda x: 1.0, name="constant", inputs="b")]),
        Pipeline([Penalty(lambda data: xp.l2(data["a"]), name="a"), Penalty(lambda data: xp.l1(data["b"]), name="b")]),
    ]
    for other in alike:
        assert other.compute(inputs, track_grad_norms=True)[1].wrt == "inputs"
    loss = RegularizedLoss(
        lambda data: xp.l1(data["c"]["deep"]), Pipeline([Penalty("l2", inputs="a")], name=name + "2")
    )
    with pytest.warns(UserWarning, match=r"'c' for 'base_loss', 'a' for 'l2'"):
        assert loss.compute(inputs, track_grad_norms=True)[1].wrt == "different inputs"
    callables = [Penalty(lambda data: xp.l2(data["a"]), name="a"), Penalty("l1", inputs="b")]
    with pytest.warns(UserWarning, match=r"'a' for 'a', 'b' for 'l1'"):
        _, report = Pipeline(callables, name=name + "3").compute(inputs, track_grad_norms=True)
    mapped = [Penalty("l2", inputs={"x": "a", "weights": "d"}), Penalty("l1", inputs={"x": lambda data: data["b"]})]
    with pytest.warns(UserWarning, match=r"'a' for 'l2', 'b' for 'l1'"):
        _, report = Pipeline(mapped, name=name + "4").compute(inputs, track_grad_norms=True)
    other = [Penalty("l2", inputs="d"), Penalty("l1", inputs="b")]
    with pytest.warns(UserWarning, match=r"'d' for 'l2', 'b' for 'l1'"):  # another pipeline of the same name
        Pipeline(other, name=name).compute(inputs, track_grad_norms=True)
    by_position = Pipeline([Penalty(lambda a, b: xp.l2(a), name="a"), Penalty(lambda a, b: xp.l1(b), name="b")])
    assert by_position.compute(fw.array(X), fw.array(X), track_grad_norms=True)[1].wrt == "inputs"


@dataclass
class Both:
    params: dict[str, Any]
    batch: Any


def test_fields_of_a_dataclass(fw: Framework) -> None:
    x = fw.array(X)
    pipe = Pipeline([Penalty("l2", inputs=lambda both: both.params["w"] * both.batch)])
    both = Both({"w": x}, 2 * x)
    _, report = pipe.compute(both, track_grad_norms=True, wrt="params")
    assert part_of(report, "l2")["grad_norm"] == pytest.approx(np.linalg.norm(8 * X**3), rel=1e-12)
    with pytest.raises(
        ValueError, match=r"`wrt` must name inputs, got 'param'. Choose from: 'params', 'batch'. Did you"
    ):
        pipe.compute(both, track_grad_norms=True, wrt="param")


def test_wrt_does_not_change_the_total(fw: Framework) -> None:
    def total(data: Any) -> Any:
        pipe = Pipeline([Penalty("consistency", inputs=("a", "b"))])
        return pipe.compute(data, track_grad_norms=True, wrt="a")[0]

    data = {"a": fw.array(X), "b": fw.array(-X)}
    gradient = xp.grad(total)(data)
    close(fw, gradient["a"], 2 * 2 * X / 4)
    close(fw, gradient["b"], -2 * 2 * X / 4)


def test_what_wrt_refuses(fw: Framework) -> None:
    x = fw.array(X)
    data = {"student": x, "mask": x > 0}
    pipe = Pipeline([Penalty(lambda *given: 0.0, name="p")], name="training")
    for wrt, message in (
        (
            "studnt",
            r"^training: `wrt` must name inputs, got 'studnt'. Choose from: '\w+', '\w+'. Did you mean 'student'\?",
        ),
        (("mask", 1), r"^training: `wrt` must name inputs, got 1. Choose from: 0\.$"),
        (-1, r"^training: `wrt` must name inputs, got -1. Choose from: 0\.$"),
    ):
        with pytest.raises(ValueError, match=message):
            pipe.compute(data, track_grad_norms=True, wrt=wrt)
    with pytest.raises(ValueError, match=r"^training: `wrt` must name inputs, got 'a'. Choose from: none\.$"):
        pipe.compute({}, track_grad_norms=True, wrt="a")
    for inputs in ((x, x), (x,), ([x],), ({"x": x}, x)):
        with pytest.raises(
            TypeError,
            match=r"^training: names in `wrt` need one mapping or dataclass as input, got 'x'. Pass a pos",
        ):
            pipe.compute(*inputs, track_grad_norms=True, wrt="x")
    for bad in (1.5, True, (0.0,), ("student", None)):
        message = (
            r"^training: `wrt` must be names or positions of inputs, arrays, or a module with parameters, got .*Pass"
        )
        with pytest.raises(TypeError, match=message):
            pipe.compute(data, track_grad_norms=True, wrt=bad)
        with pytest.raises(TypeError, match=r"^training: `wrt` must be names or positions"):
            pipe.compute(data, track_grad_norms=False, wrt=bad)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.needs("jit"))])
def test_steps_that_a_history_does_not_want(fw: Framework, compiled: bool) -> None:
    """`wrt` may be the same in all steps."""
    history = xp.GradientHistory(every=2)
    pipe = Pipeline([Penalty("consistency", inputs=("a", "b"), weight=0.5)])
    data = {"a": fw.array(X), "b": fw.array(-X)}
    for target in (pipe, RegularizedLoss(lambda data: 0.0, pipe)):
        for step in (0, 1):
            each = xp.compile(target, torch={"backend": "aot_eager"}) if compiled else target
            total, report = each.compute(data, step=step, track_grad_norms=history.wants(step), wrt="a")
            close(fw, total, 0.5 * np.mean((2 * X) ** 2))
            assert (report.regularizers["consistency"].grad_norm is None) is (step == 1)


def test_nothing_to_differentiate_by(fw: Framework) -> None:
    x = fw.array(X)
    pipe = Pipeline([Penalty(lambda *given: 1.0, name="p")], name="training")
    message = r"^training: the inputs must hold a floating-point array to differentiate with respect to, got none"
    for inputs in ((fw.array(np.arange(3)),), ({"a": 2.0, "b": x > 0},), (fw.array(np.asarray(1j)),), (), (None,)):
        with pytest.raises(TypeError, match=message + r"\. Pass an array or a tree of them"):
            pipe.compute(*inputs, track_grad_norms=True)
    with pytest.raises(TypeError, match=message + r" in \('mask',\)\. Pass"):
        pipe.compute({"x": x, "mask": x > 0}, track_grad_norms=True, wrt="mask")
    for empty in ((), [], iter(())):
        with pytest.raises(ValueError, match=r"^training: `wrt` must not be empty, got .*A generator, such as model"):
            pipe.compute(x, track_grad_norms=True, wrt=empty)


@pytest.mark.only("torch", reason="is about modules")
def test_torch_only_a_module_as_input(fw: Framework, torch: Any) -> None:
    model = torch.nn.Linear(2, 2)
    pipe = Pipeline([Penalty("l2", tree={}, inputs="params", name="decay")])
    with pytest.raises(TypeError, match=r"to differentiate with respect to, got none\. Pass the module as `wrt`\.$"):
        pipe.compute({"params": model}, track_grad_norms=True)
    _, report = pipe.compute({"params": model}, track_grad_norms=True, wrt=model)
    assert float(report.total_grad_norm) > 0


def test_metrics_and_total_are_those_of_no_tracking(fw: Framework) -> None:
    def numbers(x: Any) -> Any:
        ns = xp.namespace(x)
        metrics = {"number": 2, "inf": math.inf, "count": ns.sum(ns.astype(x > 0, ns.int32)), "any": ns.any(x > 0)}
        return xp.l1(x), metrics | {"half": np.float32(0.5), "numpy": np.asarray(7.0), "true": np.bool_(True)}

    where = fw.array(X > 0)
    pipe = Pipeline(
        [
            Penalty(numbers, weight=0.1),
            Penalty(with_metrics, weight=fw.array(np.asarray(0.3))),
            Penalty("l2", options={"where": where, "reduction": "mean"}),
            Penalty("l1", options={"where": fw.array(np.asarray(False))}),
            Penalty(mine, differentiable=False),
        ]
    )
    plain_total, plain = pipe.compute(fw.array(X))
    total, report = pipe.compute(fw.array(X), gradient_conflicts=True)
    assert float(total) == float(plain_total) and total.dtype == plain_total.dtype
    found, want = report.to_dict(), plain.to_dict()
    for name, part in want["regularizers"].items():
        assert list(found["regularizers"][name]["custom"]) == list(part["custom"])
        for figure in ("value", "weight", "contribution", "custom"):
            np.testing.assert_equal(found["regularizers"][name][figure], part[figure])
        assert report.regularizers[name].error is None
    assert found["loss_total"] == want["loss_total"] and found["regularizer_total"] == want["regularizer_total"]
    assert part_of(report, "numbers")["grad_norm"] == pytest.approx(NORM1, rel=1e-12)


def test_what_is_not_differentiable_is_left_out(fw: Framework) -> None:
    pipe = Pipeline([Penalty("l1", weight=0.5), Penalty("l2", weight=2.0), Penalty(mine, differentiable=False)])
    total, report = pipe.compute(fw.array(X), gradient_conflicts=True)
    assert float(total) == pytest.approx(0.5 * L1 + 2 * L2 + 3 * L1)
    part = report.regularizers["mine"]
    assert part.grad_norm is None and part.grad_norm_weighted is None and part.error is None
    assert float(report.total_grad_norm) == pytest.approx(TOTAL_NORM, rel=1e-12)
    assert list(report.conflicts()) == ["l1", "l2"]
    _, report = Pipeline([Penalty(mine, differentiable=False)]).compute(fw.array(X), gradient_conflicts=True)
    assert report.total_grad_norm is None and report.conflicts() == {}


def test_nothing_goes_through_what_is_not_differentiable(fw: Framework) -> None:
    def total(w: Any, options: Any) -> Any:
        pipe = Pipeline([Penalty(lambda x: xp.l2(w), name="behind", differentiable=False), Penalty("l1")])
        return pipe.compute(fw.array(X), **options)[0] + xp.l1(w)

    for options in ({}, {"track_grad_norms": True}):
        close(fw, xp.grad(lambda w, options=options: total(w, options))(fw.array(X)), np.sign(X))


def test_values_that_do_not_depend_on_the_inputs(fw: Framework) -> None:
    other = fw.array(X)
    pipe = Pipeline(
        [
            Penalty(lambda x: 3.0, name="number"),
            Penalty(lambda x: xp.l2(other), name="elsewhere"),
            Penalty(lambda x: xp.l1(0.0 * x), name="flat"),
            Penalty("l1"),
        ]
    )
    total, report = pipe.compute(fw.array(X), gradient_conflicts=True)
    assert float(total) == 3.0 + L2 + L1
    for name in ("number", "elsewhere"):
        found = part_of(report, name)
        assert found["grad_norm"] is None and found["grad_norm_weighted"] is None
        assert report.regularizers[name].error == "does not depend on wrt (inputs)"
    flat = part_of(report, "flat")  # depends on them, with a slope of 0
    assert flat["grad_norm"] == flat["grad_norm_weighted"] == 0.0 and report.regularizers["flat"].error is None
    assert list(report.conflicts()) == ["flat", "l1"] and set(report.conflicts()["flat"].values()) == {0.0}
    assert float(report.total_grad_norm) == part_of(report, "l1")["grad_norm"] == pytest.approx(NORM1, rel=1e-12)


def test_empty_pipelines_and_arrays(fw: Framework) -> None:
    for pipe in (Pipeline(), BOTH.disable("l1", "l2")):
        total, report = pipe.compute(fw.array(X, "float32"), gradient_conflicts=True)
        assert float(total) == 0.0 and report.total_grad_norm is None and report.conflicts() == {}
    _, report = BOTH.compute(fw.array(np.zeros((0, 2))), gradient_conflicts=True)
    assert part_of(report, "l2")["grad_norm"] == float(report.total_grad_norm) == 0.0
    assert report.conflicts() == {name: {"l1": 0.0, "l2": 0.0} for name in ("l1", "l2")}
    _, report = BOTH.compute(fw.array(np.asarray(-3.0)), gradient_conflicts=True)
    assert part_of(report, "l2")["grad_norm"] == 6.0 and float(report.total_grad_norm) == 12.5


def test_inputs_that_may_have_been_computed_from_wrt(fw: Framework) -> None:
    """Without a graph, nothing leads from `wrt` to them. So their norms and the total's are unknown."""
    pipe = Pipeline(
        [
            Penalty("l2", inputs="w", name="decay"),
            Penalty("l1", inputs="hidden", name="activity"),
            Penalty(lambda data: xp.l1(data["hidden"]), name="picked", inputs=lambda data: data),
            Penalty(lambda w: 3.0, name="number", inputs="w"),
            Penalty(lambda ids: 3.0, name="integers", inputs="ids"),
        ]
    )
    loss = RegularizedLoss(lambda data: xp.l2(data["hidden"]), pipe)
    w = fw.array(X)
    inputs = {"w": w, "hidden": 2.0 * w, "ids": fw.array(np.arange(3))}
    for wrt in ("w", w):
        _, report = loss.compute(inputs, track_grad_norms=True, wrt=wrt)
        for part in (report.base_loss, report.regularizers["activity"], report.regularizers["picked"]):
            assert part is not None and part.grad_norm is None and part.grad_norm_weighted is None
            assert part.error is not None and part.error.startswith(
                f"does not use wrt ({report.wrt}) itself. Its inputs may have been computed from wrt, but no graph "
            )
        for name in ("number", "integers"):
            assert report.regularizers[name].error == f"does not depend on wrt ({report.wrt})"
        assert part_of(report, "decay")["grad_norm"] == pytest.approx(NORM2, rel=1e-6)
        assert report.total_grad_norm is None
    alone = Pipeline([pipe.penalties[0], *pipe.penalties[3:]])
    _, report = alone.compute(inputs, track_grad_norms=True, wrt="w")
    assert float(report.total_grad_norm) == pytest.approx(NORM2, rel=1e-6)


@pytest.mark.needs("jit")
def test_inputs_that_may_have_been_computed_from_wrt_in_jit(fw: Framework) -> None:
    def tracked(w: Any) -> Any:
        loss = RegularizedLoss(lambda data: xp.l2(data["hidden"]), Pipeline([Penalty("l2", inputs="w")]))
        report = loss.compute({"w": w, "hidden": 2.0 * w}, track_grad_norms=True, wrt="w")[1]
        assert report.total_grad_norm is None and report.base_loss.grad_norm is None
        return report.regularizers["l2"].grad_norm

    assert float(fw.once(tracked)(fw.array(X))) == pytest.approx(NORM2, rel=1e-6)


def test_half_precision(fw: Framework) -> None:
    for dtype in fw.dtypes:
        x = fw.array(np.full(1000, 40.0), dtype)  # the square of the norm, 6.4e6, is too large for float16
        _, report = Pipeline({"l2": 1.0}).compute(x, gradient_conflicts=True)
        norm = report.regularizers["l2"].grad_norm
        assert float(norm) == float(report.total_grad_norm) == pytest.approx(80 * math.sqrt(1000), rel=1e-6)
        assert norm.dtype in (fw.dtype("float32"), fw.dtype("float64"))
        assert report.conflicts()["l2"]["l2"] == pytest.approx(1.0, rel=1e-6)


def test_each_penalty_is_evaluated_once(fw: Framework) -> None:
    calls: list[str] = []

    def counted(name: str) -> Penalty:
        return Penalty(lambda x: calls.append(name) or xp.l1(x), name=name, differentiable=name != "constant")

    pipe = Pipeline([counted("a"), counted("constant"), counted("b")])
    pipe.compute(fw.array(X), gradient_conflicts=True)
    assert calls == ["a", "constant", "b"]
    RegularizedLoss(lambda x: calls.append("base") or xp.l2(x), pipe).compute(fw.array(X), track_grad_norms=True)
    assert calls[3:] == ["base", "a", "constant", "b"]


def test_gradients_are_not_kept(fw: Framework, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []
    alive: list[int] = []
    add = Gradients.add

    def spy(self: Gradients, name: str, gradient: list[Any], factor: Any) -> Any:
        found.extend(map(weakref.ref, gradient))
        return add(self, name, gradient, factor)

    def seeing(x: Any) -> Any:
        gc.collect()
        alive.append(sum(ref() is not None for ref in found))
        return xp.l1(x)

    monkeypatch.setattr(Gradients, "add", spy)
    total, report = Pipeline([Penalty("l2"), Penalty(seeing), Penalty("l1")]).compute(
        fw.array(X), track_grad_norms=True
    )
    gc.collect()
    assert len(found) == 3 and [ref() for ref in found] == [None] * 3 and alive == [0]
    assert total is not None and report is not None


# penalties that cannot be differentiated


def outside(x: Any) -> float:
    """Takes the array for data of NumPy, which no framework can look into."""
    return float(np.linalg.norm(np.asarray(x, dtype=np.float64)))


def failing_penalties(fw: Framework) -> list[Penalty]:
    found = [Penalty(outside, weight=0.1)]
    if fw.name == "jax":

        def loop(x: Any) -> Any:
            return fw.module.lax.while_loop(lambda y: y.sum() < 100.0, lambda y: 2 * y, xp.namespace(x).abs(x)).sum()

        found.append(Penalty(loop, weight=0.2))
    if fw.name == "torch":
        found.append(Penalty(without_gradient(fw.module), name="forward", weight=0.2))
    return found


def test_a_penalty_without_a_gradient(fw: Framework) -> None:
    x = fw.array(X)
    for penalty in failing_penalties(fw):
        pipe = Pipeline([Penalty("l1", weight=0.5), penalty, Penalty("l2", weight=2.0)])
        total, report = pipe.compute(x, gradient_conflicts=True)
        assert float(total) == float(pipe(x))
        part = report.regularizers[penalty.name]
        assert part.grad_norm is None and part.grad_norm_weighted is None and report.total_grad_norm is None
        assert float(part.contribution) == pytest.approx(penalty.weight * float(part.value)) and float(part.value) > 0
        assert part.error is not None and part.error.startswith("no gradient: ") and "\n" not in part.error
        assert f"{penalty.name}: {part.error}" in str(report).replace("\n  ", " ").splitlines()  # which wraps it
        assert part_of(report, "l2")["grad_norm"] == pytest.approx(NORM2, rel=1e-12)
        assert list(report.conflicts()) == ["l1", "l2"]
        assert report.conflicts()["l1"]["l2"] == pytest.approx(COSINE, rel=1e-12)


def test_the_reason_is_that_of_the_framework(fw: Framework) -> None:
    reasons = {
        "numpy": ["ValueError: setting an array element"],
        "torch": ["RuntimeError: Can't call numpy()", "ArithmeticError: no way back"],
        "jax": ["TracerArrayConversionError: The numpy", "ValueError: Reverse-mode differentiation does not work for"],
    }
    for penalty, reason in zip(failing_penalties(fw), reasons[fw.name], strict=True):
        _, report = Pipeline([penalty]).compute(fw.array(X), track_grad_norms=True)
        assert str(report.regularizers[penalty.name].error).startswith(f"no gradient: {reason}")


def test_training_goes_on_without_a_gradient(fw: Framework) -> None:
    penalty = Penalty(outside, weight=0.1, differentiable=False)
    both = Pipeline([Penalty("l2"), penalty])

    def step(x: Any) -> Any:
        return both.compute(x, track_grad_norms=True)

    (_, report), gradient = xp.value_and_grad(step, has_aux=True)(fw.array(X))
    close(fw, gradient, 2 * X)
    assert part_of(report, "outside")["value"] == pytest.approx(math.sqrt(L2))


def test_a_penalty_that_fails_also_untracked(fw: Framework) -> None:
    calls = []

    def bad(x: Any) -> Any:
        calls.append(x)
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        Pipeline([Penalty("l1"), Penalty(bad, weight=0.5)], name="training").compute(fw.array(X), track_grad_norms=True)
    (note,) = caught.value.__notes__
    assert note.startswith("In penalty 'bad' of 'training', weight 0.5, inputs ") and note.endswith("(2, 2).")
    assert len(calls) == 2
    with pytest.raises(ZeroDivisionError) as caught:
        Pipeline([Penalty(bad)]).compute({"x": fw.array(X), "n": 3}, track_grad_norms=True)
    (note,) = caught.value.__notes__
    kind = type(fw.array(X)).__qualname__
    assert note == f"In penalty 'bad' of 'pipeline', weight 1.0, inputs {{x: {kind}(2, 2), n: int}}."


def test_wrong_returns_are_errors_with_tracking_too(fw: Framework) -> None:
    for fn, kind, message in (
        (lambda x: x, ValueError, r"^penalty 'p': must return a scalar, got shape \(2, 2\)"),
        (lambda x: "text", TypeError, r"^penalty 'p': must return a 0-d array, got str"),
        (lambda x: (xp.l1(x), {"m": x}), TypeError, r"^penalty 'p': metric 'm' must be a number or a 0-d array"),
    ):
        with pytest.raises(kind, match=message):
            Pipeline([Penalty(fn, name="p")]).compute(fw.array(X), track_grad_norms=True)


# the total can be differentiated still


@pytest.mark.parametrize("conflicts", [False, True])
def test_gradient_through_a_tracked_total(fw: Framework, conflicts: bool) -> None:
    def total(x: Any) -> Any:
        value, report = BOTH.compute(x, track_grad_norms=True, gradient_conflicts=conflicts)
        figures = report.regularizers["l2"].grad_norm + report.regularizers["l2"].grad_norm_weighted
        return value + 10.0 * report.total_grad_norm + figures, report  # a report's figures are constants

    (_, report), gradient = xp.value_and_grad(total, has_aux=True)(fw.array(X))
    close(fw, gradient, 0.5 * np.sign(X) + 4 * X)
    assert part_of(report, "l2")["grad_norm"] == pytest.approx(NORM2, rel=1e-12)
    assert float(report.total_grad_norm) == pytest.approx(TOTAL_NORM, rel=1e-12)


def test_gradient_by_one_of_two_inputs(fw: Framework) -> None:
    """The other is a plain array beside one that is traced."""
    product = Pipeline([Penalty(lambda a, b: xp.namespace(a, b).sum(a * b), name="product")])
    a, b = fw.array(X), fw.array(X + 1)

    def tracked(a: Any, b: Any) -> Any:
        total, report = product.compute(a, b, track_grad_norms=True)
        return total + 10.0 * report.total_grad_norm, report

    for of, by, want in ((lambda b: tracked(a, b), b, X), (lambda a: tracked(a, b), a, X + 1)):
        (_, report), gradient = xp.value_and_grad(of, has_aux=True)(by)
        close(fw, gradient, want)
        both = math.sqrt(float(np.sum(X**2) + np.sum((X + 1) ** 2)))
        norm = float(np.linalg.norm(want)) if fw.name == "torch" else both  # where arrays say what they require
        assert report.regularizers["product"].error is None
        assert report.total_grad_norm.dtype == fw.dtype("float64")
        assert float(report.total_grad_norm) == pytest.approx(norm, rel=1e-12)


def test_second_gradient_through_a_tracked_total(fw: Framework) -> None:
    cubes = Pipeline([Penalty(lambda x: xp.namespace(x).sum(x * x * x), name="cubes", weight=0.5)])
    gradient = xp.grad(lambda x: cubes.compute(x, track_grad_norms=True)[0])
    second = xp.grad(lambda x: xp.namespace(x).sum(gradient(x)))(fw.array(X))
    close(fw, second, 3 * X)


def test_weights_are_learned_with_tracking(fw: Framework) -> None:
    def total(nest: Any) -> Any:
        pipe = Pipeline({"l1": nest["l1"], "l2": nest["l2"]})
        value, report = pipe.compute(nest["x"], track_grad_norms=True)
        return value, report

    nest = {"l1": fw.array(np.asarray(0.5)), "l2": fw.array(np.asarray(2.0)), "x": fw.array(X)}
    (_, report), gradient = xp.value_and_grad(total, has_aux=True)(nest)
    assert float(gradient["l1"]) == L1 and float(gradient["l2"]) == L2
    close(fw, gradient["x"], 0.5 * np.sign(X) + 4 * X)
    found = part_of(report, "l2")
    assert found["weight"] == 2.0 and found["grad_norm_weighted"] == pytest.approx(2 * NORM2, rel=1e-12)


def test_penalties_that_differentiate_themselves(fw: Framework) -> None:
    def flatness(x: Any) -> Any:
        return xp.l2(xp.grad(lambda x: xp.namespace(x).sum(x * x * x))(x))  # sum of 9 x^4

    pipe = Pipeline([Penalty(flatness, weight=0.1), Penalty("l2")])
    total, report = pipe.compute(fw.array(X), track_grad_norms=True)
    want = 36 * X**3
    assert part_of(report, "flatness")["grad_norm"] == pytest.approx(float(np.linalg.norm(want)), rel=1e-12)
    gradient = xp.grad(lambda x: pipe.compute(x, track_grad_norms=True)[0])(fw.array(X))
    close(fw, gradient, 0.1 * want + 2 * X)
    assert float(total) == pytest.approx(0.1 * float(np.sum(9 * X**4)) + L2)


# compiled


@pytest.mark.needs("jit")
def test_compiled(fw: Framework) -> None:
    pipe = Pipeline(
        [
            Penalty(lambda nest: xp.l1(nest[0]) + xp.l1(nest[2]), name="l1", weight=0.5),
            Penalty("l2", inputs=lambda nest: nest[1]["again"], weight=lambda step: 2.0 * step),
        ]
    )
    compiled, count = fw.compile(lambda x, y, i: pipe.compute([x, {"again": x}, y], step=i, gradient_conflicts=True))
    counts = []
    for i in (2.0, 3.0):
        x, y, step = fw.array(i * X), fw.array(X), fw.array(np.asarray(i))
        total, report = compiled(x, y, step)
        want_total, want = pipe.compute([x, {"again": x}, y], step=step, gradient_conflicts=True)
        assert float(total) == pytest.approx(float(want_total), rel=1e-12)
        assert report.flat() == pytest.approx(want.flat(), rel=1e-12) and "l2/grad_norm_weighted" in report.flat()
        for row, wanted in zip(report.conflicts().values(), want.conflicts().values(), strict=True):
            assert row == pytest.approx(wanted, rel=1e-12)
        counts.append(count())
    assert counts[1] == counts[0]


@pytest.mark.needs("jit")
def test_compiled_with_the_gradient(fw: Framework) -> None:
    def of(x: Any) -> Any:
        (_, report), gradient = xp.value_and_grad(lambda x: BOTH.compute(x, track_grad_norms=True), has_aux=True)(x)
        return gradient, report.total_grad_norm

    compiled, _ = fw.compile(of)
    gradient, norm = compiled(fw.array(X))
    close(fw, gradient, 0.5 * np.sign(X) + 4 * X)
    assert float(norm) == pytest.approx(TOTAL_NORM, rel=1e-12)


@pytest.mark.needs("jit")
def test_an_error_in_a_trace(fw: Framework) -> None:
    def bad(x: Any) -> Any:
        raise ZeroDivisionError("mine")

    pipe = Pipeline([Penalty(bad)])
    compiled, _ = fw.compile(lambda x: pipe.compute(x, track_grad_norms=True)[0])
    with pytest.raises(Exception, match=r"mine|ZeroDivisionError"):
        compiled(fw.array(X))


@pytest.mark.only("jax", reason="is about JAX's pytrees")
def test_a_pipeline_as_argument_of_a_jitted_function(fw: Framework) -> None:
    step, count = fw.compile(lambda pipe, x: pipe.compute(x, gradient_conflicts=True))
    for weight in (0.5, 1.5, 0.0):
        _, report = step(BOTH.with_weights(l1=weight), fw.array(X))
        assert part_of(report, "l1")["grad_norm_weighted"] == pytest.approx(weight * NORM1, rel=1e-12)
        assert report.conflicts()["l1"]["l2"] == pytest.approx(COSINE, rel=1e-12)
    assert count() == 1
    _, report = fw.module.jit(Pipeline(failing_penalties(fw)[1:]).compute, static_argnames="track_grad_norms")(
        fw.array(X), track_grad_norms=True
    )
    assert report.total_grad_norm is None and "Reverse-mode" in report.regularizers["loop"].error


@pytest.mark.only("jax", reason="is about JAX's transformations")
def test_maps_and_scans(fw: Framework) -> None:
    jax, x = fw.module, fw.array(np.stack([X, 2 * X, 3 * X]))
    mapped = jax.vmap(lambda x: BOTH.compute(x, gradient_conflicts=True)[1])(x)
    _, scanned = jax.lax.scan(lambda carry, x: (carry, BOTH.compute(x, gradient_conflicts=True)[1]), 0, x)
    for stacked in (mapped, scanned):
        last = jax.tree.map(lambda figure: figure[-1], stacked)
        assert part_of(last, "l2")["grad_norm"] == pytest.approx(3 * NORM2, rel=1e-12)
        assert last.conflicts()["l1"]["l2"] == pytest.approx(COSINE, rel=1e-12)


# PyTorch's own ways


@pytest.fixture
def torch(fw: Framework) -> Any:
    return fw.module


@pytest.mark.only("torch", reason="is about PyTorch's autograd")
def test_torch_backward(fw: Framework, torch: Any) -> None:
    plain, tracked = (fw.array(X).requires_grad_() for _ in range(2))
    weight = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    pipe = Pipeline({"l1": 0.5, "l2": weight})
    pipe(plain * 1.0).backward()
    by_weight, weight.grad = weight.grad, None
    total, report = pipe.compute(tracked * 1.0, gradient_conflicts=True)
    assert tracked.grad is None and weight.grad is None and tracked.requires_grad
    assert not any(figure.requires_grad for figure in arrays_of_report(report))
    total.backward()
    assert torch.equal(tracked.grad, plain.grad) and torch.equal(weight.grad, by_weight)


def arrays_of_report(report: Any) -> list[Any]:
    parts = [[*part.metrics.values(), *vars(part).values()] for part in report.regularizers.values()]
    figures = [y for part in parts for y in part] + [*vars(report).values()]
    return [y for y in figures if hasattr(y, "requires_grad")]


@pytest.mark.only("torch", reason="is about PyTorch's autograd")
def test_torch_those_that_require_a_gradient(fw: Framework, torch: Any) -> None:
    a, b = fw.array(X), fw.array(X)
    pipe = Pipeline([Penalty(lambda a, b: xp.l2(a) + 3.0 * xp.l2(b), name="p")])

    def norm(*inputs: Any, **options: Any) -> Any:
        return part_of(pipe.compute(*inputs, track_grad_norms=True, **options)[1], "p")["grad_norm"]

    assert norm(a, b) == pytest.approx(math.sqrt(10) * NORM2, rel=1e-12)
    b.requires_grad_()
    assert norm(a, b) == pytest.approx(3 * NORM2, rel=1e-12)
    assert norm(a, b, wrt=0) == pytest.approx(NORM2, rel=1e-12)
    assert norm(a, b, wrt=(0, 1)) == pytest.approx(math.sqrt(10) * NORM2, rel=1e-12)
    assert a.requires_grad is False and a.grad is None and b.grad is None
    total, _ = pipe.compute(a, b, track_grad_norms=True, wrt=0)
    total.backward()
    assert torch.equal(b.grad, 6 * b.detach()) and a.grad is None


@pytest.mark.only("torch", reason="is about PyTorch's autograd")
def test_torch_without_gradients(fw: Framework, torch: Any) -> None:
    x = fw.array(X)
    total, report = BOTH.compute(x, track_grad_norms=True)
    assert not total.requires_grad and not x.requires_grad
    for mode in (torch.no_grad, torch.inference_mode):
        for given in (fw.array(X), fw.array(X).requires_grad_()):
            with mode():
                total, report = BOTH.compute(given, track_grad_norms=True)
            assert float(total) == 0.5 * L1 + 2 * L2 and not total.requires_grad and given.grad is None
            assert part_of(report, "l2")["grad_norm"] == pytest.approx(NORM2, rel=1e-12)
            assert float(report.total_grad_norm) == pytest.approx(TOTAL_NORM, rel=1e-12)


@pytest.mark.only("torch", reason="is about PyTorch's autograd")
def test_torch_a_model_behind_the_inputs(fw: Framework, torch: Any) -> None:
    """The norms are by the activations, the total's gradient goes on to the parameters."""
    model = torch.nn.Linear(2, 3, dtype=torch.float64)
    reference = torch.autograd.grad(BOTH(model(fw.array(X))), [*model.parameters()])
    activations = model(fw.array(X))
    total, report = BOTH.compute(activations, track_grad_norms=True)
    assert all(p.grad is None for p in model.parameters())
    want = float(torch.linalg.vector_norm(torch.autograd.grad(BOTH(activations), activations, retain_graph=True)[0]))
    assert float(report.total_grad_norm) == pytest.approx(want, rel=1e-12)
    total.backward()
    for p, g in zip(model.parameters(), reference, strict=True):
        assert torch.allclose(p.grad, g, rtol=1e-12)


@pytest.mark.only("torch", reason="is about PyTorch's autograd")
def test_torch_a_penalty_that_is_differentiated_once(fw: Framework, torch: Any) -> None:
    class Once(torch.autograd.Function):  # type: ignore[misc, name-defined]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return (x * x).sum()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, g: Any) -> Any:
            return 2 * g * ctx.saved_tensors[0]

    x = fw.array(X).requires_grad_()
    total, report = Pipeline([Penalty(Once.apply, name="once")]).compute(x, track_grad_norms=True)
    assert part_of(report, "once")["grad_norm"] == pytest.approx(NORM2, rel=1e-12)
    total.backward()
    assert torch.equal(x.grad, 2 * x.detach())


@pytest.mark.only("torch", reason="is about PyTorch's autograd")
def test_torch_gradients_for_norms_have_no_graph_of_their_own(fw: Framework, torch: Any) -> None:
    recorded = []

    def watched(x: Any) -> Any:
        y = 1.0 * x
        y.register_hook(lambda g: recorded.append(torch.is_grad_enabled()))
        return xp.l2(y)

    Pipeline([Penalty(watched)]).compute(fw.array(X).requires_grad_(), track_grad_norms=True)
    assert recorded == [False]


@pytest.mark.only("torch", reason="is about PyTorch's autograd")
def test_torch_functional_transformations(fw: Framework, torch: Any) -> None:
    def total(x: Any) -> Any:
        value, report = BOTH.compute(x, track_grad_norms=True)
        return value, report.total_grad_norm

    gradient, norm = torch.func.grad(total, has_aux=True)(fw.array(X))
    close(fw, gradient, 0.5 * np.sign(X) + 4 * X)
    assert float(norm) == pytest.approx(TOTAL_NORM, rel=1e-12)
    with torch.inference_mode():
        _, report = BOTH.compute(fw.array(X), track_grad_norms=True)
    figures = arrays_of_report(report)
    assert len(figures) > 8 and not any(map(torch._C._functorch.is_functorch_wrapped_tensor, figures))
    values, norms = torch.vmap(total)(fw.array(np.stack([X, X])))
    assert values.shape == (2,) and norms.tolist() == pytest.approx([TOTAL_NORM] * 2, rel=1e-12)


@pytest.mark.only("torch", reason="is about PyTorch's autograd")
def test_torch_backward_of_a_compiled_total(fw: Framework, torch: Any) -> None:
    compiled, _ = fw.compile(lambda x: BOTH.compute(x, track_grad_norms=True))
    x = fw.array(X).requires_grad_()
    total, report = compiled(x)
    assert x.grad is None and float(report.total_grad_norm) == pytest.approx(TOTAL_NORM, rel=1e-12)
    total.backward()
    close(fw, x.grad, 0.5 * np.sign(X) + 4 * X)


@pytest.mark.only("numpy", reason="is about NumPy's scalars")
def test_numpy_scalars_are_inputs_of_numpy(fw: Framework) -> None:
    _, report = Pipeline([Penalty("l2")]).compute(np.float64(-3.0), track_grad_norms=True)
    assert part_of(report, "l2")["grad_norm"] == 6.0
