"""Every row of cases.py where there is a compiler: values, masks and gradients as in eager mode, and no retrace."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, close
from tests.matrix.cases import CASES, Case, options_of
from tests.matrix.test_masks import masks

pytestmark = [pytest.mark.column("jit"), pytest.mark.needs("jit")]
of_all_rows = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)


def compiled_equals_eager(case: Case, fw: Framework, *, traced_only: bool) -> None:
    """Compare a value, a masked value and a gradient, in one program; other values must not compile again."""
    options = options_of(case, fw)
    gradient = xp.grad(lambda *arrays: case(*arrays, **options))

    def together(arrays: list[Any], where: Any, weights: Any, normalizer: Any) -> dict[str, Any]:
        return {
            "value": case(*arrays, **options),
            "masked": case(*arrays, where=where, weights=weights, normalizer=normalizer, **options),
            "gradient": gradient(*arrays),
        }

    compiled, count = fw.compile(together, traced_only=traced_only)
    where, weights = (fw.array(x) for x in masks(case))
    counts = []
    for scale, normalizer in ((1.0, 3.0), (0.75, 2.0)):
        inputs = [fw.array(scale * x) for x in case.arrays], where, weights, fw.array(np.asarray(normalizer))
        eager, got = together(*inputs), compiled(*inputs)
        for name, want in eager.items():
            close(fw, got[name], fw.numpy(want))
        counts.append(count())  # for a 0-d normalizer torch.compile starts over within the first call
    assert counts[0] == counts[1], "compiled again for other values"


@of_all_rows
def test_compiled_equals_eager(case: Case, fw: Framework) -> None:
    compiled_equals_eager(case, fw, traced_only=not case.stands_for_others)


@pytest.mark.full
@pytest.mark.only("torch", reason="other compilers cannot stop after the trace, so the test above has it all")
@pytest.mark.parametrize("case", [case for case in CASES if not case.stands_for_others], ids=lambda case: case.id)
def test_compiled_ahead_of_time(case: Case, fw: Framework) -> None:
    compiled_equals_eager(case, fw, traced_only=False)


@of_all_rows
def test_vmap_equals_loop(case: Case, fw: Framework) -> None:
    options = options_of(case, fw)
    stacked = [np.stack([x, 0.5 * x, -x]) for x in case.arrays]
    got = fw.vmap(lambda *arrays: case(*arrays, **options))(*[fw.array(x) for x in stacked])
    want = [fw.numpy(case(*[fw.array(x[i]) for x in stacked], **options)) for i in range(3)]
    close(fw, got, np.stack(want), rtol=1e-7, atol=1e-8)
