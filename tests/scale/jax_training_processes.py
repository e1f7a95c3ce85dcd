"""Options, pipelines, reports, transforms, proximal operators and training on eight devices, see `test_jax.py`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import xpenalties as xp
from tests.scale.jax_cells import ENGINES, Cells, collectives, cut, equal, gathered, mesh_of
from xpenalties import Penalty, Pipeline, RegularizedLoss, prox, transforms, trees
from xpenalties.integrations.jax import train_step

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((2, 16, 24))
SEQUENCES = RNG.standard_normal((8, 16, 4))
MASK, WEIGHTS = RNG.random(16) > 0.3, RNG.random(16)
MASKS = Y > 0
HIDDEN, WEIGHT = RNG.standard_normal((8, 72, 6)), RNG.standard_normal((12, 6))
PARAMS = {"kernel": RNG.standard_normal((24, 8)), "bias": RNG.standard_normal(8)}
PIPELINE = Pipeline(
    [
        Penalty("l2", weight=0.1),
        Penalty("entropy", weight=0.2, options={"from_logits": True, "mode": "bonus"}),
        Penalty("orthogonality", weight=0.01),
        Penalty("covariance", weight=0.3),
    ]
)

Function = Callable[..., Any]


def options() -> dict[str, Function]:
    """Return the options that all penalties share, of a penalty with rows and of one with a single term."""

    def entropy(**how: Any) -> Function:
        return lambda x, mask, weights: jax.value_and_grad(
            lambda x: jnp.sum(xp.entropy(x, from_logits=True, where=mask, weights=weights, **how))
        )(x)

    return {
        "entropy, none": entropy(reduction="none"),
        "entropy, mean": entropy(reduction="mean"),
        "entropy, normalizer": entropy(reduction="sum", normalizer=7.0),
        "entropy, count": lambda x, mask, weights: xp.entropy(x, from_logits=True, normalizer=jnp.sum(mask)),
        "l1, columns": lambda x, mask, weights: jax.grad(lambda x: xp.l1(x, where=mask[:, None]))(x),
        "masked NaN": lambda x, mask, weights: jax.grad(
            lambda x: xp.l2(jnp.where(mask[:, None], x, jnp.nan), where=mask[:, None])
        )(x),
    }


def of_samples(penalty: Function, **how: Any) -> Function:
    """Return a statistic of samples, some of which count more than others or not at all, with its gradients."""

    def value(x: Any, mask: Any, weights: Any) -> Any:
        return penalty(x, where=mask, weights=weights, **how) + penalty(x, where=mask, **how)

    return jax.value_and_grad(value, argnums=(0, 2))


def statistics() -> dict[str, Function]:
    axes = ("rows", "sequence", "vocabulary")
    found = {f"orthogonality, {axis}, weights": of_samples(xp.orthogonality, axis=axis) for axis in axes}
    return {**found, "covariance, weights": of_samples(xp.covariance)}


def statistics_of_elements() -> dict[str, Function]:
    """Return statistics whose samples are elements."""
    return {
        "output_magnitude, weights": of_samples(xp.output_magnitude),
        "l2 to the mean, weights": of_samples(xp.l2, center="mean"),
    }


def grams() -> dict[str, Function]:
    """Return every Gram matrix of sequences, and what JAX transforms it by."""

    def orthogonality(**how: Any) -> Function:
        return jax.value_and_grad(lambda x: jnp.sum(jnp.sin(xp.orthogonality(x, reduction="none", **how))))

    found: dict[str, Function] = {}
    for axis in ("rows", "sequence", "vocabulary"):
        found[f"orthogonality, {axis}"] = orthogonality(axis=axis, mode="hard" if axis == "rows" else "soft")
        found[f"orthogonality, {axis}, per sample"] = orthogonality(axis=axis, per_sample=True)
    found["orthogonality, spectral"] = orthogonality(mode="spectral")
    found["orthogonality, vmap"] = jax.vmap(jax.grad(xp.orthogonality), in_axes=1)
    found["orthogonality, jvp"] = lambda x: jax.jvp(jax.grad(xp.orthogonality), (x,), (jnp.cos(x),))
    return found


def pipelines() -> dict[str, Function]:
    def computed(x: Any) -> Any:
        total, report = PIPELINE.compute(x, track_grad_norms=True, gradient_conflicts=True)
        return total, report

    return {"pipeline": jax.value_and_grad(PIPELINE), "report": computed}


def updates() -> dict[str, Function]:
    """Return transforms of a gradient."""
    chains = {
        "clip": transforms.clip(0.5),
        "clip_by_global_norm": transforms.clip_by_global_norm(1.0),
        "clip_by_block_rms": transforms.clip_by_block_rms(0.5),
        "adaptive_gradient_clipping": transforms.adaptive_gradient_clipping(0.1),
        "centralize": transforms.centralize(),
        "add_l1_decay": transforms.add_l1_decay(0.1),
        "add_l2_decay": transforms.add_l2_decay(0.1),
        "add_elastic_net_decay": transforms.add_elastic_net_decay(0.1),
        "add_noise": transforms.add_noise(0.1, rng=jax.random.key(0)),
    }

    def of(transform: Any) -> Function:
        return lambda update, param: transform.update(update, transform.init(param), param)[0]

    return {name: of(transform) for name, transform in chains.items()}


def operators() -> dict[str, Function]:
    return {
        "prox.l1": lambda x: prox.l1(x, scale=0.3),
        "prox.group_lasso": lambda x: prox.group_lasso(x, scale=0.3),
        "prox.group_lasso, columns": lambda x: prox.group_lasso(x, scale=0.3, axis=0),
        "prox.box": lambda x: prox.box(x, low=-0.5, high=0.5),
        "over_tree": jax.value_and_grad(lambda x: trees.over_tree("elastic_net")({"a": x, "b": 2 * x})),
        "over_tree, orthogonality": jax.value_and_grad(lambda x: trees.over_tree("orthogonality")([x, x * x])),
    }


def blocks() -> dict[str, Function]:
    """Return linear maps in blocks, some of which do not fill up."""

    def entropy(size: int) -> Function:
        def terms(hidden: Any, weight: Any, mask: Any) -> Any:
            with xp.block_size(size * WEIGHT.shape[0]):
                found = xp.linear_entropy(hidden, weight, reduction="none", where=mask[:, None])
            return jnp.sum(jnp.cos(found)), found

        return jax.value_and_grad(terms, argnums=(0, 1), has_aux=True)

    return {f"linear_entropy, {size} rows": entropy(size) for size in (1, 40, 1000)}


GATHERED = {
    "prox.simplex": prox.simplex,
    "prox.simplex, radii": lambda x: prox.simplex(x, radius=1 + jnp.sum(x * x, axis=1)),
    "prox.simplex, columns": lambda x: prox.simplex(x, axis=0),
    "prox.nuclear_norm": lambda x: prox.nuclear_norm(x, scale=0.3),
}


def trained(params: Any, x: Any, y: Any) -> Any:
    """Take two steps. Returns the parameters and the report."""

    def forward(params: Any, x: Any, y: Any) -> dict[str, Any]:
        hidden = jnp.tanh(x @ params["kernel"] + params["bias"])
        return {"hidden": hidden, "error": hidden - y}

    loss = RegularizedLoss(
        lambda inputs: jnp.mean(inputs["error"] ** 2),
        Pipeline(
            [
                Penalty("covariance", inputs="hidden", weight=0.1),
                Penalty("orthogonality", tree={"match": "kernel"}, inputs="params", weight=0.01),
            ]
        ),
    )
    optimizer = transforms.chain(transforms.clip_by_global_norm(1.0), transforms.add_l2_decay(0.01))
    step = train_step(forward, loss, optimizer)
    state = optimizer.init(params)
    for i in range(2):
        params, state, report = step(params, state, x, y, step=i, track_grad_norms=True)
    return params, report


class Rest:
    """The cells of one kind of mesh."""

    def __init__(self, kind: str) -> None:
        self.cells, self.mesh = Cells(ENGINES[kind]), mesh_of(kind)

    def run(
        self, functions: dict[str, Function], *arrays: Any, shardings: tuple[str, ...], gathers: bool = False
    ) -> None:
        for name, function in functions.items():
            for sharding in shardings:
                self.cells.run(name, sharding, lambda: self.check(function, arrays, sharding, gathers))  # noqa: B023

    @staticmethod
    def sharding_of(x: Any, sharding: str) -> str:
        """Return how to cut one of the arrays. Two names are those of hidden states and of a weight."""
        hidden, _, weight = sharding.partition(", ")
        if not weight:
            return sharding if np.ndim(x) > 1 else "whole" if sharding == "classes" else "rows"
        return {1: "whole", 2: weight, 3: hidden}[np.ndim(x)]

    def check(self, function: Function, arrays: tuple[Any, ...], sharding: str, gathers: bool) -> None:
        parts = [cut(self.mesh, x, self.sharding_of(x, sharding)) for x in arrays]
        expected = jax.jit(function)(*map(jnp.asarray, arrays))
        compiled = jax.jit(function).lower(*parts).compile()
        equal(compiled(*parts), expected)
        equal(function(*parts), expected)
        text = compiled.as_text()
        sizes = collectives(text)
        assert gathers or gathered(text) < arrays[0].size, sizes


def train(rest: Rest) -> None:
    params = {"kernel": cut(rest.mesh, PARAMS["kernel"], "rows"), "bias": cut(rest.mesh, PARAMS["bias"], "rows")}
    y = Y[:, :8]
    actual, report = trained(params, cut(rest.mesh, X, "whole"), cut(rest.mesh, y, "whole"))
    expected, plain = trained({k: jnp.asarray(v) for k, v in PARAMS.items()}, jnp.asarray(X), jnp.asarray(y))
    equal(actual, expected)
    assert actual["kernel"].sharding.is_equivalent_to(params["kernel"].sharding, 2)
    numbers = [np.asarray(list(r.flat().values()), float) for r in (report, plain)]
    np.testing.assert_allclose(*numbers, rtol=1e-9)
    assert str(report) == str(plain)


def read(rest: Rest) -> None:
    """Read reports, and look for values that are not finite."""
    x = cut(rest.mesh, X, "both")
    _, report = PIPELINE.compute(x, track_grad_norms=True)
    _, plain = PIPELINE.compute(jnp.asarray(X), track_grad_norms=True)
    assert str(report) == str(plain)
    assert xp.check_finite(x) is x
    bad = cut(rest.mesh, np.where(X[3, 5] == X, np.nan, X), "both")
    with pytest.raises(ValueError, match=r"\(3, 5\)"):
        xp.check_finite(bad)


def main(kind: str, part: str) -> None:
    jax.config.update("jax_enable_x64", True)
    rest = Rest(kind)
    with jax.set_mesh(rest.mesh):
        if part == "grams":
            rest.run(grams(), SEQUENCES, shardings=("sequence", "both"))
        if part == "statistics":
            for x in (X, X[:, :8]):  # fewer samples than features, and more
                rest.run(statistics(), x, MASK, WEIGHTS, shardings=("rows", "classes", "both"))
            rest.run(statistics_of_elements(), X, MASKS, X * X, shardings=("rows", "classes", "both"))
            spectral = {"orthogonality, spectral, weights": of_samples(xp.orthogonality, mode="spectral")}
            rest.run(spectral, X, MASK, WEIGHTS, shardings=("both",))  # its Gram matrix is gathered, and smaller than X
        if part == "penalties":
            rest.run(options(), X, MASK, WEIGHTS, shardings=("rows", "both"))
            rest.run(pipelines(), X, shardings=("both",))
            rest.cells.run("reports and checks", "both", lambda: read(rest))
        if part == "blocks":
            rest.run(blocks(), HIDDEN, WEIGHT, MASK[:8], shardings=("rows, whole", "sequence, whole", "rows, model"))
        if part == "updates":
            rest.run(updates(), X, Y, shardings=("both",))
            rest.run(operators(), X, shardings=("both",))
            rest.run(GATHERED, X, shardings=("both",), gathers=True)
            rest.cells.run("train_step", "rows", lambda: train(rest))
    rest.cells.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
