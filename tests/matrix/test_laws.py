"""Laws that a row of cases.py says hold of its penalty, on inputs that Hypothesis looks for."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.harness import Framework
from tests.matrix.cases import CASES, Case, options_of

TOLERANCE = 1e-9


def call(case: Case, fw: Framework, *arrays: np.ndarray) -> float:
    return float(case(*[fw.array(x) for x in arrays], **options_of(case, fw)))


def near(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def even(case: Case, fw: Framework, *x: np.ndarray) -> bool:
    return near(call(case, fw, *x), call(case, fw, *[-y for y in x]))


def nonnegative(case: Case, fw: Framework, *x: np.ndarray) -> bool:
    return call(case, fw, *x) >= -1e-12


def homogeneous(case: Case, fw: Framework, x: np.ndarray) -> bool:
    return near(call(case, fw, 3.0 * x), 3.0 * call(case, fw, x))


def shift_invariant(case: Case, fw: Framework, x: np.ndarray) -> bool:
    return near(call(case, fw, x), call(case, fw, x + 2.0))


def shift_invariant_rows(case: Case, fw: Framework, *x: np.ndarray) -> bool:
    return near(
        call(case, fw, *x), call(case, fw, *[y + np.arange(y.shape[0]).reshape(-1, *[1] * (y.ndim - 1)) for y in x])
    )


def shift_invariant_columns(case: Case, fw: Framework, *x: np.ndarray) -> bool:
    return near(call(case, fw, *x), call(case, fw, *[y + np.arange(y.shape[1]) for y in x]))


def scale_invariant(case: Case, fw: Framework, *x: np.ndarray) -> bool:
    return near(call(case, fw, *x), call(case, fw, *[2.5 * y for y in x]))


def shift_invariant_classes(case: Case, fw: Framework, *x: np.ndarray) -> bool:
    """To add one vector to the weights of all classes adds one number to all logits of a token."""
    return near(call(case, fw, *x), call(case, fw, *[y + 0.5 * (i % 2) for i, y in enumerate(x)]))


def zero_for_equal(case: Case, fw: Framework, *x: np.ndarray) -> bool:
    p = x[: len(x) // 2]
    return abs(call(case, fw, *p, *p)) < 1e-15


def symmetric(case: Case, fw: Framework, *x: np.ndarray) -> bool:
    p, q = x[: len(x) // 2], x[len(x) // 2 :]
    return near(call(case, fw, *p, *q), call(case, fw, *q, *p))


def at_most_log_2(case: Case, fw: Framework, *x: np.ndarray) -> bool:
    return call(case, fw, *x) <= math.log(2) + 1e-15


LAWS: dict[str, Callable[..., bool]] = {
    law.__name__: law
    for law in (
        even,
        nonnegative,
        homogeneous,
        shift_invariant,
        shift_invariant_rows,
        shift_invariant_classes,
        shift_invariant_columns,
        scale_invariant,
        zero_for_equal,
        symmetric,
        at_most_log_2,
    )
}


def of_the_same_kind(case: Case, seed: int, scale: float) -> list[np.ndarray]:
    """Random inputs like the row's: log-probabilities where its own are."""
    rng = np.random.default_rng(seed)
    made = []
    for x in case.arrays:
        new = scale * rng.standard_normal(x.shape)
        axis = case.options.get("axis", -1)
        if isinstance(axis, int) and np.allclose(np.exp(x).sum(axis=axis), 1.0):
            new = new - np.log(np.exp(new).sum(axis=axis, keepdims=True))
        elif (x < 0).all():  # some of more classes
            new = np.log(rng.dirichlet(np.ones(x.size + 1))[: x.size].reshape(x.shape))
        made.append(new)
    return made


@pytest.mark.column("eager")
@pytest.mark.parametrize("case", [case for case in CASES if case.laws], ids=lambda case: case.id)
def test_laws(case: Case, fw: Framework) -> None:
    # eager JAX and dask pay milliseconds a call, and run the same formulas
    @settings(max_examples=25 if fw.name in ("numpy", "strict", "torch") else 2)
    @given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-6, 1e-2, 1.0, 5.0]))
    def hold(seed: int, scale: float) -> None:
        arrays = of_the_same_kind(case, seed, scale)
        for law in case.laws:
            assert LAWS[law](case, fw, *arrays), law

    hold()
