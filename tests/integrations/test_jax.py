"""The integration with JAX's libraries, beside the same written by hand in their own words."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.conftest import integration
from xpenalties import Penalty, Pipeline, RegularizedLoss, schedules, transforms, trees

integration("flax", "optax", "equinox", backends=("jax",))

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from flax import linen, nnx

from xpenalties.integrations.jax import sown, train_step

pytestmark = pytest.mark.integrations
STEPS = 20
BONUS = schedules.linear(0.1, 0.3, steps=10)
PIPE = Pipeline(
    [
        Penalty("l1", inputs="hidden", weight=0.01),
        Penalty("entropy", inputs="logits", weight=BONUS, options={"mode": "bonus", "from_logits": True}),
        Penalty(trees.over_tree("l2", match="kernel|weight"), name="decay", inputs="params", weight=0.05),
    ]
)


def cross_entropy(inputs: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(inputs["logits"], inputs["labels"]).mean()


LOSS = RegularizedLoss(cross_entropy, PIPE)


def by_hand(hidden: Any, logits: Any, labels: Any, kernels: list[Any], step: Any) -> Any:
    """The same, in JAX's words."""
    log_p = jax.nn.log_softmax(logits)
    loss = -jnp.take_along_axis(log_p, labels[:, None], -1).mean()
    entropy = -(jnp.exp(log_p) * log_p).sum(-1).mean()
    bonus = jnp.minimum(0.1 + 0.02 * step, 0.3) * entropy
    return loss + 0.01 * jnp.abs(hidden).sum() - bonus + 0.05 * sum((kernel**2).sum() for kernel in kernels)


def batches() -> list[tuple[Any, Any]]:
    rng = np.random.default_rng(1)
    return [(jnp.asarray(rng.normal(size=(16, 6)), float), jnp.asarray(rng.integers(0, 3, 16))) for _ in range(STEPS)]


def arrays() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shapes = {"kernel_0": (6, 8), "bias_0": (8,), "kernel_1": (8, 3), "bias_1": (3,)}
    return {name: jnp.asarray(rng.normal(size=shape) / 3, float) for name, shape in shapes.items()}


def hidden_and_logits(params: Any, x: Any) -> tuple[Any, Any]:
    hidden = jnp.tanh(x @ params["kernel_0"] + params["bias_0"])
    return hidden, hidden @ params["kernel_1"] + params["bias_1"]


def forward(params: Any, x: Any, labels: Any) -> dict[str, Any]:
    hidden, logits = hidden_and_logits(params, x)
    return {"hidden": hidden, "logits": logits, "labels": labels}


