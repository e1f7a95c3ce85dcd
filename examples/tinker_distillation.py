"""Distillation with Tinker's custom loss: a language model of digits learns from few images and a teacher.

    python examples/tinker_distillation.py [--steps N] [--seed N]

Each image is a sequence of tokens: its digit as the prompt, its pixels row by row, and an end token after the last
pixel that is not blank, so sequences have different lengths. Tinker's own TrainingClient trains the student. A small
model in this process answers the client's requests in place of the service. At each position, a datum has the real
token and the teacher's four most probable ones, as a teacher's API returns them.
"""

import argparse
import sys
import time
from concurrent.futures import Future
from types import SimpleNamespace

try:
    import numpy as np
    import tinker
    import torch
    from rich.console import Console
    from rich.table import Table
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from tinker.lib.chunked_fwdbwd_helpers import combine_fwd_bwd_output_results
    from tinker.lib.public_interfaces.api_future import AwaitableConcurrentFuture

    from xpenalties import Penalty, Pipeline, schedules
    from xpenalties.integrations.tinker import custom_loss
except ModuleNotFoundError as error:
    sys.exit(f'{error.name} is missing: pip install "xpenalties[tinker,examples]"')

END = 17  # after the 17 shades of a pixel; shade 0 is blank
PROMPT = END + 1  # the first of ten tokens
PADDING = PROMPT + 10  # before the start of a sequence
SEEN = 10  # tokens that a model sees: a bit more than one row of pixels
IMAGES = 60  # training images of the student
BATCH = 20
TOP = 4
TARGET_GAIN = 0.1  # nats per token

PENALTIES = Pipeline(
    [
        Penalty(
            "topk_kl_divergence",
            name="distill",
            inputs=("teacher", "student"),
            weight=schedules.warmup(2.0, steps=20),
        )
    ]
)
TARGETS = {
    "teacher": ("field", "teacher_logprobs"),
    "student": lambda data, logprobs: [each[:, 1:] for each in logprobs],  # for the teacher's tokens
}


def negative_log_likelihood(data, logprobs):
    real = torch.cat([each[:, 0] for each in logprobs])
    return -real.mean(), {"tokens": len(real)}


class LanguageModel(torch.nn.Module):
    """Return log-probabilities of the next token after each token, for concatenated sequences."""

    def __init__(self, width):
        super().__init__()
        self.tokens = torch.nn.Embedding(PADDING + 1, 8)
        self.places = torch.nn.Embedding(65, 16)
        self.prompts = torch.nn.Embedding(10, 16)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(8 * SEEN + 32, width), torch.nn.ReLU(), torch.nn.Linear(width, END + 1)
        )

    def forward(self, sequences):
        before = torch.full((SEEN - 1,), PADDING)
        seen = torch.cat([torch.cat([before, tokens]).unfold(0, SEEN, 1) for tokens in sequences])
        places = torch.cat([torch.arange(len(tokens)) for tokens in sequences])
        prompts = torch.cat([(tokens[:1] - PROMPT).expand(len(tokens)) for tokens in sequences])
        known = torch.cat([self.tokens(seen).flatten(1), self.places(places), self.prompts(prompts)], dim=-1)
        return torch.log_softmax(self.layers(known), dim=-1)


class LocalClient(tinker.TrainingClient):
    """Tinker's client without Tinker's service: a local model answers its requests."""

    def __init__(self, model):
        limits = SimpleNamespace(fwdbwd_max_chunk_len=8, fwdbwd_max_chunk_bytes_count=10**6)
        super().__init__(SimpleNamespace(_client_config=limits), 0, "local", info=None)
        self.model = model
        self.optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)

    def _run_fwd_bwd(self, requests, loss_fn, loss_fn_config, *, forward_only):
        done = Future()
        done.set_result(combine_fwd_bwd_output_results([self.answer(each.data, forward_only) for each in requests]))
        return AwaitableConcurrentFuture(done)

    def answer(self, data, forward_only):
        """Return log-probabilities of the data's tokens, and differentiate their sum with the data's weights."""
        every = self.model([torch.tensor(datum.model_input.to_ints()) for datum in data])
        tokens = [datum.loss_fn_inputs["target_tokens"].to_torch() for datum in data]
        chosen = every.gather(-1, torch.cat(tokens))
        loss = -(chosen * torch.cat([datum.loss_fn_inputs["weights"].to_torch() for datum in data])).sum()
        if not forward_only:
            loss.backward()
        parts = chosen.detach().split([len(each) for each in tokens])
        outputs = [{"logprobs": tinker.TensorData.from_torch(each)} for each in parts]
        return tinker.ForwardBackwardOutput("CrossEntropyLossReturn", outputs, {"loss:sum": loss.item()})

    def optim_step(self, optim_params):
        self.optimizer.param_groups[0].update(
            lr=optim_params.learning_rate, betas=(optim_params.beta1, optim_params.beta2), eps=optim_params.eps
        )
        self.optimizer.step()
        self.optimizer.zero_grad()


