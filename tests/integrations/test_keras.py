"""The integration with Keras 3, beside Keras' own regularizers and the same training without one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import integration
from xpenalties import Penalty, Pipeline, l1, register, schedules
from xpenalties._core.registry import REGISTERED

integration("keras", backends=("torch", "jax"))
pytestmark = pytest.mark.integrations

TRAINING = """
import json, sys
import keras, numpy as np
from xpenalties import Penalty, Pipeline
from xpenalties.integrations.keras import KerasRegularizer

keras.config.set_floatx("float64")  # in float32 the steps would amplify how a processor rounds

def trained(kernel, bias, activity):
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense(8, activation="tanh", kernel_regularizer=kernel, bias_regularizer=bias,
                               activity_regularizer=activity)
    model = keras.Sequential([keras.Input((6,)), dense, keras.layers.Dense(3)])
    model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(320, 6)).astype("float64"), rng.integers(0, 3, 320)
    model.fit(x, y, batch_size=16, epochs=1, shuffle=False, verbose=0)
    return model, float(model.evaluate(x, y, verbose=0)), x, y

both = Pipeline([Penalty("l1", weight=0.01), Penalty("l2", weight=0.02)])
bias, activity = KerasRegularizer("l2", weight=0.03), KerasRegularizer("l1", weight=1e-3)
ours, loss, x, y = trained(KerasRegularizer(both), bias, activity)
l1, l2, l1_and_l2 = keras.regularizers.L1(1e-3), keras.regularizers.L2(0.03), keras.regularizers.L1L2(0.01, 0.02)
theirs, their_loss, _, _ = trained(l1_and_l2, l2, l1)
ours.save(sys.argv[1])
again = keras.models.load_model(sys.argv[1])
pairs = zip(ours.get_weights(), theirs.get_weights(), strict=True)
print(json.dumps({
    "backend": keras.backend.backend(),
    "dtypes": [str(each.dtype) for each in ours.get_weights()],
    "off by": max(float(np.max(np.abs(a - b))) for a, b in pairs),
    "loss": loss,
    "theirs": their_loss,
    "again": float(again.evaluate(x, y, verbose=0)),
    "config": again.layers[0].kernel_regularizer.get_config(),
}))
"""


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_training_as_keras_own(backend: str, tmp_path: Path) -> None:
    """20 steps, saved and loaded."""
    run = subprocess.run(
        [sys.executable, "-c", TRAINING, str(tmp_path / "model.keras")],
        env={**os.environ, "KERAS_BACKEND": backend, "KERAS_HOME": str(tmp_path), "JAX_ENABLE_X64": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["backend"] == backend
    assert set(result["dtypes"]) == {"float64"}
    assert result["off by"] < 1e-9
    assert result["loss"] == pytest.approx(result["theirs"], rel=1e-9)
    assert result["again"] == pytest.approx(result["loss"], rel=1e-9)
    assert [each["penalty"] for each in result["config"]["config"]["penalties"]] == ["l1", "l2"]


@pytest.fixture(scope="module")
def regularizer() -> Any:
    """The class, on Keras' PyTorch backend: a process has one."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    from xpenalties.integrations.keras import KerasRegularizer

    return KerasRegularizer


def test_what_it_is_made_of(regularizer: Any, tmp_path: Path) -> None:
    import keras

    x = keras.ops.convert_to_tensor(np.asarray([[1.0, -2.0]], np.float32))
    pipe = Pipeline([Penalty("l1", weight=0.5)])
    file = tmp_path / "pipeline.json"
    pipe.to_config(file)
    for given in (pipe, pipe["l1"], pipe.to_config(), [{"penalty": "l1", "weight": 0.5}], file, str(file)):
        assert float(regularizer(given)(x)) == 1.5
    assert float(regularizer("l1")(x)) == 3.0
    assert float(keras.ops.stop_gradient(regularizer("huber", weight=2.0, delta=1.0)(keras.Variable(x)))) == 4.0
    again = regularizer.from_config(json.loads(json.dumps(regularizer("huber", weight=2.0, delta=1.0).get_config())))
    assert again.get_config() == regularizer("huber", weight=2.0, delta=1.0).get_config()
    assert keras.regularizers.deserialize(keras.regularizers.serialize(again)).get_config() == again.get_config()


def test_an_activity_is_divided_by_the_batch(regularizer: Any) -> None:
    """By Keras itself, from 3.14 on: so no older one may be installed."""
    import keras

    layer = keras.layers.Activation("linear", activity_regularizer=regularizer("l1"))
    layer(keras.ops.ones((4, 3)))
    assert [float(x) for x in layer.losses] == [3.0]
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    extra = project["project"]["optional-dependencies"]["keras"]
    wanted = [x for x in (*extra, *project["dependency-groups"]["integrations"]) if str(x).startswith("keras")]
    assert [tuple(map(int, re.findall(r"\d+", x))) for x in wanted] == [(3, 14)] * 2


def test_functions_of_ones_own(regularizer: Any) -> None:
    def own(x: Any) -> Any:
        return 2 * l1(x)

    with pytest.raises(TypeError, match="`fn` must have a name"):
        regularizer(Penalty(own)).get_config()
    register("twice l1", own)
    try:
        again = regularizer.from_config(regularizer(Penalty(own, weight=0.5)).get_config())
        assert again.pipeline.penalties[0].fn is own
    finally:
        del REGISTERED["twice l1"]


@pytest.mark.parametrize(
    ("given", "options", "error", "message"),
    [
        ("hubre", {}, ValueError, r"Did you mean 'huber'\?"),
        ("huber", {"delta": -1}, ValueError, "^huber: `delta` must be in"),
        (Pipeline({"l1": 1.0}), {"weight": 2.0}, TypeError, "must come with a penalty's name, got them with Pipeline"),
        (Penalty("l1"), {"delta": 2.0}, TypeError, "must come with a penalty's name, got them with Penalty"),
        (
            Penalty("l1", weight=schedules.linear(0, 1, steps=2)),
            {},
            ValueError,
            r"got others in 'l1'\. Use `pipeline\.at\(",
        ),
        (Penalty("l1", every=2), {}, ValueError, "`every` must be 1, because Keras passes no step, got others in 'l1'"),
        (Penalty("l1", inputs="x"), {}, ValueError, r"must not name inputs, because Keras .*, got 'x' in 'l1'\. Leave"),
        (Penalty("l1", inputs={"x": "a"}), {}, ValueError, r"must not name inputs, because Keras .*, got 'a' in 'l1'"),
        (3, {}, TypeError, "^from_config: must be a table, got 3"),
    ],
)
def test_errors(regularizer: Any, given: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        regularizer(given, **options)


def test_without_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "keras", None)
        patched.delitem(sys.modules, "xpenalties.integrations.keras", raising=False)
        with pytest.raises(ModuleNotFoundError, match=r'needs Keras 3\. Install it: pip install "xpenalties\[keras\]"'):
            importlib.import_module("xpenalties.integrations.keras")
