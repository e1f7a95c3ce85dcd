"""Rows of norms."""

from __future__ import annotations

import numpy as np

import xpenalties as xp
from tests.matrix.case import Case
from tests.matrix.rows.shared import Bad, randn

__all__ = ["rows"]


def rows() -> list[Case]:
    """Return the rows. They draw random numbers from one stream."""
    return [
        Case(
            xp.l1,
            [randn(3, 4)],
            kinks=[(np.zeros((2, 3)), np.zeros((2, 3))), ([-1.0, 0.0, 2.0], [-1.0, 0.0, 1.0])],
            laws=("even", "nonnegative", "homogeneous"),
            bad=[
                (
                    {"axis": 0},
                    TypeError,
                    r"`axis` is not an option. The options are reduction, where, weights, normalizer",
                ),
                ({"reductoin": "sum"}, TypeError, r"`reductoin` is not an option.*Did you mean 'reduction'\?"),
                (
                    {"reduction": "average"},
                    ValueError,
                    r"`reduction` must be one of 'sum', 'mean', 'none', got 'average'",
                ),
                ({"normalizer": 0.0}, ValueError, r"`normalizer` must be in \(0, inf\), got 0.0"),
                ({"normalizer": "3"}, TypeError, r"`normalizer` must be a number in \(0, inf\), got str"),
            ],
        ),
        Case(xp.l2, [randn(3, 4)], kinks=[(np.zeros(3), np.zeros(3))], laws=("even", "nonnegative")),
        Case(xp.l2, [randn(3, 4)], {"center": "mean"}, laws=("nonnegative", "shift_invariant")),
        Case(
            xp.l2,
            [randn(3, 4)],
            {"center": 0.3, "clip": 0.75},
            kinks=[([1.05, 1.0, 0.3, -0.45, 2.0], [1.5, 1.4, 0.0, -1.5, 0.0])],
            laws=("nonnegative",),
            bad=[
                ({"clip": -1.0}, ValueError, r"`clip` must be in \(0, inf\), got -1.0"),
                ({"center": "median"}, ValueError, r"`center` must be 'mean', a number or an array, got 'median'"),
                ({"center": True}, TypeError, r"`center` must be a number in \(-inf, inf\), got bool"),
            ],
        ),
        Case(xp.l2, [randn(3, 4)], {"center": randn(4)}, laws=("nonnegative",)),
        Case(xp.l2, [randn(3, 4)], {"center": randn(3, 4), "clip": 1.0}, laws=("nonnegative",)),
        Case(
            xp.elastic_net,
            [randn(3, 4)],
            {"l1_ratio": 0.3},
            kinks=[(np.zeros(4), np.zeros(4)), ([2.0, -1.0], [3.1, -1.7])],
            laws=("even", "nonnegative"),
            bad=[
                ({"l1_ratio": 2.0}, ValueError, r"`l1_ratio` must be in \[0, 1\], got 2.0"),
                ({"l1_ratio": float("nan")}, ValueError, r"`l1_ratio` must be in \[0, 1\], got nan"),
                ({"l1_ratio": "half"}, TypeError, r"`l1_ratio` must be a number in \[0, 1\], got str"),
                ({"l1ratio": 0.5}, TypeError, r"`l1ratio` is not an option.*Did you mean 'l1_ratio'\?"),
            ],
        ),
        Case(xp.elastic_net, [randn(5)], {"l1_ratio": 1.0}, laws=("even", "nonnegative", "homogeneous")),
        Case(
            xp.huber,
            [2 * randn(3, 4)],
            {"delta": 0.7},
            kinks=[([0.0, 0.7, -0.7, 5.0], [0.0, 0.7, -0.7, 0.7])],
            laws=("even", "nonnegative"),
            bad=[({"delta": 0}, ValueError, r"`delta` must be in \(0, inf\), got 0.0")],
        ),
        Case(xp.huber, [3 * randn(7)], laws=("even", "nonnegative")),
        Case(
            xp.group_lasso,
            [randn(3, 4)],
            kinks=[([[0.0, 0.0], [3.0, 4.0]], [[0.0, 0.0], [0.6 * 2**0.5, 0.8 * 2**0.5]])],
            laws=("even", "nonnegative", "homogeneous"),
            bad=[Bad.axis, Bad.axis_kind],
        ),
        Case(xp.group_lasso, [randn(3, 4, 2)], {"axis": 1}, laws=("even", "nonnegative", "homogeneous")),
        Case(
            xp.group_lasso,
            [randn(3, 4, 2)],
            {"axis": (0, -1)},
            laws=("even", "nonnegative", "homogeneous"),
            bad=[
                (
                    {"axis": (0, -3)},
                    ValueError,
                    r"`axis` must have axes of `x`, each once, got \(0, -3\) for",
                ),
                ({"axis": (0, 3)}, ValueError, r"`axis` must have axes of `x`, each once, got \(0, 3\)"),
                ({"axis": ()}, ValueError, r"`axis` must have an axis, got none"),
                ({"axis": (0, 0.5)}, TypeError, r"`axis` must be an integer, got 0\.5"),
            ],
        ),
        Case(
            xp.sparse_group_lasso,
            [randn(3, 4)],
            kinks=[([[0.0, 0.0], [3.0, 4.0]], [[0.0, 0.0], [0.5 + 0.3 * 2**0.5, 0.5 + 0.4 * 2**0.5]])],
            laws=("even", "nonnegative", "homogeneous"),
            bad=[Bad.axis, ({"l1_ratio": 1.5}, ValueError, r"`l1_ratio` must be in \[0, 1\], got 1.5")],
        ),
        Case(xp.sparse_group_lasso, [randn(3, 4, 2)], {"axis": (0, -1), "l1_ratio": 0.8}, laws=("even", "nonnegative")),
    ]
