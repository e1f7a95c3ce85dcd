"""Pipelines and reports as JAX pytrees."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework
from tests.helpers.processes import run_together, simulated_devices
from tests.helpers.samples import L1, L2, X, mine, with_metrics
from xpenalties import Penalty, Pipeline

pytestmark = [pytest.mark.only("jax", reason="is about JAX's pytrees"), pytest.mark.usefixtures("fw")]


def test_weights_are_leaves(fw: Framework) -> None:
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


def test_what_is_static(fw: Framework) -> None:
    def structure(fn: Any = "huber", **given: Any) -> Any:
        return fw.module.tree.structure(Pipeline([Penalty(fn, **given)], name="training"))

    def schedule(step: Any) -> float:
        return 1.0

    def other(data: Any) -> Any:
        return data["x"]

    def of_axis(x: Any, axis: Any) -> Any:
        return xp.l1(x)

    assert structure(inputs=["p", "q"]) == structure(inputs=["p", "q"])
    same = {"options": {"delta": 2.0}, "inputs": "x"}
    assert structure(**same) == structure(**same) == structure(weight=3.0, **same)
    assert hash(structure(**same)) == hash(structure(**same))
    one, other_one = (Pipeline([Penalty("huber", weight=w)])._tree_flatten()[1] for w in (1.0, 2.0))
    assert hash(one) == hash(other_one) and one != Pipeline({"l1": 1.0})._tree_flatten()[1] and one != "huber"
    assert structure(weight=schedule) == structure(weight=schedule)
    assert structure(inputs=other) == structure(inputs=other)
    different = [
        structure(),
        structure(**same),
        structure(options={"delta": 3.0}),
        structure(options={"reduction": "mean"}),
        structure(inputs="x"),
        structure(inputs=("x",)),
        structure(inputs=other),
        structure(differentiable=False),
        structure(enabled=False),
        structure(name="other"),
        structure("l2", name="huber"),
        structure(weight=schedule),
        structure("entropy", name="huber", options={"axis": 1}),
        *[structure(of_axis, name="huber", options={"axis": axis}) for axis in (1, True, 1.0)],
        fw.module.tree.structure(Pipeline([Penalty("huber")])),
    ]
    assert all((a == b) is (i == j) for i, a in enumerate(different) for j, b in enumerate(different))
    array = fw.array(np.asarray(True))
    assert structure(options={"where": array}) == structure(options={"where": array})
    assert structure(options={"where": array}) != structure(options={"where": fw.array(np.asarray(True))})


def test_a_callable_without_a_hash(fw: Framework) -> None:
    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            return self is other

        def __call__(self, x: Any) -> Any:
            return xp.l1(x)

    pipe = Pipeline([Penalty(Unhashable(), name="p")])
    assert float(fw.module.jit(lambda pipe, x: pipe(x))(pipe, fw.array(X))) == L1


def test_a_users_own_static_key_is_not_asked(fw: Framework) -> None:
    class Scaled:
        def __init__(self, scale: Any) -> None:
            self.scale = scale

        def __call__(self, x: Any) -> Any:
            return xp.l1(self.scale * x)

        def _static_key(self) -> tuple[Any, ...]:
            return ()

    total = fw.module.jit(lambda pipe, x: pipe(x))
    for scale in (1.0, 2.0):
        assert float(total(Pipeline([Penalty(Scaled(scale), name="p")]), fw.array(X))) == scale * L1


def test_a_report_goes_through_a_map(fw: Framework) -> None:
    part = xp.PenaltyReport(1.0, 2.0, 3.0, 4.0, 5.0, {"z": 6.0, "a": 7.0})
    report = xp.Report(8.0, xp.PenaltyReport(9.0, 10.0, 11.0), {"z": part, "a": part}, 12.0, 13.0)
    doubled = fw.module.tree.map(lambda y: 2 * y, report)
    assert list(doubled.regularizers) == ["z", "a"] and list(doubled.regularizers["z"].metrics) == ["z", "a"]
    assert (
        doubled.to_dict()
        == xp.Report(
            16.0,
            xp.PenaltyReport(18.0, 20.0, 22.0),
            dict.fromkeys(("z", "a"), xp.PenaltyReport(2.0, 4.0, 6.0, 8.0, 10.0, {"z": 12.0, "a": 14.0})),
            24.0,
            26.0,
        ).to_dict()
    )
    assert fw.module.tree.structure(report) != fw.module.tree.structure(xp.Report(8.0, None, {}, 12.0, 13.0))


def test_a_weight_changes_without_compiling_again(fw: Framework) -> None:
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


def test_gradient_by_the_weights(fw: Framework) -> None:
    gradient = fw.module.grad(lambda pipe: pipe(fw.array(X)))(Pipeline({"l1": 0.5, "l2": 2.0}))
    assert [float(p.weight) for p in gradient] == [L1, L2]


def test_a_report_keeps_its_order(fw: Framework) -> None:
    pipe = Pipeline([Penalty("l2"), Penalty(with_metrics), Penalty("l1")])
    _, report = fw.module.jit(pipe.compute)(fw.array(X))
    assert list(report.regularizers) == ["l2", "with_metrics", "l1"]
    assert list(report.regularizers["with_metrics"].metrics) == ["largest", "note"]
    assert str(report) == str(pipe.compute(fw.array(X))[1])


def test_a_traced_step(fw: Framework) -> None:
    pipe = Pipeline([Penalty("l1", weight=lambda step: 0.1 * step)])
    step, count = fw.compile(lambda x, i: pipe(x, step=i))
    for i in (1, 2, 3):
        assert float(step(fw.array(X), i)) == pytest.approx(0.1 * i * L1)
    assert count() == 1


def test_a_callable_that_is_equal_by_value(fw: Framework) -> None:
    @dataclass(frozen=True)
    class Scaled:
        scale: Any

        def __call__(self, x: Any) -> Any:
            return xp.l1(self.scale * x)

    @fw.module.jit
    def total(pipe: Pipeline, x: Any) -> Any:
        return pipe(x)

    for scale in (1.0, 2.0):
        pipe = Pipeline([Penalty(Scaled(fw.array(np.full(2, scale))), name="p")])
        assert float(total(pipe, fw.array(X))) == scale * L1


def test_gradients_are_nests_as_jax_has_them(fw: Framework) -> None:
    jax = fw.module

    @partial(jax.tree_util.register_dataclass, data_fields=["weight"], meta_fields=["activation"])
    @dataclass
    class Registered:
        weight: Any
        activation: str

    class Opaque:
        def __init__(self, weight: Any) -> None:
            self.weight = weight

    jax.tree_util.register_pytree_node(Opaque, lambda o: ((o.weight,), None), lambda _, c: Opaque(*c))
    x = fw.array(X)
    for nest in (Registered(x, "relu"), Opaque(x), [Opaque(x), {"deeper": Registered(x, "tanh")}]):

        def total(nest: Any) -> Any:
            return sum(xp.l2(leaf) for leaf in jax.tree.leaves(nest))

        (value, aux), gradient = xp.value_and_grad(lambda nest, total=total: (total(nest), nest), has_aux=True)(nest)
        assert jax.tree.structure(gradient) == jax.tree.structure(nest) == jax.tree.structure(aux)
        moved = jax.tree.map(lambda p, g: p - g, nest, gradient)
        for leaf in jax.tree.leaves(moved):
            np.testing.assert_allclose(fw.numpy(leaf), -X)
        assert float(value) == L2 * len(jax.tree.leaves(nest)) and not isinstance(
            jax.tree.leaves(aux)[0], jax.core.Tracer
        )


def test_a_key_of_random_numbers_is_a_leaf_without_gradient(fw: Framework) -> None:
    nest = {"x": fw.array(X), "key": fw.module.random.key(0)}
    gradient = xp.grad(lambda nest: xp.l2(nest["x"]))(nest)
    assert gradient["key"] is None
    np.testing.assert_allclose(fw.numpy(gradient["x"]), 2 * X)


def test_several_devices(fw: Framework) -> None:
    """A new array, such as an identity matrix, must not pin the others to one device."""
    program = """
