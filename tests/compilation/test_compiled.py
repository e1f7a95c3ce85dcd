"""xpenalties.compile: the same values and gradients, and no program more than it takes."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from copy import copy, deepcopy
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, close
from tests.helpers.samples import L1, L2, X, with_metrics
from xpenalties import Penalty, Pipeline, RegularizedLoss, backends, telemetry

Y = np.asarray([[0.5, 1.0], [-3.0, 2.0]])
jit = pytest.mark.needs("jit")


class Programs:
    """Options for `compile`, and how many programs have been compiled with them."""

    def __init__(self, fw: Framework, monkeypatch: pytest.MonkeyPatch) -> None:
        self.options: dict[str, Any] = {}
        self._traced: list[int] = []
        if fw.name == "torch":
            from torch._dynamo.testing import CompileCounterWithBackend

            self.counter = CompileCounterWithBackend("aot_eager")
            self.options = {"torch": {"backend": self.counter, "fullgraph": True}}
        elif fw.name == "jax":
            from xpenalties._compilation import jax as _jax_jit

            def counting(fn: Callable[..., Any], **options: Any) -> Any:
                @wraps(fn)
                def counted(*args: Any, **kwargs: Any) -> Any:
                    self._traced.append(1)
                    return fn(*args, **kwargs)

                return fw.module.jit(counted, **options)

            monkeypatch.setattr(_jax_jit, "jit", counting)

    def __call__(self, target: Any) -> Any:
        return xp.compile(target, **self.options)

    @property
    def count(self) -> int:
        return len(self._traced) if not self.options else self.counter.frame_count


@pytest.fixture
def programs(fw: Framework, monkeypatch: pytest.MonkeyPatch) -> Programs:
    return Programs(fw, monkeypatch)


def scalar(fw: Framework, value: Any) -> Any:
    return fw.array(np.asarray(value))


def same_report(got: Any, want: Any) -> None:
    got, want = got.to_dict(), want.to_dict()
    assert list(got["regularizers"]) == list(want["regularizers"])
    assert [p["weight"] for p in got["regularizers"].values()] == [p["weight"] for p in want["regularizers"].values()]
    for parts in (got, want):
        parts.update({f"{name}/{k}": v for name, part in parts.pop("regularizers").items() for k, v in part.items()})
        parts.update({"base/" + k: v for k, v in (parts.pop("base_loss") or {}).items()})
    for figure, value in want.items():
        assert got[figure] == (value if value is None else pytest.approx(value, rel=1e-12)), figure


def base(x: Any) -> Any:
    return xp.namespace(x).sum(x**4), {"largest": xp.namespace(x).max(x)}


def pieces(step: int) -> float:
    return 0.25 if step < 2 else 1.5  # not for an array that is traced


NUMBERS = Pipeline([Penalty("l1", weight=0.1), Penalty("l2", weight=2.0), Penalty(with_metrics)], name="training")
SCHEDULED = Pipeline([Penalty("l1", weight=pieces), Penalty("l2", weight=lambda step: 0.1 * step)])
RARE = Pipeline([Penalty("l1", weight=lambda step: 0.1 * step, every=2), Penalty("l2", weight=0.3)])
TARGETS: dict[str, Pipeline | RegularizedLoss] = {
    "numbers": NUMBERS,
    "scheduled": SCHEDULED,
    "rare": RARE,
    "disabled": SCHEDULED.disable("l2"),
    "nothing": RARE.remove("l2"),
    "loss": RegularizedLoss(base, NUMBERS),
    "scheduled loss": RegularizedLoss(base, RARE),
}


# pipelines and losses


@jit
@pytest.mark.parametrize("name", TARGETS)
def test_values_and_reports(fw: Framework, programs: Programs, name: str) -> None:
    plain, x = TARGETS[name], fw.array(X)
    compiled = programs(plain)
    for step in range(4):
        total, want = compiled(x, step=step), plain(x, step=step)
        assert float(total) == pytest.approx(float(want), rel=1e-12)
        assert type(total) is type(want) and total.dtype == want.dtype
        same_report(compiled.compute(x, step=step)[1], plain.compute(x, step=step)[1])
    assert programs.count == (4 if name in ("rare", "nothing", "scheduled loss") else 2)


@jit
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_weights_widen_nothing(fw: Framework, programs: Programs, dtype: str) -> None:
    x = fw.array(X, dtype)
    compiled = programs(SCHEDULED)
    total, report = compiled.compute(x, step=3)
    want, wanted = SCHEDULED.compute(x, step=3)
    assert total.dtype == want.dtype == fw.dtype("float64" if dtype == "float64" else "float32")
    assert float(total) == pytest.approx(float(want), rel=1e-6)
    parts, others = report.regularizers, wanted.regularizers
    assert all(parts[name].contribution.dtype == others[name].contribution.dtype for name in others)
    assert all(parts[name].weight == others[name].weight for name in others)  # not 0.30000001


@jit
def test_weights_change(fw: Framework, programs: Programs) -> None:
    compiled, x = programs(NUMBERS), fw.array(X)
    for weight in (0.1, 0.0, 1.0, 2, 5.0, 1e-3):
        other = compiled.with_weights(l1=weight, l2=3 * weight)
        assert float(other(x)) == pytest.approx(float(other.target(x)), rel=1e-12)
        assert float(other.with_weights({"l1": 7.0})(x)) == pytest.approx(3 * weight * L2 + 7 * L1 + L2, rel=1e-12)
        reported = other.compute(x)[1].regularizers["l1"].weight
        assert reported == weight and isinstance(reported, float)
    assert compiled.target is NUMBERS and programs.count == 2


@jit
def test_steps_change(fw: Framework, programs: Programs) -> None:
    compiled, x = programs(RegularizedLoss(base, SCHEDULED)), fw.array(X)
    for step in range(12):
        compiled(x, step=step)
        compiled.compute(x, step=step)
        compiled.at(step)(x)
        compiled.with_weights(l1=0.1 * step)(x, step=step + 1)
    assert programs.count == 2


@jit
def test_every(fw: Framework, programs: Programs) -> None:
    pipe = Pipeline([Penalty("l1", weight=0.5), Penalty("l2", weight=lambda step: 2.0, every=3)])
    compiled, x = programs(pipe), fw.array(X)
    for step in range(10):
        assert float(compiled(x, step=step)) == 0.5 * L1 + (0 if step % 3 else 6 * L2)
    assert programs.count == 2


@jit
def test_more_programs_than_torch_keeps_by_default(fw: Framework, programs: Programs) -> None:
    pipe = Pipeline([Penalty("l1", every=k, name=f"every {k}") for k in (1, 2, 3, 4, 5)])
    compiled, x = programs(pipe), fw.array(X)
    seen = set()
    for step in (0, 1, 2, 3, 4, 5, 6, 10, 15, 12, 20, 30):
        assert float(compiled(x, step=step)) == float(pipe(x, step=step))
        seen.add(tuple(step % k == 0 for k in (1, 2, 3, 4, 5)))
    assert programs.count == len(seen) > 8


@jit
@pytest.mark.parametrize("kind", [float, np.int64, np.asarray])
def test_kinds_of_steps(fw: Framework, programs: Programs, kind: Callable[[int], Any]) -> None:
    compiled, x = programs(RARE), fw.array(X)
    for step in (2, 4, 6):
        assert float(compiled(x, step=kind(step))) == pytest.approx(0.2 * step * L1 + 0.3 * L2, rel=1e-12)
    assert programs.count == 1


@jit
def test_a_step_that_is_an_array(fw: Framework, programs: Programs) -> None:
    pipe = Pipeline([Penalty("l1", weight=lambda step: 0.1 * step), Penalty("l2", weight=0.3, every=2)])
    compiled, x = programs(pipe), fw.array(X)
    for step in range(5):
        total, report = compiled.compute(x, step=scalar(fw, step))
        weight = 0 if step % 2 else 0.6
        assert float(total) == pytest.approx(0.1 * step * L1 + weight * L2, rel=1e-7)  # PyTorch's 0.1 * step is float32
        parts = report.to_dict()["regularizers"]
        assert [parts["l1"]["weight"], parts["l2"]["weight"]] == pytest.approx([0.1 * step, weight])
    assert programs.count == 1


@jit
def test_a_step_that_is_traced(fw: Framework, programs: Programs) -> None:
    compiled = programs(SCHEDULED.disable("l1"))
    outer, count = fw.compile(lambda x, step: compiled(x, step=step))
    for step in (1, 2, 3):
        assert float(outer(fw.array(X), scalar(fw, step))) == pytest.approx(0.1 * step * L2, rel=1e-7)
    assert count() == 1


@jit
def test_a_schedule_of_arrays(fw: Framework, programs: Programs) -> None:
    """As Optax's are, for a step that is a number too."""
    pipe = Pipeline([Penalty("l1", weight=lambda step: scalar(fw, 0.1) * step), Penalty("l2", every=2)])
    compiled, x = programs(pipe), fw.array(X)
    counts = []
    for step in (2, 4, 6):
        total, report = compiled.compute(x, step=step)
        assert float(total) == pytest.approx(0.1 * step * L1 + 2 * L2, rel=1e-12)
        assert report.to_dict()["regularizers"]["l1"]["weight"] == pytest.approx(0.1 * step)
        counts.append(programs.count)
    assert len(set(counts)) == 1  # torch.compile tries a 0-d tensor's number first, and starts again


