"""Distill a small language model whose output layer is cut over processes, in PyTorch, and compare with one process.

    torchrun --nproc-per-node=2 examples/scale_torch.py [--steps N]

The text is the help that comes with Python. The vocabulary is cut over all processes: each holds the rows of the output
layers for its own words. The output layers are DTensors. Each process has all hidden states. Processes exchange a few
numbers for each row, and the gradients of the hidden states.
"""

import argparse
import os
import re
import sys
from pydoc_data.topics import topics

try:
    import torch
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

    from xpenalties import Penalty, Pipeline, RegularizedLoss, linear_log_probabilities
except ModuleNotFoundError as error:
    sys.exit(f'{error.name} is missing: pip install "xpenalties[torch]"')

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


def read_text():
    """Return the number of each word of the text, and the size of the vocabulary."""
    words = re.findall(r"[a-z]+", " ".join(topics.values()).lower())
    vocabulary = {word: i for i, word in enumerate(sorted(set(words)))}
    return torch.tensor([vocabulary[word] for word in words]), len(vocabulary)


def batches(text, steps):
    """Yield batches: rows of `CONTEXT` words, and the words that follow. They are random, but the same in each run."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        start = torch.randint(len(text) - CONTEXT, (ROWS,), generator=generator)
        yield text[start[:, None] + torch.arange(CONTEXT)], text[start + CONTEXT]


def initial(seed, words, features):
    """Return the same parameters on each process."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"embedding": (words, 16), "layer": (CONTEXT * 16, features), "head": (words, features)}
    return {name: torch.randn(shape, generator=generator) * shape[-1] ** -0.5 for name, shape in shapes.items()}


def hidden_states(params, context):
    embedded = params["embedding"][context].flatten(1)
    return torch.tanh(embedded @ params["layer"])


def cross_entropy(inputs):
    """Return the mean of -log p of the words that follow."""
    return -linear_log_probabilities(inputs["hidden"], inputs["head"], inputs["words"]).mean()


def train(params, data, mesh=None, penalties=PENALTIES, teacher=None):
    """Train with output layers that are cut over a mesh, or whole. Return the parameters and each step's report."""

    def placed(params):
        head = params["head"] if mesh is None else distribute_tensor(params["head"], mesh, [Shard(0)])
        return {**params, "head": head}

    def hidden(params, context):
        states = hidden_states(params, context)
        return states if mesh is None else DTensor.from_local(states, mesh, [Replicate()])

    fixed = None if teacher is None else placed(teacher)
    params = {name: x.detach().clone().requires_grad_() for name, x in placed(params).items()}
    optimizer = torch.optim.Adam(params.values(), lr=0.01)
    loss = RegularizedLoss(cross_entropy, penalties)
    reports = []
    for context, words in data:
        inputs = {"hidden": hidden(params, context), "head": params["head"], "words": words}
        if teacher is not None:
            with torch.no_grad():
                inputs |= {"teacher_hidden": hidden(fixed, context), "teacher_head": fixed["head"]}
        optimizer.zero_grad()
        total, report = loss.compute(inputs)
        total.backward()
        optimizer.step()
        reports.append(report)
    return params, reports


def whole(params):
    return {name: (x.full_tensor() if isinstance(x, DTensor) else x).detach() for name, x in params.items()}


def main(arguments=None):
    """Train, print on the first process, and return the losses on all processes and on one."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=300)
    given = parser.parse_args(arguments)
    if "RANK" not in os.environ:
        parser.error("start it with torchrun --nproc-per-node=2 examples/scale_torch.py")

    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=("vocabulary",))

    def show(text):
        if dist.get_rank() == 0:
            print(text, flush=True)

    text, words = read_text()
    show(f"{len(text)} words, {words} different ones, cut over {mesh.size()} processes")
    teacher, reports = train(initial(0, words, WIDE), batches(text, given.steps), mesh, Pipeline())
    teacher = whole(teacher)
    show(f"teacher, {WIDE} features: cross-entropy {float(reports[-1].base_loss.value):.3f}")
    losses = {}
    for name, cut in (("many", mesh), ("one", None)):
        _, reports = train(initial(1, words, NARROW), batches(text, given.steps), cut, teacher=teacher)
        losses[name] = [float(report.loss_total) for report in reports]
        if cut is not None:
            show(f"\nstudent, {NARROW} features, on {mesh.size()} processes, last step:\n{reports[-1]}")
    apart = max(abs(a - b) for a, b in zip(losses["many"], losses["one"], strict=True))
    show(f"\nlargest difference of a step's loss from one process: {apart:.1e}")
    dist.barrier()
    return losses


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # a normal exit is sometimes aborted by Gloo's threads
