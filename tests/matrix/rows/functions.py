"""Rows of penalties that take a function."""

from __future__ import annotations

import numpy as np

import xpenalties as xp
from tests.matrix.case import KEY, Case
from tests.matrix.rows.shared import FUNCTION, Bad, apart, curved, curved_whole, randn

__all__ = ["rows"]


def rows() -> list[Case]:
    """Return the rows. They draw random numbers from one stream."""
    return [
        Case(
            xp.gradient_penalty,
            [randn(3, 2, 2)],
            kinks=[(np.zeros((2, 3)), np.zeros((2, 3)))],
            laws=("nonnegative", "even"),
            bad=[
                Bad.target_norm,
                Bad.one_sided,
                ({"per_sample": 1}, TypeError, r"`per_sample` must be True or False, got 1"),
            ],
            **FUNCTION,
        ),
        Case(
            xp.gradient_penalty,
            [0.6 * randn(5, 3)],
            {"target_norm": 0.8, "one_sided": True},
            kinks=[(np.zeros((2, 3)), np.zeros((2, 3)))],
            laws=("nonnegative", "even"),
            **FUNCTION,
        ),
        Case(
            xp.gradient_penalty,
            [randn(4)],
            {"target_norm": 0},
            kinks=[(np.zeros((2, 3)), np.zeros((2, 3)))],
            laws=("nonnegative", "even"),
            **FUNCTION,
        ),
        Case(
            xp.gradient_penalty,
            [randn(3, 2)],
            {"per_sample": False},
            kinks=[(np.zeros((2, 3)), np.zeros((2, 3)))],
            laws=("nonnegative", "even"),
            **{**FUNCTION, "fn": curved_whole},
        ),
        Case(
            xp.interpolated_gradient_penalty,
            [randn(3, 2, 2), randn(3, 2, 2)],
            {"alpha": np.asarray([0.0, 0.3, 0.9])},
            kinks=[(np.zeros((3, 2)), np.zeros((3, 2)))],
            laws=("nonnegative", "even"),
            bad=[Bad.target_norm, Bad.one_sided, Bad.rng],
            **FUNCTION,
        ),
        Case(
            xp.interpolated_gradient_penalty,
            [0.6 * randn(4, 2), 0.6 * randn(4, 2)],
            {"alpha": np.asarray([[0.2], [1.0], [0.7], [0.5]]), "target_norm": 0.9, "one_sided": True},
            laws=("nonnegative", "even"),
            **FUNCTION,
        ),
        Case(
            xp.jacobian_penalty,
            [randn(3, 2, 2)],
            {"projections": 2, "rng": KEY},
            kinks=[(np.zeros((2, 3)), np.zeros((2, 3)))],
            laws=("nonnegative", "even"),
            bad=[
                Bad.rng,
                ({"projections": 0}, ValueError, r"`projections` must be at least 1, got 0. One is an unbiased"),
                ({"projections": 1.5}, TypeError, r"`projections` must be an integer, got 1.5"),
            ],
            **{**FUNCTION, "fn": curved},
        ),
        Case(
            xp.lipschitz_penalty,
            [apart(3, 2, 2)],
            {"sigma": 0.5, "noise": apart(3, 2, 2, seed=1)},
            laws=("nonnegative",),
            bad=[
                Bad.one_sided,
                ({"target": -1}, ValueError, r"`target` must be in \[0, inf\), got -1.0"),
                ({"sigma": 0}, ValueError, r"`sigma` must be in \(0, inf\), got 0.0"),
                ({"projections": 0}, ValueError, r"`projections` must be at least 1, got 0"),
                (
                    {"projections": 2, "noise": None, "rng": 1},
                    TypeError,
                    r"`rng` must be a .*, got int\. Pass for example",
                ),
            ],
            # the difference of two rounded values is divided by sigma, and squared
            **{**FUNCTION, "lacking": {}, "rounds_in_half": 40},
        ),
        Case(
            xp.lipschitz_penalty,
            [apart(4, 3)],
            {"noise": apart(4, 3, seed=1), "target": 0.75, "one_sided": True, "sigma": 0.25},
            laws=("nonnegative",),
            **{**FUNCTION, "lacking": {}},
        ),
        Case(
            xp.adversarial_consistency,
            [apart(3, 4)],
            {"xi": 0.5, "epsilon": 0.75, "noise": apart(3, 4, seed=1)},
            laws=("nonnegative",),
            bad=[
                ({"epsilon": 0}, ValueError, r"`epsilon` must be in \(0, inf\), got 0.0"),
                ({"xi": -1.0}, ValueError, r"`xi` must be in \(0, inf\), got -1.0"),
                ({"iterations": 0}, ValueError, r"`iterations` must be at least 1, got 0"),
                ({"metric": "l1"}, ValueError, r"`metric` must be one of 'kl', 'js', 'mse', got 'l1'"),
                (
                    {"axis": 0},
                    ValueError,
                    r"`axis` must be an axis of the output of `fn` after .*got 0 for shape \(3, 4\)",
                ),
                ({"noise": None, "rng": 1}, TypeError, r"`rng` must be a .*, got int\. Pass for example"),
            ],
            **{**FUNCTION, "fn": curved, "rounds_in_half": 40},
        ),
        Case(
            xp.adversarial_consistency,
            [apart(2, 3, 2)],
            {"metric": "js", "axis": 1, "iterations": 3, "noise": apart(2, 3, 2, seed=1)},
            laws=("nonnegative",),
            **{**FUNCTION, "fn": curved, "rounds_in_half": 40},
        ),
        Case(
            xp.adversarial_consistency,
            [apart(5)],
            {"metric": "mse", "epsilon": 0.5, "xi": 1e-3, "noise": apart(5, seed=1)},
            laws=("nonnegative",),
            **{**FUNCTION, "fn": curved},
        ),
    ]
