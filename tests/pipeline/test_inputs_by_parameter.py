"""`inputs` as a mapping from parameters: on every backend, differentiated, tracked, compiled and on an event loop."""

from __future__ import annotations

import asyncio
import copy
import pickle
from dataclasses import replace
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, close
from tests.helpers.samples import pair
from xpenalties import Penalty, Pipeline, RegularizedLoss
from xpenalties.trees import over_tree

TEACHER = np.asarray([[1.0, 0.0, 2.0], [np.nan, np.inf, 0.0], [0.0, 1.0, 0.5]])
STUDENT = np.asarray([[0.0, 1.0, 0.0], [np.nan, np.nan, np.nan], [2.0, 1.0, 0.0]])
MASK, WEIGHTS = np.asarray([True, False, True]), np.asarray([0.5, 3.0, 2.0])
INPUTS = {"log_p": "teacher", "log_q": "student", "where": "mask", "weights": "factors", "normalizer": "tokens"}
DISTILL = Penalty("kl_divergence", weight=0.5, inputs=INPUTS, from_logits=True)


def batch(fw: Framework) -> dict[str, Any]:
    return {
        "mask": fw.array(MASK),
        "tokens": fw.array(np.asarray(5.0)),
        "factors": fw.array(WEIGHTS),
        "student": fw.array(STUDENT),
        "teacher": fw.array(TEACHER),
    }


def masked(fw: Framework, student: Any) -> Any:
    """Return the penalty as a direct call."""
    arrays = batch(fw)
    shared = {"where": arrays["mask"], "weights": arrays["factors"], "normalizer": arrays["tokens"]}
    return 0.5 * xp.kl_divergence(arrays["teacher"], student, from_logits=True, **shared)


@pytest.mark.smoke
def test_masks_weights_and_counts(fw: Framework) -> None:
    rows = [0, 2]
    p = np.exp(TEACHER[rows]) / np.exp(TEACHER[rows]).sum(-1, keepdims=True)
    q = np.exp(STUDENT[rows]) / np.exp(STUDENT[rows]).sum(-1, keepdims=True)
    expected = 0.5 * np.sum(WEIGHTS[rows] * np.sum(p * np.log(p / q), -1)) / 5
    total, report = Pipeline([DISTILL]).compute(batch(fw))
    close(fw, total, expected)
    close(fw, Pipeline([DISTILL])(batch(fw)), expected)
    assert report.to_dict()["regularizers"]["kl_divergence"]["custom"]["sum"] == pytest.approx(10 * expected)


@pytest.mark.needs("autodiff")
def test_differentiated(fw: Framework) -> None:
    student = fw.array(STUDENT)
    gradient = xp.grad(lambda x: Pipeline([DISTILL])({**batch(fw), "student": x}))(student)
    expected = xp.grad(lambda x: masked(fw, x))(student)
    close(fw, gradient, fw.numpy(expected))
    assert np.all(fw.numpy(gradient)[1] == 0) and np.any(fw.numpy(gradient)[0] != 0)


@pytest.mark.needs("autodiff")
def test_norms_are_with_respect_to_arrays_that_are_not_weights(fw: Framework) -> None:
    """A mask has no gradient, and a row of weight 0 is masked, so that the NaN in it reaches no norm."""
    arrays = {**batch(fw), "mask": fw.array(np.ones(3, dtype=bool)), "factors": fw.array(WEIGHTS * MASK)}
    pipe = Pipeline([DISTILL, Penalty("l2", inputs="teacher", weight=0.0, differentiable=False)])
    _, report = pipe.compute(arrays, track_grad_norms=True)
    _, expected = pipe.compute(arrays, track_grad_norms=True, wrt=("student", "teacher"))
    norm = report.to_dict()["total_grad_norm"]
    assert 0 < norm < np.inf and norm == pytest.approx(expected.to_dict()["total_grad_norm"])
    _, both = pipe.compute(batch(fw), track_grad_norms=True, wrt=("student", "teacher", "factors"))
    _, without = pipe.compute(batch(fw), track_grad_norms=True)
    assert both.to_dict()["total_grad_norm"] > without.to_dict()["total_grad_norm"]


