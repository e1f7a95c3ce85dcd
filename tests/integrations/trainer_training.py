"""A small language model, its data, its penalties in a pipeline and by hand, and its training by the Trainer."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from tests.integrations.torch_training import STEPS
from xpenalties import Penalty, Pipeline, schedules, trees

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its imports' own
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

    from xpenalties.integrations.transformers import PipelineLoss

__all__ = ["ByHand", "OF_LOGITS", "PIPE", "VOCABULARY", "WEIGHT", "network", "sentences", "trainer"]
VOCABULARY = 11


def network(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    config.attn_pdrop = config.embd_pdrop = config.resid_pdrop = 0.0
    return GPT2LMHeadModel(config)


def sentences(steps: int) -> list[dict[str, Any]]:
    """Of different lengths, padded."""
    torch.manual_seed(1)
    result = []
    for i in range(4 * steps):
        ids = torch.randint(1, VOCABULARY, (8,))
        length = 2 + i % 6
        result.append({"input_ids": ids, "attention_mask": (torch.arange(8) < length).long()})
        result[-1]["labels"] = torch.where(torch.arange(8) < length, ids, -100)
    return result


def trainer(model: Any, loss: Any, path: Path, *, accumulated: int = 1, data: Any = None, **options: Any) -> Trainer:
    usual = {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": accumulated,
        "num_train_epochs": 1,
        "learning_rate": 0.05,
        "optim": "sgd",
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "report_to": [],
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "logging_strategy": "no",
    }
    arguments = TrainingArguments(output_dir=str(path), **{**usual, **options})
    data = sentences(STEPS * accumulated) if data is None else data
    made = Trainer(model, arguments, train_dataset=data, eval_dataset=data[:8], compute_loss_func=loss)
    made._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(data)
    if isinstance(loss, PipelineLoss):
        loss.attach(made)
    return made


WEIGHT = schedules.linear(0.1, 0.3, steps=10)
OF_LOGITS = {"from_logits": True}
PIPE = Pipeline(
    [
        Penalty("kl_divergence", name="kl", inputs=("logits", "reference"), weight=0.5, options=OF_LOGITS),
        Penalty("entropy", inputs="logits", weight=WEIGHT, options={"mode": "bonus", **OF_LOGITS}),
        Penalty("z_loss", inputs="logits", weight=0.01),
        Penalty("l2", name="size", inputs="logits", weight=0.001),
        Penalty(trees.over_tree("l2", match="mlp.*weight"), name="decay", inputs="params", weight=0.02),
    ]
)


class ByHand:
    """The same, in PyTorch's words."""

    def __init__(self, model: Any, reference: Any) -> None:
        self.model, self.reference = model, reference
        self.trainer: Any = None
        self.inputs: Any = None
        model.register_forward_pre_hook(lambda _, args, kwargs: setattr(self, "inputs", kwargs), with_kwargs=True)

    def __call__(self, outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        counted = (labels != -100).sum()  # the Trainer counts the first of each, which nothing predicts
        logits, labels = outputs.logits[:, :-1], labels[:, 1:]
        kept = labels != -100
        logits, labels = logits[kept], labels[kept]
        with torch.no_grad():
            inputs = {name: self.inputs[name] for name in ("input_ids", "attention_mask")}
            reference = log_softmax(self.reference(**inputs).logits[:, :-1][kept], -1)
        log_p = log_softmax(logits, -1)
        entropy = -(log_p.exp() * log_p).sum()
        weight = min(0.1 + 0.02 * self.trainer.state.global_step, 0.3)
        total = cross_entropy(logits.float(), labels, reduction="sum")  # in float32, as the Trainer's own
        total = total + 0.5 * kl_div(reference, log_p, log_target=True, reduction="sum") - weight * entropy
        total = total + 0.01 * (logits.logsumexp(-1) ** 2).sum() + 0.001 * (logits**2).sum()
        decay = sum((p**2).sum() for name, p in self.model.named_parameters() if "mlp" in name and "weight" in name)
        return total / num_items_in_batch + 0.02 * decay * counted / num_items_in_batch