@jit
def test_other_penalties(fw: Framework, programs: Programs) -> None:
    compiled, x = programs(RegularizedLoss(base, Pipeline({"l1": 1.0, "l2": 1.0}))), fw.array(X)
    plain = float(np.sum(X**4))
    less = compiled.disable("l2")
    assert float(less(x)) == float(compiled.remove("l2")(x)) == plain + L1
    assert float(less.enable("l2")(x)) == float(compiled(x)) == plain + L1 + L2
    assert float(compiled.add(Penalty("huber"))(x)) == float(compiled.target(x) + xp.huber(x))
    assert programs.count == 4 and isinstance(less.target, RegularizedLoss)
    scheduled = programs(RARE)
    with pytest.raises(ValueError, match="`step` must be given for every=2, got None"):
        scheduled(x)
    assert float(scheduled.disable("l1")(x)) == 0.3 * L2  # what takes no part asks for no step


# gradients


@jit
def test_gradients(fw: Framework, programs: Programs) -> None:
    compiled, x = programs(NUMBERS), fw.array(X)
    want = 0.1 * np.sign(X) + 6 * X
    for weight in (2.0, 3.0):
        value, gradient = xp.value_and_grad(compiled.with_weights(l2=weight))(x)
        assert float(value) == pytest.approx(0.1 * L1 + (weight + 1) * L2, rel=1e-12)
        close(fw, gradient, want + (weight - 2) * 2 * X)
    assert programs.count == 1
    (_, report), gradient = xp.value_and_grad(compiled.compute, has_aux=True)(x)
    close(fw, gradient, want)
    same_report(report, NUMBERS.compute(x)[1])


