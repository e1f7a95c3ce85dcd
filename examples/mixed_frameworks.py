"""Three frameworks in one script: a JAX teacher is distilled into a PyTorch student, with statistics in NumPy.

    python examples/mixed_frameworks.py [--steps N] [--seed N]

A penalty takes arrays of one framework, and `to_like` converts arrays explicitly, with DLPack. So the student's loss
gets the teacher's log-probabilities as tensors, and the activities of a layer are read as NumPy arrays.
"""

import argparse
import sys
import time

try:
    import jax
    import jax.numpy as jnp
    import numpy as np
    import torch
    from rich.console import Console
    from rich.table import Table
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    from xpenalties import Penalty, Pipeline, entropy, to_like
    from xpenalties.integrations.torch import capture, train_step, wrap_loss
except ModuleNotFoundError as error:
    sys.exit(f'{error.name} is missing: pip install "xpenalties[all,examples]"')

LABELED = 200  # labels that the student has; the teacher has all
BATCH = 64
TARGET_ACCURACY = 0.88

PENALTIES = Pipeline(
    [
        Penalty("kl_divergence", name="distill", inputs=("teacher", "student"), weight=1.0),
        Penalty("l1", name="sparse activities", inputs="hidden", weight=1e-4),
    ]
)


def teacher_log_probs(weights, images):
    return jax.nn.log_softmax(jnp.tanh(images @ weights["in"]) @ weights["out"])


@jax.jit
def teacher_step(weights, images, labels):
    """Take a step of gradient descent on the cross-entropy."""

    def loss(weights):
        return -jnp.mean(jnp.take_along_axis(teacher_log_probs(weights, images), labels[:, None], axis=-1))

    return jax.tree.map(lambda w, g: w - 0.5 * g, weights, jax.grad(loss)(weights))


def train_teacher(images, labels, rng):
    """Train a JAX network on all labels."""
    weights = {
        "in": jnp.asarray(rng.standard_normal((64, 128)) / 8, jnp.float32),
        "out": jnp.asarray(rng.standard_normal((128, 10)) / 128**0.5, jnp.float32),
    }
    for _ in range(600):
        rows = rng.choice(len(images), 256, replace=False)
        weights = teacher_step(weights, jnp.asarray(images[rows]), jnp.asarray(labels[rows]))
    return jax.jit(lambda x: teacher_log_probs(weights, x))


def train_student(teacher, images, labels, rng, *, steps, penalties):
    """Train a PyTorch network on few labels, and on the teacher's answers to all images if the penalties use them."""
    student = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    optimizer = torch.optim.Adam(student.parameters(), lr=3e-3)

    def cross_entropy(log_probs, classes):
        known = classes >= 0
        return torch.nn.functional.nll_loss(log_probs[known], classes[known])

    def forward(x):
        return torch.log_softmax(student(x), dim=-1)

    reports = []
    with capture(student, {"hidden": "1"}) as activities:
        loss = wrap_loss(cross_entropy, penalties, activities, names=("student", "labels"))
        step = train_step(forward, optimizer, loss)
        for _ in range(steps):
            few, rows = rng.choice(LABELED, BATCH // 2, replace=False), rng.choice(len(images), BATCH, replace=False)
            x = np.concatenate([images[few], images[rows]])
            y = np.concatenate([labels[few], np.full(BATCH, -1)])
            opinion = teacher(jnp.asarray(x))  # a JAX array
            batch = torch.from_numpy(x)
            _, report = step(batch, torch.from_numpy(y), inputs={"teacher": to_like(opinion, batch)})
            reports.append(report)
        hidden = to_like(activities["hidden"].detach(), x)  # a NumPy array
    return forward, reports, hidden


def accuracy(log_probs, labels):
    """Compute the accuracy in NumPy, from log-probabilities of any framework."""
    return float(np.mean(np.argmax(to_like(log_probs, labels), axis=-1) == labels))


def main(argv=None):
    """Return the test accuracies of the teacher, of a student alone, and of a student with the teacher."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=400, help="training steps of each student (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and batches (default: %(default)s)")
    args = parser.parse_args(argv)
    began = time.perf_counter()
    torch.set_num_threads(1)  # arrays this small do not gain from threads
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    images, classes = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split((images / 16).astype(np.float32), classes, test_size=0.25, random_state=0)

    teacher = train_teacher(x, y, rng)
    found = {"teacher (JAX, all labels)": accuracy(teacher(jnp.asarray(x_test)), y_test)}
    view = Table("network", "test accuracy", "entropy of its answers", "share of zeros in the hidden layer")
    opinion = to_like(teacher(jnp.asarray(x_test)), x_test)
    view.add_row(*found, f"{next(iter(found.values())):.1%}", f"{float(entropy(opinion)):.3f}", "")
    for name, penalties in (
        (f"student alone (PyTorch, {LABELED} labels)", PENALTIES.with_weights({p.name: 0.0 for p in PENALTIES})),
        (f"student with the teacher (PyTorch, {LABELED} labels)", PENALTIES),
    ):
        forward, reports, hidden = train_student(teacher, x, y, rng, steps=args.steps, penalties=penalties)
        with torch.no_grad():
            answers = to_like(forward(torch.from_numpy(x_test)), x_test)
        found[name] = accuracy(answers, y_test)
        zeros = float(np.mean(hidden == 0))
        view.add_row(name, f"{found[name]:.1%}", f"{float(entropy(answers)):.3f}", f"{zeros:.2f}")
    Console(width=100).print(view)
    print(reports[-1])
    print(f"{time.perf_counter() - began:.1f} s")
    return tuple(found.values())


if __name__ == "__main__":
    *_, with_teacher = main()
    if with_teacher < TARGET_ACCURACY:
        sys.exit(f"the student's accuracy is below {TARGET_ACCURACY:.0%}")
