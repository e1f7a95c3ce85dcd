"""Fine-tuning with the Hugging Face Trainer and a KL divergence from the initial model, to forget less.

    python examples/trainer_texts.py [--steps N] [--seed N]

A small language model of bytes learns the descriptions of scikit-learn's data sets. Then it is trained on a new text,
with and without penalties on its logits: the KL divergence from a frozen copy of the earlier model, which sees the same
batches, and a z-loss. The loss on the old texts shows how much the model has forgotten.
"""

import argparse
import copy
import sys
import tempfile
import time
import warnings

try:
    import torch
    from rich.console import Console
    from rich.table import Table
    from sklearn import datasets

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from their own imports
        from transformers import GPT2Config, GPT2LMHeadModel, PrinterCallback, Trainer, TrainingArguments, logging

        from xpenalties import Penalty, Pipeline
        from xpenalties.integrations.transformers import PipelineLoss
except ModuleNotFoundError as error:
    sys.exit(f'{error.name} is missing: pip install "xpenalties[transformers,examples]"')

LENGTH = 64
BATCH = 16
TARGET_RATIO = 0.7  # of the forgetting without penalties

PENALTIES = Pipeline(
    [
        # forward: tokens that are likely under the earlier model must stay likely
        Penalty("kl_divergence", name="kl", inputs=("reference", "logits"), weight=2.0, from_logits=True),
        Penalty("z_loss", inputs="logits", weight=1e-4),
    ]
)


def pieces(*texts):
    """Return rows of bytes of the texts. The last row of a text is padded, and labels leave the padding out."""
    rows = []
    for text in texts:
        content = torch.tensor(list(text.encode("ascii", "replace")))
        for part in content.split(LENGTH):
            ids = torch.nn.functional.pad(part, (0, LENGTH - len(part)))
            kept = torch.arange(LENGTH) < len(part)
            rows.append({"input_ids": ids, "attention_mask": kept.long(), "labels": torch.where(kept, ids, -100)})
    return rows


def trained(model, rows, loss, *, steps, seed, out, rate):
    arguments = TrainingArguments(
        output_dir=out,
        max_steps=steps,
        per_device_train_batch_size=BATCH,
        learning_rate=rate,
        seed=seed,
        logging_steps=steps // 4,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(model, arguments, train_dataset=rows, compute_loss_func=loss)
    trainer.remove_callback(PrinterCallback)
    if loss is not None:
        loss.attach(trainer)
    trainer.train()
    return trainer.state.log_history


@torch.no_grad()
def bits_per_byte(model, rows):
    model.eval()
    batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    return float(model(**batch).loss) / 0.6931471805599453


def main(argv=None):
    """Return bits per byte on new and old texts: at the start, after training without penalties, and with them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=200, help="steps on the old texts (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and batches (default: %(default)s)")
    args = parser.parse_args(argv)
    began = time.perf_counter()
    logging.set_verbosity_error()
    torch.manual_seed(args.seed)
    old = pieces(*(load().DESCR for load in (datasets.load_iris, datasets.load_breast_cancer, datasets.load_digits)))
    new = pieces(datasets.load_wine().DESCR)
    config = GPT2Config(
        vocab_size=128, n_positions=LENGTH, n_embd=64, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0
    )
    config.attn_pdrop = config.embd_pdrop = config.resid_pdrop = 0.0
    start = GPT2LMHeadModel(config)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as out:
        warnings.filterwarnings("ignore", module="transformers|accelerate|torch.utils.data")
        trained(start, old, None, steps=args.steps, seed=args.seed, out=out, rate=3e-3)
        found = {"before": (bits_per_byte(start, new), bits_per_byte(start, old))}
        for name, penalized in (("alone", False), ("with penalties", True)):
            model = copy.deepcopy(start)
            loss = PipelineLoss(PENALTIES, reference=copy.deepcopy(start)) if penalized else None
            logs = trained(model, new, loss, steps=args.steps // 4, seed=args.seed, out=out, rate=1e-3)
            found[name] = bits_per_byte(model, new), bits_per_byte(model, old)
    view = Table("model", "bits per byte, new text", "bits per byte, texts of before")
    for name, (on_new, on_old) in found.items():
        view.add_row(name, f"{on_new:.3f}", f"{on_old:.3f}")
    Console(width=100).print(view)
    for name in ("loss", "penalties/base_loss", "penalties/kl/value", "penalties/z_loss/value"):
        print(f"{name:24}", *(f"{float(each[name]):.4f}" for each in logs if name in each))
    print(f"{time.perf_counter() - began:.1f} s")
    return tuple(found.values())


if __name__ == "__main__":
    before, alone, penalized = main()
    if penalized[1] - before[1] > TARGET_RATIO * (alone[1] - before[1]) or penalized[0] >= before[0]:
        sys.exit(f"with penalties, more than {TARGET_RATIO:.0%} of the forgetting remains")
