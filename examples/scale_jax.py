"""Distill a small language model whose output layer is cut over devices, in JAX, and compare with one device.

    python examples/scale_jax.py [--devices N] [--steps N]

The text is the help that comes with Python. The vocabulary is cut over all devices: each holds the rows of the output
layers for its own words. Only the placement of the parameters says so, not the model or the penalties. JAX's compiler
adds the exchanges between devices: a few numbers for each row, and the gradients of the hidden states.

Without a GPU or TPU, the devices are simulated on the CPU.
"""

import argparse
import os
import re
import sys
from pydoc_data.topics import topics

if "jax" not in sys.modules and "XLA_FLAGS" not in os.environ:
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"  # simulated; set it before the import

try:
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from xpenalties import Penalty, Pipeline, RegularizedLoss, linear_log_probabilities
    from xpenalties.integrations.jax import train_step
except ModuleNotFoundError as error:
    sys.exit(f'{error.name} is missing: pip install "xpenalties[jax,examples]" optax')

CONTEXT = 3  # words to predict the next one from
ROWS = 256  # in a batch
WIDE, NARROW = 48, 12  # features of the teacher and of the student

PENALTIES = Pipeline(
    [
        Penalty(
            "linear_kl_divergence",
            name="distillation",
            inputs=("teacher_hidden", "teacher_head", "hidden", "head"),
            weight=0.5,
        ),
        Penalty("linear_entropy", name="entropy", inputs=("hidden", "head"), weight=0.01, mode="bonus"),
    ]
)


def read_text(multiple):
    """Return the number of each word of the text, and the vocabulary's size, rounded up to a multiple."""
    words = re.findall(r"[a-z]+", " ".join(topics.values()).lower())
    vocabulary = {word: i for i, word in enumerate(sorted(set(words)))}
    return np.asarray([vocabulary[word] for word in words]), -(-len(vocabulary) // multiple) * multiple


def batches(text, steps):
    """Yield batches: rows of `CONTEXT` words, and the words that follow. They are random, but the same in each run."""
    rng = np.random.default_rng(0)
    for _ in range(steps):
        start = rng.integers(0, len(text) - CONTEXT, ROWS)
        yield text[start[:, None] + np.arange(CONTEXT)], text[start + CONTEXT]


def initial(seed, words, features):
    rng = np.random.default_rng(seed)
    shapes = {"embedding": (words, 16), "layer": (CONTEXT * 16, features), "head": (words, features)}
    return {name: rng.normal(0, shape[-1] ** -0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def hidden_states(params, context):
    embedded = params["embedding"][context].reshape(len(context), -1)
    return jnp.tanh(embedded @ params["layer"])


def cross_entropy(inputs):
    """Return the mean of -log p of the words that follow."""
    return -jnp.mean(linear_log_probabilities(inputs["hidden"], inputs["head"], inputs["words"]))


def train(params, data, mesh, penalties=PENALTIES, teacher=None):
    """Train on the devices of a mesh. Return the parameters, and the report of each step."""
    cut = NamedSharding(mesh, PartitionSpec("vocabulary", None))
    whole = NamedSharding(mesh, PartitionSpec())

    def placed(tree):
        return {name: jax.device_put(x, cut if name == "head" else whole) for name, x in tree.items()}

    def forward(params, context, words):
        inputs = {"hidden": hidden_states(params, context), "head": params["head"], "words": words}
        if teacher is not None:
            inputs |= {"teacher_hidden": hidden_states(fixed, context), "teacher_head": fixed["head"]}
        return inputs

    fixed = None if teacher is None else placed(teacher)
    optimizer = optax.adam(0.01)
    step = train_step(forward, RegularizedLoss(cross_entropy, penalties), optimizer)
    params = placed(params)
    state = optimizer.init(params)
    reports = []
    for batch in data:
        params, state, report = step(params, state, *(jax.device_put(x, whole) for x in batch))
        reports.append(jax.block_until_ready(report))  # or simulated devices may wait for each other forever
    assert params["head"].sharding.is_equivalent_to(cut, 2), "the output layer must stay cut"
    return params, reports


def main(arguments=None):
    """Train, print, and return the losses on all devices and on one."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--devices", type=int, default=len(jax.devices()), help="default: all, %(default)s")
    parser.add_argument("--steps", type=int, default=300)
    given = parser.parse_args(arguments)
    if not 1 <= given.devices <= len(jax.devices()):
        parser.error(f"--devices must be between 1 and {len(jax.devices())}, got {given.devices}")

    text, words = read_text(multiple=given.devices)
    many, one = (Mesh(np.asarray(jax.devices()[:count]), ("vocabulary",)) for count in (given.devices, 1))
    print(f"{len(text)} words, {words} different ones: {words // given.devices} on each of {given.devices} devices")

    teacher, reports = train(initial(0, words, WIDE), batches(text, given.steps), many, Pipeline())
    teacher = {name: np.asarray(x) for name, x in teacher.items()}
    print(f"teacher, {WIDE} features: cross-entropy {float(reports[-1].base_loss.value):.3f}")
    losses = {}
    for name, mesh in (("many", many), ("one", one)):
        _, reports = train(initial(1, words, NARROW), batches(text, given.steps), mesh, teacher=teacher)
        losses[name] = [float(report.loss_total) for report in reports]
        if mesh is many:
            print(f"\nstudent, {NARROW} features, on {given.devices} devices, last step:\n{reports[-1]}")
    apart = max(abs(a - b) for a, b in zip(losses["many"], losses["one"], strict=True))
    print(f"\nlargest difference of a step's loss from one device: {apart:.1e}")
    return losses


if __name__ == "__main__":
    main()