@jit
@pytest.mark.only("torch", reason="is about PyTorch's own gradients")
def test_backward(fw: Framework, programs: Programs) -> None:
    compiled = programs(RegularizedLoss(base, NUMBERS))
    for step in range(3):
        x = fw.array(X).requires_grad_()
        total, report = compiled.with_weights(l2=float(step)).compute(x, track_grad_norms=step > 0)
        (2 * total).backward()
        close(fw, x.grad, 2 * (4 * X**3 + 0.1 * np.sign(X) + 2 * (step + 1) * X))
        assert not report.loss_total.requires_grad
    assert programs.count == 2


@jit
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch.compile looks at it
def test_learned_weights(fw: Framework, programs: Programs) -> None:
    compiled, x = programs(RARE), fw.array(X)
    gradient = xp.grad(lambda weight: compiled.with_weights(l1=weight)(x, step=2))
    counts = []
    for weight in (0.5, 0.75, 1.0):
        assert float(gradient(scalar(fw, weight))) == 2 * L1
        report = compiled.with_weights(l1=scalar(fw, weight)).compute(x, step=2)[1]
        assert report.to_dict()["regularizers"]["l1"]["weight"] == 2 * weight
        counts.append(programs.count)
    assert len(set(counts)) == 1


@jit
@pytest.mark.only("torch", reason="is about PyTorch's parameters")
def test_a_parameter(fw: Framework, programs: Programs) -> None:
    weight = fw.module.nn.Parameter(scalar(fw, 1.0))
    compiled = programs(Pipeline([Penalty("l1", weight=weight)]))
    optimizer = fw.module.optim.SGD([weight], lr=0.1)
    for step in range(3):
        optimizer.zero_grad()
        total, report = compiled.compute(fw.array(X))
        total.backward()
        assert float(weight.grad) == L1
        assert float(report.regularizers["l1"].weight) == pytest.approx(1 - step * 0.1 * L1)
        optimizer.step()
    assert programs.count == 1