@pytest.mark.needs("autodiff")
def test_weights_that_another_penalty_takes_as_an_array_count(fw: Framework) -> None:
    pipe = Pipeline([Penalty("l2", inputs={"x": "a", "weights": "b"}), Penalty("l1", inputs={"x": "b"})])
    arrays = {"a": fw.array(np.asarray([2.0])), "b": fw.array(np.asarray([3.0]))}
    _, report = pipe.compute(arrays, track_grad_norms=True)
    norms = {name: part["grad_norm"] for name, part in report.to_dict()["regularizers"].items()}
    assert norms == {"l2": pytest.approx(np.hypot(12.0, 4.0)), "l1": pytest.approx(1.0)}


@pytest.mark.needs("autodiff")
def test_weights_inside_a_nested_pipeline_do_not_count(fw: Framework) -> None:
    arrays = {"a": fw.array(np.asarray([2.0])), "b": fw.array(np.asarray([3.0]))}
    inner = Pipeline([Penalty("l2", inputs={"x": "a", "weights": "b"})])
    by_name = {"a": "a", "b": "b"}
    nested = Pipeline([Penalty(inner, name="inner", inputs=by_name)], name="nested")
    decay = Penalty("l2", tree={}, name="decay", inputs={"x": "a", "weights": "b"})
    for pipe in (nested, Pipeline([Penalty(nested, name="outer")]), Pipeline([decay])):
        _, report = pipe.compute(arrays, track_grad_norms=True)
        assert float(report.total_grad_norm) == pytest.approx(12.0)
    both = nested.add(Penalty("l1", inputs="b", weight=0.0))
    loss = Pipeline([Penalty(RegularizedLoss(lambda data: 0 * data["b"][0], inner), name="loss", inputs=by_name)])
    for pipe in (both, loss):
        _, report = pipe.compute(arrays, track_grad_norms=True)
        assert float(report.total_grad_norm) == pytest.approx(np.hypot(12.0, 4.0))


@pytest.mark.only("torch", reason="is about requires_grad")
def test_weights_that_require_gradients_count(fw: Framework) -> None:
    arrays = {"a": fw.array(np.asarray([2.0])).requires_grad_(), "b": fw.array(np.asarray([3.0]))}
    pipe = Pipeline([Penalty("l2", inputs={"x": "a", "weights": "b"})])
    for requires, norm in ((False, 12.0), (True, np.hypot(12.0, 4.0))):
        arrays["b"].requires_grad_(requires)
        _, report = pipe.compute(arrays, track_grad_norms=True)
        assert float(report.total_grad_norm) == pytest.approx(norm)


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # by PyTorch itself
@pytest.mark.needs("jit")
@pytest.mark.parametrize("tracked", [False, True])
def test_compiled(fw: Framework, tracked: bool) -> None:
    def total_and_norm(arrays: Any) -> Any:
        total, report = Pipeline([DISTILL]).compute(arrays, track_grad_norms=tracked)
        return [total, report.total_grad_norm if tracked else total]

    run, compilations = fw.compile(total_and_norm)
    arrays = batch(fw)
    close(fw, run(arrays)[0], fw.numpy(Pipeline([DISTILL])(arrays)))
    before = compilations()
    arrays["mask"] = fw.array(np.asarray([False, False, True]))
    results = run(arrays)
    for result, expected in zip(results, total_and_norm(arrays), strict=True):
        close(fw, result, fw.numpy(expected))
    assert compilations() == before
    close(fw, xp.compile(Pipeline([DISTILL]))(arrays), fw.numpy(results[0]))


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # by PyTorch itself
@pytest.mark.needs("jit")
def test_made_in_a_compiled_function(fw: Framework) -> None:
    def total(arrays: Any) -> Any:
        return Pipeline([replace(DISTILL, weight=1.0), Penalty("l2", inputs={"x": "tokens"})])(arrays)

    run, _ = fw.compile(total)
    close(fw, run(batch(fw)), fw.numpy(total(batch(fw))))


