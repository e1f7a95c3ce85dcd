"""Every row of cases.py under jax.export, with a symbol for the size of the batch."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conftest import selected
from tests.helpers.harness import Framework, close
from tests.matrix.cases import CASES, Case, arrays_of, options_of

ROWS = [
    pytest.param(case, id=case.id)
    for case in CASES
    if not any(isinstance(option, np.ndarray) for option in case.options.values())  # whose size is that of one batch
]


#: Bounds of the size that an export needs, by the row.
CONSTRAINTS = {
    "nuclear_norm-3x5": ["size <= 4"],  # which side of a matrix is shorter
    "nuclear_norm-5x3": ["size >= 3"],
    "total_variation(axis=(0, 1),order=2,mode=isotropic)": ["size >= 2"],  # if there are differences
}


@pytest.mark.parametrize("case", ROWS)
@pytest.mark.only("jax", reason="is about jax.export")
def test_a_batch_of_any_size(fw: Framework, case: Case) -> None:
    jax = selected("jax", reason="is about jax.export")
    from jax import export

    options = options_of(case, fw)
    (size,) = export.symbolic_shape("size", constraints=CONSTRAINTS.get(case.id, []))
    arrays = arrays_of(case, fw)
    batch = 1 if case.options.get("axis") == 0 else 0  # an axis that no row lies along

    def symbolic(i: int, shape: tuple[int, ...]) -> tuple[object, ...]:
        is_batch = bool(shape) and i not in case.function.spec.matrices and shape[batch] == case.arrays[0].shape[batch]
        return (*shape[:batch], size, *shape[batch + 1 :]) if is_batch else shape

    shapes = [jax.ShapeDtypeStruct(symbolic(i, x.shape), x.dtype) for i, x in enumerate(arrays)]
    exported = export.export(jax.jit(lambda *arrays: case(*arrays, **options)))(*shapes)
    close(fw, exported.call(*arrays), fw.numpy(case(*arrays, **options)), rtol=1e-10)