@jit
@pytest.mark.parametrize("wrt", [None, ["b"], ("a", "b"), {"b"}, "a"], ids=str)
def test_tracked(fw: Framework, programs: Programs, wrt: Any) -> None:
    plain = Pipeline([Penalty("l1", inputs="a", weight=0.5), Penalty("consistency", inputs=("a", "b"))])
    compiled, inputs = programs(plain), {"a": fw.array(X), "b": fw.array(Y)}
    for weight in (0.5, 1.5):
        how = {"track_grad_norms": True, "gradient_conflicts": True}
        total, report = compiled.with_weights(l1=weight).compute(inputs, **how, wrt=copy(wrt))
        want, wanted = plain.with_weights(l1=weight).compute(inputs, **how, wrt=wrt)
        assert float(total) == pytest.approx(float(want), rel=1e-12)
        same_report(report, wanted)
        for name, row in wanted.conflicts().items():
            assert report.conflicts()[name] == pytest.approx(row)
    assert programs.count == 1


@jit
def test_tracked_penalties_that_do_not_depend(fw: Framework, programs: Programs) -> None:
    other = fw.array(X)
    plain = Pipeline(
        [
            Penalty("l1", inputs="a"),
            Penalty("l2", inputs="b"),
            Penalty(lambda a: 3.0, name="number", inputs="a"),
            Penalty(lambda a: xp.l1(other), name="elsewhere", inputs="a"),
            Penalty(lambda a: xp.namespace(a).sum(xp.namespace(a).astype(a > 0, a.dtype)), name="count", inputs="a"),
        ]
    )
    inputs = {"a": fw.array(X), "b": fw.array(Y)}
    compiled = programs(plain)
    for _ in range(2):
        total, report = compiled.compute(inputs, track_grad_norms=True, wrt="a")
        want, wanted = plain.compute(inputs, track_grad_norms=True, wrt="a")
        assert float(total) == pytest.approx(float(want), rel=1e-12)
        same_report(report, wanted)
        assert [part.grad_norm is None for part in report.regularizers.values()] == [False, True, True, True, True]
        errors = [part.error for part in report.regularizers.values()]
        assert errors[:1] + errors[2:] == [None, *["does not depend on wrt (a)"] * 3]
        assert errors[1] is not None and errors[1].startswith("does not use wrt (a) itself")  # b may depend on a
        assert report.total_grad_norm is None
    _, report = compiled.disable("l1").compute(inputs, track_grad_norms=True, wrt="a")
    assert report.total_grad_norm is None


# functions


@jit
def test_options_are_part_of_the_program(fw: Framework, programs: Programs) -> None:
    compiled, x, y = programs(xp.kl_divergence), fw.array(X), fw.array(Y)
    made = 0
    for direction in ("forward", "reverse", "symmetric"):
        for reduction in ("sum", "mean", "none"):
            for again in range(2):
                options = {"direction": direction, "reduction": reduction, "from_logits": True}
                got, want = compiled(x, y, **options), xp.kl_divergence(x, y, **options)
                np.testing.assert_allclose(fw.numpy(got), fw.numpy(want), rtol=1e-12)
                made += not again
                assert programs.count == made


@jit
def test_many_functions(fw: Framework, programs: Programs) -> None:
    """torch.compile counts them by their code, which all penalties share, and learns sizes by it."""
    for n in range(1, 11):
        assert float(programs(xp.l1)(fw.array(np.ones(n)))) == n
    assert programs.count == 10
    if fw.name == "torch":
        shapes = [
            [node.meta["example_value"] for node in graph.graph.nodes if node.op == "placeholder"]
            for graph in programs.counter.graphs
        ]
        assert [[tuple(x.shape) for x in found] for found in shapes] == [[(n,)] for n in range(1, 11)]


def weighted(x: Any, pipelines: Any, *more: Any, scale: float = 1.0, names: tuple[str, ...] = ()) -> Any:
    return scale * sum((pipelines[name](x) for name in names or pipelines), 0.0 * x[0, 0]) + len(more)


