"""What a type checker sees of the public functions: checked by `nox -s types`, never run."""

from __future__ import annotations

from typing import Any, assert_type

import numpy as np
import numpy.typing as npt

import xpenalties as xp

F64 = npt.NDArray[np.float64]


def array_type_in_is_array_type_out(x: F64, y: F64) -> None:
    assert_type(xp.l1(x), F64)
    assert_type(xp.elastic_net(x, l1_ratio=0.3, reduction="mean"), F64)
    assert_type(xp.kl_divergence(x, y, direction="reverse", where=x > 0), F64)
    assert_type(xp.check_finite(x), F64)
    assert_type(xp.linear_log_probabilities(x, y, np.zeros(3, int)), F64)
    assert_type(xp.linear_log_probabilities(x, y, np.zeros(3, int), with_entropy=True), tuple[F64, F64])


def mistakes(x: F64) -> None:
    xp.kl_divergence(x, x, direction="forwards")  # type: ignore[arg-type]
    xp.kl_divergence(x, x, directoin="forward")  # type: ignore[call-arg]
    xp.kl_divergence(x)  # type: ignore[call-arg]
    xp.l1([1.0])  # type: ignore[type-var]
    xp.l1(x, reduction="average")  # type: ignore[arg-type]
    xp.l2(x, kept=x > 0)  # type: ignore[call-arg]
    xp.topk_kl_divergence(x, x, eps=0.1)  # type: ignore[call-arg]


def pipelines(x: F64) -> None:
    pipe = xp.Pipeline([xp.Penalty("l1", weight=0.1)])
    assert_type(pipe(x), Any)
    assert_type(pipe.compute(x), tuple[Any, xp.Report])
    assert_type(pipe.with_weights(l1=0.2), xp.Pipeline)
    assert_type(pipe + pipe, xp.Pipeline)
    assert_type(pipe | pipe, xp.Pipeline)


def penalties() -> None:
    xp.Penalty("kl_divergence", weight=0.5, inputs={"log_p": "teacher", "log_q": "student"}, from_logits=True)
    xp.Penalty("l2", tree={"match": "weight$"}, inputs={"x": "params", "where": lambda batch: batch.mask})
    xp.Penalty("l1", 0.1)  # type: ignore[arg-type]
    xp.Penalty("l1", every="2")  # type: ignore[arg-type]
    xp.Penalty("l1", inputs={"x": 3})  # type: ignore[dict-item]
    xp.Penalty("l1", on_error="dropp")  # type: ignore[arg-type]
