"""A callback that adds penalties to a Lightning module's loss, and logs them to TensorBoard.

    python examples/lightning_digits.py [--epochs N] [--seed N] [--logs DIR]

The module is a plain classifier of handwritten digits, and stays as it is. The callback adds three penalties: one makes
the hidden activities sparse, one decays the weights, and one is an entropy bonus whose weight a controller adapts.
"""

import argparse
import logging
import sys
import tempfile
import time
import warnings

try:
    import torch
    from rich.console import Console
    from rich.table import Table
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Lightning's own imports
        import lightning
        from lightning.pytorch.loggers import TensorBoardLogger

        from xpenalties import Penalty, Pipeline, controllers
        from xpenalties.integrations.lightning import PipelineCallback
except ModuleNotFoundError as error:
    sys.exit(f'{error.name} is missing: pip install "xpenalties[lightning,examples]" tensorboard')

TARGET_ENTROPY = 0.6  # nats: answers that are not quite certain
TARGET_ACCURACY = 0.93
TARGET_ZEROS = 0.7

PENALTIES = Pipeline(
    [
        Penalty("l1", name="activities", inputs="hidden", weight=3e-4),
        Penalty("l2", tree={"match": "weight"}, name="decay", inputs="params", weight=1e-4),
        Penalty("entropy", inputs="logits", mode="bonus", from_logits=True),
    ]
)


class Classifier(lightning.LightningModule):
    """A classifier without penalties."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return torch.nn.functional.cross_entropy(self.net(x), y)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=3e-3)


def penalized():
    """Return the callback. Its controller observes the entropy, which is the negative of the bonus."""
    controller = controllers.target_entropy(0.1, target=TARGET_ENTROPY, rate=0.02)
    return PipelineCallback(
        PENALTIES,
        activities={"hidden": "net.1", "logits": "net.2"},
        prefix="train/",
        track_every=20,
        controllers={"entropy": (controller, lambda report: -report.regularizers["entropy"].value)},
    )


def fitted(callbacks, data, *, epochs, seed, logs):
    torch.manual_seed(seed)
    module = Classifier()
    batches = torch.utils.data.DataLoader(data, batch_size=64, shuffle=True)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=callbacks,
        logger=TensorBoardLogger(logs, name="digits"),
        log_every_n_steps=10,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(module, batches)
    return module.eval(), trainer.logger.log_dir


def measured(module, x, y):
    """Return accuracy, mean entropy, and the fraction of zeros among the hidden activities."""
    with torch.no_grad():
        hidden = module.net[:2](x)
        log_p = torch.log_softmax(module.net[2](hidden), -1)
    accuracy = (log_p.argmax(-1) == y).float().mean()
    return float(accuracy), float(-(log_p.exp() * log_p).sum(-1).mean()), float((hidden == 0).float().mean())


def main(argv=None):
    """Return the measurements without and with penalties, and the names of TensorBoard's curves."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=25, help="epochs of each run (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and batches (default: %(default)s)")
    parser.add_argument("--logs", help="folder for TensorBoard's files (default: a temporary one)")
    args = parser.parse_args(argv)
    began = time.perf_counter()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    images, classes = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(
        torch.tensor(images / 16, dtype=torch.float32), torch.tensor(classes), test_size=0.25, random_state=0
    )
    data = torch.utils.data.TensorDataset(x, y)
    found, threads = {}, torch.get_num_threads()
    torch.set_num_threads(1)  # arrays this small do not gain from threads
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as scratch:
        warnings.filterwarnings("ignore", module="lightning|torch.utils.data")
        warnings.filterwarnings("ignore", message=".*does not have many workers|.*LeafSpec|.*isinstance")
        callback = penalized()
        for name, callbacks in (("without penalties", []), ("with penalties", [callback])):
            module, logs = fitted(callbacks, data, epochs=args.epochs, seed=args.seed, logs=args.logs or scratch)
            found[name] = measured(module, x_test, y_test)
        events = EventAccumulator(logs).Reload()
        tags = sorted(events.Tags()["scalars"])
        weights = [each.value for each in events.Scalars("train/entropy/weight")]
    torch.set_num_threads(threads)
    view = Table("run", "test accuracy", "entropy of the answers", "zeros among the activities")
    for name, (accuracy, entropy, zeros) in found.items():
        view.add_row(name, f"{accuracy:.1%}", f"{entropy:.3f}", f"{zeros:.1%}")
    Console(width=100).print(view)
    print(f"TensorBoard has {len(tags)} curves; train/entropy/weight went from {weights[0]:.4f} to {weights[-1]:.4f}.")
    print(callback.report)
    print(f"{time.perf_counter() - began:.1f} s")
    return found["without penalties"], found["with penalties"], tags


if __name__ == "__main__":
    _, (accuracy, _, zeros), _ = main()
    if accuracy < TARGET_ACCURACY or zeros < TARGET_ZEROS:
        sys.exit(f"accuracy is below {TARGET_ACCURACY:.0%}, or fewer activities than {TARGET_ZEROS:.0%} are zeros")
