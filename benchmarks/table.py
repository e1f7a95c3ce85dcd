"""What the benchmarks' one table is made of: rows of work, the ways to do it, and the goals.

The rows are in the `on_*.py` files, a group of them for each process to measure in: two frameworks in one process would
share its threads. A group is imported when it is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

__all__ = ["FOUR", "FULL", "GROUPS", "QUICK", "TINY", "Fed", "Framework", "Goal", "Row", "Scale", "leaves", "rows_of"]

GROUPS = ("torch", "keras", "numpy", "torch_compile", "jax")


@dataclass(frozen=True)
class Scale:
    """How large the work is. Shapes are (rows, columns)."""

    rows: int = 512
    classes: int = 32_000
    top_k: tuple[int, int] = (65_536, 64)
    wide: tuple[int, int] = (512, 8192)
    tall: tuple[int, int] = (8192, 64)
    samples: tuple[int, int] = (8192, 512)
    tokens: int = 2048
    hidden: int = 512
    growth: tuple[int, ...] = (64, 256, 1024, 4096)
    seconds: float = 3.0  # to spend on a row, but for the rounds it gets at least
    rounds: int = 3
    calls: int = 50  # to time together, of those on 4 elements
    compiler: str = "inductor"

    @property
    def description(self) -> str:
        """The shapes, but for those that the work says."""
        shapes = {"topk_kl_divergence": self.top_k, "orthogonality": self.wide, "covariance": self.samples}
        others = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        return f"arrays of float32, [{self.rows}, {self.classes}] unless the work says otherwise; {others}"


def _scale(n: int, d: int, growth: tuple[int, ...]) -> Scale:
    shapes = dict.fromkeys(("top_k", "wide", "tall", "samples"), (n, d))
    return Scale(rows=n, classes=d, **shapes, tokens=n, hidden=d, growth=growth)


FULL = Scale()
QUICK = replace(_scale(128, 64, (16, 64, 256)), seconds=0.05, rounds=2, calls=20, compiler="aot_eager")
TINY = _scale(512, 1024, ())  # to load libraries and start threads with: as little as is cut into blocks
FOUR = _scale(2, 2, ())  # 4 elements


@dataclass(frozen=True)
class Framework:
    """How to measure what runs on the arrays of one framework."""

    name: str
    asarray: Callable[[np.ndarray], Any]
    read: Callable[..., Any]  # the arrays, once
    peak: Callable[[Callable[[], Any]], tuple[int, Any]]  # of a call: bytes beyond those at its start, and its result
    wait: Callable[[Any], Any] = lambda result: result  # for what the framework has only begun
    fresh: Callable[[], None] = lambda: None  # forget what was compiled


@dataclass(frozen=True)
class Fed:
    """A way that takes something else than the row's inputs, which `feed` makes of them beforehand."""

    call: Callable[..., Any]
    feed: Callable[..., tuple[Any, ...]]


@dataclass(frozen=True)
class Goal:
    """What ours may need at most.

    The limit is a ratio to a peer's time; or microseconds more than the peer's; or a ratio to a peer's extra peak
    memory, without a peer MiB beyond what is returned.
    """

    name: str
    limit: float
    peer: str = ""
    of: Literal["time", "overhead", "memory"] = "time"


@dataclass(frozen=True, eq=False)
class Row:
    """A piece of work, ours and what else does it. Each way takes the inputs and returns the same figures."""

    work: str
    framework: Framework
    inputs: Callable[[], tuple[Any, ...]]
    ours: Callable[..., Any]
    peers: Mapping[str, Callable[..., Any] | Fed]
    goals: tuple[Goal, ...] = ()
    memory: bool = False  # whether to measure it
    growth: int = 0  # the number of rows, where this is a step of a series
    number: int = 1  # of calls to time together
    rtol: float = 1e-3  # by which the figures may differ, peers being careless
    unlike: tuple[str, ...] = ()  # peers that have only the value in common
    ways: Mapping[str, Callable[..., Any] | Fed] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ways", {"ours": self.ours, **self.peers})

    @property
    def id(self) -> str:
        return f"{self.framework.name}: {self.work}"

    def call(self, way: str, inputs: tuple[Any, ...]) -> Callable[[], Any]:
        """What to time: `number` calls in one of the ways, until the last one's result is there."""
        fn = self.ways[way]
        if isinstance(fn, Fed):
            fn, inputs = fn.call, fn.feed(*inputs)
        wait = self.framework.wait
        if self.number == 1:
            return lambda: wait(fn(*inputs))

        def repeated() -> Any:
            for _ in range(self.number - 1):
                fn(*inputs)
            return wait(fn(*inputs))

        return repeated


def leaves(result: Any) -> list[Any]:
    """The arrays and numbers in what a way returns."""
    if isinstance(result, tuple | list):
        return [leaf for each in result for leaf in leaves(each)]
    return [result]


def rows_of(group: str, scale: Scale) -> list[Row]:
    """The rows that are measured in one process. Their order does not depend on the scale."""
    return importlib.import_module(f"on_{group}").rows(scale)
