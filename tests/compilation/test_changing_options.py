"""Options, weights and steps that change from call to call of one compiled function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework
from xpenalties import Penalty, Pipeline

pytestmark = pytest.mark.needs("jit")
RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((4, 6)), RNG.standard_normal((4, 6))
SCHEDULED = Pipeline([Penalty("l1", weight=lambda step: 0.1 * step), Penalty("l2")])
CHANGING: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "huber": (lambda x, y, value: xp.huber(x, delta=value), (0.5, 0.6, 0.7)),
    "l2": (lambda x, y, value: xp.l2(x, center=value, clip=value), (0.5, 0.6, 0.7)),
    "elastic_net": (lambda x, y, value: xp.elastic_net(x, l1_ratio=value), (0.1, 0.2, 1.0)),
    "temperature": (lambda x, y, value: xp.kl_divergence(x, y, temperature=value, from_logits=True), (0.5, 1.0, 2.0)),
    "beta": (lambda x, y, value: xp.js_divergence(x, y, beta=value, from_logits=True), (0.0, 0.3, 0.5)),
    "target": (lambda x, y, value: xp.output_magnitude(x, target=value), (0.0, 0.5, 1.5)),
    "axis": (lambda x, y, value: xp.z_loss(x, axis=value), (1, 0, -1)),
    "normalizer": (lambda x, y, value: xp.l1(x, normalizer=value), (3, 5, 7)),
    "step": (lambda x, y, value: SCHEDULED(x, step=value), (1, 2, 3)),
    "step of compute": (lambda x, y, value: SCHEDULED.compute(x, step=value)[0], (1, 2, 3)),
}


@pytest.mark.parametrize("name", CHANGING)
@pytest.mark.only("torch", reason="is about numbers that torch.compile turns into symbols")
def test_numbers_that_change(fw: Framework, name: str) -> None:
    """torch.compile makes a symbol of a number once it has changed: no check may ask it for more than comparisons."""
    fn, values = CHANGING[name]
    compiled, _ = fw.compile(fn)
    for value in values:
        got = compiled(fw.array(X), fw.array(Y), value)
        assert float(got) == pytest.approx(float(fn(fw.array(X), fw.array(Y), value)), rel=1e-12)


@pytest.mark.parametrize("name", CHANGING)
@pytest.mark.only("torch", reason="is about torch.compile(dynamic=True)")
def test_numbers_that_are_dynamic_from_the_start(fw: Framework, name: str) -> None:
    fn, values = CHANGING[name]
    fw.module.compiler.reset()
    compiled = fw.module.compile(fn, fullgraph=True, dynamic=True, backend="aot_eager")
    for value in values:
        got = compiled(fw.array(X), fw.array(Y), value)
        assert float(got) == pytest.approx(float(fn(fw.array(X), fw.array(Y), value)), rel=1e-12)


SHAPES: dict[str, Callable[..., Any]] = {
    "kl_divergence": lambda x: xp.kl_divergence(x, 2 * x, from_logits=True),
    "entropy": lambda x: xp.entropy(x, normalize=True, from_logits=True),
    "topk_kl_divergence": lambda x: xp.topk_kl_divergence(x - 9, x - 8),
    "group_lasso": xp.group_lasso,
    "orthogonality": xp.orthogonality,
    "spectral": lambda x: xp.orthogonality(x, mode="spectral"),
    "covariance": xp.covariance,
    "output_magnitude": xp.output_magnitude,
    "mean": lambda x: xp.l1(x, reduction="mean", where=x > 0),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_that_change(fw: Framework, name: str) -> None:
    compiled, _ = fw.compile(SHAPES[name])
    for shape in ((5, 4), (6, 3), (8, 7), (3, 5), (0, 5)):
        if 0 in shape and name == "covariance":  # n >= 2
            continue
        x = fw.array(np.random.default_rng(1).standard_normal(shape))
        assert float(compiled(x)) == pytest.approx(float(SHAPES[name](x)), rel=1e-10)


@pytest.mark.only("torch", reason="is about what torch.compile makes of an error")
def test_errors_are_seen_through_the_compiler(fw: Framework) -> None:
    pipe = Pipeline([Penalty("kl_divergence")], name="training")
    calls: list[tuple[Callable[..., Any], str]] = [
        (lambda x, y: xp.kl_divergence(x, y[0]), "must have the same shape"),
        (lambda x, y: pipe(x, y[0]), "must have the same shape"),
        (lambda x, y: xp.l1(x, reducton="sum"), "is not an option"),
        (lambda x, y: xp.kl_divergence(x, y, direction="forwrd"), "`direction` must be one of"),
        (lambda x, y: xp.huber(x, delta=-1.0), "`delta` must be in"),
    ]
    for fn, message in calls:
        compiled, _ = fw.compile(fn)
        with pytest.raises(Exception, match=message) as caught:
            compiled(fw.array(X), fw.array(Y))
        said, _, _ = str(caught.value).partition("from user code")  # which quotes the very lines above
        assert message in said


@pytest.mark.only("jax", reason="is about options that JAX traces")
def test_a_traced_option_is_refused(fw: Framework) -> None:
    compiled, _ = fw.compile(lambda x, delta: xp.huber(x, delta=delta))
    with pytest.raises(TypeError, match=r"^huber: `delta` must be a number in \(0, inf\), got \w*Tracer. Pass a"):
        compiled(fw.array(X), 0.5)
