"""Rows of smooth functions of elements, norms of matrices, and differences of neighbors."""

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
            xp.log_cosh,
            [2 * apart(3, 4)],
            {"scale": 0.5},
            kinks=[(np.zeros(4), np.zeros(4)), ([1000.0, -1000.0], [0.5, -0.5])],
            laws=("even", "nonnegative"),
            bad=[({"scale": 0.0}, ValueError, r"`scale` must be in \(0, inf\), got 0.0")],
        ),
        Case(
            xp.charbonnier,
            [apart(3, 4)],
            {"eps": 0.5},
            kinks=[(np.zeros(4), np.zeros(4)), ([1e200, -1e200, 0.375], [1.0, -1.0, 0.6])],
            laws=("even", "nonnegative"),
            bad=[({"eps": 0.0}, ValueError, r"`eps` must be in \(0, inf\), got 0.0")],
        ),
        Case(
            xp.spectral_norm,
            [apart(3, 5)],
            kinks=[
                (np.zeros((2, 3)), np.zeros((2, 3))),
                ([[3.0, 0.0], [0.0, -1.0]], [[6.0, 0.0], [0.0, 0.0]]),
            ],
            laws=("even", "nonnegative"),
            bad=[Bad.no_axis],
        ),
        Case(xp.spectral_norm, [apart(5, 3)], laws=("even", "nonnegative")),
        Case(xp.spectral_norm, [apart(2, 3, 4)], laws=("even", "nonnegative")),
        Case(
            xp.nuclear_norm,
            [apart(3, 5)],
            kinks=[
                (np.zeros((2, 3)), np.zeros((2, 3))),
                (np.eye(3), np.eye(3)),
                (np.ones((2, 2)), np.ones((2, 2)) / 2),
            ],
            laws=("even", "nonnegative", "homogeneous"),
            bad=[Bad.no_axis],
        ),
        Case(xp.nuclear_norm, [apart(5, 3)], laws=("even", "nonnegative", "homogeneous")),
        Case(xp.nuclear_norm, [apart(2, 3, 4)], laws=("even", "nonnegative", "homogeneous")),
        Case(
            xp.total_variation,
            [apart(3, 4)],
            kinks=[([1.0, 1.0, 3.0, 2.0], [0.0, -1.0, 2.0, -1.0]), (np.zeros((2, 3)), np.zeros((2, 3)))],
            laws=("even", "nonnegative", "homogeneous", "shift_invariant"),
            bad=[
                Bad.axis,
                Bad.axis_kind,
                (
                    {"axis": (0, -2)},
                    ValueError,
                    r"`axis` must have axes of `x`, each once, got \(0, -2\) for shape \(3, 4\)",
                ),
                ({"order": 0}, ValueError, r"`order` must be at least 1, got 0"),
                ({"mode": "isotrope"}, ValueError, r"`mode` must be one of .*got 'isotrope'. Did you mean 'isotropic'"),
            ],
        ),
        Case(
            xp.total_variation,
            [apart(3, 4)],
            {"axis": (0, 1)},
            laws=("even", "nonnegative", "homogeneous", "shift_invariant"),
        ),
        Case(
            xp.total_variation,
            [apart(2, 3, 4)],
            {"axis": (-1, 1), "mode": "isotropic"},
            kinks=[(np.zeros((2, 3, 4)), np.zeros((2, 3, 4)))],
            laws=("even", "nonnegative", "homogeneous", "shift_invariant"),
        ),
        Case(
            xp.total_variation,
            [apart(4, 3)],
            {"axis": 0, "order": 2, "mode": "squared"},
            laws=("even", "nonnegative", "shift_invariant"),
        ),
        Case(
            xp.total_variation,
            [apart(5, 5)],
            {"axis": (0, 1), "order": 2, "mode": "isotropic"},
            laws=("even", "nonnegative", "homogeneous", "shift_invariant"),
        ),
    ]
