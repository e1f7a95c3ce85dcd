"""Train a small classifier of handwritten digits on 60 labels, without penalties and with them.

    python examples/quickstart.py [--backend numpy|torch|jax] [--epochs N] [--seed N] [--config PATH]
                                  [--track [--plot PATH] [--style NAME]]

The penalties bring in what 60 labels do not say: the opinion of a teacher about images without a label, and what
good weights look like. The model, the loss and the optimizer are the same code for all frameworks; `framework` contains
the differences. --track measures each penalty's gradient on every fifth step, and plots which penalty dominates.
--config reads the penalties from a file, such as examples/quickstart.toml.
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
    from sklearn.neighbors import KNeighborsClassifier

    from xpenalties import GradientHistory, Penalty, Pipeline, RegularizedLoss, namespace, register, value_and_grad
except ModuleNotFoundError as error:
    sys.exit(f'{error.name} is missing: pip install "xpenalties[numpy,examples]", or with torch or jax for numpy')

LABELED = 60
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
    """Return log-probabilities of the ten digits, from one hidden layer."""
    hidden = images @ params["hidden_weights"].T + params["hidden_bias"]
    xp = namespace(hidden)
    logits = xp.tanh(hidden) @ params["output_weights"].T + params["output_bias"]
    logits = logits - xp.max(logits, axis=-1, keepdims=True)
    return logits - xp.log(xp.sum(xp.exp(logits), axis=-1, keepdims=True))


@dataclass
class Batch:
    labeled_images: object
    labels: object
    images: object
    teacher: object  # log-probabilities of these images


@dataclass
class Forward:
    """A forward pass: what the loss and the penalties need, each computed once.

    To track gradients with respect to the parameters, every penalty gets a pass of its own.
    """

    params: dict
    batch: Batch

    @cached_property
    def student(self):
        return predict(self.params, self.batch.images)

    @cached_property
    def weights(self):
        arrays = [self.params[name] for name in ("hidden_weights", "output_weights")]
        xp = namespace(*arrays)
        return xp.concat([xp.reshape(x, (-1,)) for x in arrays])


def cross_entropy(forward):
    """The base loss sees the labeled images only."""
    log_probs = predict(forward.params, forward.batch.labeled_images)
    xp = namespace(log_probs)
    return -xp.mean(xp.sum(forward.batch.labels * log_probs, axis=-1))


@register("hidden_weights")  # gives the function a name for configuration files
def hidden_weights(forward):
    return forward.params["hidden_weights"]


# `inputs` selects a penalty's arrays from what the loss gets, a `Forward`.
PENALTIES = Pipeline(
    [
        Penalty("kl_divergence", name="teacher", inputs=attrgetter("batch.teacher", "student")),
        Penalty("entropy", inputs=attrgetter("student"), weight=fading, mode="bonus"),
        Penalty("l1", inputs=attrgetter("weights"), weight=1e-4),
        Penalty("orthogonality", inputs=hidden_weights, weight=1e-3),
    ]
)


def step(params, velocity, data, rows, loss, track=False):
    """Take one step of gradient descent with momentum, on all labeled images and these rows of the others."""
    xp = namespace(rows)
    images, teacher = (xp.take(data[name], rows, axis=0) for name in ("images", "teacher"))
    batch = Batch(data["images"][:LABELED, :], data["labels"][:LABELED, :], images, teacher)

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
    """Return what differs: a function that converts NumPy arrays, and one that compiles `step`."""
    try:
        if name == "torch":
            import torch

            torch.set_num_threads(1)  # arrays this small do not gain from threads
            return torch.asarray, lambda step: step
        if name == "jax":
            import jax

            return jax.numpy.asarray, lambda step: jax.jit(step, static_argnames="track")
        import autograd  # noqa: F401 (xpenalties differentiates NumPy code with it)

        return np.asarray, lambda step: step
    except ModuleNotFoundError as error:
        sys.exit(f'{error.name} is missing: pip install "xpenalties[{name},examples]"')


def digits(asarray):
    """Return images of 8 x 8 pixels with labels and a teacher's opinion: three quarters to train on, the rest to test.

    The teacher is a vote of the five nearest neighbors, which knows all labels. Most of its probabilities are 0, so
    their logarithms are -inf. The penalties handle that.
    """
    images, classes = load_digits(return_X_y=True)
    train, test = train_test_split(np.arange(len(classes)), test_size=0.25, stratify=classes, random_state=0)
    teacher = KNeighborsClassifier(n_neighbors=5).fit(images[train], classes[train])
    with np.errstate(divide="ignore"):
        opinions = np.log(teacher.predict_proba(images))
    arrays = {"images": images / 16, "labels": np.eye(10)[classes], "teacher": opinions}
    return tuple({name: asarray(x[rows].astype(np.float32)) for name, x in arrays.items()} for rows in (train, test))


def initial(rng, asarray):
    """Return small random weights, one row for each unit, and biases of zero."""
    arrays = {
        "hidden_weights": rng.standard_normal((HIDDEN, 64)) / 8,
        "hidden_bias": np.zeros(HIDDEN),
        "output_weights": rng.standard_normal((10, HIDDEN)) / HIDDEN**0.5,
        "output_bias": np.zeros(10),
    }
    return {name: asarray(x.astype(np.float32)) for name, x in arrays.items()}


def train(title, data, penalties, *, epochs, seed, asarray, step, history=None):
    """Return the trained parameters. `history` collects the reports that it wants."""
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
                *_, (_, report) = history  # the latest report with gradients
            view = table(f"{title}, epoch {epoch + 1} of {epochs}", report)
            live.update(Group(view, progress))
            if epoch + 1 in (epochs // 2, epochs):
                console.print(view)  # a copy that stays, also if the output is not a terminal
    return params


def table(title, report):
    """Each penalty's contribution to the loss of a batch, and the norm of its gradient if it was tracked."""
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
    """Print and return the test accuracies without and with penalties."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", choices=["numpy", "torch", "jax"], default="numpy")
    parser.add_argument("--epochs", type=int, default=30, help="passes through the data (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches (default: %(default)s)")
    parser.add_argument("--config", metavar="PATH", help="a TOML or JSON file of penalties to use instead")
    parser.add_argument("--track", action="store_true", help="measure and plot the penalties' gradients")
    parser.add_argument(
        "--plot", metavar="PATH", default="quickstart.png", help="file of the plot (default: %(default)s)"
    )
    parser.add_argument("--style", default="default", help="matplotlib style of the plot, such as dark_background")
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
    penalized = accuracy(train("with penalties", train_data, penalties, history=history, **options), test_data)
    print(f"{args.backend}: {time.perf_counter() - began:.1f} s")
    if history is not None:
        from matplotlib import style

        with style.context(args.style):
            history.plot(args.plot, title=f"A classifier of digits and its penalties, by step ({args.backend})")
        print(f"the penalties over the steps: {args.plot}")
    print(f"test accuracy without penalties {plain:.1%}, with penalties {penalized:.1%}")
    return plain, penalized


if __name__ == "__main__":
    if main()[1] < TARGET_ACCURACY:
        sys.exit(f"the accuracy with penalties is below {TARGET_ACCURACY:.0%}")
