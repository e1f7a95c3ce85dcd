"""The rows of the matrix with arrays that can be cut evenly, and how each array of a call is cut."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np

from tests.matrix.cases import CASES, Case

__all__ = ["FAMILIES", "LAYOUTS", "STATISTICS", "Cuts", "cut_of", "family", "is_refused", "layouts_of"]

#: Regular expressions for the names of penalties and their options. Each family is checked by processes of its own.
FAMILIES = {
    "norms": "l1|l2|elastic_net|huber|group_lasso|output_magnitude|total_variation",
    "sparsity": "l0|mcp|scad|log_sum|lp|hoyer|log_cosh|charbonnier",
    "norms of matrices": "spectral_norm|nuclear_norm",
    "divergences": "kl_divergence|js_divergence|entropy|z_loss",
    "f-divergences": "f_divergence",
    "partial divergences": "topk_kl_divergence|topk_js_divergence|sampled_kl|bernoulli_kl",
    "Gaussians": "gaussian_kl",
    "orthogonality of matrices": r"orthogonality(?!.*axis)",
    "orthogonality of sequences": r"orthogonality(?=.*axis)",
    "orthogonality of two matrices": "cross_orthogonality",
    "representations": "consistency",
    "features": "variance|covariance|cross_correlation",
    "routers": "load_balancing|mutual_information",
    "spread": "koleo|uniformity|sigreg",
    "coding rates": "coding_rate",
    "distances of samples": "mmd|gram_distance|coral",
    "transport": "wasserstein|sliced_wasserstein",
    "linear": "linear_.*",
    "functions": ".*_penalty|adversarial_consistency",
}
LAYOUTS = ("classes", "batch", "both")
#: Statistics of samples, with options and the shape of the array, whose samples `where` and `weights` leave out.
STATISTICS: list[tuple[str, dict[str, Any], tuple[int, ...]]] = [
    ("covariance", {}, (4, 8)),
    ("covariance", {}, (8, 4)),
    ("coding_rate", {}, (4, 8)),
    ("coding_rate", {}, (8, 4)),
    ("output_magnitude", {}, (4, 8)),
    ("output_magnitude", {"norm": "l2", "target": 0.0}, (4, 8)),
    ("orthogonality", {"mode": "soft"}, (4, 8)),
    ("orthogonality", {"mode": "hard"}, (4, 8)),
    ("orthogonality", {"mode": "hard"}, (8, 4)),
    ("orthogonality", {"mode": "spectral"}, (4, 8)),
    ("orthogonality", {"mode": "hard", "axis": "sequence"}, (4, 2, 8)),
    ("orthogonality", {"mode": "spectral", "axis": "vocabulary"}, (4, 2, 8)),
]
#: For each axis of an array, "classes", "batch" or None.
Cuts = tuple[str | None, ...]
_SIZES = {1: 1, 2: 4, 3: 4, 4: 8, 5: 8, 6: 12, 7: 8}


def family(name: str) -> list[Case]:
    """Return the rows of a family, with sizes that four devices can share."""
    rows = [case for case in CASES if re.match(rf"(?:{FAMILIES[name]})(?:\(|$)", case.label)]
    cases = [replace(case, arrays=_grown(case), options=_options(case)) for case in rows]
    return cases + [_weighted(case) for case, row in zip(cases, rows, strict=True) if _takes_statistics(row)]


def _takes_statistics(case: Case) -> bool:
    """Return True for a statistic of samples, and for terms that depend on the mean of all."""
    is_mean = isinstance(case.options.get("center"), str)
    return (case.is_statistic and case.options.get("mode") != "hard") or is_mean


def _weighted(case: Case) -> Case:
    """Return a row with weights of the samples, of which some are 0."""
    shape = tuple(case.selected_shape)
    weights = np.random.default_rng(2).random(shape)
    # with two weights of 0, its slope in the weights depends on the sign of a random direction
    least = weights.min() if case.name == "sliced_wasserstein" else 0.3
    return replace(case, options={**case.options, "weights": np.where(weights <= least, 0.0, weights)})


def _grown(case: Case) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    arrays = []
    for x in case.arrays:
        whole = x
        for axis, n in enumerate(x.shape):
            is_features = case.is_linear and axis == x.ndim - 1
            if not is_features:
                whole = np.take(whole, np.arange(_SIZES[n]) % n, axis=axis)
        whole = whole + 0.3 * rng.standard_normal(whole.shape)
        if _of_elements(case):
            whole = -np.abs(whole)
        if _holds_log_probabilities(case):
            axis = case.options.get("axis", -1)
            share = 0.8 if case.name.startswith("topk_") and case.options.get("tail") != "included" else 1.0
            whole = whole - np.log(np.exp(whole).sum(axis=axis, keepdims=True) / share)
        arrays.append(whole)
    return arrays


def _holds_log_probabilities(case: Case) -> bool:
    spec = case.function.spec  # type: ignore[attr-defined]
    return spec.distributions({**spec.defaults, **case.options}) in ("complete", "partial")


def _options(case: Case) -> dict[str, Any]:
    """Return the options, their arrays with the sizes of the grown ones."""
    options = {}
    for name, value in case.options.items():
        if isinstance(value, np.ndarray):
            for axis, n in enumerate(value.shape):
                value = np.take(value, np.arange(_SIZES[n]) % n, axis=axis)  # noqa: PLW2901
        options[name] = value
    return options


def is_refused(case: Case, layout: str) -> str | None:
    """Return a part of the error if this row cannot be cut so."""
    if case.fn is not None:
        if layout != "batch":
            return "samples must be whole"
        return None if case.options.get("per_sample", True) else "`per_sample` must be True"
    if case.name == "koleo" or (case.name == "sigreg" and case.options.get("knots", 17) is None):
        return "must not be a part of an array"
    if case.name == "mmd" and layout == "both":
        return "features must be whole if samples are cut"
    if case.name == "wasserstein" and (layout != "batch" or case.options.get("axis") == 0):
        return (
            "one axis for `classes` and another" if layout == "both" and case.options.get("axis") == 0 else "rows must"
        )
    if case.name == "nuclear_norm" and (layout != "batch" or case.arrays[0].ndim == 2):
        return "singular values need whole matrices"
    if case.kind_of_terms == "neighborhoods":
        axis = case.options.get("axis", -1)
        axes = [one % case.arrays[0].ndim for one in ((axis,) if isinstance(axis, int) else axis)]
        return "must have only axes that are whole" if layout != "batch" or 0 in axes else None
    if layout == "both" and not case.is_linear and not _of_elements(case) and _axis(case, case.arrays[0].ndim) == 0:
        return "one axis for `classes` and another"
    return None


def _of_elements(case: Case) -> bool:
    """Return True if the arrays hold log-probabilities of elements, which have no axis of classes."""
    spec = case.function.spec  # type: ignore[attr-defined]
    return spec.distributions({**spec.defaults, **case.options}) == "elements"


def layouts_of(case: Case) -> tuple[str, ...]:
    """Return the layouts to test. A single feature cannot be cut."""
    return ("batch",) if case.name in ("sigreg", "sliced_wasserstein") else LAYOUTS


def _axis(case: Case, ndim: int) -> int:
    axis = case.options.get("axis", -1)
    axis = axis[-1] if isinstance(axis, tuple) else axis if isinstance(axis, int) else -1
    return axis % ndim


def cut_of(case: Case, layout: str) -> tuple[list[Cuts], dict[str, Cuts]]:
    """Return how the arrays and the options that are arrays are cut."""
    classes, batch = layout in ("classes", "both"), layout in ("batch", "both")

    def cut(x: np.ndarray, axis: int | None) -> Cuts:
        names: list[str | None] = [None] * x.ndim
        if batch and x.ndim:
            names[0] = "batch"
        if classes and axis is not None:
            names[axis] = "classes"
        return tuple(names)

    first = case.arrays[0]
    if case.is_linear:
        weights = case.function.spec.matrices  # type: ignore[attr-defined]
        cuts = [
            (("classes" if classes else None), None) if i in weights else cut(x, None)
            for i, x in enumerate(case.arrays)
        ]
        return cuts, {}
    axis = None if case.fn is not None or _of_elements(case) else _axis(case, first.ndim)
    cuts = [cut(x, axis) for x in case.arrays]
    options = {}
    for name, value in case.options.items():
        if name == "weights":  # of the samples
            removed = {"samples": range(1, first.ndim), "elements": (), "rows": (axis,)}[case.selected]
            options[name] = tuple(c for i, c in enumerate(cuts[0]) if i not in removed)
        elif isinstance(value, np.ndarray):  # it broadcasts to the first array, or has one number for each sample
            options[name] = cuts[0][: value.ndim] if case.fn is not None else cuts[0][first.ndim - value.ndim :]
    return cuts, options
