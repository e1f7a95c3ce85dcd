"""The CuPy backend, through array-api-compat. CuPy has no automatic differentiation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import array_api_compat.cupy
import cupy

from ._work import Work
from .base import Backend, Evaluation

__all__ = ["KNOWN", "find"]


class CupyBackend(Backend):
    def abs(self, x: Any) -> Any:
        return self.xp.abs(x)

    def to_floats(self, scalars: Sequence[Any]) -> list[float]:
        values: list[float] = cupy.stack([x.astype(cupy.float64) for x in scalars]).get().tolist()
        return values


class CupyEvaluation(Evaluation):
    def block_elements(self, work: Work) -> int | None:
        return 2**25  # 128 MiB of float32 keep any GPU busy

    def run(self, function: Callable[..., Any], arrays: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        return function(*arrays, **options)


_CUPY = CupyBackend("cupy", array_api_compat.cupy, evaluation=CupyEvaluation)
KNOWN: dict[type, Backend] = {cupy.ndarray: _CUPY}


def find(cls: type) -> Backend | None:
    return _CUPY if issubclass(cls, cupy.ndarray) else None
