"""What `python -m xpenalties` compares with, from the definitions in oracle.py; run this file to write it.

Gradients are differences of the oracle's values, to the sixth order. At a kink they give the slope that the penalties
state, for the differences are symmetric, and 0 by what is masked or a log-probability of -inf.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from tests.matrix import oracle
from xpenalties._core.registry import PENALTIES

__all__ = ["PATH", "computed"]

PATH = Path(__file__).parents[2] / "src" / "xpenalties" / "_command_line" / "reference_values.json"
STEP = 1 / 256
WEIGHTS = {1: 45 / 60, 2: -9 / 60, 3: 1 / 60}  # of f(x + k h) - f(x - k h), over h

X = [[-1.5, 0.0, 2.0], [0.5, -0.25, 1.0]]
Y = [[0.5, 0.25, -1.0], [0.75, 1.5, -0.5]]
ZERO_ROW = [[0.0, 0.0, 0.0], [0.5, -0.25, 1.0]]
ZEROS = [[0.0] * 3] * 2
ROW_NAN = [[math.nan] * 3, [0.5, -0.25, 1.0]]
ONE_NAN = [[1.0, math.nan, 2.0], [0.5, -0.25, 1.0]]
KEEP_ONE = {"where": [False, True]}
KEEP_THREE = {"where": [False, True, True, True]}


def log(*rows: list[float]) -> list[list[float]]:
    return [[math.log(p) if p > 0 else -math.inf for p in row] for row in rows]


P, Q = log([0.5, 0.25, 0.25], [0.1, 0.2, 0.7]), log([0.2, 0.3, 0.5], [0.3, 0.3, 0.4])
P_ZERO, Q_ZERO = log([0.5, 0.5, 0.0], [0.0, 0.75, 0.25]), log([0.25, 0.75, 0.0], [0.5, 0.25, 0.25])
MAPS = {"hidden_p": X, "weight_p": Y, "hidden_q": Y, "weight_q": X}


def row(
    penalty: str,
    case: str = "",
    *,
    function: str | None = None,
    named: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    random: bool = False,
    lazy: bool = True,
    **arrays: Any,
) -> dict[str, Any]:
    """`named`: options that are arrays. `lazy`: False if lazy arrays are refused."""
    row = {"penalty": penalty, "case": case, "function": function, "arrays": arrays}
    return row | {"named": named or {}, "options": options or {}, "random": random, "lazy": lazy}


ROWS = [
    row("l1", x=X),
    row("l1", "masked NaN", x=ROW_NAN, named={"where": [[False] * 3, [True] * 3]}),
    row("l2", x=X, options={"center": "mean", "clip": 1.5}),
    row("elastic_net", x=X, options={"l1_ratio": 0.25}),
    row("huber", x=X, options={"delta": 0.75}),
    row("group_lasso", "a group of zeros", x=ZERO_ROW),
    row("sparse_group_lasso", "a group of zeros", x=ZERO_ROW, options={"l1_ratio": 0.25}),
    row("l0", x=X, options={"kind": "tanh"}),
    row("l0", "steps", x=X, named={"threshold": [0.4, 0.4, 1.75]}),
    row("mcp", x=X, options={"threshold": 0.75}),
    row("scad", x=X, options={"knee": 0.3, "a": 2.5}),
    row("log_sum", x=X),
    row("lp", x=[[-1.5, 1.0, 2.0], [0.5, -0.25, 1.0]]),
    row("hoyer", x=X),
    row("log_cosh", x=X, options={"scale": 0.5}),
    row("charbonnier", x=X, options={"eps": 0.5}),
    row("spectral_norm", x=X),
    row("nuclear_norm", x=X),
    row("total_variation", x=X, options={"axis": [0, 1], "mode": "isotropic"}),
    row(
        "total_variation",
        "masked NaN",
        x=[[1.0, math.nan, 2.0], X[1]],
        named={"where": [[True, False, True], [True] * 3]},
    ),
    row("kl_divergence", log_p=P, log_q=Q, options={"direction": "symmetric", "temperature": 2.0}),
    row("kl_divergence", "zero probabilities", log_p=P_ZERO, log_q=Q_ZERO),
    row("kl_divergence", "masked NaN", log_p=ROW_NAN, log_q=P, named=KEEP_ONE, options={"from_logits": True}),
    row("kl_divergence", "skewed", log_p=P_ZERO, log_q=Q_ZERO, options={"skew": 0.25}),
    row("js_divergence", "zero probabilities", log_p=P_ZERO, log_q=Q_ZERO, options={"beta": 0.25}),
    row("f_divergence", log_p=P, log_q=Q),
    row("f_divergence", log_p=P, log_q=Q, options={"kind": "chi2", "temperature": 2.0}),
    row("f_divergence", "zero probabilities", log_p=P_ZERO, log_q=Q_ZERO, options={"kind": "hellinger"}),
    row("f_divergence", log_p=P, log_q=Q, options={"kind": "alpha", "alpha": -0.5}),
    row("f_divergence", log_p=P, log_q=Q, options={"kind": "renyi", "alpha": 2.0}),
    row("entropy", "zero probabilities", log_p=P_ZERO, options={"mode": "bonus", "normalize": True}),
    row("entropy", "zero probabilities", log_p=P_ZERO, options={"kind": "tsallis", "alpha": 0.5}),
    row("entropy", log_p=P, options={"kind": "renyi", "alpha": 3.0, "normalize": True}),
    row(
        "topk_kl_divergence",
        log_p=log([0.5, 0.25, 0.125], [0.1, 0.2, 0.3]),
        log_q=log([0.2, 0.3, 0.1], [0.3, 0.2, 0.1]),
    ),
    row(
        "topk_js_divergence",
        log_p=log([0.5, 0.25, 0.125], [0.1, 0.2, 0.3]),
        log_q=log([0.2, 0.3, 0.1], [0.3, 0.2, 0.1]),
        options={"beta": 0.25},
    ),
    row("sampled_kl", log_p=P, log_q=Q),
    row("bernoulli_kl", log_p=P, log_q=Q),
    row("bernoulli_kl", log_p=X, log_q=Y, options={"kind": "tv", "from_logits": True}),
    row("gaussian_kl", mean=X, log_var=Y),
    row("gaussian_kl", "free bits", mean=X, log_var=Y, named={"mean_q": X[1]}, options={"free_bits": 0.5}),
    row("z_loss", "a logit of -inf", logits=[[-math.inf, 0.5, 1.0], [0.25, -1.0, 2.0]]),
    row("linear_kl_divergence", **MAPS),
    row("linear_js_divergence", **MAPS),
    row("linear_entropy", hidden=X, weight=Y),
    row("orthogonality", "a vector of zeros", x=[[0.0, 0.0, 0.0], X[0], X[1]]),
    row("orthogonality", x=X, options={"mode": "hard", "normalize": False}),
    row("covariance", x=X),
    row("variance", "a constant feature", x=[[0.5, 0.0, 1.0], [0.5, -0.25, 0.0], [0.5, 0.5, 3.0]]),
    row("cross_correlation", a=[*X, Y[0]], b=[*Y, X[0]]),
    row("cross_correlation", "a masked NaN", a=[ROW_NAN[0], *X, Y[0]], b=[Y[1], *Y, X[0]], named=KEEP_THREE),
    row("koleo", x=[[1.0, 0.0], [0.0, 1.0], [-0.75, 0.25]]),
    row("koleo", "equal rows", x=[[0.5, 0.25], [0.5, 0.25]], options={"floor": 0.5}),
    row("uniformity", "equal rows", x=[X[0], X[0], X[1]]),
    row("sigreg", x=[[0.5], [-1.5], [0.25]], random=True),
    row("sigreg", "the whole integral", x=[[0.5], [-1.5], [0.25]], options={"knots": None}, random=True),
    row("coding_rate", x=X),
    row("coding_rate", "zeros", x=ZEROS, options={"mode": "penalty"}),
    row("coding_rate", "a masked NaN", x=[ROW_NAN[0], *X, Y[0]], named=KEEP_THREE, options={"eps": 1.5}),
    row("mmd", a=X, b=Y, options={"kernel": "imq", "bandwidths": 1.5}),
    row("mmd", "energy", a=X, b=Y, options={"kernel": "energy", "unbiased": True}),
    row("gram_distance", a=X, b=Y, options={"normalize": "gram", "centered": True}),
    row("gram_distance", a=X, b=Y),
    row("cross_orthogonality", a=X, b=Y[:1]),
    row("cross_orthogonality", "a vector of zeros", a=ZERO_ROW, b=[*X, *Y, Y[1]]),
    row("coral", a=X, b=Y),
    row("coral", "more samples than features", a=[*X, ZEROS[0], Y[0], Y[1]], b=[*Y, *X, Y[1]]),
    row("wasserstein", a=X, b=Y),
    row("wasserstein", "rows of other sizes", a=X, b=[[0.5, -1.0], [0.75, 1.75]], options={"p": 2.5}, lazy=False),
    row("sliced_wasserstein", a=[[0.5], [-1.5], [0.25]], b=[[0.75], [1.0], [-0.25]], random=True),
    row(
        "sliced_wasserstein",
        "a masked NaN",
        a=[[math.nan], [0.5], [-1.5], [0.25]],
        b=[[2.0], [0.75], [1.0], [-0.25]],
        named=KEEP_THREE,
        options={"p": 1.5},
        random=True,
        lazy=False,
    ),
    row("load_balancing", logits=[[0.5, 0.25, -1.0], [2.0, 0.0, 0.5], [0.0, -0.25, 1.0]], options={"top_k": 2}),
    row("load_balancing", "sigmoids", logits=[*X, Y[0]], options={"scores": "sigmoid"}),
    row("mutual_information", log_p=P),
    row("mutual_information", "zero probabilities", log_p=P_ZERO, options={"mode": "penalty", "diversity": 2.0}),
    row("consistency", a=X, b=[[-1.5, 0.25, 2.0], [0.75, 1.5, -0.5]], options={"metric": "l1"}),
    row("consistency", a=X, b=Y, options={"metric": "cosine"}),
    row("output_magnitude", x=X),
    row("output_magnitude", "zeros", x=ZEROS),
    row("gradient_penalty", "a gradient of zeros", function="sum of x sin x", x=ZERO_ROW),
    row("interpolated_gradient_penalty", function="sum of x sin x", real=X, fake=Y, named={"alpha": [0.25, 0.5]}),
    row("lipschitz_penalty", function="sum of x sin x", x=X, named={"noise": Y}, options={"target": 0.5}),
    row("jacobian_penalty", function="x sin x", x=X, random=True),
    row("adversarial_consistency", function="x sin x", x=X, named={"noise": Y}, options={"epsilon": 0.5}),
    row("adversarial_consistency", function="x sin x", x=X, named={"noise": Y}, options={"metric": "mse"}),
]


def value(row: dict[str, Any], arrays: dict[str, np.ndarray], at: np.ndarray | None = None) -> float:
    """Of the oracle's terms. What the penalty treats as a constant is taken at `at`."""
    spec = PENALTIES[row["penalty"]].spec  # type: ignore[attr-defined]
    named = {name: np.asarray(values) for name, values in row["named"].items()}
    where = named.pop("where", True)
    if spec.shape_of_samples(row["options"]) is not None:  # its single term is that of the samples that are left
        arrays, where = {name: x[where] if np.ndim(where) else x for name, x in arrays.items()}, True
    definition = getattr(oracle, row["penalty"])
    constants = {"at": at} if oracle.has_constants(definition) else {}
    terms = definition(*arrays.values(), **named, **row["options"], **constants)
    selected = np.asarray(terms)[np.broadcast_to(where, np.shape(terms))]
    return float(selected.sum() if spec.reduction == "sum" else selected.mean())


