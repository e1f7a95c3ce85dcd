"""A temperature that is an array is refused, with a call that computes the same and can be differentiated."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import xpenalties as xp
from tests.helpers.harness import Framework, close
from xpenalties._core.registry import PENALTIES

RNG = np.random.default_rng(0)
LOGITS = [RNG.standard_normal((4, 5)) for _ in range(2)]
HIDDEN, WEIGHT = [RNG.standard_normal((4, 3)) for _ in range(2)], [RNG.standard_normal((5, 3)) for _ in range(2)]
LAYERS = {"hidden_p": HIDDEN[0], "weight_p": WEIGHT[0], "hidden_q": HIDDEN[1], "weight_q": WEIGHT[1]}
ARRAYS: dict[str, dict[str, Any]] = {
    "kl_divergence": {"log_p": LOGITS[0], "log_q": LOGITS[1]},
    "js_divergence": {"log_p": LOGITS[0], "log_q": LOGITS[1]},
    "f_divergence": {"log_p": LOGITS[0], "log_q": LOGITS[1]},
    "entropy": {"log_p": LOGITS[0]},
    "mutual_information": {"log_p": LOGITS[0]},
    "linear_kl_divergence": {
        "hidden_p": HIDDEN[0],
        "weight_p": WEIGHT[0],
        "hidden_q": HIDDEN[1],
        "weight_q": WEIGHT[1],
    },
    "linear_js_divergence": {
        "hidden_p": HIDDEN[0],
        "weight_p": WEIGHT[0],
        "hidden_q": HIDDEN[1],
        "weight_q": WEIGHT[1],
    },
    "linear_entropy": {"hidden": HIDDEN[0], "weight": WEIGHT[0]},
    "linear_log_probabilities": {"hidden": HIDDEN[0], "weight": WEIGHT[0], "tokens": np.asarray([0, 1, 2, 4])},
}


def test_all_penalties_with_a_temperature_are_here() -> None:
    names = {name for name, penalty in PENALTIES.items() if "temperature" in penalty.spec.checks}  # type: ignore[attr-defined]
    assert names == ARRAYS.keys() - {"linear_log_probabilities"}


@pytest.mark.parametrize("name", ARRAYS)
def test_the_call_that_the_error_names(fw: Framework, name: str) -> None:
    arrays = {key: fw.array(x) for key, x in ARRAYS[name].items()}
    function, t = getattr(xp, name), fw.array(np.asarray([2.5]))[0]
    if isinstance(t, float):  # NumPy's scalars are numbers
        t = np.asarray(t)
    message = (
        rf"^{name}: `temperature` must be a number in \(0, inf\), got .* To learn or anneal it, divide by it: (.*)\.$"
    )
    with pytest.raises(TypeError, match=message) as caught:
        function(*arrays.values(), temperature=t[None])
    call = re.search(message, str(caught.value))
    assert call is not None
    value = eval(call[1], {**vars(xp), **arrays, "t": t})
    close(fw, value, fw.numpy(function(*arrays.values(), temperature=2.5)))
