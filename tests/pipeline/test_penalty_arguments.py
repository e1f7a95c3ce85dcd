"""How a `Penalty` is made: options as keywords, trees, and the errors of arguments in the wrong place."""

from __future__ import annotations

import copy
import inspect
import pickle
from dataclasses import replace
from functools import wraps
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework
from tests.helpers.samples import X, pair
from xpenalties import Penalty, Pipeline, schedules
from xpenalties.trees import Pattern, over_tree


def test_options_as_keywords(fw: Framework) -> None:
    penalty = Penalty("huber", weight=0.5, inputs="a", delta=2, normalizer=4)
    assert penalty == Penalty("huber", weight=0.5, inputs="a", options={"delta": 2.0, "normalizer": 4.0})
    assert penalty == Penalty("huber", weight=0.5, inputs="a", options={"delta": 2.0}, normalizer=4)
    assert type(penalty.options["delta"]) is float
    where = fw.array(X > 0)
    assert float(Pipeline([Penalty("l1", where=where)])(fw.array(X))) == 5.5
    assert float(Pipeline([Penalty(pair, scale=2.0)])(fw.array(X), fw.array(0 * X))) == 15.0
    for again in (
        copy.copy(penalty),
        copy.deepcopy(penalty),
        pickle.loads(pickle.dumps(penalty)),
        replace(penalty, weight=0.5),
        eval(repr(penalty), {"Penalty": Penalty}),
        Pipeline([penalty]).with_weights(huber=0.5).disable("huber").enable("huber")["huber"],
    ):
        assert again == penalty and again.options == {"delta": 2.0, "normalizer": 4.0}
    assert replace(penalty, options={}) == Penalty("huber", weight=0.5, inputs="a")


def test_an_option_that_has_the_name_of_an_argument(fw: Framework) -> None:
    def scaled(x: Any, *, weight: float = 1.0, name: str = "") -> Any:
        return weight * xp.l1(x)

    penalty = Penalty(scaled, name="p", weight=0.5, options={"weight": 3.0, "name": "n"})
    assert float(Pipeline([penalty])(fw.array(X))) == 0.5 * 3.0 * 7.5


def test_the_signature_has_no_argument_that_is_always_refused() -> None:
    kinds = {p.name: p.kind for p in inspect.signature(Penalty).parameters.values()}
    assert [*kinds][:3] == ["fn", "name", "weight"] and [*kinds][-1] == "keywords"
    assert inspect.Parameter.VAR_POSITIONAL not in kinds.values()


def several(*xs: Any, scale: float = 1.0) -> Any:
    return scale * sum(map(xp.l1, xs))


def open_to_any(x: Any, **options: Any) -> Any:
    return xp.l1(x)


@wraps(xp.huber)
def wrapped(x: Any, **options: Any) -> Any:
    return xp.huber(x, **options)


