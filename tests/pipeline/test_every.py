"""Penalties that count on each k-th step only: how much, at what cost, and where the step is traced."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, close
from tests.helpers.samples import L1, L2, X
from xpenalties import Penalty, Pipeline, RegularizedLoss

THIRD = Pipeline([Penalty("l1", weight=0.5), Penalty("l2", weight=2.0, every=3)])


def counted(calls: list[Any], **options: Any) -> Penalty:
    return Penalty(lambda x: calls.append(1) or xp.l2(x), name="counted", **options)


@pytest.mark.smoke
def test_as_much_more_on_each_kth_step(fw: Framework) -> None:
    calls: list[int] = []
    pipe = Pipeline([Penalty("l1", weight=0.5), counted(calls, weight=2.0, every=3)])
    for step in range(7):
        total, report = pipe.compute(fw.array(X), step=step)
        due = step % 3 == 0
        assert float(total) == float(pipe(fw.array(X), step=step)) == 0.5 * L1 + (6 * L2 if due else 0.0)
        assert list(report.regularizers) == (["l1", "counted"] if due else ["l1"])
        if due:
            part = report.to_dict()["regularizers"]["counted"]
            assert (part["value"], part["weight"], part["contribution"]) == (L2, 6.0, 6 * L2)
    assert len(calls) == 6


def test_kinds_of_steps(fw: Framework) -> None:
    for step in (3, 3.0, np.int64(3), np.asarray(3), fw.array(np.asarray(3)), -3, 0):
        assert float(THIRD(fw.array(X), step=step)) == 0.5 * L1 + 6 * L2
    for step in (4, np.int32(4), np.asarray(4), fw.array(np.asarray(4)), True):
        assert float(THIRD(fw.array(X), step=step)) == 0.5 * L1


def test_more_steps_than_a_counter_holds(fw: Framework) -> None:
    k = 3 * 10**9
    pipe = Pipeline([Penalty("l1", weight=0.5), Penalty("l2", weight=2.0 / k, every=k)])
    run = fw.once(lambda x, step: pipe(x, step=step))
    for step, due in ((0, True), (5, False), (2**31 - 1, False)):
        for given in (step, fw.array(np.asarray(step, np.int32)), np.int32(step)):
            assert float(pipe(fw.array(X), step=given)) == pytest.approx(0.5 * L1 + (2 * L2 if due else 0.0))
        assert float(run(fw.array(X), fw.array(np.asarray(step, np.int32)))) == pytest.approx(
            0.5 * L1 + (2 * L2 if due else 0.0)
        )
    assert float(pipe(fw.array(X), step=fw.array(np.asarray(3e9), "float32"))) == pytest.approx(0.5 * L1 + 2 * L2)
    learned = pipe.with_weights(l2=fw.array(np.asarray(2.0 / k)))
    assert float(learned(fw.array(X), step=0)) == pytest.approx(0.5 * L1 + 2 * L2, rel=1e-6)


def test_it_averages_out(fw: Framework) -> None:
    k = 4
    pipe = Pipeline([Penalty("l2", weight=0.5, every=k)])
    often = Pipeline([Penalty("l2", weight=0.5)])
    for first in (0, 1, 7):
        rare = sum(float(pipe(fw.array(X), step=step)) for step in range(first, first + k))
        assert rare == sum(float(often(fw.array(X), step=step)) for step in range(first, first + k)) == k * 0.5 * L2


def test_no_step(fw: Framework) -> None:
    message = r"^penalty 'l2': `step` must be given for every=3, got None\. Pass `step=`\.$"
    with pytest.raises(ValueError, match=message):
        THIRD(fw.array(X))
    with pytest.raises(ValueError, match=message):
        RegularizedLoss(xp.l1, THIRD).compute(fw.array(X))
    assert float(THIRD.disable("l2")(fw.array(X))) == 0.5 * L1


@pytest.mark.parametrize(
    ("every", "kind", "message"),
    [
        (0, ValueError, r"^Penalty: `every` must be at least 1, got 0\.$"),
        (-2, ValueError, r"^Penalty: `every` must be at least 1, got -2\.$"),
        ("2", TypeError, r"^Penalty: `every` must be an integer, got '2'\. Pass a Python int\.$"),
        (2.0, TypeError, r"^Penalty: `every` must be an integer, got 2\.0\."),
        (True, TypeError, r"^Penalty: `every` must be an integer, got True\."),
        (None, TypeError, r"^Penalty: `every` must be an integer, got None\."),
    ],
)
def test_what_every_refuses(every: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        Penalty("l1", every=every)


def test_every_is_a_python_integer() -> None:
    assert type(Penalty("l1", every=np.int64(4)).every) is int
    assert repr(Penalty("l1", every=4)) == "Penalty('l1', every=4)" and repr(Penalty("l1", every=1)) == "Penalty('l1')"


def test_nothing_is_due(fw: Framework) -> None:
    pipe = Pipeline([Penalty("l2", every=2)])
    total, report = pipe.compute(fw.array(X, "float32"), step=1)
    assert float(total) == 0.0 and total.dtype == fw.dtype("float32") and report.regularizers == {}


def test_schedules_and_array_weights(fw: Framework) -> None:
    scheduled = Pipeline([Penalty("l2", weight=lambda step: 0.1 * step, every=3)])
    assert float(scheduled(fw.array(X), step=6)) == pytest.approx(0.6 * 3 * L2)
    weighted = Pipeline([Penalty("l2", weight=fw.array(np.asarray(0.1)), every=3)])
    total, report = weighted.compute(fw.array(X, "float32"), step=3)
    assert float(total) == pytest.approx(0.3 * L2) and total.dtype == fw.dtype("float32")
    assert float(report.regularizers["l2"].weight) == pytest.approx(0.3)
    assert float(weighted(fw.array(X), step=4)) == 0.0


@pytest.mark.needs("autodiff")
def test_gradient(fw: Framework) -> None:
    close(fw, xp.grad(lambda x: THIRD(x, step=3))(fw.array(X)), 0.5 * np.sign(X) + 12 * X)
    close(fw, xp.grad(lambda x: THIRD(x, step=4))(fw.array(X)), 0.5 * np.sign(X))
    weight = xp.grad(lambda w: Pipeline([Penalty("l2", weight=w, every=3)])(fw.array(X), step=3))
    assert float(weight(fw.array(np.asarray(2.0)))) == 3 * L2


@pytest.mark.needs("autodiff")
def test_tracked(fw: Framework) -> None:
    calls: list[int] = []
    pipe = Pipeline([Penalty("l1", weight=0.5), counted(calls, weight=2.0, every=3)])
    _, report = pipe.compute(fw.array(X), step=3, gradient_conflicts=True)
    part = report.to_dict()["regularizers"]["counted"]
    assert part["grad_norm"] == pytest.approx(2 * np.sqrt(L2)) and part["grad_norm_weighted"] == pytest.approx(
        12 * np.sqrt(L2)
    )
    assert float(report.total_grad_norm) == pytest.approx(float(np.linalg.norm(0.5 * np.sign(X) + 12 * X)))
    assert len(calls) == 1
    _, report = pipe.compute(fw.array(X), step=4, gradient_conflicts=True)
    assert list(report.regularizers) == list(report.conflicts()) == ["l1"] and len(calls) == 1
    assert float(report.total_grad_norm) == pytest.approx(1.0)


# steps that are traced


@pytest.mark.needs("jit")
@pytest.mark.parametrize("options", [{}, {"track_grad_norms": True}], ids=["plain", "tracked"])
def test_a_traced_step(fw: Framework, options: dict[str, Any]) -> None:
    def metrics(x: Any) -> Any:
        ns = xp.namespace(x)
        return xp.l2(x), {"largest": ns.max(x), "note": 4.0}

    pipe = Pipeline([Penalty("l1", weight=0.1), Penalty(metrics, weight=0.3, every=3), Penalty("l2", every=2)])
    compiled, count = fw.compile(lambda x, step: pipe.compute(x, step=step, **options))
    counts = []
    for i in range(7):
        total, report = compiled(fw.array(X), fw.array(np.asarray(i)))
        want, wanted = pipe.compute(fw.array(X), step=i, **options)
        assert float(total) == pytest.approx(float(want), rel=1e-14)
        found, wanted = report.to_dict(), wanted.to_dict()
        if options:
            assert found["total_grad_norm"] == pytest.approx(wanted["total_grad_norm"], rel=1e-12)
        for name, part in found["regularizers"].items():
            if name in wanted["regularizers"]:
                assert part["custom"] == pytest.approx(wanted["regularizers"][name]["custom"])
                for figure in ("value", "weight", "contribution", *(["grad_norm_weighted"] if options else [])):
                    assert part[figure] == pytest.approx(wanted["regularizers"][name][figure], rel=1e-14), figure
            else:
                assert (part["value"], part["weight"], part["contribution"]) == (0.0, 0.0, 0.0)
                assert not part["grad_norm_weighted"] and part["custom"].get("largest", 0.0) == 0.0
        counts.append(count())
    assert len(set(counts)) == 1


@pytest.mark.needs("jit")
def test_a_traced_step_with_learned_weights_and_schedules(fw: Framework) -> None:
    weight = fw.array(np.asarray(0.1))
    pipe = Pipeline(
        [
            Penalty("l1", weight=weight, every=2),
            Penalty("l2", weight=lambda step: 0.1 * step, every=3),
        ]
    )
    compiled, _ = fw.compile(lambda x, step: pipe(x, step=step))
    for i in range(4):
        got = compiled(fw.array(X), fw.array(np.asarray(i)))
        assert float(got) == pytest.approx(float(pipe(fw.array(X), step=i)), rel=1e-6 if fw.name == "torch" else 1e-12)


@pytest.mark.needs("jit")
def test_gradient_where_the_step_is_traced(fw: Framework) -> None:
    def of(x: Any, step: Any) -> Any:
        return xp.grad(lambda x: THIRD.compute(x, step=step, track_grad_norms=True)[0])(x)

    compiled, _ = fw.compile(of)
    for i in (3, 4):
        want = 0.5 * np.sign(X) + (12 * X if i == 3 else 0)
        close(fw, compiled(fw.array(X), fw.array(np.asarray(i))), want)


@pytest.mark.only("jax", reason="is about jax.lax.cond")
def test_jax_pays_only_on_the_steps_that_count(fw: Framework) -> None:
    jax, ran = fw.module, []

    def costly(x: Any) -> Any:
        jax.debug.callback(lambda: ran.append(1))
        return xp.l2(x)

    pipe = Pipeline([Penalty("l1"), Penalty(costly, every=4)])
    loss = RegularizedLoss(xp.l2, pipe)
    for compute in (pipe, lambda x, step: loss.compute(x, step=step)[0]):
        compiled, count = fw.compile(lambda x, step, compute=compute: compute(x, step=step))
        ran.clear()
        for step in range(8):
            compiled(fw.array(X), step).block_until_ready()
        jax.effects_barrier()
        assert len(ran) == 2 and count() == 1
    gradient = jax.jit(jax.grad(lambda x, step: pipe(x, step=step)))
    close(fw, gradient(fw.array(X), 4), np.sign(X) + 8 * X)
    close(fw, gradient(fw.array(X), 5), np.sign(X))


@pytest.mark.only("jax", reason="is about JAX's pytrees")
def test_jax_compiles_for_each_way_to_count(fw: Framework) -> None:
    step, count = fw.compile(lambda pipe, x, i: pipe(x, step=i))
    for every in (1, 2, 3):
        pipe = Pipeline([Penalty("l1", every=every)])
        assert [float(step(pipe, fw.array(X), i)) for i in (6, 7)] == [every * L1, L1 if every == 1 else 0.0]
    assert count() == 3
    others = [{}, {"timeout": 1.0}, {"timeout": 2.0}, {"on_error": "drop"}]
    structures = [fw.module.tree.structure(Pipeline([Penalty("l1", **options)])) for options in others]
    assert len(set(structures)) == 4


@pytest.mark.only("jax", reason="is about JAX's transformations")
def test_jax_scans_and_maps_over_steps(fw: Framework) -> None:
    jax, x = fw.module, fw.array(X)
    want = [0.5 * L1 + (6 * L2 if step % 3 == 0 else 0.0) for step in range(4)]
    steps = jax.numpy.arange(4)
    _, scanned = jax.lax.scan(lambda carry, step: (carry, THIRD(x, step=step)), 0, steps)
    mapped = jax.vmap(lambda step: THIRD(x, step=step))(steps)
    assert scanned.tolist() == mapped.tolist() == want


@pytest.mark.only("torch", reason="is about numbers that torch.compile guards")
def test_torch_compiles_for_steps_that_are_numbers(fw: Framework) -> None:
    compiled, count = fw.compile(lambda x, step: THIRD.compute(x, step=step))
    for step in range(8):
        total, report = compiled(fw.array(X), step)
        assert float(total) == 0.5 * L1 + (6 * L2 if step % 3 == 0 else 0.0)
        assert ("l2" in report.regularizers) is (step % 3 == 0)
    assert count() <= 4  # of step 0, and with a symbol for the step: once where it is due and once where it is not


@pytest.mark.only("torch", reason="is about torch.vmap")
def test_torch_maps_over_steps(fw: Framework) -> None:
    steps = fw.module.arange(4)
    got = fw.module.vmap(lambda step: THIRD(fw.array(X), step=step))(steps)
    assert got.tolist() == [0.5 * L1 + (6 * L2 if step % 3 == 0 else 0.0) for step in range(4)]
