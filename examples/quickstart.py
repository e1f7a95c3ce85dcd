"""Train a small classifier of handwritten digits twice: without penalties, and with them.

    python examples/quickstart.py [--backend numpy|torch|jax] [--epochs N] [--seed N] [--config PATH]
                                  [--track [--plot PATH]]

The model, the loss and the optimiser are one piece of code for all frameworks; `framework` holds what differs. With
--track, each penalty's gradient is measured on every fifth step, and a picture shows which of them dominates. With
--config, the penalties are those of a file, such as examples/quickstart.toml.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from operator import attrgetter

try:
    import numpy as np
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import Progress
    from rich.table import Table
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    from xpenalties import GradientHistory, Penalty, Pipeline, RegularizedLoss, namespace, register, value_and_grad
except ModuleNotFoundError as error:
    sys.exit(f'{error.name} is missing: pip install "xpenalties[numpy,examples]", or with torch or jax for numpy')

HIDDEN = 64
BATCH = 64
LEARNING_RATE = 0.1
MOMENTUM = 0.9
TARGET_ACCURACY = 0.95
TRACK_EVERY = 5


def fading(epoch):
    """A weight may be a function of the step: this one halves every 10 epochs."""
    return 0.05 * 0.5 ** (epoch / 10)


def predict(params, images):
    """Log-probabilities of the ten digits, from one hidden layer."""
    hidden = images @ params["hidden_weights"].T + params["hidden_bias"]
    xp = namespace(hidden)
    logits = xp.tanh(hidden) @ params["output_weights"].T + params["output_bias"]
    logits = logits - xp.max(logits, axis=-1, keepdims=True)
    return logits - xp.log(xp.sum(xp.exp(logits), axis=-1, keepdims=True))


@dataclass
class Batch:
    images: object
    labels: object
    smoothed_labels: object


@dataclass
class Forward:
    """A pass forward through the network: what the loss and the penalties take, each computed once for all of them.

    Where gradients are tracked, each of them is given a pass of its own, to differentiate by the parameters.
    """

    params: dict
    batch: Batch

    @cached_property
    def log_probs(self):
        return predict(self.params, self.batch.images)

    @cached_property
    def weights(self):
        arrays = [self.params[name] for name in ("hidden_weights", "output_weights")]
        xp = namespace(*arrays)
        return xp.concat([xp.reshape(x, (-1,)) for x in arrays])


def cross_entropy(forward):
    xp = namespace(forward.log_probs)
    return -xp.mean(xp.sum(forward.batch.labels * forward.log_probs, axis=-1))


@register("hidden_weights")  # for files, which name functions
def hidden_weights(forward):
    return forward.params["hidden_weights"]


# `inputs` picks a penalty's arrays out of what the loss is given, a `Forward`.
PENALTIES = Pipeline(
    [
        Penalty("l1", inputs=attrgetter("weights"), weight=1e-4),
        Penalty("kl_divergence", inputs=attrgetter("batch.smoothed_labels", "log_probs"), weight=0.2),
        Penalty("entropy", inputs=attrgetter("log_probs"), weight=fading, mode="bonus"),
        Penalty("orthogonality", inputs=hidden_weights, weight=1e-3),
    ]
)


def step(params, velocity, data, rows, loss, track=False):
    """One step of gradient descent with momentum, on these rows of the data."""
    xp = namespace(rows)
    batch = Batch(**{name: xp.take(x, rows, axis=0) for name, x in data.items()})

    def total_and_report(params):
        forward = Forward(params, batch)
        if not track:
            return loss.compute(forward)
        return loss.compute(forward, track_grad_norms=True, gradient_conflicts=True, wrt="params")

    (_, report), gradient = value_and_grad(total_and_report, has_aux=True)(params)
    velocity = {name: MOMENTUM * velocity[name] + gradient[name] for name in params}
    params = {name: params[name] - LEARNING_RATE * velocity[name] for name in params}
    return params, velocity, report


def accuracy(params, data):
    log_probs = predict(params, data["images"])
    xp = namespace(log_probs)
    correct = xp.argmax(log_probs, axis=-1) == xp.argmax(data["labels"], axis=-1)
    return float(xp.mean(xp.astype(correct, xp.float32)))


def framework(name):
    """All that differs: what makes an array of a NumPy one, and what compiles `step`."""
    try:
        if name == "torch":
            import torch

            torch.set_num_threads(1)  # arrays this small are not worth sharing out
            return torch.asarray, lambda step: step
        if name == "jax":
            import jax

            return jax.numpy.asarray, lambda step: jax.jit(step, static_argnames="track")
        import autograd  # noqa: F401 (xpenalties differentiates NumPy code with it)

        return np.asarray, lambda step: step
    except ModuleNotFoundError as error:
        sys.exit(f'{error.name} is missing: pip install "xpenalties[{name},examples]"')


def digits(asarray):
    """Images of 8 x 8 pixels with one-hot and smoothed labels: three quarters to train on, the rest to test."""
    images, classes = load_digits(return_X_y=True)
    labels = np.eye(10)[classes]
    arrays = {"images": images / 16, "labels": labels, "smoothed_labels": np.log(0.9 * labels + 0.1 / 10)}
    train, test = train_test_split(np.arange(len(classes)), test_size=0.25, stratify=classes, random_state=0)
    return tuple({name: asarray(x[rows].astype(np.float32)) for name, x in arrays.items()} for rows in (train, test))


def initial(rng, asarray):
    """Small random weights, in rows of one unit each, and biases of zero."""
    arrays = {
        "hidden_weights": rng.standard_normal((HIDDEN, 64)) / 8,
        "hidden_bias": np.zeros(HIDDEN),
        "output_weights": rng.standard_normal((10, HIDDEN)) / HIDDEN**0.5,
        "output_bias": np.zeros(10),
    }
    return {name: asarray(x.astype(np.float32)) for name, x in arrays.items()}


def train(title, data, penalties, *, epochs, seed, asarray, step, history=None):
    """Parameters after so many passes through the data; where there is a history, it keeps the reports it wants."""
    rng = np.random.default_rng(seed)
    params = initial(rng, asarray)
    velocity = {name: 0 * x for name, x in params.items()}
    size = data["images"].shape[0]
    steps = 0
    console, progress = Console(), Progress()
    task = progress.add_task(title, total=epochs)
    with Live(progress, console=console, transient=True) as live:
        for epoch in range(epochs):
            loss = RegularizedLoss(cross_entropy, penalties.at(epoch))  # weights that are functions become numbers
            order = rng.permutation(size)
            for start in range(0, size - BATCH + 1, BATCH):
                rows = asarray(order[start : start + BATCH])
                track = history is not None and history.wants(steps)
                params, velocity, report = step(params, velocity, data, rows, loss, track=track)
                if track:
                    history.append(report, steps)
                steps += 1
            progress.advance(task)
            if history is not None:
                *_, (_, report) = history  # the latest that has gradients
            view = table(f"{title}, epoch {epoch + 1} of {epochs}", report)
            live.update(Group(view, progress))
            if epoch + 1 in (epochs // 2, epochs):
                console.print(view)  # to stay, also where there is no terminal to update
    return params


def table(title, report):
    """Each penalty's part in the loss of a batch, and where it is known the norm of its contribution's gradient."""
    view = Table("penalty", title=title)
    found = report.to_dict()
    base, total_norm = found["base_loss"], found["total_grad_norm"]
    for column in ("value", "weight", "contribution", *["gradient norm"] * (total_norm is not None)):
        view.add_column(column, justify="right", min_width=12)

    def norm(value):
        return () if value is None else (f"{value:.4f}",)

    for name, part in found["regularizers"].items():
        figures = f"{part['value']:z.4f}", f"{part['weight']:.4g}", f"{part['contribution']:z.4f}"
        view.add_row(name, *figures, *norm(part["grad_norm_weighted"]))
    view.add_section()
    view.add_row("cross-entropy", "", "", f"{base['value']:z.4f}", *norm(base["grad_norm"]))
    view.add_row("loss", "", "", f"{found['loss_total']:z.4f}", *norm(total_norm))
    return view


def main(argv=None):
    """The test accuracies without and with penalties."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", choices=["numpy", "torch", "jax"], default="numpy")
    parser.add_argument("--epochs", type=int, default=30, help="passes through the data (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches (default: %(default)s)")
    parser.add_argument("--config", metavar="PATH", help="a TOML or JSON file of penalties to take in place of these")
    parser.add_argument("--track", action="store_true", help="the penalties' gradients, for a picture of them")
    parser.add_argument(
        "--plot", metavar="PATH", default="quickstart.png", help="of the picture (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    if args.track and find_spec("matplotlib") is None:
        sys.exit('matplotlib is missing: pip install "xpenalties[plot]"')

    penalties = Pipeline.from_config(args.config) if args.config else PENALTIES
    no_penalties = penalties.with_weights({penalty.name: 0.0 for penalty in penalties})  # computed, but without effect
    asarray, compiled = framework(args.backend)
    train_data, test_data = digits(asarray)
    options = {"epochs": args.epochs, "seed": args.seed, "asarray": asarray, "step": compiled(step)}
    history = GradientHistory(every=TRACK_EVERY, maxlen=None) if args.track else None
    began = time.perf_counter()
    plain = accuracy(train("without penalties", train_data, no_penalties, **options), test_data)
    penalised = accuracy(train("with penalties", train_data, penalties, history=history, **options), test_data)
    print(f"{args.backend}: {time.perf_counter() - began:.1f} s")
    if history is not None:
        history.plot(args.plot, title=f"A classifier of digits and its penalties, by step ({args.backend})")
        print(f"the penalties over the steps: {args.plot}")
    print(f"test accuracy without penalties {plain:.1%}, with penalties {penalised:.1%}")
    return plain, penalised


if __name__ == "__main__":
    if main()[1] < TARGET_ACCURACY:
        sys.exit(f"the accuracy with penalties is below {TARGET_ACCURACY:.0%}")
