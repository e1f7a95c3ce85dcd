"""Rows of penalties that count elements, or drive small ones to zero."""

from __future__ import annotations

import numpy as np

import xpenalties as xp
from tests.matrix.case import Case
from tests.matrix.rows.shared import Bad, apart

__all__ = ["rows"]


def rows() -> list[Case]:
    """Return the rows. They draw random numbers from one stream."""
    return [
        Case(
            xp.l0,
            [apart(3, 4)],
            {"threshold": 0.5},
            kinks=[([0.0, 0.5, -2.0], [0.0, 0.0, 0.0])],
            laws=("even", "nonnegative"),
            bad=[
                ({"kind": "steps"}, ValueError, r"`kind` must be one of .*, got 'steps'. Did you mean 'step'"),
                ({"threshold": -1.0}, ValueError, r"`threshold` must be in \[0, inf\), got -1.0"),
                ({"threshold": "0"}, TypeError, r"`threshold` must be a number in \[0, inf\), got str"),
                ({"through": "x"}, ValueError, r"`through` must be one of 'threshold', 'both', got 'x'"),
                ({"bandwidth": 0.0}, ValueError, r"`bandwidth` must be in \(0, inf\), got 0.0"),
                ({"scale": 0.0}, ValueError, r"`scale` must be in \(0, inf\), got 0.0"),
            ],
        ),
        Case(
            xp.l0,
            [np.asarray([[1.0, -2.0, 0.5], [-0.25, 0.75, 3.0]])],
            {"threshold": np.asarray([0.375, 1.0, 0.625]), "through": "both", "bandwidth": 0.01},
            laws=("even", "nonnegative"),
        ),
        Case(
            xp.l0,
            [apart(3, 4)],
            {"kind": "tanh", "scale": 0.7},
            kinks=[([0.0, 100.0, -100.0], [0.0, 0.0, 0.0])],
            laws=("even", "nonnegative"),
        ),
        Case(
            xp.l0,
            [2 * apart(3, 4)],
            {"kind": "hard_concrete"},
            kinks=[([-1000.0, 1000.0, -2 / 3 * np.log(11)], [0.0, 0.0, 0.25])],
            laws=("nonnegative",),
        ),
        Case(
            xp.mcp,
            [apart(3, 4)],
            {"threshold": 0.8},
            kinks=[([0.0, 0.8, -0.8, 5.0, 0.2], [0.0, 0.0, 0.0, 0.0, 0.75])],
            laws=("even", "nonnegative"),
            bad=[({"threshold": 0.0}, ValueError, r"`threshold` must be in \(0, inf\), got 0.0")],
        ),
        Case(
            xp.scad,
            [2 * apart(3, 4)],
            {"knee": 0.6, "a": 3.0},
            kinks=[([0.0, 0.6, -0.6, 1.8, 1.2, 9.0], [0.0, 1.0, -1.0, 0.0, 0.5, 0.0])],
            laws=("even", "nonnegative"),
            bad=[
                ({"knee": 0.0}, ValueError, r"`knee` must be in \(0, inf\), got 0.0"),
                ({"a": 2.0}, ValueError, r"`a` must be in \(2, inf\), got 2.0"),
            ],
        ),
        Case(
            xp.log_sum,
            [apart(3, 4)],
            {"eps": 0.3},
            kinks=[([0.0, 0.3, -0.3, 1e200], [0.0, 1 / 0.6, -1 / 0.6, 0.0])],
            laws=("even", "nonnegative"),
            bad=[({"eps": 0.0}, ValueError, r"`eps` must be in \(0, inf\), got 0.0")],
        ),
        Case(
            xp.lp,
            [apart(3, 4)],
            {"p": 0.6},
            kinks=[([0.0, 1.0, -1.0], [0.0, 0.6, -0.6])],
            laws=("even", "nonnegative"),
            bad=[
                ({"p": 0.0}, ValueError, r"`p` must be in \(0, 1\], got 0.0"),
                ({"p": 2}, ValueError, r"`p` must be in \(0, 1\], got 2.0"),
            ],
        ),
        Case(xp.lp, [apart(5)], {"p": 1.0}, laws=("even", "nonnegative", "homogeneous")),
        Case(
            xp.hoyer,
            [apart(3, 4)],
            kinks=[(np.zeros(4), np.zeros(4)), ([0.0, 3.0], [0.0, 0.0])],
            laws=("even", "nonnegative", "scale_invariant"),
            bad=[Bad.axis, Bad.axis_kind, ({"squared": 1}, TypeError, r"`squared` must be True or False, got 1")],
        ),
        Case(
            xp.hoyer,
            [apart(3, 4)],
            {"axis": -1, "squared": False},
            kinks=[(np.zeros((2, 3)), np.zeros((2, 3)))],
            laws=("even", "nonnegative", "scale_invariant"),
        ),
        Case(xp.hoyer, [apart(3, 4, 2)], {"axis": (0, 2)}, laws=("even", "nonnegative", "scale_invariant")),
    ]