def close(a: Any, b: Any) -> None:
    """Compare what was computed in float64, see the fixture of that name."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for mine, theirs in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert mine.dtype == theirs.dtype == jnp.float64
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-9)


def trained_by_hand(total: Callable[..., Any], params: Any, optimizer: Any) -> Any:
    state = optimizer.init(params)

    @jax.jit
    def update(params: Any, state: Any, x: Any, labels: Any, i: Any) -> Any:
        gradient = jax.grad(total)(params, x, labels, i)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    for i, (x, labels) in enumerate(batches()):
        params, state = update(params, state, x, labels, i)
    return params


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("jit", [True, False])
def test_training_as_by_hand(jit: bool) -> None:
    def total(params: Any, x: Any, labels: Any, step: Any) -> Any:
        kernels = [params["kernel_0"], params["kernel_1"]]
        return by_hand(*hidden_and_logits(params, x), labels, kernels, step)

    optimizer = optax.chain(
        transforms.clip_by_global_norm(0.5),
        optax.adam(0.05),
        transforms.add_l2_decay(0.01, match="kernel", decoupled=True),
    )
    step = train_step(forward, LOSS, optimizer, jit=jit)
    params = arrays()
    state = optimizer.init(params)
    for i, batch in enumerate(batches()):
        params, state, report = step(params, state, *batch, step=i)
    theirs = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.05))
    mask = {name: "kernel" in name for name in params}
    theirs = optax.chain(theirs, optax.masked(optax.add_decayed_weights(-0.01), mask))
    close(params, trained_by_hand(total, arrays(), theirs))
    assert report.flat()["entropy/weight"] == pytest.approx(0.3)
    assert "l1/grad_norm" not in report.flat()


def test_compiled_once_for_weights_and_steps() -> None:
    traces = []

    def counted(params: Any, x: Any, labels: Any) -> dict[str, Any]:
        traces.append(1)
        return forward(params, x, labels)

    optimizer = optax.sgd(0.1)
    step = train_step(counted, LOSS, optimizer)
    options = {"track_grad_norms": True, "wrt": "hidden", "gradient_conflicts": True}
    params = arrays()
    state = optimizer.init(params)
    for i, batch in enumerate(batches()[:4]):
        before = params
        params, state, report = step(params, state, *batch, step=i, weights={"l1": 0.1 * i}, **options)
        hidden, _ = hidden_and_logits(before, batch[0])
        assert report.flat()["l1/contribution"] == pytest.approx(0.1 * i * float(jnp.abs(hidden).sum()), rel=1e-5)
    assert len(traces) == 1
    assert report.flat()["l1/grad_norm"] == pytest.approx((16 * 8) ** 0.5, rel=1e-6)
    assert report.conflicts()["l1"]["l1"] == pytest.approx(1.0)


@pytest.mark.parametrize("optimizer", [optax.lbfgs(), optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau())])
def test_optimizers_that_take_more(optimizer: Any) -> None:
    step = train_step(forward, LOSS, optimizer)
    params = arrays()
    state = optimizer.init(params)
    batch = batches()[0]
    totals = []
    for i in range(6):
        wrt = None if i % 2 else (name for name in ["hidden"])
        params, state, report = step(params, state, *batch, step=3, wrt=wrt, track_grad_norms=True)
        totals.append(float(report.loss_total))
    assert totals[-1] < totals[0]
    step(params, state, *(x[:3] for x in batch), step=3)  # traced again


class Network(nnx.Module):
    """With a batch statistic and random numbers, which are state too."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        dtype = jnp.zeros(()).dtype  # Flax's own default is float32
        self.first = nnx.Linear(6, 8, param_dtype=dtype, rngs=rngs)
        self.norm = nnx.BatchNorm(8, param_dtype=dtype, rngs=rngs)
        self.norm.mean, self.norm.var = nnx.BatchStat(jnp.zeros(8, dtype)), nnx.BatchStat(jnp.ones(8, dtype))
        self.drop = nnx.Dropout(0.1, rngs=rngs)
        self.last = nnx.Linear(8, 3, param_dtype=dtype, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        hidden = nnx.tanh(self.norm(self.first(x)))
        self.sow(nnx.Intermediate, "hidden", hidden)
        return self.last(self.drop(hidden))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("more", [False, True])
def test_optimizers_of_other_parameters_names(more: bool) -> None:
    """They are passed by position: their names may be those of what is passed by name to others."""
    sgd = optax.sgd(0.1)

    def update(grad: Any, value: Any, params: Any = None, **extra: Any) -> Any:
        assert set(extra) == {"value_fn"}
        return sgd.update(grad, value, params)

    def of_three(grad: Any, value: Any, params: Any = None) -> Any:
        return sgd.update(grad, value, params)

    result = []
    for optimizer in (optax.GradientTransformation(sgd.init, update if more else of_three), sgd):
        params = arrays()
        step = train_step(forward, LOSS, optimizer)
        result.append(step(params, optimizer.init(params), *batches()[0], step=1)[0])
    close(*result)


@pytest.mark.usefixtures("float64")
def test_flax_as_by_hand() -> None:
    model = Network(nnx.Rngs(0))
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def forward(params: Any, rest: Any, x: Any, labels: Any) -> Any:
        model = nnx.merge(graph, params, rest, copy=True)
        logits, result = nnx.capture(nnx.Intermediate)(lambda model, x: model(x))(model, x)
        return {**sown(result), "logits": logits, "labels": labels}, nnx.state(model, nnx.Not(nnx.Param))

    optimizer = optax.sgd(0.1, momentum=0.9)
    step = train_step(forward, LOSS, optimizer, has_aux=True)
    state = optimizer.init(params)
    for i, batch in enumerate(batches()):
        params, state, report, rest = step(params, state, rest, *batch, step=i)

    theirs = Network(nnx.Rngs(0))
    theirs_optimizer = nnx.Optimizer(theirs, optimizer, wrt=nnx.Param)

    @nnx.jit
    def update(model: Any, optimizer: Any, x: Any, labels: Any, i: Any) -> None:
        def total(model: Any) -> Any:
            hidden = nnx.tanh(model.norm(model.first(x)))
            logits = model.last(model.drop(hidden))
            return by_hand(hidden, logits, labels, [model.first.kernel[...], model.last.kernel[...]], i)

        optimizer.update(model, nnx.grad(total)(model))

    for i, batch in enumerate(batches()):
        update(theirs, theirs_optimizer, *batch, i)
    close(nnx.to_pure_dict(params), nnx.to_pure_dict(nnx.state(theirs, nnx.Param)))
    assert not np.array_equal(params["first"]["kernel"][...], model.first.kernel[...])
    again = nnx.merge(graph, params, rest)
    np.testing.assert_allclose(again.norm.mean[...], theirs.norm.mean[...], rtol=1e-9, atol=1e-9)
    assert report.flat()["decay/value"] > 0


@pytest.mark.usefixtures("float64")
def test_flax_in_its_own_words() -> None:
    """The pipeline inside of nnx.grad, with the model itself as the tree."""
    ours, theirs = Network(nnx.Rngs(0)), Network(nnx.Rngs(0))
    x, labels = batches()[0]

    def total(model: Any) -> Any:
        logits, result = nnx.capture(nnx.Intermediate)(lambda model, x: model(x))(model, x)
        inputs = {**sown(result), "logits": logits, "labels": labels, "params": nnx.state(model, nnx.Param)}
        return LOSS(inputs, step=3)

    def by_own_words(model: Any) -> Any:
        hidden = nnx.tanh(model.norm(model.first(x)))
        logits = model.last(model.drop(hidden))
        return by_hand(hidden, logits, labels, [model.first.kernel[...], model.last.kernel[...]], 3)

    close(nnx.to_pure_dict(nnx.grad(total)(ours)), nnx.to_pure_dict(nnx.grad(by_own_words)(theirs)))


@pytest.mark.usefixtures("float64")
def test_paths_in_flax_modules() -> None:
    model = Network(nnx.Rngs(0))
    over = trees.over_tree("l2", match="kernel$")
    expected = float((model.first.kernel[...] ** 2).sum() + (model.last.kernel[...] ** 2).sum())
    for tree in (model, nnx.state(model), nnx.state(model, nnx.Param), nnx.split(model)[1]):
        assert set(over.explain(tree).selected) == {"first.kernel", "last.kernel"}
        assert float(over(tree)) == pytest.approx(expected, rel=1e-6)
    model.tied = model.first
    for tree in (model, nnx.state(model)):
        assert float(over(tree)) == pytest.approx(expected, rel=1e-6)  # once
    del model.tied
    assert not any("norm.mean" in path for path in trees.over_tree("l2").explain(model).selected)
    beside = {"model": nnx.state(model, nnx.Param), "more": jnp.ones(2)}
    assert set(over.explain(beside).selected) == {"model.first.kernel", "model.last.kernel"}
    decayed, _ = transforms.add_l2_decay(0.5, match="kernel$").update(nnx.state(model, nnx.Param), (), model)
    assert isinstance(decayed, nnx.State)
    np.testing.assert_allclose(decayed["last"]["kernel"][...], 1.5 * model.last.kernel[...], rtol=1e-6)
    np.testing.assert_array_equal(decayed["last"]["bias"][...], model.last.bias[...])


def test_modules_by_type() -> None:
    """Flax nnx modules and Equinox modules."""
    model = Network(nnx.Rngs(0))
    over = trees.over_tree("l2", exclude=trees.paths_within(model, nnx.BatchNorm))
    expected = {f"{layer}.{name}" for layer in ("first", "last") for name in ("kernel", "bias")}
    assert set(over.explain(model).selected) == expected
    assert trees.paths_within(model, Network) == ""
    layers = [eqx.nn.Linear(2, 3, key=jax.random.key(0)), eqx.nn.LayerNorm(3)]
    sequence = eqx.nn.Sequential(layers)
    match = trees.paths_within(sequence, eqx.nn.Linear)
    assert list(trees.over_tree("l2", match=match).explain(sequence).selected) == ["layers.0.weight", "layers.0.bias"]
    params = eqx.filter(sequence, eqx.is_inexact_array)
    updates, _ = transforms.add_l2_decay(1.0, match=match).update(params, (), params)
    assert updates.layers[1].weight is params.layers[1].weight
    np.testing.assert_array_equal(updates.layers[0].weight, 2 * params.layers[0].weight)


def test_paths_of_partitioned_parameters() -> None:
    """Linen's, which are boxed with the names of their axes."""
    kernel_init = linen.with_partitioning(linen.initializers.lecun_normal(), ("in", "out"))
    params = linen.Dense(3, kernel_init=kernel_init).init(jax.random.key(0), jnp.ones((1, 2)))["params"]
    over = trees.over_tree("l2", match="^kernel$")
    assert set(over.explain(params).selected) == {"kernel"}
    kernel = params["kernel"].value
    assert float(over(params)) == pytest.approx(float(jnp.sum(kernel**2)), rel=1e-6)
    decayed, _ = transforms.add_l2_decay(0.5, match="^kernel$").update(params, (), params)
    assert isinstance(decayed["kernel"], linen.Partitioned) and decayed["kernel"].names == ("in", "out")
    np.testing.assert_allclose(decayed["kernel"].value, 1.5 * kernel, rtol=1e-6)
    np.testing.assert_array_equal(jax.jit(jax.grad(over))(params)["kernel"].value, 2 * kernel)


def test_what_is_sown() -> None:
    class Twice(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.cell = Network(rngs)

        def __call__(self, x: Any) -> Any:
            return self.cell(x), self.cell(x)

    result = nnx.capture(nnx.Intermediate)(lambda model, x: model(x))(Twice(nnx.Rngs(0)), jnp.ones((2, 6)))[1]
    names = sown(result)
    assert list(names) == ["cell.hidden"] and len(names["cell.hidden"]) == 2

    class Linen(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            hidden = linen.Dense(3, name="dense")(x)
            self.sow("intermediates", "hidden", hidden)
            return hidden

    module = Linen()
    variables = module.init(jax.random.key(0), jnp.ones((2, 6)))
    out, state = module.apply(variables, jnp.ones((2, 6)), mutable=["intermediates"])
    np.testing.assert_array_equal(sown(state["intermediates"])["hidden"], out)
    with pytest.raises(TypeError, match=r"`intermediates` must be a mapping, got int\. Pass what nnx\.capture"):
        sown(3)


@pytest.mark.usefixtures("float64")
def test_equinox_as_by_hand() -> None:
    model = eqx.nn.MLP(6, 3, 8, 1, activation=jnp.tanh, key=jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def calls(model: Any, x: Any) -> tuple[Any, Any]:
        hidden = jnp.tanh(jax.vmap(model.layers[0])(x))
        return hidden, jax.vmap(model.layers[1])(hidden)

    def forward(params: Any, x: Any, labels: Any) -> dict[str, Any]:
        hidden, logits = calls(eqx.combine(params, static), x)
        return {"hidden": hidden, "logits": logits, "labels": labels}

    optimizer = transforms.chain(transforms.centralize(), optax.sgd(0.1))
    step = train_step(forward, LOSS, optimizer)
    state = optimizer.init(params)
    for i, batch in enumerate(batches()):
        params, state, _ = step(params, state, *batch, step=i)

    def total(params: Any, x: Any, labels: Any, step: Any) -> Any:
        model = eqx.combine(params, static)
        return by_hand(*calls(model, x), labels, [layer.weight for layer in model.layers], step)

    start = eqx.filter(model, eqx.is_inexact_array)
    theirs = trained_by_hand(total, start, optax.chain(_centralized(), optax.sgd(0.1)))
    close(params, theirs)
    ours = eqx.combine(params, static)
    assert not np.array_equal(ours.layers[0].weight, model.layers[0].weight)
    assert float(PIPE["decay"].fn(ours)) == pytest.approx(
        float(sum((layer.weight**2).sum() for layer in ours.layers)), rel=1e-6
    )


def _centralized() -> Any:
    """Gradients of matrices without their rows' means, by hand."""

    def centralized(gradient: Any) -> Any:
        return gradient - gradient.mean(axis=-1, keepdims=True) if gradient.ndim > 1 else gradient

    return optax.stateless(lambda updates, params: jax.tree.map(centralized, updates))


def a_step(**options: Any) -> Any:
    has_aux = options.pop("has_aux", False)
    step = train_step(forward, LOSS, optax.sgd(0.1), has_aux=has_aux)
    return step(arrays(), optax.sgd(0.1).init(arrays()), *batches()[0], step=0, **options)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
@pytest.mark.parametrize("jit", [True, False])
def test_a_step_is_copied(copied: Callable[[Any], Any], jit: bool) -> None:
    transform = transforms.add_l2_decay(0.1)
    pipe = Pipeline([Penalty("l1", inputs="hidden")])
    step = train_step(forward, RegularizedLoss(cross_entropy, pipe), transform, jit=jit)
    params = arrays()
    for result, expected in zip(
        copied(step)(params, transform.init(params), *batches()[0])[:2],
        step(params, transform.init(params), *batches()[0])[:2],
        strict=True,
    ):
        jax.tree.map(np.testing.assert_array_equal, result, expected)


def test_weights_are_checked() -> None:
    with pytest.raises(ValueError, match=r"penalty 'l1': `weight` must be in \[0, inf\), got -1"):
        a_step(weights={"l1": -1.0})
    with pytest.raises(ValueError, match=r"no penalty is named 'l3'\. .* Did you mean 'l1'"):
        a_step(weights={"l3": 1.0})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: a_step(weights={"l1": lambda step: 0.1}),
            r"`weights` must be numbers or arrays, got a schedule for 'l1'\. Pass it to the Penalty",
        ),
        (lambda: a_step(has_aux=True), r"`forward` must return a pair with has_aux=True, got dict\. Return the inputs"),
        (lambda: train_step(3, LOSS, optax.sgd(0.1)), r"`forward` must be callable, got int\. Pass a function"),
        (lambda: train_step(forward, PIPE, optax.sgd(0.1)), r"`loss` must be a RegularizedLoss, got Pipeline\. Make"),
        (
            lambda: train_step(forward, LOSS, optax.sgd),
            r"`optimizer` must have `init` and `update`, got function\. Call",
        ),
        (
            lambda: train_step(lambda p: p, LOSS, optax.sgd(0.1))(jnp.ones(2), optax.sgd(0.1).init(jnp.ones(2))),
            r"`forward` must return a mapping without 'params', got .*Tracer",
        ),
        (
            lambda: train_step(lambda p: {"params": p}, LOSS, optax.sgd(0.1))(jnp.ones(2), ()),
            r"a mapping without 'params', got 'params'\. Return the inputs by name",
        ),
    ],
)
def test_errors(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize("optimizer", [optax.sgd(0.1), optax.adam(0.1), transforms.chain(optax.adam(0.1))])
def test_params_and_state_swapped(optimizer: Any, jit: bool) -> None:
    step, params = train_step(forward, LOSS, optimizer, jit=jit), arrays()
    state, batch = optimizer.init(params), batches()[0]
    with pytest.raises(TypeError, match=r"^train_step: `params` must be the parameters, .* Call step\(params, state, "):
        step(state, params, *batch, step=0)
    with pytest.raises(KeyError, match="kernel_1"):  # another mistake keeps its own error
        step({"kernel_0": params["kernel_0"], "bias_0": params["bias_0"]}, state, *batch, step=0)


@pytest.mark.parametrize("jit", [True, False])
def test_inputs_by_parameter(jit: bool) -> None:
    """A mask of rows, a tree of masks, and old parameters."""

    def with_mask(params: Any, x: Any, labels: Any) -> dict[str, Any]:
        masks = jax.tree.map(lambda p: p > 0, params)
        old = jax.tree.map(jnp.zeros_like, params)
        return {**forward(params, x, labels), "kept": labels != 0, "masks": masks, "old": old}

    inputs = {"x": "params", "where": "masks", "center": "old"}
    pipe = Pipeline(
        [
            Penalty("entropy", inputs={"log_p": "logits", "where": "kept"}, from_logits=True),
            Penalty("l2", name="decay", tree={"match": "kernel"}, inputs=inputs),
        ]
    )
    params, (x, labels) = arrays(), batches()[0]
    loss = RegularizedLoss(cross_entropy, pipe)
    step = train_step(with_mask, loss, optax.sgd(0.1), jit=jit)
    _, _, report = step(params, optax.sgd(0.1).init(params), x, labels, track_grad_norms=True)
    log_p = jax.nn.log_softmax(forward(params, x, labels)["logits"][labels != 0])
    values = {name: float(part.value) for name, part in report.regularizers.items()}
    assert values["entropy"] == pytest.approx(float(-(jnp.exp(log_p) * log_p).sum(-1).mean()), rel=1e-5)
    positive = sum(float((jnp.maximum(p, 0) ** 2).sum()) for name, p in params.items() if "kernel" in name)
    assert values["decay"] == pytest.approx(positive, rel=1e-5)
    assert float(report["decay"].grad_norm) == pytest.approx(2 * positive**0.5, rel=1e-5)


@pytest.mark.parametrize("kind", ["equinox", "flax"])
def test_trees_of_modules_by_parameter(kind: str) -> None:
    """A mask for each parameter, and the parameters to stay near."""
    if kind == "equinox":
        module: Any = eqx.nn.MLP(2, 2, 4, 1, key=jax.random.key(0))
        arrays = eqx.filter(module, eqx.is_array)
    else:
        module = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
        arrays = nnx.state(module)
    inputs = {"x": "module", "where": "masks", "center": "old"}
    pipe = Pipeline([Penalty("l2", tree={}, inputs=inputs)])
    given = {
        "module": module,
        "masks": jax.tree.map(lambda p: p > 0, arrays),
        "old": jax.tree.map(jnp.ones_like, arrays),
    }
    expected = sum(float((jnp.where(p > 0, p - 1, 0) ** 2).sum()) for p in jax.tree.leaves(arrays))
    assert expected > 0 and float(pipe(given)) == pytest.approx(expected, rel=1e-6)


def test_penalties_name_their_inputs() -> None:
    with pytest.raises(ValueError, match=r"^train_step: .* must name their inputs, got inputs=None for 'l1'\. Pass"):
        train_step(forward, RegularizedLoss(LOSS.base_loss, Pipeline([Penalty("l1")])), optax.sgd(0.1))


def test_without_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "xpenalties.integrations.jax")
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(ModuleNotFoundError, match=r'needs JAX\. Install it: pip install "xpenalties\[jax\]"'):
        __import__("xpenalties.integrations.jax")
