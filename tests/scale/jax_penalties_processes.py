"""Every penalty of the matrix on eight devices, for the test that starts this script."""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.matrix.cases import CASES, KEY, Case
from tests.scale.jax_cells import ENGINES, Cells, collectives, cut, equal, gathered, mesh_of

NEED_WHOLE_ARRAYS = {"nuclear_norm", "koleo", "mmd"}  # of all singular values or all pairs of rows
FACTOR = 4  # of each axis, so that every axis can be cut


def enlarged(x: np.ndarray, rng: Any) -> np.ndarray:
    """Return an array that is four times as long along each axis, with other numbers of the same kind."""
    tiled = np.tile(x, (FACTOR,) * x.ndim)
    if x.size and np.max(x) < 0:  # log-probabilities: each row must not sum to more than 1
        return tiled - np.log(FACTOR) - rng.uniform(0.05, 0.5, tiled.shape)
    if x.ndim == 1 and x.size and np.min(x) >= 0 and np.max(x) <= 1:  # interpolation coefficients
        return tiled
    return tiled + 0.3 * rng.standard_normal(tiled.shape)


def option(name: str, value: Any, rng: Any) -> Any:
    if value is KEY:
        return jax.random.key(0)
    if name == "alpha":  # one for each sample
        return jnp.asarray(np.tile(value, (FACTOR, *[1] * (value.ndim - 1))))
    return jnp.asarray(enlarged(value, rng)) if isinstance(value, np.ndarray) else value


def check(case: Case, mesh: Any, sharding: str, *, second: bool) -> None:
    rng = np.random.default_rng(1)
    arrays = [enlarged(np.asarray(x), rng) for x in case.arrays]
    options = {name: option(name, value, rng) for name, value in case.options.items()}

    def value(arrays: list[Any]) -> Any:
        terms = case(*arrays, reduction="none", **options)
        return jnp.sum(terms * jnp.cos(jax.lax.stop_gradient(jnp.real(terms)))), terms

    def computed(arrays: list[Any]) -> Any:
        (total, terms), gradients = jax.value_and_grad(value, has_aux=True)(arrays)
        if not second:
            return total, terms, gradients

        def slope(arrays: list[Any]) -> Any:
            return sum(jnp.sum(jnp.abs(g) ** 2) for g in jax.grad(lambda x: value(x)[0])(arrays))

        return total, terms, gradients, jax.grad(slope)(arrays)

    whole = [jnp.asarray(x) for x in arrays]
    shared = case.function.spec.matrices
    parts = [cut(mesh, x, _linear(sharding, i in shared) if shared else sharding) for i, x in enumerate(arrays)]
    expected = jax.jit(computed)(whole)
    compiled = jax.jit(computed).lower(parts).compile()
    actual = compiled(parts)
    equal(actual, expected)
    equal(case(*parts, **options), case(*whole, **options))  # without jit around it
    explicit = mesh.axis_types[0] == jax.sharding.AxisType.Explicit
    for x, gradient in zip(parts, actual[2], strict=True):
        assert not explicit or gradient.sharding.is_equivalent_to(x.sharding, x.ndim), (x.sharding, gradient.sharding)
    text = compiled.as_text()
    least = min(x.size for x in arrays)
    too_large = [(name, size) for name, size in collectives(text) if size >= least]
    assert case.name in NEED_WHOLE_ARRAYS or gathered(text) < least, too_large


def _linear(sharding: str, is_weight: bool) -> str:
    """Return how to cut an array of a linear map: hidden states by rows, weights by classes."""
    if is_weight:
        return {"rows": "whole", "classes": "rows", "both": "model"}[sharding]
    return "whole" if sharding == "classes" else "rows"


def main(kind: str, start: int, step: int) -> None:
    jax.config.update("jax_enable_x64", True)
    cells, mesh = Cells(ENGINES[kind]), mesh_of(kind)
    with jax.set_mesh(mesh):
        for case in CASES[start::step]:
            for sharding in ("rows", "classes", "both") if case.stands_for_others else ("both",):
                cells.run(case.name, sharding, lambda: check(case, mesh, sharding, second=sharding == "both"))  # noqa: B023
    cells.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
