"""Every formula of cases.py on inputs that have collapsed or are extreme: the fast path must not change the value.

On the fast path, NaN marks what needs guards. A formula that loses the mark, as `where(x < t, t - x, 0)` does, returns
a plausible, wrong number for exactly these inputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.helpers.harness import Framework, close, framework
from tests.matrix.cases import CASES, Case, at_once, options_of

FORMULAS = [case for case in CASES if case.fn is None]  # functions run as written, without a fast path
INPUTS = {
    "zeros": np.zeros_like,
    "equal rows": lambda x: np.broadcast_to(x[:1], x.shape).copy(),
    "equal elements": lambda x: np.full_like(x, x.flat[0]),
    "small": lambda x: 1e-30 * x,
    "large": lambda x: 1e20 * x,
}


def with_guards(monkeypatch: pytest.MonkeyPatch, case: Case, arrays: list[np.ndarray]) -> Any:
    """Evaluate in NumPy, without the fast path."""

    def guarded(finite: Any, formula: Any, arrays: Any, options: Any) -> Any:
        return formula(*arrays, **options)

    with monkeypatch.context() as patch:
        patch.setattr("xpenalties.backends.numpy._backend.run_fast", guarded)
        return np.asarray(case(*arrays, **options_of(case, framework("numpy"))))


@pytest.mark.column("eager")
@pytest.mark.parametrize("case", FORMULAS, ids=lambda case: case.id)
def test_the_fast_path_does_not_change_the_value(case: Case, fw: Framework, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {name: case.changed(change) for name, change in INPUTS.items()}
    wanted = {name: with_guards(monkeypatch, case, inputs) for name, inputs in arrays.items()}

    def values(arrays: dict[str, list[Any]]) -> dict[str, Any]:
        return {name: case(*inputs, **options_of(case, fw)) for name, inputs in arrays.items()}

    got = at_once(case, fw, values)({name: [fw.array(x) for x in inputs] for name, inputs in arrays.items()})
    for name, want in wanted.items():
        is_tiny = name == "small" and 1e-31 < np.abs(want).max() < 1e-14  # a norm, and not the rounding of logits
        close(fw, got[name], want, rtol=1e-7, atol=1e-50 if is_tiny else 1e-14)
