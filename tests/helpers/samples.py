"""A small input and its norms, distributions with zeros, and custom penalties."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import xpenalties as xp

__all__ = ["L1", "L2", "X", "P", "Q", "log", "mine", "pair", "with_metrics", "without_gradient"]

X = np.asarray([[1.0, -2.0], [0.5, 4.0]])
L1, L2 = 7.5, 1 + 4 + 0.25 + 16


def mine(x: Any) -> Any:
    return 3.0 * xp.l1(x)


def pair(x: Any, y: Any, *, scale: float = 1.0) -> Any:
    return scale * xp.l1(x - y)


def with_metrics(x: Any) -> Any:
    return xp.l2(x), {"largest": xp.namespace(x).max(x), "note": 4.0}


def without_gradient(torch: Any) -> Any:
    """Return a function of PyTorch whose backward pass fails."""

    class Sum(torch.autograd.Function):  # type: ignore[misc, name-defined]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x.sum()

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            raise ArithmeticError("no way back\nand more")

    return Sum.apply


def log(*p: float) -> np.ndarray:
    return np.asarray([math.log(x) if x > 0 else -math.inf for x in p])


P, Q = log(0.5, 0.5, 0.0, 0.0), log(0.25, 0.25, 0.5, 0.0)
