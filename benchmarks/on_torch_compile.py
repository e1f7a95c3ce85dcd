"""Compiled PyTorch: every array penalty and the obvious formula, and a whole pipeline."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from on_torch import CPU, by_hand
from problems import arrays
from table import Goal, Row, Scale
from tracking import whole

__all__ = ["rows"]

COMPILED = replace(CPU, name="torch.compile", fresh=torch.compiler.reset)
GOAL = Goal("any penalty under torch.compile", 1.1, "by hand, compiled")


def rows(scale: Scale) -> list[Row]:
    """Return the rows of compiled PyTorch."""
    compiler = partial(torch.compile, fullgraph=True, backend=scale.compiler)
    penalties = [
        Row(
            case.label,
            COMPILED,
            partial(arrays, COMPILED, scale, *case.kinds),
            compiler(case.penalty),
            {GOAL.peer: compiler(case.by_hand)},
            goals=(GOAL,),
        )
        for case in by_hand()
    ]
    return [*penalties, whole(COMPILED, scale, by_hand(), compiler)]
