"""Sparse logistic regression of tumors by proximal gradient descent, compared with scikit-learn's solution.

    python examples/sparse_weights.py [--backend numpy|torch|jax] [--weight W] [--plot PATH]

The loss is differentiated, but not the L1 penalty: its proximal operator, after each step, makes weights exactly 0. The
penalty's weight falls from the value at which all weights are 0 to W, and each run starts from the previous solution.
The plot shows all solutions.
"""

import argparse
import sys
import time
from contextlib import nullcontext

try:
    import numpy as np
    from matplotlib.figure import Figure
    from rich.console import Console
    from rich.table import Table
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import scale

    from xpenalties import Penalty, Pipeline, RegularizedLoss, l1, namespace, prox, value_and_grad
except ModuleNotFoundError as error:
    sys.exit(f'{error.name} is missing: pip install "xpenalties[numpy,examples]", or with torch or jax for numpy')

WEIGHTS = 12  # number of penalty weights, from the one that makes all weights 0 down
CHECK_EVERY = 100
TOLERANCE = 1e-9  # stop if a step changes no parameter by more
MOST_STEPS = 50_000
AGREEMENT = 1e-4


def log_loss(inputs):
    """Return the mean of -log p of the labels, which are 1 and -1."""
    margin = inputs["labels"] * (inputs["features"] @ inputs["params"]["weights"] + inputs["params"]["intercept"])
    xp = namespace(margin)
    return xp.mean(xp.logaddexp(xp.zeros_like(margin), -margin))


def sparse_l1(inputs):
    weights = inputs["params"]["weights"]
    return l1(weights), {"sparsity": prox.sparsity(weights)}


PENALTY = Penalty(sparse_l1, name="l1", differentiable=False)  # part of the total, but not of its gradient


def step(state, data, weight, rate):
    """Take one step of FISTA (Beck & Teboulle, 2009), which restarts if its momentum points uphill."""
    params, ahead, t = state
    loss = RegularizedLoss(log_loss, Pipeline([PENALTY]).with_weights(l1=weight))
    (_, report), gradient = value_and_grad(lambda params: loss.compute({"params": params, **data}), has_aux=True)(ahead)
    moved = {name: ahead[name] - rate * gradient[name] for name in ahead}
    new = prox.prox_step(prox.l1, moved, scale=rate * weight, match="weights")

    xp = namespace(t)
    uphill = sum(xp.sum((ahead[name] - new[name]) * (new[name] - params[name])) for name in new) > 0
    following = xp.where(uphill, xp.ones_like(t), (1 + xp.sqrt(1 + 4 * t * t)) / 2)
    momentum = xp.where(uphill, xp.zeros_like(t), (t - 1) / following)
    ahead = {name: new[name] + momentum * (new[name] - params[name]) for name in new}
    return (new, ahead, following), report


def solve(params, data, weight, rate, step):
    """Return the parameters that minimize the total, the report there, and the number of steps."""
    xp = namespace(weight)
    state = params, params, xp.ones_like(weight)
    for steps in range(1, MOST_STEPS + 1):
        before = state[0]
        state, report = step(state, data, weight, rate)
        if steps % CHECK_EVERY == 0 and max(float(xp.max(xp.abs(state[0][k] - before[k]))) for k in before) < TOLERANCE:
            return state[0], report, steps
    sys.exit(f"no solution within {MOST_STEPS} steps")


def framework(name):
    """Return what differs: conversions from and to NumPy, a compiler for `step`, and a context for 64 bits."""
    try:
        if name == "torch":
            import torch

            torch.set_num_threads(1)  # arrays this small do not gain from threads
            return torch.asarray, lambda x: x.numpy(), lambda step: step, nullcontext()
        if name == "jax":
            import jax

            return jax.numpy.asarray, np.asarray, jax.jit, jax.enable_x64(True)
        import autograd  # noqa: F401 (xpenalties differentiates NumPy code with it)

        return np.asarray, np.asarray, lambda step: step, nullcontext()
    except ModuleNotFoundError as error:
        sys.exit(f'{error.name} is missing: pip install "xpenalties[{name},examples]"')


def tumours():
    """Return 30 features of 569 tumors, with mean 0 and variance 1, labels 1 and -1, and the features' names."""
    found = load_breast_cancer()
    return scale(found.data), 2.0 * found.target - 1, found.feature_names


