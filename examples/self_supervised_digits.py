"""Learn features of digits without labels, by VICReg or SIGReg, and compare a linear probe with a random encoder's.

    python examples/self_supervised_digits.py [--backend torch|jax] [--method vicreg|sigreg] [--steps N] [--seed N]

An encoder sees two distorted views of each image. `consistency` makes their features agree. Alone, it would make all
features constant. `variance` and `covariance` (VICReg), or `sigreg`, keep them spread out. A linear probe then learns
the digits from a single label of each.
"""

import argparse
import sys

try:
    import numpy as np
    from rich.console import Console
    from rich.table import Table
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    from xpenalties import Penalty, Pipeline, namespace, value_and_grad
except ModuleNotFoundError as error:
    sys.exit(f'{error.name} is missing: pip install "xpenalties[torch,examples]", or with jax for torch')

PIXELS, HIDDEN, FEATURES = 64, 256, 64
BATCH = 256
RATE, BETAS, EPS = 1e-3, (0.9, 0.99), 1e-8  # of Adam
DATA = load_digits()
IMAGES, DIGITS = (DATA.data / 16).astype(np.float32), DATA.target
TRAINING = 1300  # the first images; the others are by other writers, for testing
DRAWS = 5  # of the labels, to average over
METHODS = {
    "vicreg": Pipeline(
        [
            Penalty("consistency", inputs=("a", "b"), weight=25.0),
            Penalty("variance", name="variance_a", inputs="a", weight=12.5),
            Penalty("variance", name="variance_b", inputs="b", weight=12.5),
            Penalty("covariance", name="covariance_a", inputs="a", weight=1.0),
            Penalty("covariance", name="covariance_b", inputs="b", weight=1.0),
        ]
    ),
    "sigreg": Pipeline(
        [
            Penalty("consistency", inputs=("a", "b"), weight=10.0),
            Penalty("sigreg", name="sigreg_a", inputs={"x": "a", "rng": "rng"}, weight=0.05, slices=64),
            Penalty("sigreg", name="sigreg_b", inputs={"x": "b", "rng": "rng"}, weight=0.05, slices=64),
        ]
    ),
}


def distorted(images, rng):
    """Return images that are shifted by up to a pixel, with brightness and noise of their own."""
    shifted = np.empty_like(images)
    for i, image in enumerate(images.reshape(-1, 8, 8)):
        shifted[i] = np.roll(image, rng.integers(-1, 2, 2), (0, 1)).reshape(-1)
    brightness = rng.uniform(0.7, 1.3, (len(images), 1))
    return (shifted * brightness + 0.1 * rng.standard_normal(images.shape)).astype(np.float32)


def first_params(rng):
    def layer(inputs, outputs):
        return (rng.standard_normal((inputs, outputs)) * (2 / inputs) ** 0.5).astype(np.float32)

    return {"first": layer(PIXELS, HIDDEN), "second": layer(HIDDEN, HIDDEN), "head": layer(HIDDEN, FEATURES)}


def encoded(params, images):
    """Return the outputs of the encoder, which the probe gets, without the head."""
    xp = namespace(images)
    hidden = xp.maximum(images @ params["first"], xp.zeros_like(images[:, :1]))
    return xp.maximum(hidden @ params["second"], xp.zeros_like(images[:, :1]))


def step(state, views, key, pipeline):
    """Take one step of Adam. The state is the number of steps, the parameters and two moving averages of each."""

    def of(params):
        a, b = (encoded(params, view) @ params["head"] for view in views)
        return pipeline({"a": a, "b": b, "rng": key})

    count, params, first, second = state
    total, gradient = value_and_grad(of)(params)
    count, xp = count + 1, namespace(count)
    first = {k: BETAS[0] * first[k] + (1 - BETAS[0]) * g for k, g in gradient.items()}
    second = {k: BETAS[1] * second[k] + (1 - BETAS[1]) * g * g for k, g in gradient.items()}
    rate = RATE * (1 - BETAS[1] ** count) ** 0.5 / (1 - BETAS[0] ** count)
    params = {k: p - rate * first[k] / (xp.sqrt(second[k]) + EPS) for k, p in params.items()}
    return (count, params, first, second), total


def framework(name, seed):
    """Return what differs: conversions from and to NumPy, a compiler for `step`, and sources of random numbers."""
    try:
        if name == "torch":
            import torch

            torch.set_num_threads(1)  # arrays this small do not gain from threads
            generator = torch.Generator().manual_seed(seed)
            return torch.asarray, lambda x: x.numpy(), lambda step: step, lambda i: generator
        import jax

        return jax.numpy.asarray, np.asarray, jax.jit, lambda i: jax.random.key(seed * 100_000 + i)
    except ModuleNotFoundError as error:
        sys.exit(f'{error.name} is missing: pip install "xpenalties[{name},examples]"')


def accuracy(params, asarray, to_numpy):
    """Return the accuracy on test images of a linear probe that has seen a label of each digit, over several draws."""
    features = to_numpy(encoded(params, asarray(IMAGES)))
    features = (features - features[:TRAINING].mean(axis=0)) / features[:TRAINING].std(axis=0).mean()
    found = []
    for draw in range(DRAWS):
        rng = np.random.default_rng(draw)
        few = [rng.choice(np.flatnonzero(DIGITS[:TRAINING] == digit)) for digit in range(10)]
        probe = LogisticRegression(max_iter=2000).fit(features[few], DIGITS[few])
        found.append(probe.score(features[TRAINING:], DIGITS[TRAINING:]))
    return float(np.mean(found))


def main(argv=None):
    """Return the accuracies of the probe on a random encoder and on the trained one."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", choices=["torch", "jax"], default="torch")
    parser.add_argument("--method", choices=list(METHODS), default="vicreg")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    rng = np.random.default_rng(args.seed)
    asarray, to_numpy, compiled, key = framework(args.backend, args.seed)
    pipeline = METHODS[args.method]
    one_step = compiled(lambda state, views, key: step(state, views, key, pipeline))
    params = {k: asarray(x) for k, x in first_params(rng).items()}
    before = accuracy(params, asarray, to_numpy)
    zeros = {k: 0 * x for k, x in params.items()}
    state = asarray(np.asarray(0.0, np.float32)), params, zeros, zeros
    view = Table("step", "total", title=f"{args.method} ({args.backend})")
    for i in range(1, args.steps + 1):
        batch = IMAGES[rng.integers(0, TRAINING, BATCH)]
        views = [asarray(distorted(batch, rng)) for _ in range(2)]
        state, total = one_step(state, views, key(i))
        if i == 1 or i % (args.steps // 5) == 0:
            view.add_row(f"{i}", f"{float(total):.3f}")
    Console().print(view)
    after = accuracy(state[1], asarray, to_numpy)
    print(f"a linear probe with 10 labels: {100 * before:.1f} % on a random encoder, {100 * after:.1f} % on this")
    return before, after


if __name__ == "__main__":
    main()
