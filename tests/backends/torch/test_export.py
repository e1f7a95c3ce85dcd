"""Every row of cases.py under torch.export without Dynamo, with a symbol for the size of the batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.conftest import selected
from tests.helpers.harness import Framework, close
from tests.matrix.cases import CASES, Case, arrays_of, options_of

ROWS = [
    pytest.param(case, id=case.id)
    for case in CASES
    # a user's function is not differentiated while it is exported, and an array option has the size of one batch. To
    # decompose a matrix, PyTorch has to know which side is shorter
    if case.fn is None
    and case.name != "nuclear_norm"
    and not any(isinstance(option, np.ndarray) for option in case.options.values())
]
#: Sizes that an export needs at least, if they are not 2, so that there are differences.
LEAST = {"total_variation(axis=(0, 1))": 3, "total_variation(axis=(0, 1),order=2,mode=isotropic)": 4}


@pytest.mark.parametrize("case", ROWS)
@pytest.mark.only("torch", reason="is about torch.export")
def test_a_batch_of_any_size(fw: Framework, case: Case) -> None:
    torch = selected("torch", reason="is about torch.export")

    class Module(torch.nn.Module):  # type: ignore[name-defined,misc]
        def forward(self, *arrays: Any) -> Any:
            return case(*arrays, **options)

    options, arrays = options_of(case, fw), arrays_of(case, fw)
    batch = 1 if case.options.get("axis") == 0 else 0  # an axis that no row lies along
    is_batch = [
        i not in case.function.spec.matrices and x.shape[batch] == arrays[0].shape[batch] for i, x in enumerate(arrays)
    ]
    size = torch.export.Dim("size", min=LEAST.get(case.id, 2), max=1000)
    shapes = tuple({batch: size} if sized else None for sized in is_batch)
    exported = torch.export.export(Module(), tuple(arrays), dynamic_shapes=(shapes,), strict=False).module()
    larger = [torch.cat([x, x], batch) if sized else x for x, sized in zip(arrays, is_batch, strict=True)]
    close(fw, exported(*larger), fw.numpy(case(*larger, **options)), rtol=1e-10)