def sequences_of(images, digits):
    """Return the tokens of each image, and the next token after each."""
    found = []
    for image, digit in zip(images.astype(int), digits, strict=True):
        tokens = np.concatenate([[PROMPT + digit], np.trim_zeros(image, "b"), [END]])
        found.append((torch.from_numpy(tokens[:-1]), torch.from_numpy(tokens[1:])))
    return found


def train_teacher(model, sequences, rng):
    """Train on all images, without a client."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(250):
        inputs, targets = zip(*(sequences[i] for i in rng.choice(len(sequences), 48, replace=False)), strict=True)
        loss = torch.nn.functional.nll_loss(model(inputs), torch.cat(targets))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def data_of(sequences, teacher):
    """Return Tinker's data: at each position the real token, and the most probable ones of the teacher."""
    data = []
    for inputs, targets in sequences:
        logprobs, tokens = teacher([inputs]).topk(TOP)
        fields = {"target_tokens": torch.cat([targets[:, None], tokens], dim=-1), "teacher_logprobs": logprobs}
        data.append(tinker.Datum(tinker.ModelInput.from_ints(inputs.tolist()), fields))
    return data


def train_student(data, rng, *, steps, seed, penalties):
    """Return the student, and the metrics of its last step."""
    torch.manual_seed(seed)
    client = LocalClient(LanguageModel(64))
    loss = custom_loss(negative_log_likelihood, penalties, targets=TARGETS)
    for step in range(steps):
        few = [data[i] for i in rng.choice(len(data), BATCH, replace=False)]
        output = client.forward_backward_custom(few, loss.at(step)).result()
        client.optim_step(tinker.AdamParams(learning_rate=3e-3))
    return client.model, output.metrics


@torch.no_grad()
def tested(model, sequences):
    """Return the loss per token, and the fraction of images that are most probable given their own digit."""
    inputs, targets = zip(*sequences, strict=True)
    lengths, real = [len(each) for each in targets], torch.cat(targets)
    likelihoods = []
    for digit in range(10):
        prompted = [torch.cat([torch.tensor([PROMPT + digit]), each[1:]]) for each in inputs]
        logprobs = model(prompted).gather(-1, real[:, None])[:, 0]
        likelihoods.append(torch.stack([each.sum() for each in logprobs.split(lengths)]))
    likelihoods = torch.stack(likelihoods, dim=-1)
    digits = torch.stack([each[0] - PROMPT for each in inputs])
    own = likelihoods.gather(-1, digits[:, None])
    return float(-own.sum() / len(real)), float((likelihoods.argmax(dim=-1) == digits).float().mean())


def main(argv=None):
    """Return test loss per token and accuracy of the teacher, of a student alone, and of one with the teacher."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=150, help="training steps of each student (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and batches (default: %(default)s)")
    args = parser.parse_args(argv)
    began = time.perf_counter()
    torch.set_num_threads(1)  # arrays this small do not gain from threads
    torch.manual_seed(args.seed)
    images, digits = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(images, digits, test_size=0.25, random_state=0)
    sequences, test = sequences_of(x, y), sequences_of(x_test[:200], y_test[:200])

    teacher = LanguageModel(192)
    train_teacher(teacher, sequences, np.random.default_rng(args.seed))
    found = {f"teacher ({len(sequences)} images)": tested(teacher, test)}
    data = data_of(sequences[:IMAGES], teacher)
    for name, penalties in (("alone", PENALTIES.disable("distill")), ("with the teacher", PENALTIES)):
        rng = np.random.default_rng(args.seed)
        student, metrics = train_student(data, rng, steps=args.steps, seed=args.seed, penalties=penalties)
        found[f"student ({IMAGES} images), {name}"] = tested(student, test)
    view = Table("model", "held-out loss, nats per token", "digits read right")
    for name, (loss, accuracy) in found.items():
        view.add_row(name, f"{loss:.3f}", f"{accuracy:.1%}")
    Console(width=100).print(view)
    print("metrics of the last step, from the penalties and the server:")
    for name, value in metrics.items():
        print(f"  {name:<40}{value:12.5f}")
    print(f"{time.perf_counter() - began:.1f} s")
    return tuple(found.values())


if __name__ == "__main__":
    _, alone, with_teacher = main()
    if alone[0] - with_teacher[0] < TARGET_GAIN:
        sys.exit(f"the teacher's help is below {TARGET_GAIN} nats per token")
