"""Schedules: weights that change over a training run.

A schedule is any pure callable of the step, so Optax's schedules work too. For a Python number, the schedules here
return a float. For a 0-d array of any framework, traced or not, they return a 0-d array in the framework's default
floating-point dtype, or float32 if that is wider. Before its first step and after its last, a schedule is constant.
Steps count from 0::

    Penalty("kl_divergence", weight=warmup(0.1, steps=1000))
"""

from ._compound import cyclic, piecewise, warmup
from ._curves import constant, cosine, exponential, inverse_time, linear, polynomial
from ._definition import Schedule

__all__ = [
    "Schedule",
    "constant",
    "linear",
    "polynomial",
    "warmup",
    "exponential",
    "inverse_time",
    "cosine",
    "cyclic",
    "piecewise",
]