@pytest.mark.parametrize(
    ("args", "keywords", "message"),
    [
        (("l1", 0.1), {}, r"^Penalty: takes one argument by position, `fn`, got 0\.1 too\. Pass weight=0\.1\.$"),
        (("l1", 1, "a"), {}, r"got 1, 'a' too\. Pass weight=1\.$"),
        (("l1", "hidden"), {}, r"got 'hidden' too\. Pass weight=, inputs= or options=\.$"),
        (("l1", True), {}, r"got True too\. Pass weight=, inputs= or options=\.$"),
        (("huber",), {"dleta": 1.0}, r"^Penalty: `dleta` is neither an argument of Penalty nor an option of huber\."),
        (("huber",), {"dleta": 1.0}, r"are delta, reduction, where, weights, normalizer\. Did you mean 'delta'\?$"),
        (("huber",), {"wieght": 1.0}, r"Did you mean 'weight'\?$"),
        (("huber",), {"treee": {}}, r"Did you mean 'tree'\?$"),
        *((("huber",), {key: 1.0}, r"Did you mean 'weight'\?$") for key in ("coef", "coefficient", "strength")),
        (("kl_divergence",), {"mask": "m"}, r"`mask` is neither .* Did you mean 'where'\?$"),
        (("kl_divergence",), {"options": {"mask": "m"}}, r"^kl_divergence: `mask` is not an option.*mean 'where'\?$"),
        (("l1",), {"match": "a"}, r"`match` is neither .* Did you mean tree=\{'match': \.\.\.\}\?$"),
        (("l1",), {"exclude": "a"}, r"Did you mean tree=\{'exclude': \.\.\.\}\?$"),
        ((open_to_any,), {"match": 1}, r"options=\{'match': \.\.\.\}\. Did you mean tree=\{'match': \.\.\.\}\?$"),
        ((over_tree("l1"),), {"match": "a"}, r"`match` is neither .*\. Pass it to over_tree\.$"),
        (("huber",), {"x": 1.0}, r"`x` is neither an argument of Penalty nor an option of huber"),
        (("huber",), {"delta": 1.0, "options": {"delta": 1.0}}, r"^Penalty: `delta` must be passed once, got it as"),
        (("huber",), {"delta": 1.0, "options": None}, r"`options` must be a mapping, got None"),
        ((open_to_any,), {"wieght": 1}, r"^Penalty: `wieght` is not an argument of Penalty, and open_to_any takes any"),
        ((open_to_any,), {"wieght": 1}, r"keyword\. Pass options=\{'wieght': \.\.\.\}\. Did you mean 'weight'\?$"),
        ((pair,), {"scal": 1.0}, r"nor an option of pair. The options are x, y, scale\. Did you mean 'scale'\?$"),
        ((pair,), {"x": 1.0}, r"^penalty 'pair': `x` is not an option of "),
        ((several,), {"options": {"xs": 1.0}}, r"`xs` is not an option of several. The options are scale\.$"),
        ((several,), {"inputs": ("a", "b"), "options": {"scal": 1.0}}, r"The options are scale\. Did you mean 'scale'"),
        ((over_tree("huber"),), {"delta": 2.0}, r"^penalty 'huber': options must be passed to over_tree,"),
        ((over_tree("huber"),), {"tree": {}}, r"^Penalty: `tree` must come with a penalty of arrays, got huber_over"),
        (("l1",), {"tree": "weight$"}, r"^Penalty: `tree` must be a mapping, got 'weight\$'\. Pass \{'match': patt"),
        (("l1",), {"tree": {"mach": "a"}}, r"^Penalty: `tree` must have the keys match and exclude only, got 'mach'\."),
        (("gradient_penalty",), {"tree": {}}, r"^over_tree: `fn` must take arrays, got 'gradient_penalty'"),
        (("kl_divergence",), {"where": "mask"}, r"^kl_divergence: `where` must be an array, got 'mask'\. If that is"),
        (("kl_divergence",), {"where": "mask"}, r"pass inputs=\{'log_p': \.\.\., 'log_q': \.\.\., 'where': 'mask'\}"),
        (("l1",), {"normalizer": "tokens"}, r"inputs=\{'x': \.\.\., 'normalizer': 'tokens'\}\.$"),
    ],
)  # fmt: skip
def test_arguments_in_the_wrong_place(args: tuple[Any, ...], keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Penalty(*args, **keywords)


def test_keywords_of_a_wrapped_function(fw: Framework) -> None:
    """Its signature is that of the function inside."""
    assert float(Pipeline([Penalty(wrapped, delta=1.0)])(fw.array(np.asarray([3.0])))) == 2.5


def test_a_tree(fw: Framework) -> None:
    params = {"a": {"weight": fw.array(X)}, "bias": fw.array(np.asarray([10.0]))}
    penalty = Penalty("huber", tree={"match": "weight$", "exclude": Pattern("b.*", optional=True)}, delta=1.0, weight=2)
    same = over_tree("huber", match="weight$", exclude=Pattern("b.*", optional=True), options={"delta": 1.0})
    assert penalty == Penalty(same, weight=2) and penalty.name == "huber" and penalty.options == {}
    assert float(Pipeline([penalty])(params)) == float(2 * xp.huber(fw.array(X), delta=1.0))
    assert float(Pipeline([Penalty("l1", tree={})])(params)) == 17.5
    assert Penalty("l1", name="decay", tree={}).name == "decay"
    assert replace(penalty, weight=2.0) == penalty == pickle.loads(pickle.dumps(penalty))
    config = Pipeline([penalty]).to_config()
    assert Pipeline.from_config(config) == Pipeline([penalty])
    assert config["penalties"][0]["tree"]["match"] == "weight$" and "name" not in config["penalties"][0]


@pytest.mark.usefixtures("custom_names")
@pytest.mark.parametrize("name", ["l1", "a pair"])
def test_the_default_name_over_a_tree_is_that_of_the_penalty(name: str) -> None:
    pipe = Pipeline([Penalty(name, tree={"match": "a"}, weight=2)])
    assert [penalty.name for penalty in pipe] == [name]
    assert [penalty.weight for penalty in pipe.with_weights({name: 3})] == [3]
    entry = {"penalty": name, "tree": {"match": "a"}, "weight": 2.0}
    by_name = {"version": 1, "penalties": {name: {"tree": {"match": "a"}, "weight": 2}}}
    assert pipe.to_config()["penalties"] == [entry]
    assert Pipeline.from_config([entry]) == Pipeline.from_config(by_name) == pipe


def test_the_default_name_of_a_function_over_a_tree() -> None:
    assert Penalty(over_tree("l1")).name == "l1" and Penalty(over_tree(pair)).name == "pair"
    assert Penalty(pair, tree={}).name == "pair"
    assert repr(Penalty("l1", tree={"match": "a"})) == "Penalty(over_tree('l1', match='a'))"
    pipe = Pipeline([Penalty(over_tree("l1"), inputs="params", name="l1_over_tree")])
    assert pipe.to_config()["penalties"][0]["name"] == "l1_over_tree"
    assert Pipeline.from_config(pipe.to_config()) == pipe
    with pytest.raises(ValueError, match=r"names must be unique, got 'l1' twice\. Give one a `name`"):
        Pipeline([Penalty("l1", inputs="x"), Penalty("l1", inputs="params", tree={})])


def test_trees_in_place_of_arrays(fw: Framework) -> None:
    """The error names what sums over trees, directly and in a pipeline."""
    x = fw.array(X)
    remedy = r"use trees\.over_tree\('l1'\), or in a pipeline Penalty\('l1', tree=\{\}\)\."
    for tree in ([x], (x,), iter([x]), {"hidden": {"deep": x}}):
        with pytest.raises(TypeError, match=rf"^l1: `x` must be an array, got .*{remedy}"):
            xp.l1(tree)  # type: ignore[type-var]
    with pytest.raises(TypeError, match=rf"{remedy} To take one of them, pass inputs='hidden' to the Penalty\."):
        Pipeline({"l1": 1.0})({"hidden": x})
    with pytest.raises(TypeError, match=rf"{remedy}\n"):
        Pipeline([Penalty("l1", inputs="params")])({"params": [x]})
    with pytest.raises(TypeError, match=r"^kl_divergence: `log_q` must be an array.* trees\.over_tree\('kl_dive"):
        xp.kl_divergence(x, [x])  # type: ignore[type-var]
    with pytest.raises(TypeError, match=r"^gradient_penalty: `x` must be an array, got builtins\.list\. Pass a"):
        xp.gradient_penalty(xp.l1, [x])  # type: ignore[type-var]
    for other in ([1.0], [], {}, "text", iter([])):
        with pytest.raises(TypeError, match=r"^l1: `x` must be an array, got builtins\.\w+\. Pass a NumPy, CuPy,"):
            xp.l1(other)  # type: ignore[type-var]


@pytest.mark.only("torch", reason="is about PyTorch's modules")
def test_a_module_in_place_of_an_array(fw: Framework) -> None:
    model = fw.module.nn.Linear(2, 3)
    for params in (model, model.parameters(), list(model.parameters())):
        with pytest.raises(TypeError, match=r"^l1: `x` must be an array, got .* use trees\.over_tree\('l1'\), or in"):
            xp.l1(params)


def test_how_many_inputs(fw: Framework) -> None:
    x = fw.array(X)
    for penalty, given, message in (
        ("entropy", (x, x), r"takes 1 input \(log_p\), but the pipeline got 2 inputs\. Choose with inputs="),
        ("entropy", (x, x), r".* such as inputs=lambda x0, x1: x0\."),
        ("consistency", (x, x, x), r"takes 2 inputs \(a, b\), .* 3 inputs\. .* inputs=lambda x0, x1, x2: \(x0, x1\)\."),
        ("consistency", (x,), r"takes 2 inputs \(a, b\), but the pipeline got 1 input\. Pass 2\."),
        ("consistency", ({"one": x, "two": x},), r".*1 input\. Name them with inputs=. The names are 'one'"),
        ("gradient_penalty", (x,), r"takes 2 inputs \(fn, x\), but the pipeline got 1 input\. Pass 2\."),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=rf"^penalty '{penalty}': {message}"):
            Pipeline({penalty: 1.0})(*given)
        with pytest.raises(TypeError, match=rf"^penalty '{penalty}': {message}"):
            xp.RegularizedLoss(lambda *inputs: 0.0, Pipeline({penalty: 1.0}))(*given)


def test_equality(fw: Framework) -> None:
    weight, mask = fw.array(np.asarray(0.5)), fw.array(X > 0)

    def made(**given: Any) -> Penalty:
        return Penalty("huber", **{"weight": 0.5, "inputs": ["a"], **given})

    def inner(**given: Any) -> Penalty:
        return Penalty(Pipeline([made(**given)]), name="p", inputs={"a": "b"})

    different = [
        made(),
        made(weight=1.0),
        made(weight=weight),
        made(weight=fw.array(np.asarray(0.5))),
        made(weight=schedules.linear(0.0, 1.0, steps=3)),
        made(weight=schedules.linear(0.0, 1.0, steps=4)),
        made(inputs="a"),
        made(inputs={"x": "a"}),
        made(inputs={"x": "a", "where": "m"}),
        made(delta=2.0),
        made(where=mask),
        made(name="other"),
        made(tree={}),
        made(tree={"match": "a"}),
        made(enabled=False),
        made(differentiable=False),
        made(every=2),
        made(timeout=2.0),
        made(on_error="drop"),
        Penalty("l2", name="huber", weight=0.5, inputs=["a"]),
    ]
    for i, one in enumerate(different):
        assert [one == other for other in different] == [i == j for j in range(len(different))]
    again = [
        (made(), made(inputs=("a",))),
        (made(weight=weight), made(weight=weight)),
        (made(weight=schedules.linear(0.0, 1.0, steps=3)), made(weight=schedules.linear(0.0, 1.0, steps=3))),
        (made(inputs={"where": "m", "x": "a"}), made(inputs={"x": "a", "where": "m"})),
        (made(where=mask), made(options={"where": mask})),
        (made(tree={"match": ["a"]}), made(tree={"match": Pattern("a")})),
        *((nested(), nested()) for nested in (inner, lambda: Penalty(xp.RegularizedLoss(xp.l1, inner().fn), name="p"))),
    ]
    assert inner() != inner(delta=2.0) != inner(weight=1.0) != inner(weight=weight)
    assert pickle.loads(pickle.dumps(inner())) == copy.deepcopy(inner()) == inner()
    for one, other in again:
        assert one == other and hash(one) == hash(other) and len({one, other}) == 1
        pipes = Pipeline([one], name="p"), Pipeline([other], name="p")
        assert pipes[0] == pipes[1] and hash(pipes[0]) == hash(pipes[1])
    assert made() != "huber" and Pipeline([made()]) != [made()]
    assert Pipeline([made()]) != Pipeline([made()], name="p")
    assert Pipeline({"l1": 1.0, "l2": 1.0}) != Pipeline({"l2": 1.0, "l1": 1.0})


@pytest.mark.only("jax", reason="is about JAX's static arguments")
def test_equal_pipelines_as_static_arguments_are_one_program(fw: Framework) -> None:
    traces = []

    def total(pipe: Pipeline, x: Any) -> Any:
        traces.append(pipe)
        return pipe(x)

    run = fw.module.jit(total, static_argnums=0)
    for weight in (0.5, 0.5, 0.25, 0.5):
        assert float(run(Pipeline([Penalty("huber", weight=weight, delta=1.0)]), fw.array(np.asarray([3.0])))) == (
            2.5 * weight
        )
    assert len(traces) == 2


def test_two_pipelines_are_added(fw: Framework) -> None:
    one, other = Pipeline({"l1": 0.5}, name="one"), Pipeline({"l2": 2.0, "huber": 1.0}, name="other")
    for both in (one + other, one | other):
        assert [p.name for p in both] == ["l1", "l2", "huber"] and both.name == "one"
        assert float(both(fw.array(X))) == float(one(fw.array(X))) + float(other(fw.array(X)))
    with pytest.raises(ValueError, match=r"^Pipeline: names must be unique, got 'l1' twice\. Give one a `name`\.$"):
        one + Pipeline({"l1": 1.0})
    with pytest.raises(TypeError, match="unsupported operand"):
        one + 2.0  # type: ignore[operator]
    with pytest.raises(TypeError, match="unsupported operand"):
        one | {"l2": 1.0}  # type: ignore[operator]