import jax, numpy as np, xpenalties as xp
mesh = jax.sharding.Mesh(np.array(jax.devices()), ("d",))
spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("d"))
x = jax.numpy.asarray(np.random.default_rng(0).standard_normal((4, 3, 5)), dtype="float32")
for fn in (lambda x: xp.orthogonality(x, per_sample=True), lambda x: xp.covariance(x[:, 0, :]), xp.l1):
    whole, parts = fn(x), fn(jax.device_put(x, spread))
    assert np.allclose(whole, parts, rtol=1e-5), (whole, parts)
assert np.isfinite(xp.orthogonality(jax.numpy.eye(4)) + xp.l1(jax.device_put(x, spread)))
print(len(jax.devices()))
"""
    assert run_together([[sys.executable, "-c", program]], **simulated_devices(2)) == ["2\n"]


def test_paths_have_names(fw: Framework) -> None:
    pipe = Pipeline([Penalty("l1"), Penalty("l2", weight=lambda step: 1.0), Penalty("huber", weight=2.0)])
    tree = fw.module.tree_util
    paths = [tree.keystr(path) for path, _ in tree.tree_leaves_with_path({"pipe": pipe})]
    assert paths == ["['pipe']['l1']", "['pipe']['huber']"]
    _, report = pipe.compute(fw.array(X), step=0)
    named = {tree.keystr(path): float(figure) for path, figure in tree.tree_leaves_with_path(report)}
    assert named["['l1']['value']"] == L1 and named["['huber']['weight']"] == 2.0 and "['loss_total']" in named
    with pytest.raises(ValueError, match=r"Penalty\('huber', weight=2.0\)"):
        fw.module.tree.map(lambda a, b: a, pipe, Pipeline({"l1": 1.0, "huber": 1.0}))


def test_reports_of_a_scan(fw: Framework) -> None:
    pipe = Pipeline([Penalty("l1", weight=lambda step: 0.5 * step)])
    x, steps = fw.array(X), fw.module.numpy.arange(3)
    _, stacked = fw.module.lax.scan(lambda carry, step: (carry, pipe.compute(x, step=step)[1]), 0, steps)
    last = fw.module.tree.map(lambda figure: figure[-1], stacked)
    assert last.to_dict()["regularizers"]["l1"]["contribution"] == L1