def gradient(row: dict[str, Any], name: str) -> list[Any]:
    """By differences of values."""
    arrays = {key: np.asarray(values) for key, values in row["arrays"].items()}

    def moved(index: tuple[int, ...], by: float) -> float:
        x = arrays[name].copy()
        x[index] += by
        return value(row, {**arrays, name: x}, at=next(iter(arrays.values())))

    result = np.zeros_like(arrays[name])
    for index in np.ndindex(result.shape):
        for k, weight in WEIGHTS.items():
            result[index] += weight * (moved(index, k * STEP) - moved(index, -k * STEP)) / STEP
    return rounded(result)


def rounded(x: Any) -> Any:
    """Without the digits that are rounding."""
    return (np.round(x, 12) + 0.0).tolist()


def computed() -> list[dict[str, Any]]:
    """The rows with value and gradient."""
    with np.errstate(all="ignore"):
        return [
            each
            | {
                "value": rounded(value(each, {name: np.asarray(x) for name, x in each["arrays"].items()})),
                "gradient": {name: gradient(each, name) for name in each["arrays"]},
            }
            for each in ROWS
        ]


if __name__ == "__main__":
    PATH.write_text("[\n" + ",\n".join(json.dumps(each) for each in computed()) + "\n]\n", "utf-8")