def test_on_an_event_loop_and_on_threads(fw: Framework) -> None:
    def own(x: Any, keep: Any) -> Any:
        return xp.l1(x, where=keep[:, None])

    async def slow(x: Any, keep: Any) -> Any:
        return own(x, keep)

    inputs = {"x": "teacher", "keep": "mask"}
    pipe = Pipeline([DISTILL, Penalty(own, inputs=inputs)])
    expected = float(pipe(batch(fw)))
    assert float(pipe.compute(batch(fw), execution="threads")[0]) == expected
    pipe = Pipeline([DISTILL, Penalty(slow, inputs=inputs)])
    assert float(asyncio.run(pipe.compute_async(batch(fw)))[0]) == expected


def test_functions_of_users(fw: Framework) -> None:
    def own(x: Any, y: Any, /, keep: Any = None, *, scale: float = 1.0, **more: Any) -> Any:
        return scale * xp.l1(x - y, where=keep) + sum(map(xp.l1, more.values()))

    arrays = {"a": fw.array(np.asarray([1.0, -2.0])), "b": fw.array(np.asarray([3.0, 5.0]))}
    arrays["m"] = fw.array(np.asarray([True, False]))
    for inputs, expected in (
        ({"y": "b", "x": "a"}, 18.0),
        ({"keep": "m", "x": "a", "y": "b"}, 4.0),
        ({"x": "a", "y": "b", "z": "b"}, 26.0),
    ):
        pipe = Pipeline([Penalty(own, inputs=inputs, scale=2.0)])
        assert float(pipe(arrays)) == expected
    assert float(Pipeline([Penalty(pair, inputs={"x": "a", "y": "b"})])(arrays)) == 9.0
    without_a_signature = Penalty(max, name="p", inputs={"key": lambda arrays: abs})
    assert without_a_signature.inputs is not None


def test_callables_in_a_mapping(fw: Framework) -> None:
    given = SimpleNamespace(hidden=fw.array(np.asarray([1.0, -2.0])), mask=fw.array(np.asarray([True, False])))
    inputs = {"x": attrgetter("hidden"), "where": lambda batch: batch.mask}
    pipe = Pipeline([Penalty("l1", inputs=inputs)])
    assert float(pipe(given)) == 1.0
    assert float(pipe.disable("l1")(given)) == 0.0  # finds the framework by the same callables
    assert float(RegularizedLoss(lambda batch: xp.l2(batch.hidden), pipe)(given)) == 6.0


@pytest.mark.needs("autodiff")
def test_gradient_penalties(fw: Framework) -> None:
    def critic(x: Any) -> Any:
        return xp.namespace(x).sum(x * x, axis=-1) / 2

    inputs = {"fn": "critic", "real": "real", "fake": "fake", "alpha": "share", "where": "mask"}
    pipe = Pipeline([Penalty("interpolated_gradient_penalty", inputs=inputs, target_norm=0.0)])
    arrays = {
        "critic": critic,
        "real": fw.array(np.asarray([[3.0, 4.0], [1.0, 1.0]])),
        "fake": fw.array(np.asarray([[0.0, 0.0], [7.0, 7.0]])),
        "share": fw.array(np.asarray([1.0, 0.5])),
        "mask": fw.array(np.asarray([True, False])),
    }
    assert float(pipe(arrays)) == pytest.approx(25.0)
    rng = Penalty("jacobian_penalty", inputs={"fn": "critic", "x": "real", "rng": "key"})
    assert float(Pipeline([rng])({**arrays, "key": fw.key(0)})) == pytest.approx(13.5)


