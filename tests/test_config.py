"""Configurations: round trips, files, names of one's own, errors that say where, and the schema beside the loader."""

from __future__ import annotations

import functools
import inspect
import json
import keyword
import math
import re
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xpenalties as xp
from conftest import SELECTED, selected
from harness import Framework, close
from samples import L1, X, mine, pair
from test_examples import example
from xpenalties import Penalty, Pipeline, config_schema, register, schedules
from xpenalties._pipeline import Static
from xpenalties._register import OWN, RESERVED
from xpenalties._schedule import MAKERS
from xpenalties._spec import REGISTRY
from xpenalties.trees import over_tree

EXAMPLE = Path(__file__).parent.parent / "examples" / "quickstart.toml"


def halving(step: Any) -> Any:
    return 0.5**step


def both(data: Any) -> Any:
    return data["a"], data["b"]


def anything(x: Any, **options: Any) -> Any:
    return xp.l1(x)


def scaled(scale: float) -> Any:
    def inner(x: Any) -> Any:
        return scale * xp.l1(x)

    return inner


class Method:
    def penalty(self, x: Any) -> Any:
        return xp.l1(x)


@pytest.fixture(autouse=True)
def names() -> Iterator[None]:
    """Some of one's own; what a test registers is forgotten."""
    before = dict(OWN)
    for name, fn in {"mine": mine, "a pair": pair, "halving": halving, "both": both, "anything": anything}.items():
        register(name, fn)
    yield
    OWN.clear()
    OWN.update(before)


def same(a: Pipeline, b: Pipeline) -> bool:
    """To a compiled function, and in the weights that it takes."""
    return Static(a) == Static(b) and [p.weight for p in a] == [p.weight for p in b] and repr(a) == repr(b)


# round trips

number = st.floats(0, 1e300) | st.integers(0, 2**60).map(float)
count, step = st.integers(1, 2**62), st.integers(0, 2**62)
flat = st.one_of(
    st.builds(schedules.constant, number),
    st.builds(schedules.linear, number, number, steps=count, begin=step),
    st.builds(schedules.exponential, number, rate=st.floats(1e-9, 1), steps=count, begin=step, staircase=st.booleans()),
    st.builds(schedules.exponential, st.floats(1, 9), rate=st.floats(1.1, 3), end=st.floats(9, 10)),
    st.builds(schedules.cosine, number, number, steps=count, begin=step),
    st.builds(
        schedules.cyclic, number, number, period=count, rise=st.floats(1e-9, 1), then=st.sampled_from(["fall", "hold"]),
        shape=st.sampled_from(["linear", "cosine"]), begin=step,
    ),
    st.dictionaries(count, number, max_size=3).map(
        lambda found: schedules.piecewise(sorted({0: 0.5, **found}.items()), interpolate=True)
    ),
    st.just(halving),
)  # fmt: skip
schedule = st.recursive(
    flat,
    lambda inner: (
        st.builds(schedules.warmup, inner | number, steps=count, start=number)
        | st.builds(
            lambda first, found: schedules.piecewise(sorted({**found, 0: first}.items(), key=lambda pair: pair[0])),
            inner, st.dictionaries(count, inner | number, max_size=3),
        )
    ),
    max_leaves=5,
)  # fmt: skip
text = st.text(st.characters(exclude_categories=["Cs"]))
data = st.recursive(
    st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=4,
)
what = st.one_of(
    st.sampled_from([("l1", {}), ("a pair", {}), ("mine", {})]),
    st.tuples(st.just("huber"), st.fixed_dictionaries({}, optional={"delta": st.floats(1e-9, 9), "normalizer": count})),
    st.tuples(st.just("l2"), st.fixed_dictionaries({}, optional={"center": st.just("mean") | number})),
    st.tuples(
        st.just("kl_divergence"),
        st.fixed_dictionaries(
            {},
            optional={
                "direction": st.sampled_from(["forward", "reverse", "symmetric"]),
                "axis": st.integers(-9, 9),
                "from_logits": st.booleans(),
                "reduction": st.sampled_from(["sum", "mean"]),
            },
        ),
    ),
    st.tuples(st.just("anything"), st.dictionaries(text, data, max_size=3)),
)
inputs = st.one_of(
    st.none(), text, st.lists(text, max_size=3).map(tuple), st.just(both),
    st.lists(text, min_size=1, max_size=3).map(lambda paths: attrgetter(*paths)),
)  # fmt: skip
pattern = st.lists(text.map(re.escape), min_size=1, max_size=2)
tree = st.none() | st.fixed_dictionaries({}, optional={"match": pattern, "exclude": pattern})


def built(fn: tuple[str, dict[str, Any]], tree: dict[str, Any] | None, **more: Any) -> Penalty:
    name, options = fn
    if tree is None:
        return Penalty(name, options=options, **more)
    return Penalty(over_tree(name, **tree, options=options), **more)


penalty = st.builds(
    built,
    what,
    tree,
    weight=number | schedule,
    inputs=inputs,
    differentiable=st.booleans(),
    enabled=st.booleans(),
    every=count,
    timeout=st.none() | st.floats(1e-9, 1e9),
    on_error=st.sampled_from([None, "raise", "drop"]),
)


