"""Teach a digit classifier to read rotated digits, without forgetting upright ones.

    python examples/curriculum.py [--backend numpy|torch|jax] [--steps N] [--seed N] [--plot PATH]

A network that has learned upright digits is trained on rotated ones. A penalty is the KL divergence between its earlier
and its present answers to upright digits. A controller adapts the penalty's weight, to keep the divergence at a target.
An entropy bonus warms up and fades with a schedule. A training step is one pure function of arrays, which jax.jit
compiles once for the whole run.
"""

import argparse
import sys
import time

try:
    import numpy as np
    from matplotlib.figure import Figure
    from rich.console import Console
    from rich.table import Table
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    from xpenalties import (
        Penalty,
        Pipeline,
        RegularizedLoss,
        controllers,
        namespace,
        schedules,
        transforms,
        value_and_grad,
    )
except ModuleNotFoundError as error:
    sys.exit(f'{error.name} is missing: pip install "xpenalties[numpy,examples]", or with torch or jax for numpy')

HIDDEN = 64
BATCH = 128
LEARNING_RATE = 0.1
MOMENTUM = 0.9
TARGET = 0.1  # of the divergence, in nats
EVERY = 5  # steps between points of the plot
LAST = 0.25  # the fraction of the steps over which the final divergence is averaged
TARGET_ACCURACY = 0.85

BONUS = schedules.warmup(schedules.cosine(0.1, steps=300), steps=100)
PENALTIES = Pipeline(
    [
        Penalty("kl_divergence", name="kl", inputs=("before", "now"), weight=0.0),  # set by the controller
        Penalty("entropy", inputs="sideways", weight=BONUS, mode="bonus"),
        Penalty("l2", tree={"match": "weights"}, name="decay", inputs="params", weight=1e-4),
    ]
)
KL = controllers.adaptive_kl(1.0, target=TARGET, gain=0.1, clip=0.5)
CLIP = transforms.clip_by_global_norm(1.0)


def predict(params, images):
    """Return log-probabilities of the ten digits, from one hidden layer."""
    hidden = images @ params["hidden"]["weights"] + params["hidden"]["bias"]
    xp = namespace(hidden)
    logits = xp.tanh(hidden) @ params["output"]["weights"] + params["output"]["bias"]
    logits = logits - xp.max(logits, axis=-1, keepdims=True)
    return logits - xp.log(xp.sum(xp.exp(logits), axis=-1, keepdims=True))


def cross_entropy(inputs):
    xp = namespace(inputs["sideways"])
    return -xp.mean(xp.sum(inputs["labels"] * inputs["sideways"], axis=-1))


def step(state, reference, upright, rotated, labels):
    """Return the next state, which holds everything that the run remembers, and the report."""
    loss = RegularizedLoss(cross_entropy, PENALTIES.with_weights(kl=state["kl"]["weight"]))
    before = predict(reference, upright)

    def total_and_report(params):
        inputs = {"params": params, "labels": labels, "before": before}
        inputs |= {"now": predict(params, upright), "sideways": predict(params, rotated)}
        return loss.compute(inputs, step=state["step"])

    (_, report), gradient = value_and_grad(total_and_report, has_aux=True)(state["params"])
    gradient, _ = CLIP.update(gradient, ())
    velocity = _both(lambda v, g: MOMENTUM * v + g, state["velocity"], gradient)
    params = _both(lambda p, v: p - LEARNING_RATE * v, state["params"], velocity)
    _, kl = KL.step(state["kl"], report.regularizers["kl"].value)
    return {"params": params, "velocity": velocity, "kl": kl, "step": state["step"] + 1}, report


def learn(params, velocity, images, labels):
    """Take a step on the upright digits, without penalties."""
    _, gradient = value_and_grad(lambda p: cross_entropy({"sideways": predict(p, images), "labels": labels}))(params)
    velocity = _both(lambda v, g: MOMENTUM * v + g, velocity, gradient)
    return _both(lambda p, v: p - LEARNING_RATE * v, params, velocity), velocity


def _both(fn, a, b):
    """Apply `fn` to each pair of leaves."""
    return {layer: {name: fn(a[layer][name], b[layer][name]) for name in a[layer]} for layer in a}


def framework(name):
    """Return what differs: a function that converts NumPy arrays, and one that compiles functions."""
    try:
        if name == "torch":
            import torch

            torch.set_num_threads(1)  # arrays this small do not gain from threads
            return torch.asarray, lambda fn: fn
        if name == "jax":
            import jax

            return jax.numpy.asarray, jax.jit
        import autograd  # noqa: F401 (xpenalties differentiates NumPy code with it)

        return np.asarray, lambda fn: fn
    except ModuleNotFoundError as error:
        sys.exit(f'{error.name} is missing: pip install "xpenalties[{name},examples]"')


def digits(asarray):
    """Return upright and rotated 8 x 8 images with one-hot labels: three quarters to train on, the rest to test."""
    images, classes = load_digits(return_X_y=True)
    sideways = np.rot90(images.reshape(-1, 8, 8), axes=(1, 2)).reshape(-1, 64)
    arrays = {"upright": images / 16, "rotated": sideways / 16, "labels": np.eye(10)[classes]}
    train, test = train_test_split(np.arange(len(classes)), test_size=0.25, stratify=classes, random_state=0)
    return tuple({name: asarray(x[rows].astype(np.float32)) for name, x in arrays.items()} for rows in (train, test))