def test_over_trees(fw: Framework) -> None:
    """A tree for each leaf, and an array for all of them."""
    params = {"a": fw.array(np.asarray([1.0, -2.0])), "b": [fw.array(np.asarray([3.0]))], "n": 3}
    old = {"b": [fw.array(np.asarray([1.0]))], "a": fw.array(np.asarray([0.0, 0.0])), "n": 3}
    kept = {"a": fw.array(np.asarray([True, False])), "b": [fw.array(np.asarray([True]))], "n": None}
    given = {"params": params, "old": old, "kept": kept, "count": fw.array(np.asarray(2.0))}
    for inputs, expected in (
        ({"x": "params"}, 14.0),
        ({"x": "params", "center": "old"}, 9.0),
        ({"x": "params", "where": "kept", "center": "old"}, 5.0),
        ({"x": "params", "where": "kept", "normalizer": "count"}, 5.0),
    ):
        pipe = Pipeline([Penalty("l2", tree={}, inputs=inputs)])
        assert float(pipe(given)) == expected
    assert float(Pipeline([Penalty("l2", tree={"match": "a"}, inputs={"x": "params", "where": "kept"})])(given)) == 1.0
    pulled = Penalty(pair, tree={}, inputs={"x": "params", "scale": "count"}, options={"y": 1.0})
    assert float(Pipeline([pulled])(given)) == 10.0
    apart = Pipeline([Penalty("consistency", tree={}, inputs={"b": "old", "a": "params"})])
    assert float(apart(given)) == 2.5 + 4.0
    each_leaf = over_tree(Pipeline({"l1": 1.0, "l2": 1.0}))
    assert float(Pipeline([Penalty(each_leaf, name="p", inputs={"tree": "params"})])(given)) == 6.0 + 14.0
    by_path = over_tree("l2").by_path(params, center=old)
    assert {path: float(value) for path, value in by_path.items()} == {"a": 5.0, "b.0": 4.0}
    with pytest.raises(ValueError, match=r"over_tree: `where` must have 'b\.0' too, got 'a'\."):
        over_tree("l2")(params, where={"a": kept["a"]})
    with pytest.raises(TypeError, match=r"over_tree: `clip` must be passed once, got it in the call and in `"):
        over_tree("l2", options={"clip": 1.0})(params, clip=2.0)


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # by PyTorch itself
def test_nested_pipelines(fw: Framework) -> None:
    inner = Pipeline(
        [DISTILL, Penalty("l1", inputs={"x": "student", "where": "cells"}, weight=lambda step: 1.0 * step)]
    )
    cells = fw.array(np.asarray(MASK)[:, None])
    names = {"teacher": "big", "student": "small", "mask": "mask", "factors": "factors", "tokens": "tokens"}
    outer = Penalty(inner, name="inner", inputs={**names, "cells": "cells", "step": "now"}, weight=2.0)
    arrays = batch(fw)
    given = {**arrays, "big": arrays["teacher"], "small": arrays["student"], "cells": cells, "now": 3}
    expected = 2 * float(inner({**arrays, "cells": cells}, step=3))
    assert float(Pipeline([outer])(given)) == expected
    for fn in (RegularizedLoss(lambda inputs: 0 * inputs["tokens"], inner), xp.compile(inner)):
        assert float(Pipeline([replace(outer, fn=fn)])(given)) == pytest.approx(expected)
    with pytest.raises(TypeError, match=r"penalty 'p': `inputs` must have an input for `student` of Pipeline"):
        Penalty(inner, name="p", inputs={"teacher": "big"})
    with pytest.raises(TypeError, match=r"must be parameters of Pipeline, got 'studnet'\. .* Did you mean 'student'\?"):
        Penalty(inner, name="p", inputs={**names, "studnet": "small"})
    assert float(Pipeline([Penalty(Pipeline({"l1": 1.0}), name="p")])(arrays["tokens"])) == 5.0


def test_updates_and_copies_keep_the_mapping(fw: Framework) -> None:
    pipe = Pipeline([DISTILL])
    expected = float(pipe(batch(fw)))
    for again in (
        copy.copy(pipe),
        copy.deepcopy(pipe),
        pickle.loads(pickle.dumps(pipe)),
        pipe.with_weights(kl_divergence=0.5),
        Pipeline([replace(DISTILL, enabled=True)]),
        Pipeline.from_config(pipe.to_config()),
    ):
        assert again == pipe and float(again(batch(fw))) == expected
    given = dict(INPUTS)
    penalty = Penalty("kl_divergence", inputs=given, from_logits=True)
    given["log_p"] = "other"
    assert penalty.inputs == INPUTS


