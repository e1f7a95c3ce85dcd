"""Rows of optimal transport between rows and between samples."""

from __future__ import annotations

import numpy as np

import xpenalties as xp
from tests.matrix.case import KEY, Case
from tests.matrix.rows.shared import Bad, apart

__all__ = ["rows"]

POWER = ({"p": 0.5}, ValueError, r"`p` must be in \[1, inf\), got 0.5")


def rows() -> list[Case]:
    """Return the rows."""
    equal = (np.zeros((2, 3)), np.zeros((2, 3)))
    laws = ("zero_for_equal", "nonnegative", "symmetric", "even")
    return [
        Case(
            xp.wasserstein,
            [apart(3, 5, seed=5), apart(3, 5, seed=6)],
            kinks=[equal],
            laws=laws,
            bad=[
                POWER,
                ({"p": "2"}, TypeError, r"`p` must be a number in \[1, inf\), got str"),
                Bad.axis,
                Bad.axis_kind,
            ],
        ),
        Case(
            xp.wasserstein,
            [apart(2, 4, 3, seed=5), apart(2, 4, 3, seed=6)],
            {"p": 2.0, "axis": 1},
            kinks=[equal],
            laws=laws,
        ),
        Case(
            xp.wasserstein, [apart(4, 3, seed=5), apart(4, 3, seed=6)], {"p": 3.0, "axis": 0}, kinks=[equal], laws=laws
        ),
        Case(
            xp.wasserstein,
            [apart(3, 6, seed=5), apart(3, 4, seed=6)],
            {"p": 1.5},
            kinks=[equal],
            laws=("nonnegative", "symmetric", "even"),
            lacking={"dask": "the sizes differ"},
        ),
        *[
            Case(  # in one dimension, all directions are the same
                xp.sliced_wasserstein,
                [apart(6, 1, seed=5), apart(6, 1, seed=6)],
                {"slices": 3, "rng": KEY, **options},
                kinks=[(np.zeros((3, 1)), np.zeros((3, 1)))],
                laws=laws,
                bad=[Bad.rng, POWER, ({"slices": 0}, ValueError, r"`slices` must be at least 1, got 0")],
                lacking={"dask": "samples are in other chunks"},
            )
            for options in ({}, {"p": 1.0}, {"p": 2.5})
        ],
    ]