@jit
@pytest.mark.parametrize("nested", [lambda pipes: pipes, lambda pipes: {"loss": RegularizedLoss(base, pipes["one"])}])
def test_pipelines_among_the_arguments(
    fw: Framework, programs: Programs, nested: Callable[[dict[str, Pipeline]], Any]
) -> None:
    compiled, x = programs(weighted), fw.array(X)
    for weight in (0.5, 1.5, 2.0):
        pipelines = nested({"one": Pipeline({"l1": weight, "l2": 1.0}), "other": Pipeline({"huber": 2 * weight})})
        want = float(weighted(x, pipelines, scale=2.0))
        assert float(compiled(x, pipelines, scale=2.0)) == pytest.approx(want, rel=1e-12)
    assert programs.count == 1
    assert float(compiled(x, pipelines, 1, 2)) == pytest.approx(want / 2 + 2, rel=1e-12)
    assert float(compiled(x, pipelines=pipelines, names=("one",) if "one" in pipelines else ())) > 0
    assert programs.count == 3


@jit
def test_compiled_pipelines_among_the_arguments(fw: Framework, programs: Programs) -> None:
    inner, x = xp.compile(Pipeline({"l1": 1.0})), fw.array(X)
    compiled = programs(lambda x, pipes: pipes[0](x) + pipes[0].compute(x)[0])
    for weight in (0.5, 1.5, 2.5):
        assert float(compiled(x, [inner.with_weights(l1=weight)])) == 2 * weight * L1
    assert programs.count == (1 if fw.name == "torch" else 3)  # JAX's inner programs are programs too


@dataclass
class Batch:
    x: Any
    mode: str
    pipe: Pipeline


@jit
def test_dataclasses(fw: Framework, programs: Programs) -> None:
    def total(batch: Batch) -> Any:
        assert type(batch) is Batch
        return batch.pipe(batch.x) if batch.mode == "penalties" else xp.huber(batch.x)

    compiled, x = programs(total), fw.array(X)
    for weight in (1.0, 1.0, 1.0):
        assert float(compiled(Batch(x, "penalties", Pipeline({"l1": weight})))) == weight * L1
    assert programs.count == 1
    assert float(compiled(Batch(x, "other", Pipeline()))) == float(xp.huber(x))
    pipe = Pipeline([Penalty("l2", inputs=lambda batch: batch.x)])
    assert float(programs(pipe)(Batch(x, "", pipe))) == L2


@jit
def test_functions_among_the_arguments(fw: Framework, programs: Programs) -> None:
    compiled = programs(xp.gradient_penalty)

    def critic(x: Any) -> Any:
        return xp.namespace(x).sum(x * x, axis=-1)

    for _ in range(2):
        want = float(xp.gradient_penalty(critic, fw.array(X), target_norm=0.0))
        assert float(compiled(critic, fw.array(X), target_norm=0.0)) == pytest.approx(want)
    assert programs.count == 1
    inputs = {"critic": critic, "x": fw.array(X)}
    pipe = programs(Pipeline([Penalty("gradient_penalty", inputs=("critic", "x"), options={"target_norm": 0.0})]))
    assert float(pipe(inputs)) == pytest.approx(want)


@jit
@pytest.mark.only("torch", reason="needs a program that changes its arguments")
def test_containers_are_the_callers(fw: Framework, programs: Programs) -> None:

    def total(x: Any, seen: list[Any], found: dict[str, Any], both: tuple[Any, ...]) -> Any:
        found["l1"] = xp.l1(x)
        seen.append(found["l1"])
        return xp.l2(x)

    seen: list[Any] = []
    found: dict[str, Any] = {}
    assert float(programs(total)(fw.array(X), seen, found, (seen, 1))) == L2
    assert float(seen[0]) == float(found["l1"]) == L1


@jit
def test_numpy_scalars_are_numbers(fw: Framework, programs: Programs) -> None:
    compiled, x = programs(lambda x, options: xp.huber(x, **options)), fw.array(X)
    got = compiled(x, {"delta": np.float64(0.5), "normalizer": np.int64(2)})
    assert float(got) == float(xp.huber(x, delta=0.5, normalizer=2)) and programs.count == 1


@jit
def test_one_is_not_true(fw: Framework, programs: Programs) -> None:
    def total(x: Any, flag: Any) -> Any:
        return xp.l1(x) if flag is True else xp.l2(x)

    compiled = programs(total)
    assert [float(compiled(fw.array(X), flag)) for flag in (1, True, 1, True)] == [L2, L1, L2, L1]


