"""Rows of divergences of linear layers."""

from __future__ import annotations

import xpenalties as xp
from tests.matrix.case import Case
from tests.matrix.rows.shared import Bad, randn

__all__ = ["rows"]


def rows() -> list[Case]:
    """Return the rows. They draw random numbers from one stream."""
    return [
        Case(
            xp.linear_kl_divergence,
            [randn(4, 3), randn(5, 3), randn(4, 3), randn(5, 3)],
            laws=("zero_for_equal", "nonnegative", "shift_invariant_classes"),
            bad=[
                Bad.temperature,
                Bad.no_axis,
                Bad.no_logits,
                (
                    {"direction": "forwards"},
                    ValueError,
                    r"`direction` must be one of 'forward', 'reverse', 'symmetric', got 'forwards'. Did you mean",
                ),
            ],
        ),
        Case(  # a teacher with more features
            xp.linear_kl_divergence,
            [randn(2, 3, 4), randn(5, 4), randn(2, 3, 2), randn(5, 2)],
            {"direction": "reverse", "temperature": 2.0},
            laws=("zero_for_equal", "nonnegative", "shift_invariant_classes"),
        ),
        Case(
            xp.linear_kl_divergence,
            [randn(4, 3), randn(6, 3), randn(4, 3), randn(6, 3)],
            {"direction": "symmetric"},
            laws=("zero_for_equal", "nonnegative", "symmetric", "shift_invariant_classes"),
        ),
        Case(
            xp.linear_kl_divergence,
            [randn(4, 3), randn(5, 3), randn(4, 3), randn(5, 3)],
            {"direction": "reverse", "skew": 0.3},
            laws=("zero_for_equal", "nonnegative", "shift_invariant_classes"),
        ),
        Case(
            xp.linear_js_divergence,
            [randn(4, 3), randn(5, 3), randn(4, 3), randn(5, 3)],
            laws=("zero_for_equal", "nonnegative", "symmetric", "at_most_log_2", "shift_invariant_classes"),
            bad=[
                Bad.temperature,
                Bad.no_axis,
                Bad.no_logits,
                ({"beta": 1.5}, ValueError, r"`beta` must be in \[0, 1\], got 1.5"),
            ],
        ),
        Case(
            xp.linear_js_divergence,
            [randn(2, 2, 3), randn(5, 3), randn(2, 2, 4), randn(5, 4)],
            {"beta": 0.1, "temperature": 0.7},
            laws=("zero_for_equal", "nonnegative", "at_most_log_2", "shift_invariant_classes"),
        ),
        *[
            Case(
                xp.linear_js_divergence,
                [randn(3, 2), randn(4, 2), randn(3, 2), randn(4, 2)],
                {"beta": beta},
                laws=("zero_for_equal",),
            )
            for beta in (0.0, 1.0)
        ],
        Case(
            xp.linear_entropy,
            [randn(4, 3), randn(5, 3)],
            laws=("nonnegative", "shift_invariant_classes"),
            bad=[
                Bad.temperature,
                Bad.no_axis,
                Bad.no_logits,
                (
                    {"mode": "bonsu"},
                    ValueError,
                    r"`mode` must be one of 'penalty', 'bonus', got 'bonsu'. Did you mean 'bonus'",
                ),
                ({"normalize": 1}, TypeError, r"`normalize` must be True or False, got 1"),
            ],
        ),
        Case(
            xp.linear_entropy,
            [randn(2, 3, 4), randn(6, 4)],
            {"mode": "bonus", "normalize": True, "temperature": 3.0},
            laws=("shift_invariant_classes",),
        ),
    ]
