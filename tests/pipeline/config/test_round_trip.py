"""Configurations: pipelines written and read again, in files too, and the values that they compute."""

from __future__ import annotations

import re
import sys
import tempfile
import tomllib
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import selected
from tests.helpers.configs import VALIDATOR, anything, both, halving, same
from tests.helpers.harness import Framework, close
from tests.helpers.samples import L1, X, mine, pair
from tests.project.test_examples import example
from xpenalties import Penalty, Pipeline, register, schedules
from xpenalties._core.registry import PENALTIES, RESERVED
from xpenalties.trees import Pattern, over_tree

EXAMPLE = Path(__file__).parents[3] / "examples" / "quickstart.toml"
pytestmark = pytest.mark.usefixtures("custom_names")

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
        lambda pieces: schedules.piecewise(sorted({0: 0.5, **pieces}.items()), interpolate=True)
    ),
    st.just(halving),
)  # fmt: skip
schedule = st.recursive(
    flat,
    lambda inner: (
        st.builds(schedules.warmup, inner | number, steps=count, start=number)
        | st.builds(
            lambda first, later: schedules.piecewise(sorted({**later, 0: first}.items(), key=lambda pair: pair[0])),
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
function = st.one_of(
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
size = st.integers(-1, 9)
criteria = st.builds(
    Pattern,
    text.map(re.escape),
    ndim=st.none() | st.integers(0, 5) | st.lists(st.integers(0, 5), min_size=1, max_size=3),
    shape=st.none() | st.lists(size, max_size=3).map(tuple),
    optional=st.booleans(),
)
pattern = st.lists(text.map(re.escape) | criteria, min_size=1, max_size=2)
tree = st.none() | st.fixed_dictionaries({}, optional={"match": pattern, "exclude": pattern})


source = text | st.just(both) | text.map(attrgetter)
ARRAYS = {"a pair": ("x", "y"), "kl_divergence": ("log_p", "log_q")}


def penalty_of(
    fn: tuple[str, dict[str, Any]],
    tree: dict[str, Any] | None,
    sources: list[Any] | None,
    **arguments: Any,
) -> Penalty:
    """If there are sources, the inputs are a mapping: of the arrays and, for penalties of this package, of the mask."""
    name, options = fn
    if sources is not None:
        parameters = *ARRAYS.get(name, ("x",)), *(("where",) if name in PENALTIES else ())
        arguments["inputs"] = dict(zip(parameters, sources, strict=False))
        options = {option: value for option, value in options.items() if option not in parameters}  # not both
    if tree is None:
        return Penalty(name, options=options, **arguments)
    return Penalty(over_tree(name, **tree, options=options), **arguments)


penalty = st.builds(
    penalty_of,
    function,
    tree,
    st.none() | st.lists(source, min_size=3, max_size=3),
    weight=number | schedule,
    inputs=inputs,
    differentiable=st.booleans(),
    enabled=st.booleans(),
    every=count,
    timeout=st.none() | st.floats(1e-9, 1e9),
    on_error=st.sampled_from([None, "raise", "drop"]),
)


def pipeline_of(named: list[tuple[str, Penalty]], name: str) -> Pipeline:
    return Pipeline([replace(penalty, name=key or penalty.name) for key, penalty in named], name=name)


key = text.filter(lambda name: not name.startswith("<") and name not in RESERVED)
several = st.lists(st.tuples(key, penalty), max_size=3, unique_by=lambda pair: pair[0] or pair[1].name)
pipelines = st.builds(pipeline_of, several, text)


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
            Penalty("l2", name="kept", inputs={"x": "a", "where": attrgetter("batch.mask"), "weights": both}),
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
            {
                "penalty": "l2",
                "name": "kept",
                "inputs": {"x": "a", "where": {"attributes": "batch.mask"}, "weights": {"function": "both"}},
            },
        ],
    }
    assert Pipeline().to_config() == {"version": 1, "penalties": []}


def test_parameters_whose_names_pick_inputs() -> None:
    """They have a meaning of their own in a file, so that they cannot be written."""
    for name in ("attributes", "function"):
        pipe = Pipeline([Penalty(anything, name="p", inputs={"x": "a", name: "b"})])
        message = (
            rf"^penalty 'p': `inputs` must not have the key '{name}' in a configuration, where it picks inputs\. Re"
        )
        with pytest.raises(ValueError, match=message):
            pipe.to_config()


def test_names_may_be_keys() -> None:
    schedule = {"schedule": "cosine", "start": 0.1, "steps": 10}
    by_name = {"l1": 0.5, "l2": schedule, "huber": {}, "robust": {"penalty": "huber", "options": {"delta": 2.0}}}
    expected = [
        Penalty("l1", weight=0.5),
        Penalty("l2", weight=schedules.cosine(0.1, steps=10)),
        Penalty("huber"),
        Penalty("huber", name="robust", options={"delta": 2.0}),
    ]
    assert same(Pipeline.from_config({"version": 1, "name": "p", "penalties": by_name}), Pipeline(expected, name="p"))


def test_a_list_is_the_penalties() -> None:
    assert same(Pipeline.from_config([{"penalty": "l1", "weight": 0.5}]), Pipeline({"l1": 0.5}))
    assert same(Pipeline.from_config([]), Pipeline())


def test_defaults_are_not_written() -> None:
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


def test_several_axes(fw: Framework, tmp_path: Path) -> None:
    pipe, x = Pipeline([Penalty("group_lasso", options={"axis": (0, -1)})]), fw.array(np.ones((2, 3, 2)))
    config = pipe.to_config()
    assert config["penalties"] == [{"penalty": "group_lasso", "options": {"axis": [0, -1]}}]
    assert VALIDATOR().is_valid(config) and same(Pipeline.from_config(config), pipe)
    path = tmp_path / "groups.toml"
    path.write_text("version = 1\n[penalties.group_lasso]\noptions = { axis = [0, -1] }\n", "utf-8")
    close(fw, Pipeline.from_config(path)(x), np.asarray(3 * 4.0))
    with pytest.raises(
        TypeError, match=r"^from_config: penalties\[0\]\.options\.axis\[1\]: must be a number, a string"
    ):
        Pipeline.from_config([{"penalty": "group_lasso", "options": {"axis": [0, [1]]}}])
    with pytest.raises(TypeError, match=r"^from_config: penalties\[0\]\.options\.axis: must be a number, a string"):
        Pipeline.from_config([{"penalty": "kl_divergence", "options": {"axis": [0, 1]}}])


def test_a_tree_from_data(fw: Framework) -> None:
    config = [{"penalty": "l2", "tree": {"match": "kernel", "exclude": ["0", "1"]}, "options": {"clip": 0.5}}]
    pipe = Pipeline.from_config(config)
    assert pipe.to_config()["penalties"] == config
    tree = [{"kernel": fw.array(np.ones(2))}] * 3
    close(fw, pipe(tree), np.asarray(0.5))
    by_name = Pipeline.from_config({"version": 1, "penalties": {"l2": {"tree": {}, "weight": 2.0}}})
    close(fw, by_name(tree), np.asarray(12.0))
    assert by_name.to_config()["penalties"] == [{"penalty": "l2", "tree": {}, "weight": 2.0}]


def test_a_learned_weight_becomes_a_number() -> None:
    torch = selected("torch", reason="is about a weight that requires a gradient")
    pipe = Pipeline([Penalty("l1", weight=torch.tensor(0.5, requires_grad=True))])
    assert pipe.to_config()["penalties"] == [{"penalty": "l1", "weight": 0.5}]


def test_what_toml_cannot_hold(tmp_path: Path) -> None:
    pipe = Pipeline([Penalty("anything", options={"a": None})])
    with pytest.raises(
        TypeError, match=r"^Pipeline\.to_config: TOML cannot hold this: .*NoneType.*\. Write a \.json file"
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


@pytest.mark.only("jax", reason="is about JAX's pytrees")
def test_a_pipeline_read_again_is_the_same_to_jax(fw: Framework) -> None:
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
@pytest.mark.only("numpy", reason="the quickstart's default backend is NumPy")
def test_the_quickstart_from_its_file() -> None:
    with example("quickstart"):
        quickstart = sys.modules["quickstart"]
        register("hidden_weights", quickstart.PENALTIES["orthogonality"].inputs)
        pipe = Pipeline.from_config(EXAMPLE)
        assert [p.name for p in pipe] == [p.name for p in quickstart.PENALTIES]
        data, _ = quickstart.digits(np.asarray)
        params = quickstart.initial(np.random.default_rng(0), np.asarray)
        images, labels, teacher = (data[name][:64] for name in ("images", "labels", "teacher"))
        forward = quickstart.Forward(params, quickstart.Batch(images, labels, images, teacher))
        for step in (0, 7, 30):
            total, report = pipe.compute(forward, step=step)
            expected, expected_report = quickstart.PENALTIES.compute(forward, step=step)
            assert float(total) == float(expected) and report.to_dict() == expected_report.to_dict()
        assert same(Pipeline.from_config(pipe.to_config()), pipe)
        assert VALIDATOR().is_valid(tomllib.loads(EXAMPLE.read_text("utf-8")))