@jit
def test_callables_of_all_kinds(fw: Framework, programs: Programs) -> None:
    class Scaled:
        def __call__(self, x: Any) -> Any:
            return 2 * xp.l1(x)

        def method(self, x: Any) -> Any:
            return 3 * xp.l1(x)

    for fn, want in ((Scaled(), 2), (Scaled().method, 3), (partial(xp.huber, delta=1e3), L2 / L1 / 2)):
        assert float(programs(fn)(fw.array(X))) == pytest.approx(want * L1)


@jit
def test_arrays_among_the_options(fw: Framework, programs: Programs) -> None:
    def around(center: Any) -> Pipeline:
        return Pipeline([Penalty("l2", options={"center": fw.array(center)})])

    compiled, x = programs(around(Y)), fw.array(X)
    assert float(compiled(x)) == pytest.approx(float(np.sum((X - Y) ** 2)))
    other = compiled.remove("l2").add(around(0 * Y)["l2"])
    assert float(other(x)) == L2
    if fw.name == "torch":
        compiled.target["l2"].options["center"].mul_(0.0)
        assert float(compiled(x)) == L2 and programs.count == 1


@jit
def test_numbers_among_the_options(fw: Framework, programs: Programs) -> None:
    compiled, x = programs(xp.huber), fw.array(X)
    for delta in (0.5, 0.6, 0.7, 0.8):
        assert float(compiled(x, delta=delta)) == pytest.approx(float(xp.huber(x, delta=delta)), rel=1e-12)
    assert programs.count == (2 if fw.name == "torch" else 4)


