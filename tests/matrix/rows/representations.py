"""Rows of penalties on representations."""

from __future__ import annotations

import numpy as np

import xpenalties as xp
from tests.matrix.case import Case
from tests.matrix.rows.shared import Bad, apart, log_probs, randn

__all__ = ["rows"]


def rows() -> list[Case]:
    """Return the rows. They draw random numbers from one stream."""
    return [
        *[
            Case(
                xp.orthogonality,
                [randn(*shape)],
                {"mode": mode, "normalize": normalize},
                kinks=[(np.zeros((2, 3)), np.zeros((2, 3)))] if normalize else [],
                laws=("nonnegative", "even", *(("scale_invariant",) if normalize else ())),
            )
            for mode in ("soft", "hard", "spectral")
            for normalize in (True, False)
            for shape in ((3, 5), (5, 3))
        ],
        *[
            Case(
                xp.orthogonality,
                [randn(2, 3, 4)],
                {"axis": axis, "per_sample": per_sample, "mode": mode},
                laws=("even",),
            )
            for axis in ("rows", "sequence", "vocabulary")
            for per_sample, mode in ((False, "soft"), (True, "hard"), (True, "spectral"))
        ],
        Case(
            xp.orthogonality,
            [randn(4, 4)],
            laws=("nonnegative", "even", "scale_invariant"),
            bad=[
                (
                    {"mode": "sfot"},
                    ValueError,
                    r"`mode` must be one of 'soft', 'hard', 'spectral', got 'sfot'. Did you mean",
                ),
                (
                    {"axis": "row"},
                    ValueError,
                    r"`axis` must be one of 'rows', 'sequence', 'vocabulary', got 'row'. Did you mean",
                ),
                ({"per_sample": 1}, TypeError, r"`per_sample` must be True or False, got 1"),
            ],
        ),
        Case(xp.covariance, [randn(6, 3)], laws=("nonnegative", "even", "shift_invariant")),
        Case(xp.covariance, [randn(3, 6)], laws=("nonnegative", "even", "shift_invariant")),
        Case(
            xp.consistency,
            [randn(3, 4), randn(3, 4)],
            kinks=[(np.zeros((2, 3)), np.zeros((2, 3)))],
            laws=("zero_for_equal", "nonnegative", "symmetric"),
            bad=[
                ({"metric": "mae"}, ValueError, r"`metric` must be one of 'mse', 'l1', 'cosine', 'kl', 'js', got 'mae'")
            ],
        ),
        Case(
            xp.consistency,
            [randn(3, 4), randn(3, 4)],
            {"metric": "l1"},
            kinks=[(np.zeros((2, 3)), np.zeros((2, 3)))],
            laws=("zero_for_equal", "nonnegative", "symmetric"),
        ),
        Case(
            xp.consistency,
            [randn(3, 4), randn(3, 4)],
            {"metric": "cosine"},
            kinks=[(np.zeros((2, 3)), np.zeros((2, 3)))],
            laws=("zero_for_equal", "nonnegative", "symmetric", "scale_invariant"),
            bad=[Bad.axis],
        ),
        *[
            Case(
                xp.consistency,
                [log_probs(4, 3, axis=0), log_probs(4, 3, axis=0)],
                {"metric": metric, "axis": 0},
                laws=("zero_for_equal", "nonnegative", "symmetric"),
            )
            for metric in ("kl", "js")
        ],
        Case(
            xp.output_magnitude,
            [randn(3, 4)],
            kinks=[(np.zeros(4), np.zeros(4))],
            laws=("nonnegative", "even"),
            bad=[
                ({"norm": "l1"}, ValueError, r"`norm` must be one of 'rms', 'l2', got 'l1'"),
                ({"target": -1}, ValueError, r"`target` must be in \[0, inf\), got -1.0"),
            ],
        ),
        Case(xp.output_magnitude, [randn(3, 4)], {"target": 2.5, "norm": "l2"}, laws=("nonnegative", "even")),
        *[
            Case(
                xp.cross_orthogonality,
                [apart(*lead, m, d, seed=2), apart(*lead, n, d, seed=3)],
                {"normalize": normalize},
                kinks=[(np.zeros((*lead, m, d)), np.zeros((*lead, m, d)))],
                laws=("even", "nonnegative", "symmetric", *(("scale_invariant",) if normalize else ())),
                bad=[({"normalize": 1}, TypeError, r"`normalize` must be True or False, got 1")],
            )
            for normalize in (True, False)
            for lead, m, n, d in (((), 3, 2, 5), ((2,), 4, 5, 3))
        ],
    ]
