"""Time ours and the peers of every row in turns, with pytest-benchmark: between the rounds of ours, the peers run.

So other load on the machine affects all of them equally. The best of the rounds counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from by_hand import cases
from pytest_benchmark.fixture import BenchmarkFixture
from table import Row, Scale, leaves

from xpenalties._core.registry import PENALTIES

NO_ROW = {"sigreg", "sliced_wasserstein"}  # they draw random directions, and so would the peer


def test_every_array_penalty_has_a_row() -> None:
    known = {case.name for case in cases(np, np.sum, np.sum)}
    known |= {name for name in PENALTIES if name.startswith("linear_")}  # heads.py has them
    assert {name for name, function in PENALTIES.items() if not function.spec.functions} == known | NO_ROW


def test_time(row: Row, scale: Scale, number: int, benchmark: BenchmarkFixture) -> None:
    row.framework.fresh()
    inputs = row.inputs()
    calls = {way: row.call(way, inputs) for way in row.ways}
    results = {way: call() for way, call in calls.items()}  # compiles, too
    for peer in row.peers:
        agree(results["ours"], results[peer], row.rtol, only_value=peer in row.unlike)
    results.clear()
    if row.number == 1:
        calls["reading the inputs"] = lambda: row.framework.wait(row.framework.read(*inputs))
        calls["reading the inputs"]()
    ours = calls.pop("ours")
    once = sum(seconds_of(call) for call in (ours, *calls.values()))
    most = 20 if row.number == 1 else 100
    rounds = min(max(int(scale.seconds / once), scale.rounds), most)
    seconds = dict.fromkeys(calls, float("inf"))

    def others() -> None:
        for way, call in calls.items():
            seconds[way] = min(seconds[way], seconds_of(call))

    benchmark.group = row.id
    benchmark.pedantic(ours, setup=others, rounds=rounds)
    benchmark.extra_info.update(
        row=number,
        framework=row.framework.name,
        work=row.work,
        goals=[asdict(goal) for goal in row.goals],
        growth=row.growth,
        number=row.number,
        seconds=seconds,
    )


def seconds_of(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def agree(ours: Any, peers: Any, rtol: float, *, only_value: bool) -> None:
    """Check that both return the same, relative to the scale of each array."""
    end = 1 if only_value else None
    for a, b in zip(leaves(ours)[:end], leaves(peers)[:end], strict=True):
        got, want = (np.asarray(x.float().cpu() if hasattr(x, "cpu") else x, dtype=np.float32) for x in (a, b))
        np.testing.assert_allclose(got, want, rtol=0, atol=rtol * float(np.max(np.abs(want))))
