"""Results of linear functions that do not depend on their arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.conftest import selected

pytestmark = [pytest.mark.only("jax", reason="is about JAX's programs"), pytest.mark.usefixtures("fw")]


def test_what_does_not_depend() -> None:
    jax = selected("jax", reason="is about JAX's programs")
    jnp = jax.numpy
    from xpenalties.backends.jax._linear import linear_or_none

    inner = jax.jit(lambda a, b: (2 * a, 3 * b, jnp.zeros(2)))

    def function(a: Any) -> list[Any]:
        constant = jnp.ones(2)
        scanned, _ = jax.lax.scan(lambda carry, x: (carry + x * a, None), jnp.zeros(()), constant)
        return [
            a,
            constant,
            *inner(a, constant),
            *inner(constant, a),
            jax.checkpoint(lambda a, b: b)(a, constant),
            scanned,
            2.0 * a,
            jnp.zeros(()),
        ]

    for call in (lambda x: linear_or_none(function, x), jax.jit(lambda x: linear_or_none(function, x))):
        results = call(jnp.asarray(3.0))
        depends = [result is not None for result in results]
        assert depends == [True, False, True, False, False, False, True, False, False, True, True, False]
        np.testing.assert_allclose([float(result) for result in results if result is not None], [3, 6, 9, 6, 6])
