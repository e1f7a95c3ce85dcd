"""The growth of the KL divergence's time and memory with the number of rows. Time should grow, memory should not."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from problems import arrays, steps
from table import Framework, Row, Scale

import xpenalties as xp

__all__ = ["EXPONENT", "SPREAD", "exponent", "series"]

EXPONENT = 1.1  # that time may grow by; 1 is linear
SPREAD = 16  # MiB that the extra memory of the steps may differ by


def series(framework: Framework, scale: Scale, peers: Mapping[str, Callable[..., Any]]) -> list[Row]:
    """Return KL forward with a growing number of rows."""
    return [
        Row(
            f"KL forward, {step.rows} rows",
            framework,
            partial(arrays, framework, step, "log_p", "log_p"),
            xp.kl_divergence,
            peers,
            memory=True,
            growth=step.rows,
        )
        for step in steps(scale)
    ]


def exponent(rows: list[int], seconds: list[float]) -> float:
    """Return the k of the power law seconds ~ rows^k that fits best."""
    x, y = [math.log(n) for n in rows], [math.log(s) for s in seconds]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return slope / sum((a - mean_x) ** 2 for a in x)
