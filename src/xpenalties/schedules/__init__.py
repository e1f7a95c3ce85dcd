"""Schedules: weights that change over a training run.

A schedule is any pure callable of the step, so those of Optax are schedules too. These take Python numbers, which give
floats, and 0-d arrays of any framework, traced ones too, which give 0-d arrays of its default floating dtype. All are
constant before their first step and after their last. Steps count from 0::

    Penalty("kl_divergence", weight=warmup(0.1, steps=1000))
"""

from ._curves import Schedule, constant, cosine, cyclic, exponential, linear, piecewise, warmup

__all__ = ["Schedule", "constant", "linear", "warmup", "exponential", "cosine", "cyclic", "piecewise"]
