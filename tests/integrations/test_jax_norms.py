"""Gradient norms in JAX's training step, beside jax.grad of each part by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.conftest import integration
from xpenalties import GradientHistory, Penalty, Pipeline, RegularizedLoss, l1, l2

integration("flax", "optax", "equinox", backends=("jax",))

import jax
import jax.numpy as jnp
import optax

from tests.integrations.test_jax import LOSS, arrays, batches, close, forward, hidden_and_logits
from xpenalties.integrations.jax import train_step

pytestmark = [pytest.mark.integrations, pytest.mark.usefixtures("float64")]
WEIGHTS = {"base_loss": 1.0, "l1": 0.01, "entropy": 0.16, "decay": 0.05, "both": 0.5}
BOTH = Penalty(lambda inputs: l2(inputs["logits"]) * l1(inputs["params"]["bias_0"]), name="both", weight=0.5)
DATA = Penalty(lambda labels: l2(1.0 * labels), name="data", inputs="labels")
FULL = RegularizedLoss(LOSS.base_loss, LOSS.pipeline.add(BOTH).add(DATA))


def parts(params: Any, x: Any, labels: Any) -> dict[str, Any]:
    hidden, logits = hidden_and_logits(params, x)
    log_p = jax.nn.log_softmax(logits)
    return {
        "base_loss": -jnp.take_along_axis(log_p, labels[:, None], -1).mean(),
        "l1": jnp.abs(hidden).sum(),
        "entropy": (jnp.exp(log_p) * log_p).sum(-1).mean(),
        "decay": (params["kernel_0"] ** 2).sum() + (params["kernel_1"] ** 2).sum(),
        "both": (logits**2).sum() * jnp.abs(params["bias_0"]).sum(),
    }


def norms_by_hand(params: Any, x: Any, labels: Any) -> dict[str, float]:
    def norm(part: Any) -> float:
        return float(jnp.sqrt(sum((g**2).sum() for g in jax.tree.leaves(jax.grad(part)(params)))))

    norms = {name: norm(lambda params, name=name: parts(params, x, labels)[name]) for name in WEIGHTS}
    norms["total"] = norm(lambda params: sum(WEIGHTS[name] * part for name, part in parts(params, x, labels).items()))
    return norms


def found_norms(report: Any) -> dict[str, float | None]:
    figures = report.to_dict()
    norms = {name: part["grad_norm"] for name, part in figures["regularizers"].items()}
    return {"base_loss": figures["base_loss"]["grad_norm"], **norms, "total": figures["total_grad_norm"]}


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize("wrt", [None, "params", ["params"]])
def test_each_part_by_hand(jit: bool, wrt: Any) -> None:
    calls: list[int] = []

    def counted(params: Any, x: Any, labels: Any) -> dict[str, Any]:
        calls.append(1)
        return forward(params, x, labels)

    optimizer = optax.sgd(0.1)
    step, params, batch = train_step(counted, FULL, optimizer, jit=jit), arrays(), batches()[0]
    _, _, report = step(params, optimizer.init(params), *batch, step=3, track_grad_norms=True, wrt=wrt)
    assert len(calls) == 1
    found, want = found_norms(report), norms_by_hand(params, *batch)
    assert found.pop("data") is None and report.regularizers["data"].error == "does not depend on wrt (params)"
    assert found == pytest.approx(want, rel=1e-9)
    for name, part in report.regularizers.items():
        if name != "data":
            assert float(part.grad_norm_weighted) == pytest.approx(WEIGHTS[name] * want[name], rel=1e-9)
    assert report.wrt == "params" and report.gradient_conflicts is None


def test_cosines() -> None:
    optimizer = optax.sgd(0.1)
    step, params, batch = train_step(forward, FULL, optimizer), arrays(), batches()[0]
    _, _, report = step(params, optimizer.init(params), *batch, step=3, gradient_conflicts=True)
    flat = {
        name: np.concatenate(
            [g.ravel() for g in jax.tree.leaves(jax.grad(lambda p, name=name: parts(p, *batch)[name])(params))]
        )
        for name in WEIGHTS
    }
    cosines = report.conflicts()
    assert list(cosines) == list(WEIGHTS)
    for a, row in cosines.items():
        for b, cosine in row.items():
            want = flat[a] @ flat[b] / np.linalg.norm(flat[a]) / np.linalg.norm(flat[b])
            assert cosine == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize("jit", [True, False])
def test_training_is_the_same(jit: bool) -> None:
    """On steps that a history wants, and on others. Each kind of step is compiled once."""
    traces: list[int] = []

    def counted(params: Any, x: Any, labels: Any) -> dict[str, Any]:
        traces.append(1)
        return forward(params, x, labels)

    results = []
    for every in (3, None):
        history = GradientHistory(every=every or 1)
        optimizer = optax.adam(0.05)
        step, params = train_step(counted, FULL, optimizer, jit=jit), arrays()
        state = optimizer.init(params)
        for i, batch in enumerate(batches()):
            track = every is not None and history.wants(i)
            params, state, report = step(params, state, *batch, step=i, track_grad_norms=track, wrt="params")
            history.append(report, i)
            assert (report.wrt == "params") is track
        results.append(params)
        if every is not None:
            rows = history.rows()
            assert [row["step"] for row in rows] == list(range(0, 20, 3))
            assert all(row["l1/grad_norm"] > 0 and "data/grad_norm" not in row for row in rows)
    close(*results)
    if jit:
        assert len(traces) == 3


def test_with_respect_to_outputs() -> None:
    """The loss and the penalties are functions of the inputs: nothing leads from one of these to another."""
    optimizer = optax.sgd(0.1)
    step, params, batch = train_step(forward, FULL, optimizer), arrays(), batches()[0]
    _, _, report = step(params, optimizer.init(params), *batch, step=3, track_grad_norms=True, wrt=("hidden",))
    found = found_norms(report)
    assert found.pop("l1") == pytest.approx(128**0.5)
    assert report.regularizers["entropy"].error.startswith("does not use wrt (hidden) itself")
    assert report.regularizers["data"].error.startswith("does not")
    assert set(found.values()) == {None} and report.wrt == "hidden"


def test_outputs_that_are_parameters_or_no_arrays() -> None:
    def tied(params: Any, x: Any) -> dict[str, Any]:
        return {"weight": params["w"], "outputs": x @ params["w"], "name": "text", "none": None, "key": params["n"]}

    pipe = Pipeline(
        [
            Penalty("l2", name="direct", inputs=lambda inputs: inputs["params"]["w"]),
            Penalty("l2", name="output", inputs="weight"),
            Penalty(lambda inputs: l2(inputs["weight"]) + l1(inputs["params"]["w"]), name="both"),
            Penalty(lambda inputs: 2.0, name="constant"),
        ]
    )
    loss = RegularizedLoss(lambda inputs: jnp.mean(inputs["outputs"] ** 2), pipe)
    optimizer = optax.sgd(0.1)
    w = jnp.asarray([1.0, -2.0, 3.0])
    params = {"w": w, "n": jnp.asarray(0.5, jnp.float32), "unused": jnp.ones(2)}
    step = train_step(tied, loss, optimizer, jit=False)
    new, _, report = step(params, optimizer.init(params), jnp.eye(3), track_grad_norms=True)
    norms = {name: part.grad_norm for name, part in report.regularizers.items()}
    assert norms.pop("constant") is None
    norms = {name: float(norm) for name, norm in norms.items()}
    both = float(jnp.linalg.norm(2 * w + jnp.sign(w)))
    assert norms == pytest.approx({"direct": 2 * 14**0.5, "output": 2 * 14**0.5, "both": both})
    np.testing.assert_allclose(new["w"], w - 0.1 * (6 * w + jnp.sign(w) + 2 * w / 3))
    np.testing.assert_array_equal(new["unused"], 1.0)


def test_other_state_and_integers() -> None:
    def counting(params: Any, x: Any, n: Any) -> tuple[dict[str, Any], Any]:
        return {"outputs": params * x, "n": n + 1}, {"count": n + 1}

    loss = RegularizedLoss(lambda inputs: jnp.sum(inputs["outputs"]) * inputs["n"], Pipeline())
    optimizer = optax.sgd(1.0)
    step, params = train_step(counting, loss, optimizer, has_aux=True), jnp.ones(2)
    new, _, report, aux = step(params, optimizer.init(params), jnp.ones(2), jnp.asarray(1), track_grad_norms=True)
    np.testing.assert_array_equal(new, -1.0)
    assert int(aux["count"]) == 2 and float(report.base_loss.grad_norm) == pytest.approx(8**0.5)


def test_reports_in_a_scan() -> None:
    """Norms that do not exist are None in each step, so the structure does not change."""
    optimizer = optax.sgd(0.1)
    step, params = train_step(forward, FULL, optimizer, jit=False), arrays()
    x, labels = (jnp.stack(each) for each in zip(*batches()[:4], strict=True))

    def body(carry: Any, batch: Any) -> Any:
        params, state, report = step(*carry, *batch, step=3, track_grad_norms=True)
        return (params, state), report

    _, reports = jax.lax.scan(body, (params, optimizer.init(params)), (x, labels))
    assert reports.regularizers["l1"].grad_norm.shape == (4,) and reports.regularizers["data"].grad_norm is None
    history = GradientHistory()
    for i in range(4):
        history.append(jax.tree.map(lambda figure, i=i: figure[i], reports), i)
    want = norms_by_hand(params, x[0], labels[0])
    assert history.rows()[0]["total_grad_norm"] == pytest.approx(want["total"], rel=1e-9)
    assert next(iter(history))[1].wrt == "params"


def test_inputs_come_from_forward() -> None:
    step, params = train_step(forward, LOSS, optax.sgd(0.1)), arrays()
    with pytest.raises(
        TypeError, match=r"^train_step: the step takes step=.*, got inputs\. Return inputs .* `forward`"
    ):
        step(params, optax.sgd(0.1).init(params), *batches()[0], inputs={"teacher": jnp.ones(2)})


@pytest.mark.parametrize(
    ("wrt", "error", "message"),
    [
        (0, TypeError, r"`wrt` must be names of inputs, got 0\. Pass strings, or None for 'params'"),
        ((), TypeError, r"`wrt` must be names of inputs, got \(\)\. Pass"),
        (np.ones(2), TypeError, r"`wrt` must be names of inputs, got "),
        ({"w": 1.0}, TypeError, r"`wrt` must be names of inputs, got \{'w': 1\.0\}\. Pass strings"),
        (
            {"first": np.ones(2)},
            TypeError,
            r"`wrt` must be names of inputs, got \{.*\. Pass strings, or None for 'params'",
        ),
        (
            ("params", "hidden"),
            ValueError,
            r"`wrt` must be 'params' or names of other inputs, got \('params', 'hidden'\)",
        ),
    ],
)
def test_what_is_refused(wrt: Any, error: type[Exception], message: str) -> None:
    step, params = train_step(forward, LOSS, optax.sgd(0.1)), arrays()
    with pytest.raises(error, match=f"^train_step: {message}"):
        step(params, optax.sgd(0.1).init(params), *batches()[0], step=1, track_grad_norms=True, wrt=wrt)


def test_parameters_that_are_integers() -> None:
    step, params = train_step(forward, LOSS, optax.sgd(0.1)), {**arrays(), "count": jnp.asarray(1)}
    with pytest.raises(TypeError, match=r"^train_step: `params` must hold floating-point arrays, got int64\. Return"):
        step(params, optax.sgd(0.1).init(params), *batches()[0], step=1, track_grad_norms=True)