def named(found: list[tuple[str, Penalty]], name: str) -> Pipeline:
    return Pipeline([replace(each, name=key or each.name) for key, each in found], name=name)


key = text.filter(lambda name: not name.startswith("<") and name not in RESERVED)
several = st.lists(st.tuples(key, penalty), max_size=3, unique_by=lambda each: each[0] or each[1].name)
pipelines = st.builds(named, several, text)


@settings(max_examples=60)
@given(pipelines)
def test_round_trip(pipe: Pipeline) -> None:
    config = pipe.to_config()
    assert same(Pipeline.from_config(config), pipe) and Pipeline.from_config(config).to_config() == config
    assert VALIDATOR().is_valid(config)
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".json", ".toml"):
            path = Path(folder) / f"pipeline{suffix}"
            assert pipe.to_config(path) == config == pipe.to_config(str(path))
            assert same(Pipeline.from_config(path), pipe)
        assert tomllib.loads(path.read_bytes().decode()) == config


def test_the_data_is_short() -> None:
    pipe = Pipeline(
        [
            Penalty("kl_divergence", inputs=("student", "teacher"), weight=0.1, options={"direction": "reverse"}),
            Penalty("l1", name="sparse", weight=schedules.warmup(halving, steps=10), every=4, on_error="drop"),
            Penalty(mine, inputs=attrgetter("batch.x"), differentiable=False, enabled=False, timeout=2),
            Penalty(pair, inputs=both, options={"scale": 2}),
        ],
        name="training",
    )
    assert pipe.to_config() == {
        "version": 1,
        "name": "training",
        "penalties": [
            {
                "penalty": "kl_divergence",
                "weight": 0.1,
                "inputs": ["student", "teacher"],
                "options": {"direction": "reverse"},
            },
            {
                "penalty": "l1",
                "name": "sparse",
                "weight": {"schedule": "warmup", "after": {"schedule": "halving"}, "steps": 10},
                "every": 4,
                "on_error": "drop",
            },
            {
                "penalty": "mine",
                "inputs": {"attributes": "batch.x"},
                "differentiable": False,
                "enabled": False,
                "timeout": 2.0,
            },
            {"penalty": "a pair", "name": "pair", "inputs": {"function": "both"}, "options": {"scale": 2}},
        ],
    }
    assert Pipeline().to_config() == {"version": 1, "penalties": []}


def test_names_may_be_keys() -> None:
    schedule = {"schedule": "cosine", "start": 0.1, "steps": 10}
    by_name = {"l1": 0.5, "l2": schedule, "huber": {}, "robust": {"penalty": "huber", "options": {"delta": 2.0}}}
    want = [
        Penalty("l1", weight=0.5),
        Penalty("l2", weight=schedules.cosine(0.1, steps=10)),
        Penalty("huber"),
        Penalty("huber", name="robust", options={"delta": 2.0}),
    ]
    assert same(Pipeline.from_config({"version": 1, "name": "p", "penalties": by_name}), Pipeline(want, name="p"))


def test_a_list_is_the_penalties() -> None:
    assert same(Pipeline.from_config([{"penalty": "l1", "weight": 0.5}]), Pipeline({"l1": 0.5}))
    assert same(Pipeline.from_config([]), Pipeline())


def test_what_is_not_given_is_not_said() -> None:
    pipe = Pipeline([Penalty("l2", options={"clip": None, "where": None}), Penalty(anything, options={"a": None})])
    assert pipe.to_config()["penalties"] == [{"penalty": "l2"}, {"penalty": "anything", "options": {"a": None}}]
    nothing = {"weight": 1, "inputs": None, "timeout": None, "on_error": None, "options": {"clip": None}}
    assert Pipeline.from_config([{"penalty": "l2", **nothing}])["l2"].inputs is None


def test_lists_are_tuples_to_functions() -> None:
    options = {"axes": [0, [1, 2]], "more": {"deep": [1.5]}}
    (got,) = Pipeline.from_config([{"penalty": "anything", "options": options}])
    assert got.options == {"axes": (0, (1, 2)), "more": {"deep": (1.5,)}}
    assert Pipeline([got]).to_config()["penalties"][0]["options"] == options


def test_arrays_become_numbers(fw: Framework) -> None:
    scalar = fw.array(np.asarray(0.5, np.float32))
    options = {"a": scalar, "n": fw.array(np.asarray(3)), "on": fw.array(np.asarray(True)), "numpy": np.float32(2)}
    pipe = Pipeline(
        [
            Penalty(anything, weight=scalar, options=options),
            Penalty("l2", options={"normalizer": scalar, "center": scalar}),
        ]
    )
    first, second = pipe.to_config()["penalties"]
    assert first == {"penalty": "anything", "weight": 0.5, "options": {"a": 0.5, "n": 3, "on": True, "numpy": 2.0}}
    assert [type(value) for value in first["options"].values()] == [float, int, bool, float]
    assert second == {"penalty": "l2", "options": {"normalizer": 0.5, "center": 0.5}}
    x = fw.array(X)
    assert float(Pipeline.from_config(pipe.to_config())(x)) == pytest.approx(float(pipe(x)))


