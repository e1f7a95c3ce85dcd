"""Penalties on an array that two processes share, for the test that starts both."""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tests.scale.jax_cells import equal
from xpenalties import Penalty, Pipeline

RNG = np.random.default_rng(0)
X = RNG.standard_normal((8, 6))
NAMES = ("l2", "output_magnitude", "orthogonality", "covariance", "group_lasso", "z_loss")
PIPELINE = Pipeline([Penalty(name, weight=0.1) for name in NAMES])


def main(rank: int, address: str) -> None:
    jax.config.update("jax_enable_x64", True)
    jax.distributed.initialize(address, num_processes=2, process_id=rank)
    expected, gradient = jax.value_and_grad(PIPELINE)(jnp.asarray(X))
    _, plain = PIPELINE.compute(jnp.asarray(X), track_grad_norms=True)
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((2,), ("data",), axis_types=(kind,))
        for spec in (PartitionSpec("data"), PartitionSpec(None, "data")):
            with jax.set_mesh(mesh):
                check(NamedSharding(mesh, spec), expected, gradient, plain)


def check(sharding: NamedSharding, expected: Any, gradient: Any, plain: Any) -> None:
    x = jax.make_array_from_callback(X.shape, sharding, lambda index: X[index])
    total, actual = jax.jit(jax.value_and_grad(PIPELINE))(x)
    equal(total, expected)
    equal(process_allgather(actual, tiled=True), gradient)
    assert actual.sharding.is_equivalent_to(sharding, 2)
    _, report = jax.jit(lambda x: PIPELINE.compute(x, track_grad_norms=True))(x)
    assert str(report) == str(plain)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
