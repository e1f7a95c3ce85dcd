"""The same penalties with JAX's libraries: a Flax NNX module that sows its activities, or an Equinox module.

    python examples/jax_libraries.py [--library flax|equinox] [--steps N] [--seed N]

A step is one compiled function for the whole run, although a controller changes a weight at each step. The optimizer is
Optax's. A transform of this package in its chain makes the weights of dead pixels exactly zero.
"""

import argparse
import sys
import time

try:
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    from rich.console import Console
    from rich.table import Table
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    from xpenalties import Penalty, Pipeline, RegularizedLoss, controllers, prox, transforms
    from xpenalties.integrations.jax import sown, train_step
except ModuleNotFoundError as error:
    sys.exit(f'{error.name} is missing: pip install "xpenalties[jax,examples]" optax')

HIDDEN = 64
BATCH = 128
RATE = 3e-3
TARGET = 0.05  # of the divergence between the answers to an image and to a noisy copy, in nats
TARGET_ACCURACY = 0.93

PENALTIES = Pipeline(
    [
        Penalty("l1", name="activities", inputs="hidden", weight=1e-4),
        Penalty("consistency", inputs=("clean", "noisy"), weight=0.0, metric="js"),  # the controller's
        Penalty("l2", tree={"match": "last.*(kernel|weight)"}, name="decay", inputs="params", weight=1e-3),
    ]
)
CONTROLLER = controllers.adaptive_kl(1.0, target=TARGET, gain=0.1)
OPTIMIZER = optax.chain(
    transforms.clip_by_global_norm(1.0),
    optax.adam(RATE),
    transforms.proximal(prox.l1, scale=0.2 * RATE, match="first.*(kernel|weight)"),
)


def of_flax(seed):
    """Return the parameters, and a function of parameters and images that returns activities and logits."""
    from flax import nnx

    class Network(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(64, HIDDEN, rngs=rngs)
            self.last = nnx.Linear(HIDDEN, 10, rngs=rngs)

        def __call__(self, x):
            hidden = nnx.relu(self.first(x))
            self.sow(nnx.Intermediate, "hidden", hidden)
            return self.last(hidden)

    graph, params = nnx.split(Network(nnx.Rngs(seed)))

    def apply(params, x):
        model = nnx.merge(graph, params)
        logits, found = nnx.capture(nnx.Intermediate)(lambda model, x: model(x))(model, x)
        return sown(found)["hidden"], logits

    return params, apply


def of_equinox(seed):
    import equinox as eqx

    class Network(eqx.Module):
        first: eqx.nn.Linear
        last: eqx.nn.Linear

        def __init__(self, key):
            first, last = jax.random.split(key)
            self.first, self.last = eqx.nn.Linear(64, HIDDEN, key=first), eqx.nn.Linear(HIDDEN, 10, key=last)

        def __call__(self, x):
            hidden = jax.nn.relu(self.first(x))
            return hidden, self.last(hidden)

    params, static = eqx.partition(Network(jax.random.key(seed)), eqx.is_inexact_array)

    def apply(params, x):
        return jax.vmap(eqx.combine(params, static))(x)

    return params, apply


def main(argv=None):
    """Return the test accuracy, the last divergence, and the fraction of zeros in the first layer."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--library", choices=("flax", "equinox"), default="flax")
    parser.add_argument("--steps", type=int, default=600, help="training steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and batches (default: %(default)s)")
    args = parser.parse_args(argv)
    began = time.perf_counter()
    try:
        params, apply = {"flax": of_flax, "equinox": of_equinox}[args.library](args.seed)
    except ModuleNotFoundError as error:
        sys.exit(f"{error.name} is missing: pip install {args.library}")
    images, classes = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split((images / 16).astype(np.float32), classes, test_size=0.25, random_state=0)

    def forward(params, x, noise, labels):
        hidden, logits = apply(params, x)
        _, noisy = apply(params, x + noise)
        clean = jax.nn.log_softmax(logits)
        return {"hidden": hidden, "clean": clean, "noisy": jax.nn.log_softmax(noisy), "labels": labels}

    def cross_entropy(inputs):
        return -jnp.mean(jnp.take_along_axis(inputs["clean"], inputs["labels"][:, None], axis=-1))

    step = train_step(forward, RegularizedLoss(cross_entropy, PENALTIES), OPTIMIZER)
    rng = np.random.default_rng(args.seed)
    state, control = OPTIMIZER.init(params), CONTROLLER.init(jnp.zeros(()))
    divergences = []
    for i in range(args.steps):
        rows = rng.choice(len(x), BATCH, replace=False)
        noise = 0.3 * rng.standard_normal((BATCH, 64)).astype(np.float32)
        weights = {"consistency": control["weight"]}
        params, state, report = step(params, state, x[rows], noise, y[rows], step=i, weights=weights)
        observed = report.regularizers["consistency"].value
        _, control = CONTROLLER.step(control, observed)
        divergences.append(observed)

    accuracy = float(jnp.mean(jnp.argmax(apply(params, jnp.asarray(x_test))[1], axis=-1) == y_test))
    divergence = float(np.mean(divergences[-args.steps // 4 :]))
    zeros = float(prox.sparsity(params, match="first.*(kernel|weight)"))
    view = Table("library", "test accuracy", f"divergence (target {TARGET})", "zeros in the first layer")
    view.add_row(args.library, f"{accuracy:.1%}", f"{divergence:.3f}", f"{zeros:.1%}")
    Console(width=100).print(view)
    print(report)
    print(f"{time.perf_counter() - began:.1f} s")
    return accuracy, divergence, zeros


if __name__ == "__main__":
    accuracy, *_ = main()
    if accuracy < TARGET_ACCURACY:
        sys.exit(f"the accuracy is below {TARGET_ACCURACY:.0%}")