def test_a_tree_from_data(fw: Framework) -> None:
    config = [{"penalty": "l2", "tree": {"match": "kernel", "exclude": ["0", "1"]}, "options": {"clip": 0.5}}]
    pipe = Pipeline.from_config(config)
    assert pipe.to_config()["penalties"] == config
    tree = [{"kernel": fw.array(np.ones(2))}] * 3
    close(fw, pipe(tree), np.asarray(0.5))
    by_name = Pipeline.from_config({"version": 1, "penalties": {"l2": {"tree": {}, "weight": 2.0}}})
    close(fw, by_name(tree), np.asarray(12.0))
    assert by_name.to_config()["penalties"] == [{"penalty": "l2", "tree": {}, "name": "l2", "weight": 2.0}]


def test_a_learned_weight_becomes_a_number() -> None:
    torch = selected("torch", reason="is about a weight that requires a gradient")
    pipe = Pipeline([Penalty("l1", weight=torch.tensor(0.5, requires_grad=True))])
    assert pipe.to_config()["penalties"] == [{"penalty": "l1", "weight": 0.5}]


def test_what_toml_cannot_hold(tmp_path: Path) -> None:
    pipe = Pipeline([Penalty("anything", options={"a": None})])
    with pytest.raises(
        TypeError, match=r"^Pipeline\.to_config: TOML cannot hold this, .*NoneType.*\. Write a \.json file"
    ):
        pipe.to_config(tmp_path / "a.toml")
    assert not list(tmp_path.iterdir())
    assert pipe.to_config(tmp_path / "a.json")["penalties"][0]["options"] == {"a": None}


def test_a_pipeline_from_data_computes(fw: Framework) -> None:
    config = [
        {"penalty": "l1", "name": "of a", "inputs": "a", "weight": {"schedule": "halving"}},
        {"penalty": "mine", "inputs": ["a"], "weight": 2},
        {"penalty": "a pair", "inputs": {"function": "both"}, "options": {"scale": 0.5}},
    ]
    x = fw.array(X)
    total = Pipeline.from_config(config)({"a": x, "b": 0 * x}, step=1)
    assert float(total) == 0.5 * L1 + 6 * L1 + 0.5 * L1


def test_a_pipeline_read_again_is_the_same_to_jax(fw: Framework) -> None:
    if fw.name != "jax":
        pytest.skip("is about JAX's pytrees")
    schedule = {"schedule": "cosine", "start": 1.0, "steps": 9}
    config = [{"penalty": "l1", "weight": schedule, "inputs": {"attributes": "T"}}]
    traced = []

    @fw.module.jit
    def total(pipe: Pipeline, x: Any, step: Any) -> Any:
        traced.append(1)
        return pipe(x, step=step)

    for step in range(3):
        total(Pipeline.from_config(config), fw.array(X), step)
    assert len(traced) == 1


@pytest.mark.mixed
@pytest.mark.skipif("numpy" not in SELECTED, reason="the quickstart's default backend is NumPy")
def test_the_quickstart_from_its_file() -> None:
    with example("quickstart"):
        quickstart = sys.modules["quickstart"]
        register("hidden_weights", quickstart.PENALTIES["orthogonality"].inputs)
        pipe = Pipeline.from_config(EXAMPLE)
        assert [p.name for p in pipe] == [p.name for p in quickstart.PENALTIES]
        data, _ = quickstart.digits(np.asarray)
        params = quickstart.initial(np.random.default_rng(0), np.asarray)
        forward = quickstart.Forward(params, quickstart.Batch(**{name: x[:64] for name, x in data.items()}))
        for step in (0, 7, 30):
            total, report = pipe.compute(forward, step=step)
            want, wanted = quickstart.PENALTIES.compute(forward, step=step)
            assert float(total) == float(want) and report.to_dict() == wanted.to_dict()
        assert same(Pipeline.from_config(pipe.to_config()), pipe)
        assert VALIDATOR().is_valid(tomllib.loads(EXAMPLE.read_text()))


# names of one's own


def test_register_is_a_function_and_a_decorator() -> None:
    @register("decorated")
    def fn(x: Any) -> Any:
        return xp.l1(x)

    assert register("again", fn) is fn and register("again", fn) is fn
    assert Penalty("decorated").fn is fn and Penalty("decorated").name == "decorated" and Penalty(fn).name == "fn"
    assert Pipeline({"again": 0.5})["again"].weight == 0.5
    assert register("unnamed", lambda x: 2 * xp.l1(x)) is Penalty("unnamed").fn
    assert repr(Penalty("unnamed", name="u")) == "Penalty(<lambda>, name='u')"


def test_methods_and_partials_have_names_too() -> None:
    method = Method()
    register("method", method.penalty)
    register("method", method.penalty)
    half = register("half", functools.partial(pair, scale=0.5))
    config = Pipeline([Penalty(method.penalty, name="m"), Penalty(half, name="h")]).to_config()
    assert [each["penalty"] for each in config["penalties"]] == ["method", "half"]


