"""A tiny language model, its tokenizer and data, for TRL's trainers, and their losses and gradients."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from tests.helpers.recipes import recipe

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its imports' own
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

__all__ = ["OPTIONS", "completions", "loss_and_gradients", "network", "perturb", "prompts", "run", "tokenizer"]
WORDS = ["<pad>", "<eos>", *"abcdefgh"]
OPTIONS = {
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "learning_rate": 0.1,
    "optim": "sgd",
    "logging_steps": 1,
    "report_to": [],
    "save_strategy": "no",
    "use_cpu": True,
    "bf16": False,
    "disable_tqdm": True,
}


def network(seed: int = 0, path: Path | None = None) -> Any:
    """Return a model whose predictions differ from token to token. TRL loads the reference from `path`."""
    torch.manual_seed(seed)
    config = GPT2Config(vocab_size=len(WORDS), n_positions=32, n_embd=16, n_layer=2, n_head=2)
    config.bos_token_id = config.eos_token_id = 1
    config.pad_token_id = 0
    config.attn_pdrop = config.embd_pdrop = config.resid_pdrop = 0.0
    model = GPT2LMHeadModel(config)
    perturb(model, 0.3)
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, 1
    if path is not None:
        model.save_pretrained(path)
        config._name_or_path = str(path)
    return model


def perturb(model: Any, scale: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn_like(parameter))


def tokenizer() -> Any:
    """Return a tokenizer of words, with a chat template that joins messages."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    result = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", padding_side="left", model_max_length=32
    )
    result.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    return result


def prompts() -> Any:
    return Dataset.from_dict({"prompt": ["a b c", "d e", "a", "g h"] * 4})


def completions() -> Any:
    """Of different lengths; the prompts do not count."""
    return Dataset.from_dict(
        {"prompt": ["a b c", "d e", "a", "f g"] * 4, "completion": [" d e f g", " f", " b c d e f", " h a"] * 4}
    )


def run(name: str, **names: Any) -> dict[str, Any]:
    """Run a recipe with the names that the page leaves to the user. Return all names."""
    names = {"model": network(), "dataset": completions(), "tokenizer": tokenizer(), **names}
    exec(recipe(name), names)
    return names


def loss_and_gradients(model: Any, loss: Any) -> tuple[Any, dict[str, Any]]:
    model.zero_grad()
    loss.backward()
    return loss.detach(), {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
