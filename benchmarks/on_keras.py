"""Keras 3 on PyTorch, in its own process, because it imports other frameworks."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import on_torch
from problems import arrays
from table import Fed, Row, Scale

import xpenalties as xp

__all__ = ["rows"]


def rows(scale: Scale) -> list[Row]:
    """Keras takes probabilities, and clips them."""
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    loss = keras.losses.KLDivergence()

    def probabilities(*log_ps: Any) -> tuple[Any, ...]:
        return tuple(log_p.exp() for log_p in log_ps)

    cpu = on_torch.CPU
    return [
        Row(
            "KL forward, beside Keras",
            cpu,
            partial(arrays, cpu, scale, "log_p", "log_p"),
            xp.kl_divergence,
            {"keras.losses.KLDivergence": Fed(loss, probabilities)},
            rtol=0.01,
        )
    ]
