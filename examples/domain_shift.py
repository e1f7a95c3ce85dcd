"""A classifier of digits that also works on other images without labels: its features match by `mmd`.

    python examples/domain_shift.py [--backend torch|jax] [--weight W] [--steps N] [--seed N]

The training images have labels. The test images come from another domain: they are darker, blurred and noisy, and have
no labels. The penalty makes the features of both domains have the same distribution, so that what the classifier learns
on the first one holds on the second.
"""

import argparse
import sys

try:
    import numpy as np
    from rich.console import Console
    from rich.table import Table
    from sklearn.datasets import load_digits

    from xpenalties import Penalty, Pipeline, RegularizedLoss, namespace, value_and_grad
except ModuleNotFoundError as error:
    sys.exit(f'{error.name} is missing: pip install "xpenalties[torch,examples]", or with jax for torch')

PIXELS, HIDDEN, FEATURES, CLASSES = 64, 64, 32, 10
BATCH = 128
RATE, BETAS, EPS = 3e-3, (0.9, 0.99), 1e-8  # of Adam


def shifted(images, rng):
    """Return the images as another camera sees them: darker, blurred and noisy, on a bright background."""
    squares = images.reshape(-1, 8, 8)
    blurred = sum(np.roll(squares, (i, j), (1, 2)) for i in (-1, 0, 1) for j in (-1, 0, 1)) / 9
    mixed = 0.5 * (0.5 * squares + 0.5 * blurred) + 0.45
    return (mixed.reshape(len(images), -1) + 0.1 * rng.standard_normal(images.shape)).astype(np.float32)


def first_params(rng):
    def layer(inputs, outputs):
        return (rng.standard_normal((inputs, outputs)) * (1 / inputs) ** 0.5).astype(np.float32)

    return {"hidden": layer(PIXELS, HIDDEN), "features": layer(HIDDEN, FEATURES), "classes": layer(FEATURES, CLASSES)}


def features_of(params, images):
    xp = namespace(images)
    return xp.tanh(xp.tanh(images @ params["hidden"]) @ params["features"])


def cross_entropy(inputs):
    logits, labels = inputs["logits"], inputs["labels"]
    xp = namespace(logits)
    largest = xp.max(logits, axis=-1, keepdims=True)
    total = xp.log(xp.sum(xp.exp(logits - largest), axis=-1)) + largest[:, 0]
    return xp.mean(total - xp.sum(logits * labels, axis=-1))


def step(state, images, labels, others, loss):
    """Take one step of Adam. The state is the number of steps, the parameters and two moving averages of each."""

    def of(params):
        source, target = features_of(params, images), features_of(params, others)
        return loss({"logits": source @ params["classes"], "labels": labels, "source": source, "target": target})

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


def train(*, backend, weight, steps, seed):
    """Return the accuracies on test images of the first domain and of the second."""
    asarray, to_numpy, compiled = framework(backend)
    rng = np.random.default_rng(seed)
    found = load_digits()
    images, digits = (found.data / 16).astype(np.float32), found.target
    labels, others = np.eye(CLASSES, dtype=np.float32)[digits], shifted(images, rng)
    pipeline = Pipeline([Penalty("mmd", inputs=("source", "target"), weight=weight, enabled=weight > 0)])
    loss = RegularizedLoss(cross_entropy, pipeline)
    one_step = compiled(lambda *args: step(*args, loss))
    params = {k: asarray(x) for k, x in first_params(rng).items()}
    zeros = {k: 0 * x for k, x in params.items()}
    state = asarray(np.asarray(0.0, np.float32)), params, zeros, zeros
    for _ in range(steps):
        batch, unlabeled = rng.integers(0, 1300, (2, BATCH))  # the unlabeled images are others
        state, _ = one_step(state, *map(asarray, (images[batch], labels[batch], others[unlabeled])))
    accuracies = []
    for domain in (images, others):
        logits = to_numpy(features_of(state[1], asarray(domain[1300:])) @ state[1]["classes"])
        accuracies.append(float(np.mean(np.argmax(logits, axis=-1) == digits[1300:])))
    return accuracies


def main(argv=None):
    """Return the accuracies on the second domain without and with the penalty."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", choices=["torch", "jax"], default="torch")
    parser.add_argument("--weight", type=float, default=2.0, help="weight of the penalty (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    view = Table("", "first domain", "second domain, no labels", title=f"Accuracy ({args.backend})")
    found = []
    for label, weight in (("without", 0.0), (f"mmd, weight {args.weight:g}", args.weight)):
        first, second = train(backend=args.backend, weight=weight, steps=args.steps, seed=args.seed)
        view.add_row(label, f"{100 * first:.1f} %", f"{100 * second:.1f} %")
        found.append(second)
    Console().print(view)
    return tuple(found)


if __name__ == "__main__":
    main()