@jit
def test_types_that_turn_up_later(fw: Framework, programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile reads the dictionary of types, and compiles anew once it has grown."""
    monkeypatch.setattr(backends._registry, "_BACKENDS", {})
    compiled, x = programs(NUMBERS), fw.array(X)
    for late in (X, np.float32(1), np.int16(1), fw.array(X)):
        assert float(compiled(x)) == pytest.approx(0.1 * L1 + 3 * L2) and backends.is_array(late)
    assert programs.count == 1


# traces


@jit
def test_inside_of_a_trace(fw: Framework, programs: Programs) -> None:
    compiled, function = programs(SCHEDULED), programs(xp.l1)
    outer, count = fw.compile(lambda x: (compiled(x, step=3), compiled.compute(x, step=3), function(x)))
    total, (other, report), l1 = outer(fw.array(X))
    assert float(total) == float(other) == float(report.loss_total) == pytest.approx(1.5 * L1 + 0.3 * L2)
    assert float(l1) == L1 and count() == 1
    assert fw.name != "torch" or programs.count == 0


@jit
def test_transformations(fw: Framework, programs: Programs) -> None:
    compiled, function = programs(NUMBERS), programs(xp.l1)
    x = fw.array(np.stack([X, 2 * X]))
    np.testing.assert_allclose(fw.numpy(fw.vmap(function)(x)), [L1, 2 * L1])
    np.testing.assert_allclose(fw.numpy(fw.vmap(compiled)(x)), [0.1 * L1 + 3 * L2, 0.2 * L1 + 12 * L2])
    grad = fw.module.grad if fw.name == "jax" else fw.module.func.grad
    close(fw, grad(compiled)(fw.array(X)), 0.1 * np.sign(X) + 6 * X)
    assert programs.count == (0 if fw.name == "torch" else 2)


@jit
@pytest.mark.only("jax", reason="is about JAX's pytrees")
def test_a_pytree(fw: Framework) -> None:
    compiled = xp.compile(Pipeline({"l1": 0.5, "l2": 2.0}))
    total, count = fw.compile(lambda pipe, x: pipe(x))
    for weight in (0.5, 1.5):
        assert float(total(compiled.with_weights(l1=weight), fw.array(X))) == weight * L1 + 2 * L2
    assert count() == 1
    paths = fw.module.tree_util.tree_leaves_with_path(compiled)
    assert [fw.module.tree_util.keystr(path) for path, _ in paths] == ["['target']['l1']", "['target']['l2']"]
    gradient = fw.module.grad(lambda pipe: pipe(fw.array(X)))(compiled)
    assert [float(p.weight) for p in gradient.target] == [L1, L2]


@jit
@pytest.mark.parametrize("name", ["numbers", "loss"])
def test_a_pickle(fw: Framework, name: str) -> None:
    plain, x = TARGETS[name], fw.array(X)
    compiled = xp.compile(plain, torch={"backend": "eager"})
    before = compiled(x), compiled.compute(x)[1]  # with its programs, which cannot be pickled
    loaded = pickle.loads(pickle.dumps(compiled))
    assert loaded.target == plain and float(loaded(x)) == float(before[0])
    same_report(loaded.compute(x)[1], before[1])


@jit
def test_a_copy_uses_the_same_programs(fw: Framework, programs: Programs) -> None:
    compiled = programs(NUMBERS)
    assert float(compiled(fw.array(X))) == float(deepcopy(compiled)(fw.array(X)))
    assert programs.count == 1


# errors


@jit
def test_errors_of_penalties(fw: Framework, programs: Programs) -> None:
    x, y = fw.array(X), fw.array(Y)
    pipe = programs(Pipeline([Penalty("kl_divergence", weight=0.5)], name="training"))
    for call in (lambda: programs(xp.kl_divergence)(x, y[0]), lambda: pipe(x, y[0]), lambda: pipe.compute(x, y[0])):
        with pytest.raises(Exception, match="must have the same shape") as caught:
            call()
        assert "must have the same shape" in str(caught.value).partition("from user code")[0]
    if fw.name == "jax":
        assert caught.value.__notes__[0].startswith("In penalty 'kl_divergence' of 'training', weight ")
    with pytest.raises(Exception, match="`direction` must be one of"):
        programs(xp.kl_divergence)(x, y, direction="forwrd")


@jit
def test_errors_of_schedules(fw: Framework, programs: Programs) -> None:
    def fails(step: int) -> float:
        raise RuntimeError(f"no weight at {step}")

    compiled, x = programs(Pipeline([Penalty("l1", weight=fails)], name="training")), fw.array(X)
    with pytest.raises(RuntimeError, match=r"^no weight at 3") as caught:
        compiled(x, step=3)
    assert caught.value.__notes__ == ["In penalty 'l1' of 'training', step 3."]
    with pytest.raises(
        ValueError, match=r"^penalty 'l1': `step` must be given for a schedule, got None\. Pass `step=`\."
    ):
        compiled(x)
    with pytest.raises(ValueError, match=r"^penalty 'l2': `step` must be given for every=3, got None"):
        programs(Pipeline([Penalty("l2", every=3)])).compute(x)
    with pytest.raises(ValueError, match=r"^penalty 'l1': `weight` must be in \[0, inf\), got -1.0"):
        programs(Pipeline([Penalty("l1", weight=lambda step: -1.0)]))(x, step=0)


@jit
def test_arrays_of_two_frameworks(fw: Framework, programs: Programs) -> None:
    message = "the arrays must be of one framework to be compiled, got (jax and numpy|numpy and torch)"
    x = fw.array(X)
    with pytest.raises(TypeError, match=f"^kl_divergence: {message}. Convert one of them first, with asarray or from_"):
        programs(xp.kl_divergence)(x, Y)
    with pytest.raises(TypeError, match=f"^training: {message}"):
        programs(NUMBERS)({"a": x, "b": Y})
    with pytest.raises(TypeError, match=f"^method: {message}"):
        programs(Scale().method)(x, Y)
    with pytest.raises(TypeError, match=f"^Scale: {message}"):
        programs(Scale())(x, Y)


class Scale:
    def __call__(self, *arrays: Any) -> Any: ...

    def method(self, *arrays: Any) -> Any: ...


@jit
@pytest.mark.only("jax", reason="is about arguments that jax.jit refuses")
def test_what_jax_cannot_take(fw: Framework, programs: Programs) -> None:
    x = fw.array(X)

    def total(x: Any, config: Any, /, *more: Any, options: Any = None) -> Any:
        return xp.l1(x)

    said = r"must hold arrays and hashable values to be compiled, got set\. Pass something immutable, or a pytree that"
    compiled = programs(total)
    for args, kwargs, name in (
        ((x, {1}), {}, "config"),
        ((x, [{"deep": {1}}]), {}, "config"),
        ((x, None, {1}), {}, "argument 2"),
        ((x, None), {"options": {1}}, "options"),
    ):
        with pytest.raises(TypeError, match=rf"^total: `{name}` {said}"):
            compiled(*args, **kwargs)
    with pytest.raises(TypeError, match=rf"^training: `inputs` {said}"):
        programs(NUMBERS)({"x": x, "tags": {1}})
    with pytest.raises(TypeError, match=rf"^max: `argument 1` {said}"):
        programs(max)(x, {1})
    assert programs.count == 0


@jit
def test_options_are_handed_over(fw: Framework) -> None:
    for target in (xp.l1, NUMBERS):
        compiled = xp.compile(target, **{fw.name: {"nonsense": 1}})
        with pytest.raises(TypeError, match="nonsense"):
            compiled(fw.array(X))


@jit
@pytest.mark.only("jax", reason="is about an option of jax.jit")
def test_donated(fw: Framework) -> None:
    x = fw.array(X)
    compiled = xp.compile(lambda pipe, x: (pipe(x), x + 1), jax={"donate_argnums": 1})
    assert float(compiled(Pipeline({"l1": 1.0}), x)[0]) == L1 and x.is_deleted()


# without a compiler


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.only("numpy", "strict", reason="is about NumPy, and wants its gradients")
def test_nothing_is_compiled(fw: Framework, name: str) -> None:
    plain = TARGETS[name]
    compiled = xp.compile(plain)
    for step in range(3):
        assert compiled(X, step=step) == plain(X, step=step)
        total, report = compiled.compute(X, step=step, track_grad_norms=True, wrt=[0], gradient_conflicts=True)
        want, wanted = plain.compute(X, step=step, track_grad_norms=True, wrt=[0], gradient_conflicts=True)
        assert total == want and str(report) == str(wanted) and report.conflicts() == wanted.conflicts()
    value, gradient = xp.value_and_grad(lambda x: compiled(x, step=1))(X)
    wanted, slope = xp.value_and_grad(lambda x: plain(x, step=1))(X)
    assert value == wanted and np.array_equal(gradient, slope)


def test_telemetry_is_told_where_nothing_is_compiled() -> None:
    told: list[telemetry.Event] = []
    handler = telemetry.add_handler(told.append)
    try:
        xp.compile(SCHEDULED)(X, step=3)
    finally:
        telemetry.remove_handler(handler)
    assert [event.kind for event in told] == ["start", "start", "stop", "start", "stop", "stop"]
    assert {event.step for event in told} == {3}


def test_a_function_stays_itself() -> None:
    compiled = xp.compile(xp.huber)
    assert compiled.__name__ == "huber" and compiled.__doc__ == xp.huber.__doc__
    assert (
        inspect.signature(compiled) == inspect.signature(xp.huber) and inspect.unwrap(compiled) is xp.huber.__wrapped__
    )
    assert compiled(X, delta=0.5) == xp.huber(X, delta=0.5)
    assert compiled(np.float64(3.0)) == xp.huber(np.float64(3.0))
    with pytest.raises(TypeError, match=r"^kl_divergence: `log_p` must be an array, got builtins.list"):
        xp.compile(xp.kl_divergence)([1.0], [1.0])


def test_what_compile_refuses() -> None:
    with pytest.raises(
        TypeError, match=r"^compile: `target` must be a Pipeline, a .* or a callable, got int\. Pass one\."
    ):
        xp.compile(3)  # type: ignore[call-overload]
    with pytest.raises(
        TypeError, match=r"^compile: `torch` must be a mapping of options, got 'inductor'\. Pass a dict\."
    ):
        xp.compile(xp.l1, torch="inductor")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"^compile: `jax` must be a mapping of options, got \['x'\]\. Pass a dict\."):
        xp.compile(NUMBERS, jax=["x"])  # type: ignore[call-overload]
    compiled = xp.compile(NUMBERS)
    with pytest.raises(TypeError, match="execution"):
        compiled.compute(X, execution="threads")
    assert not hasattr(compiled, "compute_async")
    with pytest.raises(ValueError, match=r"^training: no penalty is named 'l3'. The names are .* Did you mean 'l[12]'"):
        compiled.disable("l3")


def test_compiled_once() -> None:
    compiled = xp.compile(NUMBERS)
    again = xp.compile(compiled)
    assert isinstance(again, xp.Compiled) and again.target is NUMBERS
    assert repr(compiled) == f"Compiled: {NUMBERS!r}"
    assert repr(xp.compile(RegularizedLoss(base, NUMBERS))).startswith("Compiled: RegularizedLoss of base and Pipeline")
