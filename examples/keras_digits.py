"""A group lasso in Keras layers, which finds the pixels that a digit classifier does not need.

    python examples/keras_digits.py [--backend torch|jax] [--epochs N] [--seed N]

Each row of the first kernel belongs to a pixel. With a penalty on the rows' norms, whole rows vanish. With Keras's own
L2, all of them get a bit smaller. The penalty is saved with the model and loaded again.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

try:
    import numpy as np
    from rich.console import Console
    from rich.table import Table
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
except ModuleNotFoundError as error:
    sys.exit(f'{error.name} is missing: pip install "xpenalties[keras,torch,examples]"')

UNUSED = 0.05  # a row with less than this fraction of the largest norm is unused
TARGET_ACCURACY = 0.93


def fitted(keras, kernel, activity, x, y, *, epochs, seed):
    keras.utils.set_random_seed(seed)
    hidden = keras.layers.Dense(64, activation="relu", kernel_regularizer=kernel, activity_regularizer=activity)
    model = keras.Sequential([keras.Input((64,)), hidden, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    model.fit(x, y, batch_size=64, epochs=epochs, verbose=0)
    return model


def main(argv=None):
    """Return test accuracy and unused pixels, with Keras's L2 and with ours, and whether the loaded model is equal."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", choices=("torch", "jax"), default="torch", help="Keras backend (default: torch)")
    parser.add_argument("--epochs", type=int, default=25, help="epochs of each run (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and batches (default: %(default)s)")
    args = parser.parse_args(argv)
    began = time.perf_counter()
    os.environ.setdefault("KERAS_BACKEND", args.backend)
    try:
        import keras

        from xpenalties import Penalty, Pipeline
        from xpenalties.integrations.keras import KerasRegularizer
    except ModuleNotFoundError as error:
        sys.exit(f'{error.name} is missing: pip install "xpenalties[keras,{args.backend},examples]"')

    images, classes = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split((images / 16).astype(np.float32), classes, test_size=0.25, random_state=0)
    ours = KerasRegularizer(Pipeline([Penalty("group_lasso", weight=1e-3, axis=-1), Penalty("l2", weight=1e-4)]))
    found = {}
    view = Table("kernel regularizer", "test accuracy", "pixels without use")
    for name, kernel, activity in (
        ("keras.regularizers.L2", keras.regularizers.L2(1e-3), None),
        ("group lasso and L2", ours, KerasRegularizer("l1", weight=1e-4)),
    ):
        model = fitted(keras, kernel, activity, x, y, epochs=args.epochs, seed=args.seed)
        norms = np.linalg.norm(keras.ops.convert_to_numpy(model.layers[0].kernel), axis=-1)
        accuracy = model.evaluate(x_test, y_test, verbose=0)[1]
        found[name] = accuracy, int(np.sum(norms < UNUSED * norms.max()))
        view.add_row(name, f"{accuracy:.1%}", f"{found[name][1]} of 64")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.keras"
        model.save(path)
        again = keras.models.load_model(path)
        same = np.allclose(again.evaluate(x_test, y_test, verbose=0), model.evaluate(x_test, y_test, verbose=0))
    Console(width=100).print(view)
    print(f"loaded: {again.layers[0].kernel_regularizer.pipeline['group_lasso']}, the same loss: {same}")
    print(f"{keras.backend.backend()}: {time.perf_counter() - began:.1f} s")
    return *found.values(), same


if __name__ == "__main__":
    _, (accuracy, _), same = main()
    if accuracy < TARGET_ACCURACY or not same:
        sys.exit(f"the accuracy is below {TARGET_ACCURACY:.0%}, or the loaded model is another one")
