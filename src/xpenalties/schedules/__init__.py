"""Schedules: weights that change over a training run.

A schedule is any pure callable of the step, so Optax's schedules work too. Those here take Python numbers, which give
floats, or 0-d arrays of any framework, also traced ones, which give 0-d arrays of its default floating dtype. A
schedule is constant before its first step and after its last. Steps count from 0::

    Penalty("kl_divergence", weight=warmup(0.1, steps=1000))
"""

from ._curves import Schedule, constant, cosine, cyclic, exponential, linear, piecewise, warmup

__all__ = ["Schedule", "constant", "linear", "warmup", "exponential", "cosine", "cyclic", "piecewise"]
