"""Evaluate penalties in PyTorch: first without guards, in blocks, and small tensors together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from .._blocks import LEAST
from .._fast_path import FastPath, run_fast
from .._work import Work
from ..base import Evaluation
from ._blocks import evaluate_in_blocks
from ._foreach import LARGEST, power_sum
from ._threads import carried
from ._tracing import is_eager, is_tracing

__all__ = ["TorchEvaluation"]


class TorchEvaluation(Evaluation):
    def evaluate(self, work: Work) -> tuple[Any, Any]:
        arrays = work.arrays
        if work.kind == "elements" or not is_eager(arrays):  # formulas of elements have no guards
            return work.terms(arrays, work.mask), None
        on_cpu = arrays[0].device.type == "cpu"  # elsewhere, reading the result would wait for the device
        elements = self.size_of_blocks(work)
        if elements is not None:
            return evaluate_in_blocks(work._replace(fast_path=FastPath(_finite)) if on_cpu else work, elements)
        return run_fast(_finite, work.terms, (arrays, work.mask), {}) if on_cpu else work.whole(), None

    def evaluate_in_step(self, work: Work) -> tuple[Any, Any]:
        elements = self.size_of_blocks(work) if is_eager(work.arrays) else None
        return (work.whole(), None) if elements is None else evaluate_in_blocks(work, elements)

    def run(self, function: Callable[..., Any], arrays: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        return function(*arrays, **options)

    def run_fast(self, function: Callable[..., Any], arrays: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        skips_guards = arrays[0].device.type == "cpu" and is_eager(arrays)
        return run_fast(_finite, function, arrays, options) if skips_guards else function(*arrays, **options)

    def block_elements(self, work: Work) -> int | None:
        if work.arrays[0].device.type != "cpu":
            return 2**25  # 128 MiB of float32 keep any GPU busy
        return 2**22 if work.matrices else LEAST

    def power_sum(self, first: float, second: float, arrays: Sequence[Any]) -> tuple[list[Any], frozenset[int]]:
        if is_tracing():
            return [], frozenset()
        places = [i for i, x in enumerate(arrays) if _is_small(x)]
        places = [i for i in places if _dtype_and_device(arrays[i]) == _dtype_and_device(arrays[places[0]])]
        small = tuple(arrays[i] for i in places)
        if len(small) < 2 or not is_eager(small):
            return [], frozenset()
        return [power_sum(first, second, small)], frozenset(places)

    def thread_modes(self) -> Callable[[], AbstractContextManager[Any]]:
        return carried()


def _is_small(x: Any) -> bool:
    return x.dtype in (torch.float32, torch.float64) and (x.device.type != "cpu" or x.numel() <= LARGEST)


def _dtype_and_device(x: Any) -> tuple[Any, Any]:
    return x.dtype, x.device


def _finite(x: Any) -> bool:
    return math.isfinite(sum(x.tolist()) if x.ndim == 1 and len(x) < 32 else x.detach().sum().item())
