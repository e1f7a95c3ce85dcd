"""Projections at their edges; test_operators.py has what they share with other proximal operators."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.helpers.harness import Framework, close
from xpenalties import prox

RNG = np.random.default_rng(11)


def test_a_box_of_one_side(fw: Framework) -> None:
    x = np.asarray([-2.0, 0.5, 3.0])
    close(fw, prox.box(fw.array(x), low=0), np.maximum(x, 0))
    close(fw, prox.box(fw.array(x), high=1), np.minimum(x, 1))
    close(fw, prox.box(fw.array(x)), x)
    close(fw, prox.box(fw.array(x, "float32"), low=-1e300, high=1e300), x)  # what float32 does not hold


def test_simplex_of_large_and_masked(fw: Framework) -> None:
    close(fw, prox.simplex(fw.array(np.asarray([1e9, 1e9 - 0.5, -math.inf]))), np.asarray([0.75, 0.25, 0.0]))
    close(fw, prox.simplex(fw.array(np.asarray([-7.0]))), np.asarray([1.0]))
    close(fw, prox.simplex(fw.array(np.asarray([3e38, -3e38]), "float32")), np.asarray([1.0, 0.0]))  # without a warning
    x = RNG.normal(size=(1000,)) * 10
    got = fw.numpy(prox.simplex(fw.array(x)))
    assert got.sum() == pytest.approx(1, rel=1e-12) and got.min() == 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: prox.box(x, low="a"), TypeError, r"^box: `low` must be a number in \(-inf, inf\), got str"),
        (lambda x: prox.box(x, low=1, high=0), ValueError, r"^box: `low` must not be above `high`, got 1\.0 and 0\.0"),
        (lambda x: prox.simplex(x, radius=0), ValueError, r"^simplex: `radius` must be in \(0, inf\), got 0"),
        (lambda x: prox.simplex(x, axis=-3), ValueError, r"^simplex: `axis` must be an axis of `x`, got -3 for shape"),
        (
            lambda x: prox.simplex(x[0, 0]),
            ValueError,
            r"^simplex: `axis` must be an axis of `x`, got -1 for shape \(\)",
        ),
    ],
)
def test_errors(fw: Framework, call: Callable[[Any], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(fw.array(np.ones((2, 3))))
