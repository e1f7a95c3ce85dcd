"""Every penalty of the matrix on eight devices, for the test that starts this script."""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.matrix.cases import CASES, KEY, Case
from tests.scale.jax_cells import ENGINES, Cells, collectives, cut, equal, gathered, mesh_of

NEED_WHOLE_ARRAYS = {
    "nuclear_norm",
    "koleo",
    "mmd",
    "cross_orthogonality",
    "wasserstein",
    "sliced_wasserstein",
}  # of all singular values or all pairs of rows, or to sort
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


class Row:
    """A row of the matrix, and what it should be: computed once, on one device."""

    def __init__(self, case: Case) -> None:
        rng = np.random.default_rng(1)
        self.case = case
        self.arrays = [enlarged(np.asarray(x), rng) for x in case.arrays]
        self.options = {name: option(name, value, rng) for name, value in case.options.items()}
        self.whole = [jnp.asarray(x) for x in self.arrays]
        self.expected = jax.jit(lambda arrays: self.computed(arrays, second=True))(self.whole)
        self.eager = case(*self.whole, **self.options)

    def value(self, arrays: list[Any]) -> Any:
        terms = self.case(*arrays, reduction="none", **self.options)
        return jnp.sum(terms * jnp.cos(jax.lax.stop_gradient(jnp.real(terms)))), terms

    def computed(self, arrays: list[Any], *, second: bool) -> Any:
        (total, terms), gradients = jax.value_and_grad(self.value, has_aux=True)(arrays)
        if not second:
            return total, terms, gradients

        def slope(arrays: list[Any]) -> Any:
            return sum(jnp.sum(jnp.abs(g) ** 2) for g in jax.grad(lambda x: self.value(x)[0])(arrays))

        return total, terms, gradients, jax.grad(slope)(arrays)

    def check(self, mesh: Any, sharding: str) -> None:
        second = sharding == "both"
        shared = self.case.function.spec.matrices  # type: ignore[attr-defined]
        how = [_linear(sharding, i in shared) if shared else sharding for i in range(len(self.arrays))]
        parts = [cut(mesh, x, one) for x, one in zip(self.arrays, how, strict=True)]
        compiled = jax.jit(lambda arrays: self.computed(arrays, second=second)).lower(parts).compile()
        actual = compiled(parts)
        equal(actual, self.expected[: len(actual)])
        equal(self.case(*parts, **self.options), self.eager)  # without jit around it
        explicit = mesh.axis_types[0] == jax.sharding.AxisType.Explicit
        for x, gradient in zip(parts, actual[2], strict=True):
            same = gradient.sharding.is_equivalent_to(x.sharding, x.ndim)
            assert not explicit or same, (x.sharding, gradient.sharding)
        text = compiled.as_text()
        least = min(x.size for x in self.arrays)
        assert self.case.name in NEED_WHOLE_ARRAYS or gathered(text) < least, [
            (name, size) for name, size in collectives(text) if size >= least
        ]


def _linear(sharding: str, is_weight: bool) -> str:
    """Return how to cut an array of a linear map: hidden states by rows, weights by classes."""
    if is_weight:
        return {"rows": "whole", "classes": "rows", "both": "model"}[sharding]
    return "whole" if sharding == "classes" else "rows"


def main(start: int, step: int) -> None:
    jax.config.update("jax_enable_x64", True)
    cells, meshes = [Cells(engine) for engine in ENGINES.values()], [mesh_of(kind) for kind in ENGINES]
    for case in CASES[start::step]:
        row = Row(case)
        for of_kind, mesh in zip(cells, meshes, strict=True):
            with jax.set_mesh(mesh):
                for sharding in ("rows", "classes", "both") if case.stands_for_others else ("both",):
                    of_kind.run(case.name, sharding, lambda: row.check(mesh, sharding))  # noqa: B023
    Cells.close(*cells)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