def path(features, labels, target, *, backend):
    """Yield each weight of the penalty, with the solution, the report there and the number of steps."""
    largest = np.max(np.abs(features.T @ (labels - labels.mean()))) / (2 * len(labels))  # here all weights are 0
    if not 0 < target < largest:
        sys.exit(f"--weight must be between 0 and {largest:.3g}, where nothing is left, got {target}")
    curvature = np.linalg.norm(np.column_stack([features, np.ones(len(labels))]), 2) ** 2 / (4 * len(labels))
    asarray, to_numpy, compiled, with_64_bits = framework(backend)
    compiled_step = compiled(step)
    with with_64_bits:
        data = {"features": asarray(features), "labels": asarray(labels)}
        params = {"weights": asarray(np.zeros(features.shape[1])), "intercept": asarray(np.asarray(0.0))}
        rate = asarray(np.asarray(1 / curvature))
        for weight in np.geomspace(largest, target, WEIGHTS + 1)[1:]:
            params, report, steps = solve(params, data, asarray(np.asarray(weight)), rate, compiled_step)
            yield float(weight), to_numpy(params["weights"]), report.to_dict(), steps


def plot(picture, weights, solutions, reference, names):
    """Plot each feature's weight over the penalty's weight, and scikit-learn's solution at the last one."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    for i, name in enumerate(names):
        values = [solution[i] for solution in solutions]
        if any(values):
            (line,) = axes.plot(weights, values)
            axes.plot(weights[-1], reference[i], "o", mfc="none", ms=9, color=line.get_color())
            if values[-1]:
                axes.annotate(name, (weights[-1], values[-1]), (12, -3), textcoords="offset points", fontsize=9)
    axes.plot([], [], "o", mfc="none", ms=9, color="black", label="scikit-learn")
    axes.axhline(0, color="0.6", lw=0.8, zorder=0)
    axes.set(xscale="log", xlabel="weight of the L1 penalty", ylabel="weight of a feature (features of variance 1)")
    axes.set_xlim(max(weights) * 1.05, min(weights) / 2.2)
    axes.set_title("Fewer features as the penalty grows")
    axes.legend(loc="lower left", frameon=False)
    figure.savefig(picture, dpi=150)


def main(argv=None):
    """Return the largest difference of a weight from scikit-learn's, and whether both have the same zeros."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", choices=["numpy", "torch", "jax"], default="numpy")
    parser.add_argument("--weight", type=float, default=0.01, help="last weight of the penalty (default: %(default)s)")
    parser.add_argument("--plot", metavar="PATH", default="sparse.png", help="path of the plot (default: %(default)s)")
    args = parser.parse_args(argv)
    features, labels, names = tumours()
    began = time.perf_counter()
    view = Table("weight", "log loss", "total", "share of zeros", "steps", title=f"Sparse weights ({args.backend})")
    weights, solutions = [], []
    for weight, solution, report, steps in path(features, labels, args.weight, backend=args.backend):
        weights.append(weight)
        solutions.append(solution)
        sparsity = report["regularizers"]["l1"]["custom"]["sparsity"]
        total = report["loss_total"]
        view.add_row(
            f"{weight:.4f}", f"{report['base_loss']['value']:.5f}", f"{total:.5f}", f"{sparsity:.2f}", f"{steps}"
        )
    Console().print(view)

    sklearn = LogisticRegression(
        l1_ratio=1, solver="saga", C=1 / (args.weight * len(labels)), tol=1e-10, max_iter=10**6
    )
    reference = sklearn.fit(features, labels).coef_[0]  # scikit-learn minimizes the sum of losses, times C
    difference = float(np.max(np.abs(solutions[-1] - reference)))
    same = bool(np.array_equal(solutions[-1] == 0, reference == 0))
    plot(args.plot, weights, solutions, reference, names)
    print(f"{args.backend}: {time.perf_counter() - began:.1f} s, picture: {args.plot}")
    print(
        f"{np.sum(reference != 0)} of {len(names)} features, {'the same as' if same else 'others than'} scikit-learn's"
    )
    print(f"the largest difference of a weight from scikit-learn's: {difference:.1e}")
    return difference, same


if __name__ == "__main__":
    difference, same = main()
    if not (same and difference < AGREEMENT):
        sys.exit(f"the solution is not scikit-learn's to {AGREEMENT}")
