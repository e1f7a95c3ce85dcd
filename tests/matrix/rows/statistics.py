"""Rows of statistics of a batch."""

from __future__ import annotations

import numpy as np

import xpenalties as xp
from tests.matrix.case import KEY, Case
from tests.matrix.rows.shared import NEIGHBORS, Bad, apart, log_probs, randn

__all__ = ["rows"]


def rows() -> list[Case]:
    """Return the rows. They draw random numbers from one stream."""
    return [
        Case(
            xp.variance,
            [randn(6, 3)],
            kinks=[(np.ones((3, 2)), np.zeros((3, 2)))],
            laws=("nonnegative", "even", "shift_invariant"),
            bad=[({"target": 0.0}, ValueError, r"`target` must be in \(0, inf\), got 0.0")],
        ),
        Case(xp.variance, [0.5 * randn(4, 5)], {"target": 2.5}, laws=("nonnegative", "even", "shift_invariant")),
        Case(
            xp.cross_correlation,
            [randn(6, 3), randn(6, 3)],
            kinks=[(np.full((3, 2), 0.1), np.zeros((3, 2)))],
            laws=("nonnegative", "symmetric", "even", "shift_invariant_columns", "scale_invariant"),
            bad=[({"off_diagonal": -1.0}, ValueError, r"`off_diagonal` must be in \[0, inf\), got -1.0")],
        ),
        Case(
            xp.cross_correlation,
            [randn(4, 6), randn(4, 6)],
            {"off_diagonal": 0.5},
            laws=("nonnegative", "symmetric", "even", "shift_invariant_columns", "scale_invariant"),
        ),
        Case(
            xp.load_balancing,
            [randn(7, 4)],
            laws=("nonnegative", "shift_invariant_rows"),
            bad=[
                ({"top_k": 0}, ValueError, r"`top_k` must be at least 1, got 0"),
                ({"top_k": 5}, ValueError, r"`top_k` must be at most the number of experts, got 5 for 4"),
                ({"scores": "tanh"}, ValueError, r"`scores` must be one of 'softmax', 'sigmoid', 'probabilities', got"),
                ({"per_sequence": 1}, TypeError, r"`per_sequence` must be True or False, got 1"),
            ],
        ),
        Case(xp.load_balancing, [randn(4, 3, 5)], {"top_k": 2, "scores": "sigmoid"}, laws=("nonnegative",)),
        Case(
            xp.load_balancing,
            [randn(3, 4, 5)],
            {"top_k": 2, "per_sequence": True},
            laws=("nonnegative", "shift_invariant_rows"),
        ),
        Case(xp.load_balancing, [np.exp(log_probs(6, 4))], {"top_k": 3, "scores": "probabilities"}),
        Case(xp.load_balancing, [randn(6, 4)], {"counts": np.asarray([5.0, 0.0, 1.0, 2.0])}, laws=("nonnegative",)),
        Case(
            xp.mutual_information,
            [log_probs(6, 4)],
            bad=[
                Bad.temperature,
                Bad.axis,
                Bad.from_logits,
                ({"diversity": -1.0}, ValueError, r"`diversity` must be in \[0, inf\), got -1.0"),
                ({"mode": "bonsu"}, ValueError, r"`mode` must be one of 'bonus', 'penalty', got 'bonsu'. Did you mean"),
            ],
        ),
        Case(
            xp.mutual_information, [log_probs(4, 3, 5, axis=1)], {"axis": 1, "mode": "penalty"}, laws=("nonnegative",)
        ),
        Case(
            xp.mutual_information,
            [3 * randn(5, 4)],
            {"from_logits": True, "temperature": 2.0, "diversity": 0.7},
            laws=("shift_invariant_rows",),
        ),
        Case(
            xp.koleo,
            [apart(6, 3)],
            laws=("even", "scale_invariant"),
            bad=[({"floor": -1.0}, ValueError, r"`floor` must be in \[0, inf\), got -1.0")],
            lacking=NEIGHBORS,
        ),
        Case(
            xp.koleo,
            [apart(5, 4)],
            {"floor": 0.9},
            kinks=[(np.zeros((3, 2)), np.zeros((3, 2))), (np.full((3, 2), 0.1), np.zeros((3, 2)))],
            laws=("even", "scale_invariant"),
            lacking=NEIGHBORS,
        ),
        Case(
            xp.uniformity,
            [randn(6, 3)],
            kinks=[(np.zeros((3, 2)), np.zeros((3, 2))), (np.full((3, 2), 0.1), np.zeros((3, 2)))],
            laws=("even", "scale_invariant"),
            bad=[({"t": 0.0}, ValueError, r"`t` must be in \(0, inf\), got 0.0")],
        ),
        Case(xp.uniformity, [randn(4, 5)], {"t": 0.5}, laws=("even", "scale_invariant")),
        Case(  # in one dimension, all directions are the same
            xp.sigreg,
            [randn(6, 1)],
            {"slices": 3, "rng": KEY},
            laws=("nonnegative", "even"),
            bad=[
                Bad.rng,
                ({"slices": 0}, ValueError, r"`slices` must be at least 1, got 0"),
                ({"knots": 1}, ValueError, r"`knots` must be at least 2, got 1"),
            ],
        ),
        *[
            Case(
                xp.mmd,
                [randn(5, 3), randn(5, 3)],
                {"kernel": kernel, "unbiased": unbiased, **({} if kernel == "energy" else {"bandwidths": 1.3})},
                kinks=[(np.zeros((3, 2)), np.zeros((3, 2)))],
                laws=("zero_for_equal", "nonnegative", "symmetric", "even") if not unbiased else ("symmetric", "even"),
            )
            for kernel in ("rbf", "imq", "energy")
            for unbiased in (False, True)
        ],
        Case(
            xp.mmd,
            [randn(5, 3), randn(5, 3)],
            {"bandwidths": (0.5, 2.0)},
            laws=("zero_for_equal", "nonnegative", "symmetric", "even"),
            bad=[
                ({"bandwidths": (1.0, -2.0)}, ValueError, r"`bandwidths` must be in \(0, inf\), got -2.0"),
                ({"bandwidths": ()}, ValueError, r"`bandwidths` must have a number, got none"),
                ({"bandwidths": "1"}, TypeError, r"`bandwidths` must be a number in \(0, inf\), got str"),
                (
                    {"bandwidths": 1.0, "kernel": "energy"},
                    ValueError,
                    r"`bandwidths` must be None with kernel='energy'",
                ),
                ({"kernel": "laplace"}, ValueError, r"`kernel` must be one of 'rbf', 'imq', 'energy', got 'laplace'"),
                ({"unbiased": 1}, TypeError, r"`unbiased` must be True or False, got 1"),
            ],
        ),
        *[
            Case(
                xp.gram_distance,
                [randn(*shape), randn(*shape)],
                {"normalize": normalize, "centered": centered},
                kinks=[(np.zeros((3, 2)), np.zeros((3, 2)))],
                laws=("zero_for_equal", "nonnegative", "symmetric", "even"),
            )
            for normalize in ("rows", "gram", "none")
            for centered in (False, True)
            for shape in ((6, 3), (3, 5))
        ],
        Case(
            xp.gram_distance,
            [randn(4, 4), randn(4, 4)],
            laws=("zero_for_equal", "nonnegative", "symmetric", "even", "scale_invariant"),
            bad=[
                ({"normalize": True}, TypeError, r"`normalize` must be one of 'rows', 'gram', 'none', got True"),
                ({"centered": 1}, TypeError, r"`centered` must be True or False, got 1"),
            ],
        ),
        *[
            Case(
                xp.coral,
                [apart(*shape), apart(*shape, seed=1)],
                kinks=[(np.zeros((3, 2)), np.zeros((3, 2))), (np.full((3, 2), 0.1), np.zeros((3, 2)))],
                laws=("zero_for_equal", "nonnegative", "symmetric", "even", "shift_invariant_columns"),
            )
            for shape in ((6, 3), (3, 5), (4, 4))
        ],
        Case(
            xp.coding_rate,
            [apart(6, 3, seed=4)],
            kinks=[(np.zeros((3, 2)), np.zeros((3, 2)))],
            laws=("even",),
            bad=[
                ({"eps": 0.0}, ValueError, r"`eps` must be in \(0, inf\), got 0.0"),
                ({"mode": "bonsu"}, ValueError, r"`mode` must be one of 'bonus', 'penalty', got 'bonsu'. Did you mean"),
            ],
        ),
        Case(
            xp.coding_rate,
            [apart(3, 5, seed=4)],
            {"eps": 0.8, "mode": "penalty"},
            kinks=[(np.zeros((2, 3)), np.zeros((2, 3)))],
            laws=("even", "nonnegative"),
        ),
        Case(
            xp.sigreg,
            [apart(6, 1, seed=5)],
            {"slices": 3, "knots": None, "rng": KEY},
            laws=("even",),
        ),
    ]
