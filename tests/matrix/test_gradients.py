"""Every row of cases.py on every backend that differentiates: gradients, second gradients, slopes at kinks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, close
from tests.matrix.cases import CASES, Case, arrays_of, at_once, options_of

pytestmark = [pytest.mark.parametrize("case", CASES, ids=lambda case: case.id), pytest.mark.needs("autodiff")]
SIXTH_ORDER = {1: 45 / 60, 2: -9 / 60, 3: 1 / 60}  # weights of central differences


def finite_difference(fn: Any, x: np.ndarray, step: float = 1e-3) -> np.ndarray:
    """Differentiate the scalar function `fn` by differences of sixth order."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        for k, weight in SIXTH_ORDER.items():
            for sign in (1, -1):
                moved = x.copy()
                moved[index] += sign * k * step
                gradient[index] += sign * weight * fn(moved) / step
    return gradient


@pytest.mark.column("gradient")
def test_gradient(case: Case, fw: Framework) -> None:
    options = options_of(case, fw)

    def of(x: Any, others: list[Any], i: int) -> Any:
        return case(*others[:i], x, *others[i:], reduction="sum", **options)

    def gradients(*arrays: Any) -> list[Any]:
        apart = [(x, [*arrays[:i], *arrays[i + 1 :]], i) for i, x in enumerate(arrays)]
        return [xp.grad(lambda x, others=others, i=i: of(x, others, i))(x) for x, others, i in apart]

    for i, got in enumerate(at_once(case, fw, gradients)(*arrays_of(case, fw))):
        others = [*case.arrays[:i], *case.arrays[i + 1 :]]
        at = case.arrays[0]
        want = finite_difference(lambda x: case.terms(*others[:i], x, *others[i:], at=at).sum(), case.arrays[i])  # noqa: B023
        close(fw, got, want, rtol=1e-6, atol=1e-8)


@pytest.mark.column("gradient")
def test_slope_at_kinks(case: Case, fw: Framework) -> None:
    for at, want in case.kinks:
        first = fw.array(np.asarray(at, dtype=np.float64))
        others = [fw.array(np.zeros(np.shape(at))) for _ in case.arrays[1:]]
        options = {"reduction": "sum", **options_of(case, fw)}
        gradient = fw.once(xp.grad(lambda *arrays, options=options: case(*arrays, **options)))
        close(fw, gradient(first, *others), np.asarray(want, dtype=np.float64))


def slope_along(case: Case, x: np.ndarray, direction: np.ndarray) -> float:
    """Differentiate the sum of the oracle's terms at `x` along a direction, with the constants of the row's own `x`."""
    first, *rest = case.arrays
    of_step = finite_difference(lambda t: case.terms(x + t[0] * direction, *rest, at=first).sum(), np.zeros(1))
    return float(of_step[0])


@pytest.mark.column("second gradient")
def test_second_gradient(case: Case, fw: Framework) -> None:
    options = {"reduction": "sum", **options_of(case, fw)}
    direction = np.random.default_rng(1).standard_normal(case.arrays[0].shape)
    gradient = fw.once(xp.grad(lambda *arrays: case(*arrays, **options)))
    _, *rest = arrays_of(case, fw)

    def along(x: Any, v: Any) -> Any:
        return xp.namespace(x).sum(gradient(x, *rest) * v)

    got = fw.once(xp.grad(along))(fw.array(case.arrays[0]), fw.array(direction))
    if case.has_constants:  # a gradient at another point would have other constants
        want = finite_difference(lambda x: slope_along(case, x, direction), case.arrays[0])
        close(fw, got, want, rtol=1e-6, atol=1e-7)
        return
    step = 1e-3
    want = np.zeros_like(direction)
    for k, weight in SIXTH_ORDER.items():
        for sign in (1, -1):
            moved = fw.array(case.arrays[0] + sign * k * step * direction)
            want += sign * weight * fw.numpy(gradient(moved, *rest)) / step
    close(fw, got, want, rtol=1e-6, atol=1e-7)


@pytest.mark.column("second gradient")
def test_second_gradient_is_finite_at_kinks(case: Case, fw: Framework) -> None:
    options = {"reduction": "sum", **options_of(case, fw)}
    gradient = xp.grad(case)
    for at, _ in case.kinks:
        first = fw.array(np.asarray(at, dtype=np.float64))
        others = [fw.array(np.zeros(np.shape(at))) for _ in case.arrays[1:]]
        second = xp.grad(lambda x, *r: xp.namespace(x).sum(gradient(x, *r, **options) ** 2))
        got = fw.once(second)(first, *others)
        assert np.isfinite(fw.numpy(got)).all()


@pytest.mark.column("gradient")
@pytest.mark.representative
def test_gradient_keeps_the_dtype(case: Case, fw: Framework) -> None:
    options = options_of(case, fw, "float32")
    gradient = xp.grad(lambda *arrays: case(*arrays, **options))

    def gradients(inputs: dict[str, list[Any]]) -> dict[str, Any]:
        return {dtype: gradient(*arrays) for dtype, arrays in inputs.items()}

    got = fw.once(gradients)({dtype: arrays_of(case, fw, dtype) for dtype in fw.dtypes})
    for dtype in fw.dtypes:
        assert got[dtype].dtype == fw.dtype(dtype)
        assert np.isfinite(fw.numpy(got[dtype])).all()


@pytest.mark.column("gradient")
@pytest.mark.representative
def test_gradient_of_size_zero(case: Case, fw: Framework) -> None:
    options = {k: v for k, v in options_of(case, fw).items() if not isinstance(case.options[k], np.ndarray)}
    arrays = [fw.array(x) for x in case.changed(lambda x: x[:0])]
    gradient = xp.grad(lambda *arrays: case(*arrays, **options))(*arrays)
    assert tuple(gradient.shape) == tuple(arrays[0].shape)
