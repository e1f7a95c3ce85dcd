"""The parts of the benchmarks' table: rows of operations, the ways to compute them, and the goals.

The rows are in the `on_*.py` files. Each group of rows is measured in its own process, because two frameworks in one
process would share threads. A group is imported when it is needed.
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
    """The sizes of the arrays. Shapes are (rows, columns)."""

    rows: int = 512
    classes: int = 32_000
    top_k: tuple[int, int] = (65_536, 64)
    wide: tuple[int, int] = (512, 8192)
    tall: tuple[int, int] = (8192, 64)
    samples: tuple[int, int] = (8192, 512)
    points: tuple[int, int] = (512, 64)
    matrix: tuple[int, int] = (512, 512)
    tokens: int = 2048
    hidden: int = 512
    growth: tuple[int, ...] = (64, 256, 1024, 4096)
    seconds: float = 3.0  # to spend on a row, but at least `rounds`
    rounds: int = 3
    calls: int = 50  # to time together, on 4 elements
    compiler: str = "inductor"

    @property
    def description(self) -> str:
        """Return the shapes, except those that the operations state."""
        shapes = {
            "topk_kl_divergence, topk_js_divergence and load_balancing": self.top_k,
            "orthogonality and cross_orthogonality": self.wide,
            "variance, covariance, coral and cross_correlation": self.samples,
            "coding_rate, uniformity, koleo, mmd and gram_distance": self.points,
            "spectral_norm and nuclear_norm": self.matrix,
        }
        others = "; ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        return f"arrays of float32, [{self.rows}, {self.classes}] unless stated otherwise; {others}"


def _scale(n: int, d: int, growth: tuple[int, ...]) -> Scale:
    shapes = dict.fromkeys(("top_k", "wide", "tall", "samples", "points", "matrix"), (n, d))
    return Scale(rows=n, classes=d, **shapes, tokens=n, hidden=d, growth=growth)


FULL = Scale()
QUICK = replace(_scale(128, 64, (16, 64, 256)), seconds=0.05, rounds=2, calls=20, compiler="aot_eager")
TINY = _scale(512, 1024, ())  # to load libraries and start threads: the smallest size that is cut into blocks
FOUR = _scale(2, 2, ())  # 4 elements


@dataclass(frozen=True)
class Framework:
    """How to measure code on the arrays of one framework."""

    name: str
    asarray: Callable[[np.ndarray], Any]
    read: Callable[..., Any]  # the arrays, once
    peak: Callable[[Callable[[], Any]], tuple[int, Any]]  # of a call: bytes beyond those at its start, and its result
    wait: Callable[[Any], Any] = lambda result: result  # until the device has computed it
    fresh: Callable[[], None] = lambda: None  # forget compiled programs


@dataclass(frozen=True)
class Fed:
    """A way that needs other inputs than the row's, which `feed` makes from them beforehand."""

    call: Callable[..., Any]
    feed: Callable[..., tuple[Any, ...]]


@dataclass(frozen=True)
class Goal:
    """The limit for ours.

    It is a ratio to a peer's time, a number of microseconds above the peer's, or a ratio to a peer's extra peak memory.
    Without a peer, it is in MiB in addition to the results.
    """

    name: str
    limit: float
    peer: str = ""
    of: Literal["time", "overhead", "memory"] = "time"


@dataclass(frozen=True, eq=False)
class Row:
    """An operation, ours and the peers. Each way takes the inputs and returns the same values."""

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
        """Return the function to time: `number` calls in one of the ways, until the last result is ready."""
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
    """Return the arrays and numbers in the results of a way."""
    if isinstance(result, tuple | list):
        return [leaf for each in result for leaf in leaves(each)]
    return [result]


def rows_of(group: str, scale: Scale) -> list[Row]:
    """Return the rows that are measured in one process. Their order does not depend on the scale."""
    return importlib.import_module(f"on_{group}").rows(scale)