def own(x: Any, y: Any, /, keep: Any, *, scale: float = 1.0) -> Any:
    return xp.l1(x)


@pytest.mark.parametrize(
    ("fn", "inputs", "options", "message"),
    [
        ("l1", {"y": "a"}, {}, r"the keys of `inputs` must be parameters of l1, got 'y'\. The parameters are x, where"),
        ("l1", {"x": "a", "wheer": "b"}, {}, r"Write parameter: input\. Did you mean 'where'\?$"),
        ("entropy", {"log_p": "a", "mask": "b"}, {}, r"Write parameter: input\. Did you mean 'where'\?$"),
        ("l1", {"x": "a", "reduction": "b"}, {}, r"got 'reduction'\. The parameters are x, where, weights, norm"),
        ("l1", {"where": "a"}, {}, r"`inputs` must have an input for `x` of l1, got 'where'\. Add it\."),
        ("l1", {"x": "a", "normalizer": "b"}, {"normalizer": 2.0}, r"`normalizer` must be an input or an option, got"),
        ("gradient_penalty", {"x": "a"}, {}, r"`inputs` must have an input for `fn` of gradient_penalty, got 'x'"),
        (over_tree("huber"), {"x": "a", "dleta": "b"}, {}, r"parameters of huber_over_tree, .* Did you mean 'delta'\?"),
        (over_tree("l2", options={"clip": 1.0}), {"x": "a", "clip": "b"}, {}, r"got 'clip'\. The parameters are x, ce"),
        (own, {"x": "a", "keep": "b"}, {}, r"`inputs` must have an input for `y` of own, got 'x', 'keep'"),
        (own, {"x": "a", "y": "b"}, {}, r"`inputs` must have an input for `keep` of own, got 'x', 'y'"),
        (own, {"x": "a", "y": "b", "keep": "c", "scal": "d"}, {}, r"must be parameters of own, .* Did you mean 'sc"),
        (own, {"x": "a", "y": "b", "keep": "c", "scale": "d"}, {"scale": 1.0}, r"`scale` must be an input or an opti"),
        (lambda *arrays: 0.0, {"x": "a"}, {}, r"must be parameters of <lambda>, got 'x'\. The parameters are none\."),
        ("l1", {"x": 3}, {}, r"`inputs` must map names of parameters to names of inputs or callables, got 'x': 3\."),
        ("l1", {3: "x"}, {}, r"`inputs` must map names of parameters to names of inputs or callables, got 3: 'x'\."),
    ],
)  # fmt: skip
def test_wrong_mappings_are_refused_when_the_penalty_is_made(
    fn: Any, inputs: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError, match=rf"^penalty 'p': .*{message}"):
        Penalty(fn, name="p", inputs=inputs, options=options)


def test_an_empty_mapping_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^penalty 'l1': `inputs` must not be an empty mapping\. Leave it out\."):
        Penalty("l1", inputs={})


def test_a_parameter_may_be_an_input_or_an_option(fw: Framework) -> None:
    def scaled(x: Any, factor: float) -> Any:
        return factor * xp.l1(x)

    x = fw.array(np.asarray([1.0, -2.0]))
    assert float(Pipeline([Penalty(scaled, inputs={"x": "x"}, factor=2.0)])({"x": x})) == 6.0
    assert float(Pipeline([Penalty(scaled, inputs={"x": "x", "factor": "f"})])({"x": x, "f": 3.0})) == 9.0


def test_inputs_that_are_missing(fw: Framework) -> None:
    arrays = batch(fw)
    arrays["msk"] = arrays.pop("mask")
    with pytest.raises(ValueError, match=r"^penalty 'kl_divergence' asks for the input 'mask'\. .* Rename 'msk' or"):
        Pipeline([DISTILL])(arrays)
    with pytest.raises(TypeError, match=r"^penalty 'kl_divergence': named `inputs` need one mapping, got "):
        Pipeline([DISTILL])(arrays["msk"])