def initial(rng, asarray):
    shapes = {"hidden": (64, HIDDEN), "output": (HIDDEN, 10)}
    return {
        layer: {
            "weights": asarray((rng.standard_normal(shape) / shape[0] ** 0.5).astype(np.float32)),
            "bias": asarray(np.zeros(shape[1], np.float32)),
        }
        for layer, shape in shapes.items()
    }


def batches(rng, size, steps, asarray):
    for _ in range(steps):
        yield asarray(rng.choice(size, BATCH, replace=False))


def accuracy(params, images, labels):
    log_probs = predict(params, images)
    xp = namespace(log_probs)
    return float(xp.mean(xp.astype(xp.argmax(log_probs, axis=-1) == xp.argmax(labels, axis=-1), xp.float32)))


def run(*, backend, steps, seed, compiled=None):
    """Return the reference's accuracy, and measurements at every `EVERY`-th step as a dict of lists."""
    asarray, compile_it = framework(backend)
    compile_it = compiled or compile_it
    rng = np.random.default_rng(seed)
    train, test = digits(asarray)
    size = train["labels"].shape[0]
    params = initial(rng, asarray)
    velocity = _both(lambda v, _: 0 * v, params, params)
    before = compile_it(learn)
    for rows in batches(rng, size, 300, asarray):
        xp = namespace(rows)
        params, velocity = before(params, velocity, *(xp.take(train[k], rows, axis=0) for k in ("upright", "labels")))

    reference = _both(lambda p, _: 1 * p, params, params)  # copies, because torch.compile specializes on equal arrays
    state = {
        "params": params,
        "velocity": _both(lambda v, _: 0 * v, params, params),
        "kl": KL.init(params["hidden"]["bias"]),
        "step": asarray(np.asarray(0)),
    }
    after = compile_it(step)
    found = {}
    for i, rows in enumerate(batches(rng, size, steps, asarray)):
        state, report = after(
            state, reference, *(xp.take(train[k], rows, axis=0) for k in ("upright", "rotated", "labels"))
        )
        if i % EVERY == 0:
            seen = report.flat() | {
                "step": i,
                "upright": accuracy(state["params"], test["upright"], test["labels"]),
                "rotated": accuracy(state["params"], test["rotated"], test["labels"]),
            }
            for name, value in seen.items():
                found.setdefault(name, []).append(value)
    return accuracy(reference, test["upright"], test["labels"]), found


def plot(picture, found, backend):
    """Plot the divergence and its target, the two weights, and the accuracies over the steps."""
    figure = Figure(figsize=(8, 8), layout="constrained")
    top, middle, bottom = figure.subplots(3, sharex=True)
    steps = found["step"]
    top.plot(steps, found["kl/value"], label="KL from before, upright digits")
    top.axhline(TARGET, color="0.4", ls="--", lw=1, label=f"target, {TARGET}")
    top.set(ylabel="nats", ylim=(0, max(4 * TARGET, 1.05 * max(found["kl/value"]))))
    middle.plot(steps, found["kl/weight"], label="of the KL, by adaptive_kl")
    middle.set(ylabel="weight of the KL", yscale="log")
    right = middle.twinx()
    right.plot(steps, found["entropy/weight"], color="C1", label="of the entropy, by warmup and cosine")
    right.set(ylabel="weight of the entropy bonus")
    middle.legend(handles=[*middle.lines, *right.lines], frameon=False)
    bottom.plot(steps, found["upright"], label="upright")
    bottom.plot(steps, found["rotated"], label="on their side")
    bottom.set(ylabel="test accuracy", xlabel="step", ylim=(0, 1.02))
    for axes in (top, bottom):
        axes.legend(frameon=False)
    figure.suptitle(f"A classifier learns to read digits sideways ({backend})")
    figure.savefig(picture, dpi=150)


def main(argv=None):
    """Return the final accuracies on upright and rotated digits, and the mean divergence near the end."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", choices=["numpy", "torch", "jax"], default="numpy")
    parser.add_argument("--steps", type=int, default=600, help="steps on rotated digits (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and batches (default: %(default)s)")
    parser.add_argument(
        "--plot", metavar="PATH", default="curriculum.png", help="path of the plot (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    began = time.perf_counter()
    reference, found = run(backend=args.backend, steps=args.steps, seed=args.seed)
    view = Table("step", "loss", "KL", "weight", "entropy", "weight", "upright", "sideways", title=args.backend)
    columns = ("base_loss/value", "kl/value", "kl/weight", "entropy/value", "entropy/weight", "upright", "rotated")
    for i in range(0, len(found["step"]), 12):
        view.add_row(str(found["step"][i]), *(f"{found[name][i]:.3f}" for name in columns))
    Console().print(view)
    plot(args.plot, found, args.backend)
    tail = found["kl/value"][-max(1, int(LAST * len(found["step"]))) :]
    divergence = sum(tail) / len(tail)
    print(f"{args.backend}: {time.perf_counter() - began:.1f} s, picture: {args.plot}")
    upright, rotated = found["upright"][-1], found["rotated"][-1]
    print(f"test accuracy upright {upright:.1%} (before {reference:.1%}), sideways {rotated:.1%}")
    print(f"mean KL of the last quarter {divergence:.3f}, target {TARGET}")
    return upright, rotated, divergence


if __name__ == "__main__":
    upright, rotated, _ = main()
    if min(upright, rotated) < TARGET_ACCURACY:
        sys.exit(f"an accuracy is below {TARGET_ACCURACY:.0%}")
