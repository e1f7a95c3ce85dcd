"""More terms than the largest int32, which JAX refuses as an integer: penalties divide by such counts as floats.

Nothing is computed: JAX only traces the calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.conftest import selected
from tests.helpers.harness import Framework
from xpenalties import Penalty, Pipeline, coral, trees
from xpenalties._core.registry import PENALTIES
from xpenalties._penalties.spec import spec_of

TERMS = (2**17, 2**16, 4)
SAMPLES = (2**17, 512)
OPTIONS: dict[str, dict[str, Any]] = {
    "f_divergence": {"kind": "hellinger"},
    "mmd": {"bandwidths": 1.0},
}


@pytest.fixture
def traced() -> Callable[..., Any]:
    jax = selected("jax", reason="is about JAX's integers")

    def traced(function: Callable[..., Any], *shapes: tuple[int, ...]) -> Any:
        return jax.eval_shape(function, *(jax.ShapeDtypeStruct(shape, "float32") for shape in shapes))

    return traced


OF_ARRAYS = {
    name: function
    for name, function in PENALTIES.items()
    if (spec := spec_of(function)) is not None and not spec.functions and not spec.matrices
}


@pytest.mark.parametrize("name", OF_ARRAYS)
def test_a_mean_of_more_terms_than_int32_can_count(name: str, traced: Callable[..., Any]) -> None:
    function = OF_ARRAYS[name]
    spec = spec_of(function)
    assert spec is not None
    options = dict(OPTIONS.get(name, {}))
    if "rng" in spec.defaults:
        options["rng"] = selected("jax", reason="is about JAX's integers").random.key(0)
    shape = SAMPLES if spec.shape_of_terms(options) in ("whole", "matrices") else TERMS

    def mean(*arrays: Any) -> Any:
        return function(*arrays, reduction="mean", **options)

    assert traced(mean, *[shape] * len(spec.arrays)).shape == ()


def test_reports_and_trees(traced: Callable[..., Any]) -> None:
    pipeline = Pipeline([Penalty("l2", tree={}), Penalty("bernoulli_kl", inputs=("a", "b"))])

    def total(a: Any, b: Any) -> Any:
        return pipeline.compute({"a": a, "b": b}, track_grad_norms=True)[0]

    assert traced(total, TERMS, TERMS).shape == ()
    assert traced(lambda a, b: trees.over_tree("l2")([a, b], reduction="mean"), TERMS, TERMS).shape == ()


def test_a_small_batch_of_many_features(fw: Framework) -> None:
    """Such as 64 samples of 512 features: coral squares 2 * 512 * 63."""
    a, b = np.random.default_rng(0).normal(size=(2, 64, 512))
    expected = np.sum((np.cov(a, rowvar=False) - np.cov(b, rowvar=False)) ** 2) / (4 * 512**2)
    assert float(coral(fw.array(a), fw.array(b))) == pytest.approx(expected, rel=1e-5)
