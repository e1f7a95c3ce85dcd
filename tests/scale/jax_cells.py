"""What the scripts with eight devices share: meshes, comparison with arrays on one device, sizes of collectives."""

from __future__ import annotations

import math
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tests.helpers.scale_results import record

__all__ = ["ENGINES", "Cells", "collectives", "cut", "equal", "gathered", "mesh_of", "spec_of"]

ENGINES = {"auto": "JAX, automatic axes", "explicit": "JAX, explicit axes"}
KINDS = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}
_COLLECTIVE = re.compile(
    r"= (\([^)]*\)|\S+) (all-gather|all-reduce|all-to-all|reduce-scatter|collective-permute|ragged-all-to-all)"
    r"(?:-start)?\("
)


def mesh_of(kind: str) -> Any:
    """Return a mesh of 4 x 2 devices."""
    return jax.make_mesh((4, 2), ("data", "model"), axis_types=(KINDS[kind],) * 2)


def spec_of(sharding: str, ndim: int) -> PartitionSpec:
    """Return the spec of an array that is cut by rows, by classes, or by both."""
    if ndim < 2 and sharding != "whole":
        return PartitionSpec(*["data"] * ndim)
    inner = [None] * (ndim - 2)
    return {
        "whole": PartitionSpec(),
        "model": PartitionSpec("model", *inner, None),
        "rows": PartitionSpec("data", *inner, None),
        "sequence": PartitionSpec(None, "data", *[None] * (ndim - 2)),
        "classes": PartitionSpec(None, *inner, "data"),
        "both": PartitionSpec("data", *inner, "model"),
    }[sharding]


def cut(mesh: Any, x: Any, sharding: str) -> Any:
    return jax.device_put(x, NamedSharding(mesh, spec_of(sharding, np.ndim(x))))


def collectives(text: str) -> list[tuple[str, int]]:
    """Return the name of each collective of a compiled program, and the elements that a device gets from it."""
    found = []
    for shapes, name in _COLLECTIVE.findall(text):
        sizes = [math.prod(map(int, filter(None, dims.split(",")))) for dims in re.findall(r"\w+\[([\d,]*)\]", shapes)]
        found.append((name, sum(sizes)))
    return found


def gathered(text: str) -> int:
    """Return the size of the largest all-gather."""
    return max([size for name, size in collectives(text) if name == "all-gather"], default=0)


class Cells:
    """Runs many cells, and fails at the end with the names of all that failed."""

    def __init__(self, engine: str) -> None:
        self.engine = engine
        self.failures: list[str] = []

    def run(self, function: str, sharding: str, check: Callable[[], None]) -> None:
        """Run a cell."""
        try:
            check()
        except Exception:  # noqa: BLE001 - every cell is to run, and each failure is reported
            self.failures.append(f"{function}, {self.engine}, {sharding}")
            sys.stderr.write(f"{self.failures[-1]}\n{traceback.format_exc(limit=-6)}\n")
        else:
            record(function, self.engine, sharding)

    def close(self, *others: Cells) -> None:
        """Fail if a cell of these has failed."""
        failures = [failure for cells in (self, *others) for failure in cells.failures]
        if failures:
            raise SystemExit("\n".join(failures) + f"\n{len(failures)} cells failed.")


def equal(actual: Any, expected: Any, *, tolerance: float = 1e-9) -> None:
    """Compare trees of arrays in float64."""
    actual, expected = jax.tree.leaves(actual), jax.tree.leaves(expected)
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        scale = max(1.0, float(jnp.max(jnp.abs(b)))) if b.size else 1.0
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=tolerance, atol=tolerance * scale)
