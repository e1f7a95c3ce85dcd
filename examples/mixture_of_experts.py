"""A mixture of experts on digits, with and without a penalty that balances the experts.

    python examples/mixture_of_experts.py [--backend torch|jax] [--weight W] [--steps N] [--seed N] [--plot PATH]

A router sends each image to one of eight experts. An expert that gets more images learns more, so it gets still more,
and a few experts do all the work. `load_balancing` is least if each expert gets the same share.
"""

import argparse
import sys

try:
    import numpy as np
    from matplotlib.figure import Figure
    from rich.console import Console
    from rich.table import Table
    from sklearn.datasets import load_digits

    from xpenalties import Penalty, Pipeline, RegularizedLoss, namespace, value_and_grad
except ModuleNotFoundError as error:
    sys.exit(f'{error.name} is missing: pip install "xpenalties[torch,examples]", or with jax for torch')

PIXELS, EXPERTS, HIDDEN, CLASSES = 64, 8, 16, 10
BATCH = 128
RATE, BETAS, EPS = 3e-3, (0.9, 0.99), 1e-8  # of Adam


def digits():
    """Return images and one-hot labels, for training and for testing."""
    found = load_digits()
    images, labels = (found.data / 16).astype(np.float32), np.eye(CLASSES, dtype=np.float32)[found.target]
    return (images[:1300], labels[:1300]), (images[1300:], labels[1300:])


def first_params(rng):
    def layer(*shape):
        return (rng.standard_normal(shape) * (1 / shape[-2]) ** 0.5).astype(np.float32)

    router = layer(PIXELS, EXPERTS)
    router[:, 0] += 0.2  # by chance, one expert begins with more images than the others
    return {"router": router, "hidden": layer(EXPERTS, PIXELS, HIDDEN), "out": layer(EXPERTS, HIDDEN, CLASSES)}


def routed(params, images):
    """Return the router's logits, the chosen expert of each image as a one-hot row, and the logits of the digits."""
    xp = namespace(images)
    router = images @ params["router"]
    chosen = xp.astype(router == xp.max(router, axis=-1, keepdims=True), images.dtype)
    gate = xp.exp(router - xp.max(router, axis=-1, keepdims=True))
    gate = chosen * gate / xp.sum(gate, axis=-1, keepdims=True)  # the choice has no slope, but its probability has
    hidden = xp.tanh(xp.matmul(images[None, :, :], params["hidden"]))  # [experts, images, hidden]
    outputs = xp.matmul(hidden, params["out"])
    logits = xp.sum(outputs * xp.matrix_transpose(gate)[:, :, None], axis=0)
    return router, chosen, logits


def cross_entropy(inputs):
    logits, labels = inputs["logits"], inputs["labels"]
    xp = namespace(logits)
    largest = xp.max(logits, axis=-1, keepdims=True)
    total = xp.log(xp.sum(xp.exp(logits - largest), axis=-1)) + largest[:, 0]
    return xp.mean(total - xp.sum(logits * labels, axis=-1))


def step(state, images, labels, loss):
    """Take one step of Adam. The state is the number of steps, the parameters and two moving averages of each."""

    def of(params):
        router, _, logits = routed(params, images)
        return loss({"router": router, "logits": logits, "labels": labels})

    count, params, first, second = state
    total, gradient = value_and_grad(of)(params)
    count, xp = count + 1, namespace(images)
    first = {k: BETAS[0] * first[k] + (1 - BETAS[0]) * g for k, g in gradient.items()}
    second = {k: BETAS[1] * second[k] + (1 - BETAS[1]) * g * g for k, g in gradient.items()}
    rate = RATE * (1 - BETAS[1] ** count) ** 0.5 / (1 - BETAS[0] ** count)
    params = {k: p - rate * first[k] / (xp.sqrt(second[k]) + EPS) for k, p in params.items()}
    return (count, params, first, second), total


def framework(name):
    """Return what differs: conversions from and to NumPy, and a compiler for `step`."""
    try:
        if name == "torch":
            import torch

            torch.set_num_threads(1)  # arrays this small do not gain from threads
            return torch.asarray, lambda x: x.numpy(), lambda step: step
        import jax

        return jax.numpy.asarray, np.asarray, jax.jit
    except ModuleNotFoundError as error:
        sys.exit(f'{error.name} is missing: pip install "xpenalties[{name},examples]"')


def train(data, *, backend, weight, steps, seed):
    """Return the share of the test images that each expert gets, and the accuracy."""
    asarray, to_numpy, compiled = framework(backend)
    (images, labels), (test_images, test_labels) = data
    rng = np.random.default_rng(seed)
    pipeline = Pipeline([Penalty("load_balancing", inputs="router", weight=weight, enabled=weight > 0)])
    loss = RegularizedLoss(cross_entropy, pipeline)
    one_step = compiled(lambda state, images, labels: step(state, images, labels, loss))
    params = {k: asarray(x) for k, x in first_params(rng).items()}
    zeros = {k: 0 * x for k, x in params.items()}
    state = asarray(np.asarray(0.0, np.float32)), params, zeros, zeros
    for _ in range(steps):
        batch = rng.integers(0, len(images), BATCH)
        state, _ = one_step(state, asarray(images[batch]), asarray(labels[batch]))
    _, chosen, logits = routed(state[1], asarray(test_images))
    right = np.argmax(to_numpy(logits), axis=-1) == np.argmax(test_labels, axis=-1)
    return np.sort(to_numpy(chosen).mean(axis=0))[::-1], float(right.mean())


def plot(picture, found):
    """Plot the share of the images that each expert gets."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    for axes, (label, (shares, _)) in zip(figure.subplots(1, 2, sharey=True), found.items(), strict=True):
        axes.bar(np.arange(1, EXPERTS + 1), shares)
        axes.axhline(1 / EXPERTS, color="0.5", lw=0.8)
        axes.set(title=label, xlabel="expert", ylabel="share of the images")
    figure.savefig(picture, dpi=150)


def main(argv=None):
    """Return the shares and the accuracy without the penalty, and then both with it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", choices=["torch", "jax"], default="torch")
    parser.add_argument("--weight", type=float, default=1.0, help="weight of the penalty (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", metavar="PATH", default="experts.png", help="path of the plot (default: %(default)s)")
    args = parser.parse_args(argv)
    data, found = digits(), {}
    for label, weight in (("without", 0.0), (f"load_balancing, weight {args.weight:g}", args.weight)):
        found[label] = train(data, backend=args.backend, weight=weight, steps=args.steps, seed=args.seed)
    view = Table("", "largest share", "smallest share", "accuracy", title=f"{EXPERTS} experts ({args.backend})")
    for label, (shares, accuracy) in found.items():
        view.add_row(label, f"{shares[0]:.3f}", f"{shares[-1]:.3f}", f"{100 * accuracy:.1f} %")
    Console().print(view)
    plot(args.plot, found)
    print(f"picture: {args.plot}")
    return *found["without"], *found[label]


if __name__ == "__main__":
    main()
