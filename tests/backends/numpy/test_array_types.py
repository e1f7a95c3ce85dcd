"""NumPy's arrays of other types than ndarray, and of dtypes that a Python float cannot hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from xpenalties import Pipeline


class Mine(np.ndarray):
    """A subclass that knows nothing of autograd."""


@pytest.fixture(params=["memmap", "subclass"])
def ones(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "subclass":
        return np.ones(3).view(Mine)
    mapped = np.memmap(tmp_path / "ones", dtype=np.float64, mode="w+", shape=(3,))
    mapped[:] = 1
    return mapped


def test_subclasses(ones: Any) -> None:
    assert float(xp.l1(ones)) == float(xp.l1(np.ones(3), weights=ones)) == 3.0
    value, gradient = xp.value_and_grad(xp.l2)(ones)
    assert float(value) == 3.0 and gradient.tolist() == [2.0, 2.0, 2.0] and type(gradient) is np.ndarray
    assert float(xp.grad_norm(xp.l2, ones)) == pytest.approx(12**0.5)
    assert xp.gradient_penalty(lambda x: (x * x).sum(-1), ones[:, None]).item() == 1.0
    report = Pipeline({"l2": 1.0}).compute(ones, track_grad_norms=True)[1]
    assert float(report.total_grad_norm) == pytest.approx(12**0.5)


LONG = np.ones(3, np.longdouble)
pytestmark = [pytest.mark.only("numpy", reason="is about NumPy's arrays"), pytest.mark.usefixtures("fw")]
CALLS: dict[str, tuple[Callable[[], Any], str]] = {
    "a real array": (
        lambda: xp.kl_divergence(LONG, LONG),
        r"kl_divergence: `log_p` must be real floating point of at most 64 bits for each number, got \S+\. Cast it",
    ),
    "a complex array": (lambda: xp.l1(LONG * 1j), r"l1: `x` must be real or complex floating point of at most 64 bits"),
    "weights": (lambda: xp.l1(np.ones(3), weights=LONG), r"l1: `weights` must be real floating point, got"),
    "a gradient": (lambda: xp.grad(xp.l1)(LONG), r"grad: the first argument must hold a floating-point array, got nd"),
    "a check": (lambda: xp.check_finite(LONG), r"check_finite: `x` must be floating point, got"),
}


@pytest.mark.skipif(LONG.dtype.itemsize <= 8, reason="long double is float64 here")
@pytest.mark.parametrize("name", CALLS)
def test_long_double_is_refused(name: str) -> None:
    call, message = CALLS[name]
    with pytest.raises(TypeError, match=f"^{message}"):
        call()
