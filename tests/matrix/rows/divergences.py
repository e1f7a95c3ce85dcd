"""Rows of divergences and entropies."""

from __future__ import annotations

import numpy as np

import xpenalties as xp
from tests.matrix.case import Case
from tests.matrix.rows.shared import Bad, apart, log_probs, normalized, randn, top_k

__all__ = ["rows"]


def rows() -> list[Case]:
    """Return the rows. They draw random numbers from one stream."""
    return [
        Case(
            xp.kl_divergence,
            [log_probs(3, 5), log_probs(3, 5)],
            laws=("zero_for_equal", "nonnegative"),
            bad=[
                Bad.temperature,
                Bad.axis,
                Bad.from_logits,
                (
                    {"direction": "forwards"},
                    ValueError,
                    r"`direction` must be one of 'forward', 'reverse', 'symmetric', got 'forwards'. Did you mean",
                ),
                ({"direction": 1}, TypeError, r"`direction` must be one of 'forward', 'reverse', 'symmetric', got 1"),
            ],
        ),
        Case(xp.kl_divergence, [log_probs(3, 5), log_probs(3, 5)], {"direction": "reverse"}, laws=("zero_for_equal",)),
        Case(
            xp.kl_divergence,
            [log_probs(2, 5, 3, axis=1), log_probs(2, 5, 3, axis=1)],
            {"direction": "symmetric", "axis": 1},
            laws=("zero_for_equal", "nonnegative", "symmetric"),
        ),
        Case(
            xp.kl_divergence,
            [3 * randn(2, 3, 5), 3 * randn(2, 3, 5)],
            {"from_logits": True, "temperature": 2.0},
            laws=("zero_for_equal", "nonnegative", "shift_invariant_rows"),
        ),
        Case(xp.kl_divergence, [log_probs(3, 5), log_probs(3, 5)], {"temperature": 0.5}, laws=("zero_for_equal",)),
        *[
            Case(
                xp.kl_divergence,
                [log_probs(5, 3, axis=0), log_probs(5, 3, axis=0)],
                {"direction": direction, "skew": skew, "axis": 0},
                laws=("zero_for_equal", "nonnegative", *(("symmetric",) if direction == "symmetric" else ())),
                bad=[({"skew": 1.5}, ValueError, r"`skew` must be in \[0, 1\], got 1.5")],
            )
            for direction, skew in (("forward", 0.1), ("reverse", 0.1), ("symmetric", 0.7), ("forward", 1.0))
        ],
        *[
            Case(
                xp.kl_divergence,
                [3 * randn(3, 5), 3 * randn(3, 5)],
                {"direction": direction, "skew": 0.1, "from_logits": True},
                laws=("zero_for_equal", "nonnegative", "shift_invariant_rows"),
            )
            for direction in ("forward", "reverse", "symmetric")
        ],
        Case(
            xp.js_divergence,
            [log_probs(3, 5), log_probs(3, 5)],
            laws=("zero_for_equal", "nonnegative", "symmetric", "at_most_log_2"),
            bad=[
                Bad.temperature,
                Bad.axis,
                Bad.from_logits,
                ({"beta": -0.1}, ValueError, r"`beta` must be in \[0, 1\], got -0.1"),
            ],
        ),
        Case(
            xp.js_divergence,
            [log_probs(5, 3, axis=0), log_probs(5, 3, axis=0)],
            {"beta": 0.1, "axis": 0},
            laws=("zero_for_equal", "nonnegative", "at_most_log_2"),
        ),
        Case(xp.js_divergence, [log_probs(3, 5), log_probs(3, 5)], {"beta": 0.0}, laws=("zero_for_equal",)),
        Case(xp.js_divergence, [log_probs(3, 5), log_probs(3, 5)], {"beta": 1.0}, laws=("zero_for_equal",)),
        Case(
            xp.js_divergence,
            [3 * randn(3, 5), 3 * randn(3, 5)],
            {"from_logits": True, "temperature": 0.7},
            laws=("zero_for_equal", "nonnegative", "symmetric", "at_most_log_2", "shift_invariant_rows"),
        ),
        Case(
            xp.entropy,
            [log_probs(3, 5)],
            laws=("nonnegative",),
            bad=[
                Bad.temperature,
                Bad.axis,
                Bad.from_logits,
                (
                    {"mode": "bonsu"},
                    ValueError,
                    r"`mode` must be one of 'penalty', 'bonus', got 'bonsu'. Did you mean 'bonus'",
                ),
                ({"normalize": None}, TypeError, r"`normalize` must be True or False, got None"),
            ],
        ),
        Case(xp.entropy, [log_probs(3, 5, axis=0)], {"mode": "bonus", "normalize": True, "axis": 0}),
        Case(
            xp.entropy,
            [3 * randn(2, 3, 5)],
            {"from_logits": True, "temperature": 3.0},
            laws=("nonnegative", "shift_invariant_rows"),
        ),
        *[
            Case(
                xp.f_divergence,
                [log_probs(3, 5), log_probs(3, 5)],
                {"kind": kind, "alpha": alpha},
                laws=("zero_for_equal", "nonnegative"),
            )
            for kind, powers in (("alpha", (-0.5, 0, 0.3, 1, 3)), ("renyi", (0.3, 1, 2.5)))
            for alpha in powers
        ],
        Case(
            xp.f_divergence,
            [log_probs(3, 5), log_probs(3, 5)],
            kinks=[(np.zeros((2, 3)), np.zeros((2, 3)))],
            laws=("zero_for_equal", "nonnegative", "symmetric"),
            bad=[
                Bad.temperature,
                Bad.axis,
                Bad.from_logits,
                (
                    {"kind": "tvd"},
                    ValueError,
                    r"`kind` must be one of 'tv', 'hellinger', 'chi2', 'alpha', 'renyi', got",
                ),
                ({"alpha": float("inf")}, ValueError, r"`alpha` must be in \(-inf, inf\), got inf"),
                ({"kind": "renyi", "alpha": 0}, ValueError, r"`alpha` must be > 0 for `kind` 'renyi', got 0.0. Swap P"),
            ],
        ),
        *[
            Case(
                xp.f_divergence,
                [log_probs(4, 3, axis=0), log_probs(4, 3, axis=0)],
                {"kind": kind, "axis": 0},
                laws=("zero_for_equal", "nonnegative", *(("symmetric",) if kind == "hellinger" else ())),
            )
            for kind in ("hellinger", "chi2")
        ],
        *[
            Case(
                xp.f_divergence,
                [3 * randn(3, 5), 3 * randn(3, 5)],
                {"kind": kind, "alpha": 0.7, "from_logits": True, "temperature": 2.0},
                laws=("zero_for_equal", "nonnegative", "shift_invariant_rows"),
            )
            for kind in ("tv", "hellinger", "chi2", "alpha", "renyi")
        ],
        Case(
            xp.topk_kl_divergence,
            [top_k(3, 4, 6), top_k(3, 4, 6)],
            laws=("zero_for_equal", "nonnegative"),
            bad=[
                Bad.axis,
                (
                    {"tail": "bukcet"},
                    ValueError,
                    r"`tail` must be one of 'bucket', 'renormalize', 'truncate', 'included', got 'bukcet'",
                ),
            ],
        ),
        Case(
            xp.topk_kl_divergence,
            [top_k(3, 4, 6), top_k(3, 4, 6)],
            {"tail": "renormalize"},
            laws=("zero_for_equal", "nonnegative", "shift_invariant_rows"),
        ),
        Case(
            xp.topk_kl_divergence,
            [top_k(3, 4, 6).T.copy(), top_k(3, 4, 6).T.copy()],
            {"tail": "truncate", "axis": 0},
            laws=("zero_for_equal",),
        ),
        Case(
            xp.topk_kl_divergence,
            [log_probs(3, 5), log_probs(3, 5)],
            {"tail": "included"},
            laws=("nonnegative", "zero_for_equal"),
        ),
        *[
            Case(
                xp.topk_kl_divergence,
                [top_k(3, 4, 6), top_k(3, 4, 6)],
                {"tail": tail, "direction": direction},
                laws=("zero_for_equal", *(("symmetric",) if direction == "symmetric" else ())),
                bad=[
                    ({"direction": "back"}, ValueError, r"`direction` must be one of 'forward', 'reverse', 'symmetric'")
                ],
            )
            for tail, direction in (("bucket", "reverse"), ("bucket", "symmetric"), ("renormalize", "reverse"))
        ],
        Case(
            xp.topk_js_divergence,
            [top_k(3, 4, 6), top_k(3, 4, 6)],
            laws=("zero_for_equal", "nonnegative", "symmetric", "at_most_log_2"),
            bad=[
                Bad.axis,
                ({"beta": -0.1}, ValueError, r"`beta` must be in \[0, 1\], got -0.1"),
                ({"tail": "truncate"}, ValueError, r"`tail` must be one of 'bucket', 'renormalize', got 'truncate'"),
            ],
        ),
        Case(
            xp.topk_js_divergence,
            [top_k(3, 4, 6).T.copy(), top_k(3, 4, 6).T.copy()],
            {"beta": 0.2, "axis": 0},
            laws=("zero_for_equal", "nonnegative", "at_most_log_2"),
        ),
        Case(xp.topk_js_divergence, [top_k(3, 4, 6), top_k(3, 4, 6)], {"beta": 1.0}, laws=("zero_for_equal",)),
        Case(
            xp.topk_js_divergence,
            [top_k(3, 4, 6), top_k(3, 4, 6)],
            {"beta": 0.7, "tail": "renormalize"},
            laws=("zero_for_equal", "nonnegative", "shift_invariant_rows", "at_most_log_2"),
        ),
        *[
            Case(xp.sampled_kl, [log_probs(3, 4), log_probs(3, 4)], {"estimator": estimator}, laws=("zero_for_equal",))
            for estimator in ("k1", "k2", "k3")
        ],
        Case(
            xp.sampled_kl,
            [log_probs(6), log_probs(6)],
            laws=("zero_for_equal", "nonnegative"),
            bad=[
                ({"estimator": "k4"}, ValueError, r"`estimator` must be one of 'k1', 'k2', 'k3', got 'k4'"),
                ({"gradient": "k1"}, ValueError, r"`gradient` must be one of 'value', 'k2', got 'k1'"),
            ],
        ),
        *[
            Case(
                xp.bernoulli_kl,
                [log_probs(3, 4), log_probs(3, 4)],
                {"kind": kind},
                kinks=[(np.zeros((2, 3)), np.zeros((2, 3)))],
                laws=("zero_for_equal", "nonnegative", *(("symmetric",) if kind == "tv" else ())),
                bad=[
                    ({"kind": "js"}, ValueError, r"`kind` must be one of 'kl', 'tv', got 'js'"),
                    Bad.from_logits,
                ],
            )
            for kind in ("kl", "tv")
        ],
        *[
            Case(
                xp.bernoulli_kl,
                [2 * randn(3, 4), 2 * randn(3, 4)],
                {"kind": kind, "from_logits": True},
                kinks=[(np.zeros((2, 3)), np.zeros((2, 3)))],
                laws=("zero_for_equal", "nonnegative", "even"),
            )
            for kind in ("kl", "tv")
        ],
        Case(
            xp.gaussian_kl,
            [randn(3, 4), randn(3, 4)],
            kinks=[([-1.0, 0.0, 2.0], [-1.0, 0.0, 2.0])],
            laws=("nonnegative",),
            bad=[
                ({"free_bits": -1.0}, ValueError, r"`free_bits` must be in \[0, inf\), got -1.0"),
                ({"mean_q": True}, TypeError, r"`mean_q` must be a number in \(-inf, inf\), got bool"),
                ({"log_var_q": "same"}, TypeError, r"`log_var_q` must be a number in \(-inf, inf\), got str"),
            ],
        ),
        Case(
            xp.gaussian_kl,
            [randn(3, 4), randn(3, 4)],
            {"mean_q": randn(4), "log_var_q": randn(3, 4)},
            laws=("nonnegative",),
        ),
        Case(xp.gaussian_kl, [randn(3, 4), randn(3, 4)], {"log_var_q": -0.5}, laws=("nonnegative",)),
        Case(xp.gaussian_kl, [randn(5, 4), randn(5, 4)], {"free_bits": 0.9}, laws=("nonnegative",)),
        Case(
            xp.gaussian_kl,
            [randn(5, 2, 2), randn(5, 2, 2)],
            {"free_bits": 0.25, "mean_q": randn(2), "log_var_q": randn(2, 2)},
            laws=("nonnegative",),
        ),
        Case(xp.z_loss, [2 * randn(3, 5)], laws=("nonnegative",), bad=[Bad.axis]),
        Case(xp.z_loss, [2 * randn(5, 3)], {"axis": 0}, laws=("nonnegative",)),
        *[
            Case(
                xp.entropy,
                [normalized(1.5 * apart(3, 5))],
                {"kind": kind, "alpha": alpha},
                laws=("nonnegative", *(("shift_invariant_rows",) if kind == "renyi" else ())),
                bad=[
                    (
                        {"kind": "reny"},
                        ValueError,
                        r"`kind` must be one of 'shannon', 'tsallis', 'renyi', got 'reny'. Did you mean 'renyi'",
                    ),
                    ({"alpha": 0.0}, ValueError, r"`alpha` must be in \(0, inf\), got 0.0"),
                    ({"alpha": float("inf")}, ValueError, r"`alpha` must be in \(0, inf\), got inf"),
                ],
            )
            for kind in ("tsallis", "renyi")
            for alpha in (0.3, 1, 2, 7.5)
        ],
        *[
            Case(
                xp.entropy,
                [3 * apart(2, 5, 3)],
                {"kind": kind, "alpha": alpha, "axis": 1, "from_logits": True, "temperature": 2.0, "normalize": True},
                laws=("nonnegative",),
            )
            for kind in ("tsallis", "renyi")
            for alpha in (0.5, 1.5)
        ],
        Case(
            xp.entropy,
            [normalized(apart(4, 3), axis=0)],
            {"kind": "renyi", "alpha": 3.0, "mode": "bonus", "axis": 0},
        ),
    ]