def test_a_penalty_of_the_package_keeps_its_own_name() -> None:
    register("lasso", xp.l1)
    assert Pipeline([Penalty("lasso"), Penalty(xp.l1)]).to_config()["penalties"] == [
        {"penalty": "l1", "name": "lasso"},
        {"penalty": "l1"},
    ]
    assert set(REGISTRY) == {function.__name__ for function in REGISTRY.values()} and "lasso" not in REGISTRY


def test_what_remembers_is_not_defined_again() -> None:
    def wrapped(factor: float) -> Any:
        @functools.wraps(halving)
        def inner(x: Any) -> Any:
            return factor * halving(x)

        return inner

    class Scaled:
        def penalty(self, x: Any) -> Any:
            return x

    for first, second in ((wrapped(1), wrapped(2)), (Scaled().penalty, Scaled().penalty)):
        register("theirs", first)
        with pytest.raises(ValueError, match="`name` must be new, got 'theirs'"):
            register("theirs", second)
        OWN.pop("theirs")


def test_a_function_may_be_defined_again() -> None:
    code = "@register('cell')\ndef cell(x): return x"
    space: dict[str, Any] = {"register": register, "__name__": "notebook"}
    exec(code, space)
    first = space["cell"]
    exec(code, space)
    assert Penalty("cell").fn is space["cell"] is not first


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: register(mine), TypeError, r"^register: `name` must be a string, got <function mine.* Pass it before"),
        (
            lambda: register(""),
            ValueError,
            r"^register: `name` must not be empty, begin with <, nor one of this package's, got ''",
        ),
        (lambda: register("l1", mine), ValueError, r"nor one of this package's, got 'l1'\. Pass another\.$"),
        (lambda: register("linear", mine), ValueError, r"nor one of this package's, got 'linear'"),
        (lambda: register("three", 3), TypeError, r"^register: `fn` must be callable, got int\. Pass a function\.$"),
        (lambda: register("mine", pair), ValueError, r"^register: `name` must be new, got 'mine', which is <function"),
        (lambda: register("mine")(lambda x: x), ValueError, r"must be new, got 'mine'.* Pass another\.$"),
        (
            lambda: [register("inner", scaled(2)), register("inner", scaled(3))],
            ValueError,
            r"must be new, got 'inner', which is",
        ),
        (lambda: Penalty("mnie"), ValueError, r"`fn` must be a callable or one of .*, mine, .*Did you mean 'mine'"),
    ],
)
def test_register_refuses(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


# errors of from_config


def entry(**more: Any) -> Any:
    return [{"penalty": "l1", **more}]


def weight(name: str, **more: Any) -> Any:
    return entry(weight={"schedule": name, **more})


LINEAR = {"start": 0.0, "end": 1.0, "steps": 10}
REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "no table": (3, TypeError, r"^from_config: must be a table, got 3\.$"),
    "no version": ({"penalties": []}, ValueError, r"^from_config: `version` is missing\. Add version 1\.$"),
    "version": ({"version": 2}, ValueError, r"^from_config: `version` must be 1, the only one that is read, got 2\.$"),
    "version true": ({"version": True, "penalties": []}, ValueError, r"`version` must be 1, .*, got True"),
    "no penalties": ({"version": 1}, ValueError, r"^from_config: `penalties` is missing\. Add it\.$"),
    "unknown": (
        {"version": 1, "penaltys": []},
        ValueError,
        r"^from_config: unknown key 'penaltys', the keys are \$schema, .*\. Did you mean 'penalties'\?$",
    ),
    "$schema": ({"version": 1, "$schema": 3, "penalties": []}, TypeError, r"^from_config: \$schema: must be a string"),
    "name": ({"version": 1, "name": 3, "penalties": []}, TypeError, r"^from_config: name: must be a string, got 3"),
    "penalties": ({"version": 1, "penalties": 3}, TypeError, r"penalties: must be a list or a table of penalties"),
    "penalty no table": ([3], TypeError, r"^from_config: penalties\[0\]: must be a table, got 3"),
    "no penalty": ([{"weight": 1}], ValueError, r"^from_config: penalties\[0\]: `penalty` is missing"),
    "penalty": (entry(penalty=3), TypeError, r"penalties\[0\]\.penalty: must be a string, got 3"),
    "penalty unknown": (
        entry(penalty="hubr"),
        ValueError,
        r"penalties\[0\]\.penalty: no penalty is named 'hubr', there are .*\. Did you mean 'huber'\?$",
    ),
    "penalty of no one": (entry(penalty="?"), ValueError, r"One of your own must be registered first, with `register`"),
    "key": (entry(wieght=1), ValueError, r"penalties\[0\]: unknown key 'wieght', .*Did you mean 'weight'"),
    "empty name": (entry(name=""), ValueError, r"penalties\[0\]\.name: must not be empty\. Leave it out"),
    "a report's name": (entry(name="base_loss"), ValueError, r"penalties\[0\]: Penalty: `name` must be a string other"),
    "names": (entry() + entry(), ValueError, r"^from_config: Pipeline: names must be unique, got 'l1' twice"),
    "weight": (entry(weight=-1), ValueError, r"penalties\[0\]\.weight: `weight` must be in \[0, inf\), got -1\.0"),
    "weight text": (entry(weight="1"), TypeError, r"`weight` must be a number in \[0, inf\), got str"),
    "weight nan": (entry(weight=math.nan), ValueError, r"`weight` must be in \[0, inf\), got nan"),
    "weight callable": (entry(weight=halving), TypeError, r"`weight` must be a number in \[0, inf\), got function"),
    "weight too long": (entry(weight=10**400), ValueError, r"`weight` must be in \[0, inf\), got inf"),
    "weight too short": (entry(weight=-(10**400)), ValueError, r"`weight` must be in \[0, inf\), got -inf"),
    "no schedule": (
        entry(weight={"shedule": "linear"}),
        ValueError,
        r"weight: a table is a schedule and must have the key `schedule`, got 'shedule'\. Did you mean 'schedule'\?$",
    ),
    "empty schedule": (entry(weight={}), ValueError, r"must have the key `schedule`, got none\. Pieces are a list of"),
    "schedule": (weight("cosin"), ValueError, r"weight\.schedule: no schedule is named 'cosin', .*mean 'cosine'"),
    "schedule 3": (weight(3), TypeError, r"weight\.schedule: must be a string, got 3"),  # type: ignore[arg-type]
    "argument": (weight("linear", ends=1), ValueError, r"weight: unknown key 'ends', .*Did you mean 'end'"),
    "arguments": (weight("linear", start=1), TypeError, r"weight: linear: missing a required argument: 'end'"),
    "argument's value": (weight("linear", **LINEAR | {"steps": 0}), ValueError, r"weight: linear: `steps` must be 1"),
    "argument nan": (weight("linear", **LINEAR | {"end": math.nan}), ValueError, r"weight\.end: must be finite, got"),
    "argument callable": (weight("warmup", after=halving, steps=1), TypeError, r"weight\.after: must be a number, a"),
    "own schedule": (weight("halving", rate=1), ValueError, r"weight: unknown key 'rate', the keys are schedule\."),
    "deep schedule": (
        weight("piecewise", pieces=[[0, 1.0], [3, {"schedule": "linear", **LINEAR, "begn": 1}]]),
        ValueError,
        r"penalties\[0\]\.weight\.pieces\[1\]\[1\]: unknown key 'begn', .*Did you mean 'begin'",
    ),
    "pieces": (
        weight("piecewise", pieces={"0": 1.0}),
        ValueError,
        r"weight\.pieces: a table is a schedule .*, got '0'\. Pieces are a list of pairs\.$",
    ),
    "inputs": (entry(inputs=3), TypeError, r"penalties\[0\]\.inputs: must be a table, got 3"),
    "inputs of 3": (entry(inputs=["a", 3]), TypeError, r"inputs\[1\]: must be a string, got 3"),
    "inputs callable": (entry(inputs=both), TypeError, r"inputs: must be a table, got <function both"),
    "inputs' key": (entry(inputs={"attribute": "a"}), ValueError, r"inputs: unknown key 'attribute', .*'attributes'"),
    "inputs of nothing": (entry(inputs={}), ValueError, r"must have one key, `attributes` or `function`, got 0"),
    "inputs twice": (entry(inputs={"attributes": "a", "function": "both"}), ValueError, r"must have one key, .* got 2"),
    "function": (entry(inputs={"function": "boht"}), ValueError, r"function: no function is named 'boht', .*'both'"),
    "function 3": (entry(inputs={"function": 3}), TypeError, r"inputs\.function: must be a string, got 3"),
    "attributes": (entry(inputs={"attributes": []}), ValueError, r"inputs\.attributes: must not be empty\. Name one"),
    "attributes 3": (entry(inputs={"attributes": ["a", 3]}), TypeError, r"inputs\.attributes: must be a string, got 3"),
    "options": (entry(options=[]), TypeError, r"penalties\[0\]\.options: must be a table, got \[\]"),
    "option": (
        entry(penalty="kl_divergence", options={"dirction": "reverse"}),
        ValueError,
        r"penalties\[0\]\.options: unknown key 'dirction', the keys are direction, .*Did you mean 'direction'\?$",
    ),
    "where": (entry(options={"where": True}), ValueError, r"options: unknown key 'where', the keys are reduction, n"),
    "option's value": (
        entry(penalty="huber", options={"delta": -1}),
        ValueError,
        r"^from_config: penalties\[0\]: huber: `delta` must be in \(0, inf\), got -1\.0",
    ),
    "option of a kind": (entry(penalty="l2", options={"center": [1]}), TypeError, r"options\.center: must be a numb"),
    "own option": (entry(penalty="a pair", options={"scal": 1}), TypeError, r"\[0\]: penalty 'a pair': `scal` is not"),
    "own option of a kind": (
        entry(penalty="anything", options={"a": [{"b": both}]}),
        TypeError,
        r"penalties\[0\]\.options\.a\[0\]\.b: must be a number, a string or a boolean, got <function both",
    ),
    "own option's key": (entry(penalty="anything", options={3: 1}), TypeError, r"options: must be a string, got 3"),
    "own option inf": (entry(penalty="anything", options={"a": math.inf}), ValueError, r"options\.a: must be finite"),
    "tree": (entry(tree=True), TypeError, r"penalties\[0\]\.tree: must be a table, got True"),
    "tree's key": (entry(tree={"mach": "a"}), ValueError, r"\.tree: unknown key 'mach', the keys are match, exclude\."),
    "pattern": (entry(tree={"match": "("}), ValueError, r"\.tree: over_tree: `match` must be a regular expression, g"),
    "no pattern": (entry(tree={"exclude": []}), ValueError, r"\.tree: over_tree: `exclude` must have a pattern"),
    "pattern 3": (entry(tree={"match": ["a", 3]}), TypeError, r"\.tree\.match\[1\]: must be a string, got 3"),
    "tree of functions": (
        entry(penalty="gradient_penalty", tree={}),
        TypeError,
        r"\.tree: over_tree: `fn` must take arrays, got 'gradient_penalty'",
    ),
    "tree's option": (
        entry(penalty="huber", tree={}, options={"delta": -1}),
        ValueError,
        r"penalties\[0\]\.tree: huber: `delta` must be in",
    ),
    "every": (entry(every=0), ValueError, r"penalties\[0\]: Penalty: `every` must be 1 at least, got 0"),
    "enabled": (entry(enabled=1), TypeError, r"penalties\[0\]: Penalty: `enabled` must be True or False, got 1"),
    "on_error": (entry(on_error="dropp"), ValueError, r"penalties\[0\]: .*got 'dropp'\. Did you mean 'drop'"),
    "by name": ({"version": 1, "penalties": {"l1": {"wieght": 1}}}, ValueError, r"from_config: penalties\.l1: unknown"),
    "by name, name": ({"version": 1, "penalties": {"l1": {"name": "a"}}}, ValueError, r"\.l1: unknown key 'name'"),
    "by name, empty": ({"version": 1, "penalties": {"": {"penalty": "l1"}}}, ValueError, r"name: must not be empty"),
    "by name, 3": ({"version": 1, "penalties": {3: 1}}, TypeError, r"penalties: name: must be a string, got 3"),
    "by name, schedule": (
        {"version": 1, "penalties": {"l1": {"shedule": "linear"}}},
        ValueError,
        r"penalties\.l1: unknown key 'shedule', .*Did you mean 'schedule'",
    ),
    "by name, unknown": ({"version": 1, "penalties": {"l3": 1}}, ValueError, r"penalties\.l3\.penalty: no penalty is"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_errors_say_where(name: str) -> None:
    config, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        Pipeline.from_config(config)


def test_nothing_of_ones_own() -> None:
    OWN.clear()
    with pytest.raises(ValueError, match=r"no function is named 'f', none is registered\. One of your own must be"):
        Pipeline.from_config(entry(inputs={"function": "f"}))


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("a.toml", "version = 1\npenalties = [", ValueError, r"a\.toml: .*\(at (line 2|end of document)"),
        ("a.toml", "version = 1\nversion = 1", ValueError, r"a\.toml: Cannot overwrite a value \(at "),
        ("a.json", '[{"penalty": ]', ValueError, r"a\.json: Expecting value: line 1 column 14"),
        ("a.json", '[{"penalty": "l1", "penalty": "l2"}]', ValueError, r"a\.json: the key 'penalty' occurs twice in o"),
        ("a.json", '[{"penalty": "l1", "weight": NaN}]', ValueError, r"a\.json: numbers must be finite, got NaN"),
        ("a.json", b"\xff", ValueError, r"a\.json: 'utf-8' codec can't decode"),
        ("a.json", '{"version": 3}', ValueError, r"a\.json: `version` must be 1"),
        ("a.json", '[{"penalty": "l1", "weight": 1e999}]', ValueError, r"a\.json: penalties\[0\]\.weight: .* got inf"),
        ("a.toml", "[[penalties]]\na=1", ValueError, r"a\.toml: `version` is missing"),
        ("a.toml", "version = 1\n[penalties]\nanything = {options = {a = 1979-05-27}}", TypeError,
         r"a\.toml: penalties\.anything\.options\.a: must be a number, a string or a boolean, got datetime"),
        ("a.toml", "version = 1\n[penalties]\nl1 = {options = {reduktion = 'sum'}}", ValueError,
         r"a\.toml: penalties\.l1\.options: unknown key 'reduktion', the .* Did you mean 'reduction'\?$"),
        ("a.yaml", "", ValueError, r"a\.yaml: a configuration's file must end in \.toml or \.json, got '\.yaml'"),
        ("a", "", ValueError, r"a: a configuration's file must end in \.toml or \.json, got ''"),
    ],
)  # fmt: skip
def test_errors_of_files(tmp_path: Path, name: str, content: Any, error: type[Exception], message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(error, match=message) as caught:
        Pipeline.from_config(str(path))
    assert str(caught.value).startswith(str(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.toml"):
        Pipeline.from_config(tmp_path / "missing.toml")


def test_files_of_windows_editors(tmp_path: Path) -> None:
    for name, content in (
        ("a.toml", "version = 1\r\n[penalties]\r\nl1 = 1\r\n"),
        ("a.JSON", '[{"penalty": "l1"}]\r\n'),
    ):
        (tmp_path / name).write_bytes(content.encode("utf-8-sig"))
        assert same(Pipeline.from_config(tmp_path / name), Pipeline({"l1": 1}))


# errors of to_config


def test_what_no_configuration_holds(fw: Framework) -> None:
    unnamed, x = lambda *args: args[0], fw.array(X)
    cases: list[tuple[Penalty, type[Exception], str]] = [
        (Penalty(unnamed, name="p"), TypeError, r"^penalty 'p': `fn` is a callable without a name in .*`register`\.$"),
        (Penalty("l1", weight=unnamed), TypeError, r"^penalty 'l1': `weight` is a callable without a name"),
        (Penalty("l1", weight=schedules.warmup(unnamed, steps=1)), TypeError, r"^penalty 'l1': `weight` is a callable"),
        (Penalty("l1", inputs=unnamed), TypeError, r"^penalty 'l1': `inputs` is a callable without a name"),
        (Penalty("l2", options={"center": x}), TypeError, r"^penalty 'l2': `options.center` must be a number, a strin"),
        (Penalty("l2", options={"center": [1]}), TypeError, r"`options.center` must be a number, .*, got \[1\]"),
        (Penalty("l1", options={"where": x > 0}), TypeError, r"^penalty 'l1': `options.where` must be a number"),
        (Penalty(anything, options={"a": [unnamed]}), TypeError, r"`options.a\[0\]` must be a number, .*`register`\.$"),
        (Penalty(anything, options={"a": {3: 1}}), TypeError, r"`options.a` must be a number, .*, got \{3: 1\}"),
        (Penalty(anything, options={"a": fw.array(np.asarray(1j))}), TypeError, r"`options.a` must be a number"),
        (Penalty(anything, options={"a": {"b": math.inf}}), ValueError, r"`options.a.b` must be finite to be in"),
        (Penalty("l1", weight=fw.array(np.asarray(-0.5))), ValueError, r"^penalty 'l1': `weight` must be in \[0, inf"),
        (Penalty("l1", weight=fw.array(np.asarray(math.nan))), ValueError, r"^penalty 'l1': `weight` must be finite"),
    ]  # fmt: skip
    for each, error, message in cases:
        with pytest.raises(error, match=message):
            Pipeline([each]).to_config()


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, path = Pipeline({"l1": 1}), tmp_path / "a.toml"
    with pytest.raises(ValueError, match=r"a\.yaml: a configuration's file must end in \.toml or \.json"):
        pipe.to_config(tmp_path / "a.yaml")
    none = Pipeline([Penalty(anything, options={"a": None})])
    with pytest.raises(TypeError, match="None"):
        none.to_config(path)
    assert none.to_config(tmp_path / "a.json") and same(Pipeline.from_config(tmp_path / "a.json"), none)
    monkeypatch.setitem(sys.modules, "tomli_w", None)  # imports of it fail
    with pytest.raises(ModuleNotFoundError, match=r"tomli_w must be installed .* Run pip install tomli-w, or write a"):
        pipe.to_config(path)
    assert not path.exists()


# the schema


def VALIDATOR() -> Any:  # noqa: N802 - made when the names are registered
    return validator(tuple(OWN))


@functools.cache
def validator(names: tuple[str, ...]) -> Any:
    schema = config_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert json.loads(json.dumps(schema)) == schema
    return jsonschema.Draft202012Validator(schema)


def loads(config: Any) -> bool:
    try:
        Pipeline.from_config(config)
    except (TypeError, ValueError):
        return False
    return True


# not by the schema: numbers that JSON does not have, and what depends on two values
UNSAID = {"pattern", "names", "weight nan", "weight too long", "argument nan", "own option", "own option inf"}
NO_JSON = {"weight callable", "argument callable", "inputs callable", "own option of a kind", "own option's key"}
NO_JSON.add("by name, 3")


@pytest.mark.parametrize("name", REFUSED.keys() - NO_JSON)
def test_the_schema_refuses_what_the_loader_does(name: str) -> None:
    assert VALIDATOR().is_valid(REFUSED[name][0]) == (name in UNSAID)


@pytest.mark.parametrize(
    ("config", "loaded"),
    [
        (entry(every=2.0), False),  # to JSON Schema an integer
        ({"version": 1.0, "penalties": []}, False),
        (weight("exponential", start=1.0, rate=2.0), False),  # without an end
        (weight("piecewise", pieces=[]), False),
        (weight("piecewise", pieces=[[1, 0.5]]), False),
        (weight("piecewise", pieces=[[0, {"schedule": "halving"}]], interpolate=True), False),
        (entry(penalty="mine", options={"a": 1}), False),
    ],
)
def test_what_the_schema_does_not_say(config: Any, loaded: bool) -> None:
    assert VALIDATOR().is_valid(config) and loads(config) == loaded


VALUES = [0, 1, -1, 0.5, 1.5, True, None, "x", "mean", [], ["a"], [[0, 0.5]], {}, {"schedule": "halving"}]
CHOICES = ["forward", "bonus", "bucket", "k2", "value", "hard", "rows", "cosine", "kl", "rms", "hold", "linear"]
CHOICES += ["sum", "none"]


@pytest.mark.parametrize("name", REGISTRY)
def test_options_in_schema_and_loader(name: str) -> None:
    spec = REGISTRY[name].spec  # type: ignore[attr-defined]
    for option in (*spec.checks, "reduction", "normalizer", "where", "weights", "typo"):
        for value in (*VALUES, *CHOICES):
            table = {"options": {option: value}}
            for config in (entry(penalty=name, **table), {"version": 1, "penalties": {name: table}}):
                assert VALIDATOR().is_valid(config) == loads(config), config


SMALLEST: dict[str, dict[str, Any]] = {
    "constant": {"value": 0.5}, "linear": LINEAR, "warmup": {"after": 0.5, "steps": 3},
    "exponential": {"start": 1.0, "rate": 0.5}, "cosine": {"start": 1.0, "steps": 3},
    "cyclic": {"low": 0.0, "high": 1.0, "period": 3}, "piecewise": {"pieces": [[0, 0.5]]},
}  # fmt: skip


ACROSS: list[Any] = [("exponential", "end", 1.5), ("exponential", "rate", 1.5), ("piecewise", "pieces", [])]


@pytest.mark.parametrize("name", MAKERS)
def test_schedules_in_schema_and_loader(name: str) -> None:
    arguments = SMALLEST[name]
    for argument in (*inspect.signature(MAKERS[name]).parameters, "typo"):
        for value in (*VALUES, *CHOICES):
            if (name, argument, value) not in ACROSS:
                config = weight(name, **arguments | {argument: value})
                assert VALIDATOR().is_valid(config) == loads(config), config
    for missing in arguments:
        config = weight(name, **{key: value for key, value in arguments.items() if key != missing})
        assert not VALIDATOR().is_valid(config) and not loads(config)


def some(**keys: list[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A table with any of these keys, each with any of its values."""
    return st.fixed_dictionaries({}, optional={key: st.sampled_from(values) for key, values in keys.items()})


weights: list[Any] = [0.5, 2, -1, "x", None, {}, {"schedule": "halving"}, {"schedule": "linear", **LINEAR}, [0.5]]
tables = some(
    penalty=["l1", "huber", "anything", "jacobian_penalty", "l3", None],
    name=["a", "", "<a>", "loss_total", 3],
    weight=weights,
    inputs=[None, "a", ["a"], [3], 3, {"attributes": "a"}, {"attributes": []}, {"function": "both"}, {"function": "l"}],
    options=[{}, {"delta": 2}, {"reduction": "mean"}, {"where": None}, None],
    tree=[{}, {"match": "a"}, {"match": ["a", "b"], "exclude": "c"}, {"match": []}, {"typo": "a"}, None],
    differentiable=[True, 1],
    enabled=[False, None],
    every=[4, 0, 0.5, True],
    timeout=[None, 3, 0, "x"],
    on_error=[None, "drop", "x"],
    typo=[1],
)
entries = tables.map(lambda table: {"penalty": "l1", **table}) | tables | st.sampled_from(weights)
of_names = st.dictionaries(
    st.sampled_from(["l1", "huber", "jacobian_penalty", "a", "", "<a>", "base_loss"]), entries, max_size=2
)
documents = st.fixed_dictionaries(
    {"version": st.sampled_from([1, 1, 1, 2, "1", True, None]), "penalties": st.lists(entries, max_size=1) | of_names},
    optional={"name": st.sampled_from(["a", "", 3]), "$schema": st.sampled_from(["a", 3])},
)


@settings(max_examples=300)
@given(documents | st.lists(entries, max_size=1) | entries)
def test_schema_and_loader_agree(config: Any) -> None:
    assert VALIDATOR().is_valid(config) == loads(config)


def keys_of(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from schema.get("properties", ())
        for each in schema.values():
            yield from keys_of(each)
    elif isinstance(schema, list):
        for each in schema:
            yield from keys_of(each)


def test_no_key_is_a_word_of_python() -> None:
    OWN.clear()
    register("own", mine)
    keys = set(keys_of(config_schema()))
    assert {"penalty", "weight", "inputs", "schedule", "attributes", "function", "delta", "steps"} <= keys
    assert [key for key in keys if not key.isidentifier() or keyword.iskeyword(key)] == ["$schema"]


def test_the_schema_describes_and_has_the_defaults() -> None:
    found = config_schema()["$defs"]
    for name, function in REGISTRY.items():
        options = found[f"options_{name}"]
        assert options["description"] == (inspect.getdoc(function) or "").splitlines()[0]
        assert all(option["description"] for option in options["properties"].values())
        assert options["properties"]["reduction"]["default"] == function.spec.reduction  # type: ignore[attr-defined]
    for name in MAKERS:
        properties = found[f"schedule_{name}"]["properties"]
        assert all(key == "schedule" or argument["description"] for key, argument in properties.items())
    assert found["penalty"]["properties"]["every"]["default"] == 1


def test_the_schema_without_names_of_ones_own() -> None:
    OWN.clear()
    assert "function" not in json.dumps(config_schema()["$defs"]["inputs"])
    assert not VALIDATOR().is_valid(entry(inputs={"function": "both"}))
    assert VALIDATOR().is_valid(entry(inputs={"attributes": ["a.b", "c"]}))
